"""From the chunks of one Chat Completions stream to deltas and one whole reply, sans-IO.

Providers bend the format in every way: calls without index or id, several calls under one index, a name after its
arguments, a whole `message` instead of deltas, text in parts. All of that is straightened here, so that nobody further
in has to know. Chunks are plain JSON objects; whatever is not understood is passed over, never an exception.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from app.agent.model import Finished, ReasoningDelta, TextDelta
from app.core.bounds import TOKENS_TOLD_MAX
from app.core.codec import clean
from app.core.events import Call, Json, Usage

REPLY_CHARS_MAX = 10_000_000


class ReplyTooLarge(ValueError):
    """A reply has more than REPLY_CHARS_MAX characters of text, reasoning and arguments."""


@dataclass
class _Draft:
    """A call while it is being assembled. `place` orders calls: their index, where they have one."""

    place: int
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Assembly:
    """Takes the chunks of one reply in their order."""

    def __init__(self) -> None:
        self.finish: str | None = None
        self.usage: Usage | None = None
        self._text: list[str] = []
        self._has_reasoning = False
        self._halves: dict[str, str] = {}  # half a surrogate pair at the end of a piece, until its other half comes
        self._drafts: list[_Draft] = []
        self._current: dict[int, _Draft] = {}  # the call that the next piece of an index belongs to
        self._size = 0

    def take(self, chunk: Json) -> Iterator[TextDelta | ReasoningDelta]:
        """The deltas of one chunk. Raises ReplyTooLarge."""
        self.usage = usage_of(chunk.get("usage")) or self.usage
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if not isinstance(choice, dict) or choice.get("index") not in (0, None):
                continue  # only one answer was asked for
            delta, message = choice.get("delta"), choice.get("message")
            if isinstance(delta, dict):
                yield from self._delta(delta)
            if isinstance(message, dict):
                yield from self._message(message)
            if isinstance(choice.get("finish_reason"), str):
                self.finish = choice["finish_reason"] or self.finish

    def finished(self) -> Finished:
        """The end of the reply; only to be asked for once `finish` is known."""
        drafts = sorted(self._drafts, key=lambda draft: draft.place)
        calls = [
            Call(call=clean(draft.id), tool=clean(draft.name), arguments=clean("".join(draft.arguments)))
            for draft in drafts
            if draft.id or draft.name or draft.arguments
        ]
        return Finished(self.finish or "", calls, self.usage)

    def _delta(self, delta: Json) -> Iterator[TextDelta | ReasoningDelta]:
        reasoning = plain_text(delta.get("reasoning_content")) or plain_text(delta.get("reasoning"))
        if reasoning := self._joined("reasoning", reasoning):
            self._has_reasoning = True
            yield ReasoningDelta(reasoning)
        for kind in ("content", "refusal"):
            if text := self._joined(kind, plain_text(delta.get(kind))):
                self._text.append(text)
                yield TextDelta(text)
        entries = _entries(delta)
        for entry in entries:
            self._call(entry)
        if entries:
            yield TextDelta("")  # a sign of life: long arguments may take minutes, and silence is counted

    def _message(self, message: Json) -> Iterator[TextDelta | ReasoningDelta]:
        """A whole message: it repeats what was streamed before it, and only what is new counts."""
        text = plain_text(message.get("content")) or plain_text(message.get("refusal"))
        said = "".join(self._text)
        new = text.removeprefix(said) if text.startswith(said) else ""
        if _entries(message):
            self._drafts, self._current = [], {}
        reasoning = "" if self._has_reasoning else message.get("reasoning_content") or message.get("reasoning")
        yield from self._delta({"content": new, "reasoning": reasoning, "tool_calls": _entries(message)})

    def _call(self, entry: Json) -> None:
        function = entry.get("function")
        function = function if isinstance(function, dict) else {}
        id_, name = _text(entry.get("id")), _text(function.get("name"))
        draft = self._draft(entry.get("index"), id_, name)
        draft.id = draft.id or id_
        if name != draft.name and not draft.arguments:
            draft.name += name  # whole as a rule, in pieces from some
        elif not draft.name:
            draft.name = name
        arguments = function.get("arguments")
        piece = arguments if isinstance(arguments, str) else "" if arguments is None else json.dumps(arguments)
        if piece:
            draft.arguments.append(piece)
            self._count(len(piece))

    def _draft(self, index: Any, id_: str, name: str) -> _Draft:
        """The call that a piece belongs to: a known index or id, or, with neither, the last one."""
        if isinstance(index, int):
            draft = self._current.get(index)
            another = draft is not None and name and id_ and draft.id and id_ != draft.id  # several under one index
            if draft is not None and not another:
                return draft
            return self._begin(index)
        known = [draft for draft in self._drafts if id_ and draft.id == id_]
        if known:
            return known[-1]
        begins = bool(id_) or (bool(name) and bool(self._drafts) and bool(self._drafts[-1].name))
        if self._drafts and not begins:
            return self._drafts[-1]
        return self._begin(max((draft.place for draft in self._drafts), default=-1) + 1)

    def _begin(self, index: int) -> _Draft:
        draft = _Draft(place=index)
        self._drafts.append(draft)
        self._current[index] = draft
        return draft

    def _joined(self, kind: str, text: str) -> str:
        """A piece of text that can be encoded; half a character at its end waits for the next piece."""
        if not text:
            return ""
        self._count(len(text))
        text = self._halves.pop(kind, "") + text
        if "\ud800" <= text[-1] <= "\udbff":
            self._halves[kind], text = text[-1], text[:-1]
        return clean(text)

    def _count(self, chars: int) -> None:
        self._size += chars
        if self._size > REPLY_CHARS_MAX:
            raise ReplyTooLarge(f"the reply has more than {REPLY_CHARS_MAX:,} characters")


def usage_of(value: Any) -> Usage | None:
    """Tokens as the provider counts them, or None when it does not say, or what it says cannot be."""
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else value.get("prompt_cache_hit_tokens")
    read, written = _tokens(value.get("prompt_tokens")), _tokens(value.get("completion_tokens"))
    if not read or written is None:  # no request is empty
        return None
    return Usage(input=read, output=written, cached=min(_tokens(cached) or 0, read))


def _tokens(value: Any) -> int | None:
    """A number of tokens that can be one."""
    return value if type(value) is int and 0 <= value <= TOKENS_TOLD_MAX else None


def plain_text(value: Any) -> str:
    """A string, or the text of a list of parts."""
    if isinstance(value, list):
        return "".join(_text(part.get("text")) for part in value if isinstance(part, dict))
    return _text(value)


def _entries(delta: Json) -> list[Json]:
    """The pieces of tool calls in a delta; the format before tools had one `function_call`."""
    calls = delta.get("tool_calls")
    entries = [entry for entry in calls if isinstance(entry, dict)] if isinstance(calls, list) else []
    old = delta.get("function_call")
    return [*entries, {"index": 0, "function": old}] if isinstance(old, dict) else entries


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
