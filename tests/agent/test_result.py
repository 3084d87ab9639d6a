"""Every Python value has a text, within limits, that can be stored and sent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from app.agent.result import RESULT_CHARS_MAX, cut, render
from app.core.codec import clean


@dataclass
class Point:
    x: int


class Model(BaseModel):
    name: str


class Opaque:
    def __repr__(self) -> str:
        return "<opaque>"


loop: list[Any] = []
loop.append(loop)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ("", ""),
        (None, "done"),
        (True, "true"),
        (1.5, "1.5"),
        (float("nan"), "nan"),
        ([float("inf"), float("nan")], "[null,null]"),
        (2**80, str(2**80)),
        (b"\x00\xff", "[2 bytes, base64] AP8="),
        ({"raw": b"hi"}, '{"raw":"aGk="}'),
        ({"a": Point(1), "m": Model(name="n")}, '{"a":{"x":1},"m":{"name":"n"}}'),
        ({(1, 2): 3}, '{"(1, 2)":3}'),
        ([Opaque()], '["<opaque>"]'),
        (Decimal("1.10"), '"1.10"'),
        (datetime(2026, 1, 2, tzinfo=UTC), '"2026-01-02T00:00:00Z"'),
        ("pair \ud83d\ude00 and half \ud83d.", "pair 😀 and half \ufffd."),
        (["\ud800"], '["\ufffd"]'),
        (
            {
                1,
            },
            "[1]",
        ),
        (loop, "[[...]]"),
    ],
)
def test_values(value: Any, text: str) -> None:
    """FAULTS 92: bytes, NaN, keys that are no strings, cycles, half characters."""
    assert render(value) == text


def test_large_values_are_cut_with_a_note() -> None:
    """FAULTS 92."""
    for value in ("x" * (RESULT_CHARS_MAX + 1), ["x" * RESULT_CHARS_MAX], b"x" * RESULT_CHARS_MAX):
        text = render(value)
        assert len(text) <= RESULT_CHARS_MAX
    assert render("x" * RESULT_CHARS_MAX) == "x" * RESULT_CHARS_MAX
    assert cut("x" * 100, 60) == "x" * 23 + "\n[cut: the result has 100 characters]"


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_clean_text_can_be_encoded_and_good_text_is_untouched(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode()
    assert clean(cleaned) == cleaned
    if not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text):
        assert cleaned == text


@settings(deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(st.characters(exclude_categories=()))
        | st.binary(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner) | st.tuples(inner)
        ),
        max_leaves=10,
    )
)
def test_every_value_has_a_text(value: Any) -> None:
    text = render(value)
    text.encode()
    if isinstance(value, list | dict):
        json.loads(text)
