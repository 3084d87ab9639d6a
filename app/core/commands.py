"""Every intention there is: what people and programs may ask (PROTOCOL.md §1.2) and what the runner reports.

A command may be refused; an event may not. Client commands carry only what a client may say: who asks, when, and the
fresh randomness that a decision may need come beside it as the actor's `Stamp`, so that core needs no clock and no
chance. An effect's command names the effect by its key, so that a late answer of an effect no longer wanted is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from app.core.effects import Admission, ArchiveFlush, ModelCall, Summary, ToolCall
from app.core.events import Call, Failure, Json, NoteKind, Usage


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the actor adds to a command: `at` in ms, `by` whom, `fresh` 128 random bits as text, `chance` in [0, 1)."""

    at: int
    by: str
    fresh: str
    chance: float


# --- what a client may say


class ClientCommand(msgspec.Struct, kw_only=True, frozen=True, tag_field="type"):
    """`id`: 1-64 characters of A-Z a-z 0-9 . _ : -, chosen by the client, the idempotency key of the command."""

    id: str


class Prompt(ClientCommand, tag="prompt", frozen=True):
    text: str


class Hint(ClientCommand, tag="hint", frozen=True):
    text: str
    interrupt: bool = False


class Withdraw(ClientCommand, tag="withdraw", frozen=True):
    target: str


class Approve(ClientCommand, tag="approve", frozen=True):
    run: str
    call: list[str]
    digest: str
    arguments: Json | None = None
    always: bool = False


class Deny(ClientCommand, tag="deny", frozen=True):
    run: str
    call: list[str]
    digest: str
    reason: str | None = None


class Revoke(ClientCommand, tag="revoke", frozen=True):
    tool: str


class Settle(ClientCommand, tag="settle", frozen=True):
    run: str
    call: list[str]
    outcome: Literal["done", "rerun", "skip"]
    result: str | None = None


class Cancel(ClientCommand, tag="cancel", frozen=True):
    run: str | None = None


class Suspend(ClientCommand, tag="suspend", frozen=True):
    run: str | None = None


class Resume(ClientCommand, tag="resume", frozen=True):
    """New ceilings of the run; `money` in millionths."""

    run: str | None = None
    tokens: int | None = None
    steps: int | None = None
    calls: int | None = None
    seconds: int | None = None
    money: int | None = None


class Rename(ClientCommand, tag="rename", frozen=True):
    title: str


class Note(ClientCommand, tag="note", frozen=True):
    kind: NoteKind
    text: str


FromClient = Prompt | Hint | Withdraw | Approve | Deny | Revoke | Settle | Cancel | Suspend | Resume | Rename | Note


# --- what the house says to itself


@dataclass(frozen=True, slots=True)
class Create:
    """The first command of a log. `prompt` is the first prompt's text, `id` its command id."""

    agent: str
    title: str
    owner: str
    prompt: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Activate:
    """A new owner takes over under a new epoch and closes what the older one left open."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Take:
    """The suspended run is taken elsewhere; `seq` is where the log `log` stood when its continuation was made."""

    run: str
    seq: int
    log: str


@dataclass(frozen=True, slots=True)
class Drain:
    """The owner goes on purpose."""


@dataclass(frozen=True, slots=True)
class Wake:
    """A time has come that the plan named."""


@dataclass(frozen=True, slots=True)
class Admitted:
    effect: Admission


@dataclass(frozen=True, slots=True)
class Streamed:
    effect: ModelCall
    text: str = ""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Replied:
    """A whole reply. `usage` None: the provider was silent; `asked` is then the size of the request in characters."""

    effect: ModelCall
    text: str
    reasoning: str
    calls: list[Call]
    finish: str
    usage: Usage | None
    asked: int


@dataclass(frozen=True, slots=True)
class Summarised:
    """A whole summary; `usage` and `asked` as in `Replied`."""

    effect: Summary
    text: str
    finish: str
    usage: Usage | None
    asked: int


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """No whole reply. `retry_after` in seconds, where the provider said so."""

    effect: ModelCall
    kind: str
    message: str
    retryable: bool
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class SummaryFailed:
    """No summary; as `AttemptFailed`."""

    effect: Summary
    kind: str
    message: str
    retryable: bool
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class ToolStarting:
    """The call has its slot; it starts once this is committed, unless it is no longer wanted."""

    effect: ToolCall


@dataclass(frozen=True, slots=True)
class Progressed:
    effect: ToolCall
    text: str | None
    fraction: float | None


@dataclass(frozen=True, slots=True)
class Draft:
    """What a tool wants noted. `kind` is whatever it said; a checkpoint has `task` and `result`, and no text yet."""

    kind: str
    text: str = ""
    task: str | None = None
    result: str | None = None
    next: str | None = None


@dataclass(frozen=True, slots=True)
class SaveNote:
    """A running tool's note. `number` counts the notes of one try of the call, from 1."""

    effect: ToolCall
    number: int
    draft: Draft


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """The truth about a call: its result or its failure, also when it comes too late. `ms`: how long it took."""

    effect: ToolCall
    ms: int
    result: str | None = None
    truncated: bool = False
    error: Failure | None = None


@dataclass(frozen=True, slots=True)
class Flushed:
    effect: ArchiveFlush
    through: int


Internal = (
    Create | Activate | Take | Drain | Wake | Admitted | Streamed | Replied | AttemptFailed | Summarised
    | SummaryFailed | ToolStarting | Progressed | SaveNote | ToolEnded | Flushed
)  # fmt: skip
Command = FromClient | Internal
