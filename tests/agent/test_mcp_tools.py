"""Strangers' definitions and results made fit: names, bounds, what cannot be seen, and schemas that bite.

FAULTS 97.
"""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from app.agent.mcp_schema import problem
from app.agent.mcp_tools import (
    DESCRIPTION_CHARS_MAX,
    READ_BYTES_MAX,
    SCHEMA_BYTES_MAX,
    TOOLS_MAX,
    Block,
    Declared,
    bounded,
    error_text,
    fit,
    result_text,
    shown_name,
)
from app.core.codec import canonical
from app.core.state import Told

OPEN: dict[str, Any] = {"type": "object"}


def one(name: str = "read", description: str = "Read.", schema: dict[str, Any] | None = None) -> Told | None:
    found, left_out = fit("files", [Declared(name, description, OPEN if schema is None else schema)])
    assert len(found) + len(left_out) == 1
    return found[0] if found else None


def function(told: Told | None) -> dict[str, Any]:
    assert told is not None
    found: dict[str, Any] = told.schema["function"]
    return found


# --- names


def test_a_name_begins_with_its_server_and_fits_every_provider() -> None:
    assert shown_name("files", "read") == "files_read"
    odd = [shown_name("files", name) for name in ("a.b", "a b", "a/b", "ä", "x" * 200, "x" * 201, "a" * 58, "a" * 59)]
    assert len(set(odd)) == len(odd), "apart, though the letters that tell them apart are gone"
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in odd), odd
    assert odd[6] == "files_" + "a" * 58, "just fits"
    assert shown_name("read", "result") != "read_result", "the house's own tool"


def test_the_same_name_twice_is_one_tool() -> None:
    found, left_out = fit("files", [Declared("read", "One.", OPEN), Declared("read", "Two.", OPEN)])
    assert [function(told)["description"] for told in found] == ["One."] and left_out == ["read"]


# --- what cannot be seen


HIDDEN = ("\u202e", "\u200b", "\U000e0041", "\x1b", "\x00", "\ue000", "\u2066", "\ufeff", "\u2028")


@pytest.mark.parametrize("sign", HIDDEN, ids=lambda sign: f"U+{ord(sign):04X}")
def test_what_nobody_can_see_is_taken_out_of_descriptions(sign: str) -> None:
    """FAULTS 97: instructions for the model alone; where other words than descriptions hold them, the tool goes."""
    schema = {"type": "object", "properties": {"a": {"description": f"x{sign}y", "type": "string"}}}
    told = function(one(description=f"Re{sign}ad.\n\tMore.", schema=schema))
    assert sign not in str(told) and told["description"].endswith("ad.\n\tMore.")
    assert one(name=f"re{sign}ad") is None
    assert one(schema={"type": "object", "properties": {f"a{sign}": {}}}) is None
    assert one(schema={"type": "object", "properties": {"a": {"enum": [f"b{sign}"]}}}) is None
    assert one(schema={"type": "object", "properties": {"a": {"default": {"description": [sign]}}}}) is None


# --- bounds


def test_size_and_number_are_bounded() -> None:
    """FAULTS 97: a long description is cut, a large schema left out, and so is what is too much of all."""
    assert len(function(one(description="x" * 100_000))["description"]) == DESCRIPTION_CHARS_MAX
    large = {"type": "object", "properties": {f"p{n}": {} for n in range(SCHEMA_BYTES_MAX // 8)}}
    assert one(schema=large) is None
    found, _ = fit("files", [Declared(f"t{n}", "", OPEN) for n in range(TOOLS_MAX + 3)])
    filled = {"type": "object", "properties": {"a": {"description": "x" * (SCHEMA_BYTES_MAX - 200)}}}
    some, rest = fit("files", [Declared(f"t{n}", "", filled) for n in range(100)])
    assert len(some) * SCHEMA_BYTES_MAX > READ_BYTES_MAX * 0.9 and len(some) + len(rest) == 100
    kept, left_out = bounded(found, 1_000_000)
    assert len(kept) == TOOLS_MAX and left_out == [f"t{n}" for n in range(TOOLS_MAX, TOOLS_MAX + 3)]
    kept, left_out = bounded(found, 1_000)
    assert sum(len(canonical(told.schema)) for told in kept) <= 1_000 and len(kept) + len(left_out) == len(found)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return {"type": "object", "properties": {"a": schema}}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "array"},
        {"type": ["object", "null"]},
        {"type": "object", "properties": 5},
        {"type": "object", "properties": {"a": {"type": "nothing"}}},
        {"type": "object", "required": "a"},
        {"type": "object", "properties": {"a": {"maximum": float("nan")}}},
        nested(100),
    ],
    ids=str,
)
def test_what_is_no_schema_of_an_object_is_left_out(schema: dict[str, Any]) -> None:
    assert one(schema=schema) is None


