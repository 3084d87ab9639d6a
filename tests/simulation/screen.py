"""What stands on a client's screen: the text of every open attempt, put together from pieces as PROTOCOL.md says.

A piece must follow what is there, without gap and without overlap; the end of an attempt must say what was shown.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def attempt_of(event: Json) -> str:
    return f"{event['run']}/{'/'.join(event.get('path', ()))}#{event['step']}.{event['attempt']}"


def piece_of(event: Json) -> str | None:
    """What will supersede this piece; None for a lasting event."""
    match event["type"]:
        case "text.streamed" | "reasoning.streamed":
            return attempt_of(event)
        case "tool.progressed":
            return f"{event['run']}/{'/'.join(event.get('path', ()))}/{event['call']}"
    return None


def superseded_by(event: Json) -> str | None:
    """Whose pieces this event supersedes."""
    match event["type"]:
        case "model.replied" | "model.interrupted" | "model.failed":
            return attempt_of(event)
        case "tool.returned" | "tool.failed":
            return f"{event['run']}/{'/'.join(event.get('path', ()))}/{event['call']}"
    return None


class Screen:
    """`take` raises AssertionError where a client that simply appends would show something wrong."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str], str] = {}

    def take(self, event: Json) -> None:
        match event["type"]:
            case "text.streamed" | "reasoning.streamed" as kind:
                key = attempt_of(event), kind
                shown = self._shown.get(key, "")
                assert event["offset"] == len(shown), f"{event} does not follow {shown!r}"
                self._shown[key] = shown + event["text"]
            case "model.replied" | "model.interrupted" | "model.failed":
                for kind, name in (("text.streamed", "text"), ("reasoning.streamed", "reasoning")):
                    shown = self._shown.pop((attempt_of(event), kind), "")
                    whole = event.get(name) or ""
                    assert whole.startswith(shown), f"{shown!r} was shown, and it ended as {whole!r}"
