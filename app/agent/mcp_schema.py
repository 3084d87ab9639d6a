"""Whether arguments fit the JSON Schema of a tool that a stranger has declared (2020-12, by the library jsonschema).

A stranger's schema is data that runs: a regular expression or a nest of references can take a process for hours. So
nothing is fetched, no expression is tried, and the steps are counted. What is left out here, the server checks itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from app.core.events import Json

STEPS_MAX = 20_000
"""Keywords that one check may try: some tens of milliseconds."""

MISTAKES_MAX = 5
SHOWN_CHARS_MAX = 200

NOT_TRIED = ("pattern", "patternProperties", "format", "uniqueItems", "unevaluatedItems", "unevaluatedProperties")

FAULTS = (AttributeError, KeyError, RecursionError, TypeError, ValueError, ZeroDivisionError, Unresolvable)
"""What validating by a schema raises that is none."""


class _TooLong(Exception):
    """The check took more than STEPS_MAX steps."""


_left: ContextVar[list[int]] = ContextVar("left")

Keyword = Callable[[Any, Any, Any, Json], Iterator[ValidationError] | None]


def _counted(keyword: Keyword) -> Keyword:
    def tried(validator: Any, value: Any, instance: Any, schema: Json) -> Iterator[ValidationError]:
        left = _left.get()
        left[0] -= 1
        if left[0] < 0:
            raise _TooLong
        if keyword is _ADDITIONAL and "patternProperties" in schema:
            return
        yield from keyword(validator, value, instance, schema) or ()

    return tried


_ADDITIONAL: Keyword = Draft202012Validator.VALIDATORS["additionalProperties"]
_Checker = extend(
    Draft202012Validator,
    {
        name: (lambda *_: None) if name in NOT_TRIED else _counted(keyword)
        for name, keyword in Draft202012Validator.VALIDATORS.items()
    },
)


def is_schema(schema: Json) -> bool:
    """Whether this is the JSON Schema of an object, as far as anybody can say without a value."""
    try:
        Draft202012Validator.check_schema(schema)
    except (SchemaError, *FAULTS):
        return False
    return schema.get("type") == "object"


def problem(name: str, schema: Json, arguments: Json) -> str | None:
    """None when the arguments fit, otherwise a sentence that the model can act on."""
    _left.set([STEPS_MAX])
    told: list[str] = []
    try:
        for mistake in _Checker(schema, registry=Registry()).iter_errors(arguments):
            if len(told) == MISTAKES_MAX:
                told.append("and more")
                break
            where = ".".join(str(part) for part in mistake.absolute_path)
            told.append(_short(f"{where}: {mistake.message}" if where else mistake.message))
    except (_TooLong, *FAULTS):
        return f"The arguments of {name} cannot be checked: its schema is too involved, or is none."
    return f"The arguments of {name} are not valid: {'; '.join(told)}." if told else None


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…"
