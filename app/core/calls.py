"""A call: its name, and its arguments from the model's text to what a tool gets and what events show."""

from __future__ import annotations

import re

import msgspec

from app.core import events as e
from app.core.bounds import JSON_DEPTH_MAX
from app.core.codec import deeper
from app.core.state import OpenCall

NAME_CHARS_MAX = 64
NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{NAME_CHARS_MAX}}}")
NO_NAME_CHARACTER = re.compile(r"[^A-Za-z0-9_-]")
"""What strict providers refuse in the name of a tool."""


def call_key(run: str, path: e.Path, call: str) -> str:
    """What a call is known by outside its run: to what a tool calls in turn, and where its texts are kept.

    Distinct for every call of a conversation: no id holds a slash.
    """
    return "/".join((run, *path, call))


def parse_arguments(text: str) -> e.Json:
    """The object of a call's argument text (no text = none). Raises ValueError with a sentence for the model."""
    try:
        value = msgspec.json.decode(text.encode("utf-8", "replace")) if text.strip() else {}
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"The arguments are not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError("The arguments must be one JSON object.")
    if deeper(value, JSON_DEPTH_MAX):
        raise ValueError(f"The arguments are nested deeper than {JSON_DEPTH_MAX} levels.")
    return value


def shown_arguments(call: OpenCall) -> e.Json:
    """What the call runs with as events show it: decided by a person, parsed from what the model wrote, or cut."""
    if call.arguments is not None:
        return call.arguments
    return parse_arguments(call.asked) if call.kept is None else {"cut": call.asked}