# --- schemas that bite


def doubling(depth: int) -> dict[str, Any]:
    """2 to the power of so many checks in a few hundred bytes."""
    steps = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    return {"type": "object", "$ref": "#/$defs/d0", "$defs": {**steps, f"d{depth}": {}}}


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        (doubling(40), {}),
        ({"type": "object", "$ref": "#"}, {}),
        ({"type": "object", "$ref": "http://127.0.0.1:1/schema"}, {}),
        (
            {"type": "object", "properties": {"a": {"items": {"anyOf": [{"const": n} for n in range(500)]}}}},
            {"a": [499] * 9999},
        ),
    ],
    ids=["doubling", "itself", "elsewhere", "wide"],
)
def test_a_check_ends_soon_and_fetches_nothing(schema: dict[str, Any], arguments: dict[str, Any]) -> None:
    """FAULTS 97: what would take hours, or a request to somewhere, is refused with a sentence."""
    told = one(schema=schema)
    assert told is not None
    began = time.process_time()
    assert "cannot be checked" in (problem("files_read", schema, arguments) or "")
    assert time.process_time() - began < 5


def test_expressions_are_not_tried() -> None:
    """FAULTS 97: a regular expression may take a process for ever; the server tries it itself."""
    evil = {"pattern": "^(a+)+$"}
    schema = {
        "type": "object",
        "properties": {"a": evil},
        "patternProperties": {"^(a+)+$": {}},
        "additionalProperties": False,
        "propertyNames": evil,
        "unevaluatedProperties": False,
    }
    began = time.process_time()
    assert problem("files_read", schema, {"a": "a" * 40 + "!", "a" * 40 + "!": 1}) is None
    assert time.process_time() - began < 2


def test_mistakes_are_said_and_bounded() -> None:
    schema = {"type": "object", "properties": {f"p{n}": {"type": "integer"} for n in range(20)}, "required": ["z"]}
    told = problem("files_read", schema, {f"p{n}": "x" * 10_000 for n in range(20)}) or ""
    assert told.startswith("The arguments of files_read are not valid: ") and "and more" in told and len(told) < 2_000
    assert problem("files_read", schema, {"z": 1, "p1": 2}) is None
    closed = {"type": "object", "properties": {"a": {}}, "additionalProperties": False}
    assert "additional" in (problem("files_read", closed, {"b": 1}) or "").lower()


# --- results


def test_results_are_texts() -> None:
    blocks = [
        Block(text="a"),
        Block(kind="image", what="image/png\u202e", size=12_345),
        Block(kind="resource", what="file:///x"),
        Block(text="b\x00"),
    ]
    assert result_text(blocks, {"c": 1}) == "a\n[image image/png, 12,345 bytes]\n[resource file:///x]\nb\ufffd"
    assert result_text([], {"c": 1}) == '{"c":1}' and result_text([], None) == ""
    assert len(result_text([Block(text="x" * 11_000_000)], None)) == 10_000_000
    assert (
        error_text(" \x00") == "\ufffd"
        and "did not say why" in error_text("  ")
        and len(error_text("x" * 9_999)) == 4_000
    )
