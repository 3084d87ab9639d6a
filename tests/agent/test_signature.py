"""From a typed function to its JSON schema and its validation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from app.agent import Tool, ToolContext, tool
from app.agent.signature import parameter_descriptions, summary
from app.agent.tools import ConfigError

from .calls import Watched


class Colour(Enum):
    RED = "red"


class Opaque:
    pass


class Address(BaseModel):
    street: str
    number: int = 1


class Broken(BaseModel):
    a: int

    def model_post_init(self, _: Any) -> None:
        raise KeyError("inside")


@dataclass
class Guest:
    name: str


def parameters(made: Tool) -> dict[str, Any]:
    found = made.schema["function"]["parameters"]
    assert isinstance(found, dict)
    return found


def test_the_whole_schema() -> None:
    @tool
    async def reserve(
        place: str, people: Annotated[int, Field(ge=1)], ctx: ToolContext, note: str | None = None
    ) -> None:
        """Reserve a table
        for tonight.

        This is for readers of the code.

        Args:
            place: where to go,
                by its name
            people (int): how many
            ctx: not for the model

        Returns:
            place: nothing
        """

    assert reserve.schema == {
        "type": "function",
        "function": {
            "name": "reserve",
            "description": "Reserve a table for tonight.",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "where to go, by its name"},
                    "people": {"type": "integer", "minimum": 1, "description": "how many"},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                },
                "required": ["place", "people"],
                "additionalProperties": False,
            },
        },
    }


async def test_values_arrive_as_their_types() -> None:
    seen: dict[str, Any] = {}

    @tool
    async def take(
        day: date, colour: Colour, to: Address, guests: list[Guest], tags: set[str], kind: Literal[1, 2]
    ) -> None:
        seen.update(day=day, colour=colour, to=to, guests=guests, tags=tags, kind=kind)

    arguments = {
        "day": "2026-02-03",
        "colour": "red",
        "to": {"street": "Long"},
        "guests": [{"name": "Bo"}],
        "tags": ["a", "a"],
        "kind": 2,
    }
    await take.run(arguments, Watched().context)
    assert seen == {
        "day": date(2026, 2, 3),
        "colour": Colour.RED,
        "to": Address(street="Long"),
        "guests": [Guest("Bo")],
        "tags": {"a"},
        "kind": 2,
    }


def test_any_name_may_be_a_parameter() -> None:
    @tool
    async def odd(schema: str, copy: int, model_config: str, json: bool, _private: int, self: str = "") -> None: ...

    assert list(parameters(odd)["properties"]) == ["schema", "copy", "model_config", "json", "_private", "self"]
    good = {"schema": "s", "copy": 1, "model_config": "m", "json": True, "_private": 2}
    assert odd.check(good) is None
    assert odd.check({**good, "p0": 1}) is not None, "the inner names are nobody's business"


def test_without_annotations_and_without_parameters() -> None:
    def loose(anything, ctx, more=3):  # type: ignore[no-untyped-def]  # that is what is tested
        """Take anything."""

    def nothing() -> None: ...

    assert parameters(Tool(loose))["properties"] == {"anything": {}, "more": {"default": 3}}
    assert parameters(Tool(nothing)) == {"type": "object", "properties": {}, "additionalProperties": False}
    assert Tool(nothing).schema["function"]["description"] == ""
    told = Tool(nothing).check({"x": 1})
    assert told is not None and "takes no arguments" in told


def test_what_cannot_be_a_tool_is_refused_with_a_sentence() -> None:
    def positional(a: int, /) -> None: ...
    def many(*numbers: int) -> None: ...
    def open_ended(**rest: int) -> None: ...
    def unreadable(a: NotThere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
    def foreign(a: Opaque) -> None: ...

    for function in (positional, many, open_ended, unreadable, foreign):
        with pytest.raises(ConfigError, match=f"Tool {function.__name__}: ") as caught:
            Tool(function)
        assert "\n" not in str(caught.value)


def test_defaults_that_json_cannot_carry_are_left_out_silently() -> None:
    marker = object()

    def keeps(a: Any = marker) -> None: ...

    assert parameters(Tool(keeps))["properties"] == {"a": {}}


def test_a_validator_that_breaks_is_a_bad_argument() -> None:
    @tool
    async def act(value: Broken) -> None: ...

    assert act.check({"value": {"a": 1}}) == "KeyError: 'inside'"


def test_many_mistakes_make_one_short_sentence() -> None:
    @tool
    async def act(numbers: list[int]) -> None: ...

    told = act.check({"numbers": ["x" * 10_000] * 1_000})
    assert told is not None and "and 995 more" in told and len(told) < 1_500


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Only this.", {}),
        (
            "Does.\n\nArgs:\n    a: one\n    b (int, optional): two: three\n\nRaises:\n    c: no",
            {"a": "one", "b": "two: three"},
        ),
        ("Does.\n\nParameters:\n  a: one\n     and more\n\n  b: two", {"a": "one and more", "b": "two"}),
        ("Does.\n\n:param a: one\n    and more\n:param int b: two\n:returns: c: no", {"a": "one and more", "b": "two"}),
        ("Does.\n\nArgs:\n    *rest: others\n    a:\n        below", {"rest": "others", "a": "below"}),
    ],
)
def test_descriptions_of_parameters(docstring: str, expected: dict[str, str]) -> None:
    assert parameter_descriptions(docstring) == expected


@settings(deadline=None)
@given(st.text())
def test_any_docstring_will_do(docstring: str) -> None:
    assert "\n" not in summary(docstring)
    parameter_descriptions(docstring)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@tool
async def typed(a: int, b: list[str], c: Address, d: float = 1.0) -> None:
    """A tool of several types."""


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e"]), json_values))
def test_check_answers_for_any_arguments(arguments: dict[str, Any]) -> None:
    told = typed.check(arguments)
    assert told is None or told.startswith("The arguments of typed are not valid: ")
