"""Every event there is, as PROTOCOL.md §3.1 words it: facts, past tense, never changed.

A field without a default is always on the wire; a field with one is left out while it holds it. An event is
decided without `seq` and `at` and stamped once, when it takes its place in the log. What a newer version wrote
is kept as an `UnknownEvent`: its text is passed on untouched, its meaning is nobody's business here.

Nothing here decides or computes; `Piece` and `owner_of` only say which events are superseded, by what
(PROTOCOL.md §3.3).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Path = tuple[str, ...]
Json = dict[str, Any]
NoteKind = Literal["progress", "knowledge", "environment", "decision"]


class Event(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="type"):
    """The envelope. `seq` from 1, `at` in ms since the Unix epoch; `path` holds the call ids of a sub-agent's level."""

    seq: int = 0
    at: int = 0
    run: str | None = None
    path: Path = ()
    cause: str | None = None


class Failure(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`error{kind,message}`: `kind` for programs, `message` a sentence for people."""

    kind: str
    message: str


class Call(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One tool call as the model asked for it; `arguments` is the model's exact text.

    Where that is too long for an event it is cut (`truncated`), and kept whole under the name `kept`.
    """

    call: str
    tool: str
    arguments: str
    truncated: bool = False
    kept: str | None = None


class Usage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Tokens and money. `estimated` says that the provider was silent and the figures are ours.

    `cost` in millionths of the currency of the prices, as they were when the call ended; None = nothing of it has a
    price. `unpriced`: some of it has none, so it cost more than that.
    """

    input: int
    output: int
    cached: int = 0
    estimated: bool = False
    cost: int | None = None
    unpriced: bool = False


class Origin(msgspec.Struct, frozen=True):
    """Where a tool comes from that is no function of ours: a server, and what the tool is called there."""

    server: str
    tool: str


class Description(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An agent as its model calls depend on it. `tools`: the schemas of its tools, in its order.

    `origins`: by name, those of them that are a server's. What a level was told of them holds for its whole run.
    """

    agent: str
    instructions: str
    tools: list[Json]
    model: str | None = None
    origins: dict[str, Origin] = {}


# --- the conversation and its owner


class ConversationCreated(Event, tag="conversation.created"):
    agent: str
    title: str
    owner: str


class ConversationRenamed(Event, tag="conversation.renamed"):
    title: str


class ActorActivated(Event, tag="actor.activated"):
    """`claim` is new each time: two that come in the same ms write different bytes, so neither repeats the other.

    A log of an older version has none.
    """

    epoch: int
    claim: str | None = None


class ActorDrained(Event, tag="actor.drained"):
    """The owner goes on purpose and leaves its run to the next one: what follows is no crash."""

    epoch: int


class CommandNoted(Event, tag="command.noted"):
    outcome: str


# --- a person's words


class PromptGiven(Event, tag="prompt.given"):
    message: str
    text: str
    author: str


class PromptQueued(Event, tag="prompt.queued"):
    message: str
    text: str
    author: str


class PromptWithdrawn(Event, tag="prompt.withdrawn"):
    message: str


class PromptDropped(Event, tag="prompt.dropped"):
    message: str
    reason: str


class HintGiven(Event, tag="hint.given"):
    message: str
    text: str
    author: str
    interrupt: bool


class HintApplied(Event, tag="hint.applied"):
    message: str
    step: int


class HintCarried(Event, tag="hint.carried"):
    message: str
    into: str


class HintWithdrawn(Event, tag="hint.withdrawn"):
    message: str


class HintDropped(Event, tag="hint.dropped"):
    message: str
    reason: str


# --- the run and the model


class RunStarted(Event, tag="run.started"):
    agent: str
    message: str


class StepStarted(Event, tag="step.started"):
    """`asked`: the size of the request in characters, from which the provider's usage teaches what a token is.

    `request`: its digest. `described`: the agent, where it is not as this log last said.
    """

    step: int
    attempt: int
    model: str
    asked: int = 0
    request: str | None = None
    described: Description | None = None


class ReasoningStreamed(Event, tag="reasoning.streamed"):
    step: int
    attempt: int
    offset: int
    text: str


class TextStreamed(Event, tag="text.streamed"):
    step: int
    attempt: int
    offset: int
    text: str


class ModelReplied(Event, tag="model.replied"):
    step: int
    attempt: int
    message: str
    text: str
    calls: list[Call]
    finish: str
    usage: Usage
    reasoning: str | None = None


class ModelInterrupted(Event, tag="model.interrupted"):
    step: int
    attempt: int
    text: str
    reason: Literal["crash", "cancel", "hint", "stall", "upstream"]
    usage: Usage | None = None
    reasoning: str | None = None
    error: Failure | None = None
    retry_at: int | None = None


class ModelFailed(Event, tag="model.failed"):
    step: int
    attempt: int
    error: Failure
    retry_at: int | None = None


class CancelRequested(Event, tag="cancel.requested"):
    """A stop was accepted while tools run; the closing append waits for them, for the grace time at most.

    `error`: what the run fails with then; without one it is cancelled.
    """

    by: str
    error: Failure | None = None


Ceiling = Literal["steps", "calls", "repeats", "seconds", "tokens", "money"]


class RunSuspended(Event, tag="run.suspended"):
    """`of`: the ceiling that a budget has reached; `ceiling`: its figure; `used`: of it. Money in millionths.

    `message`: what does not fit the window, for people.
    """

    reason: Literal["approval", "in_doubt", "turns", "budget", "request", "context", "retry"]
    until: int | None = None
    of: Ceiling | None = None
    ceiling: int | None = None
    used: int | None = None
    message: str | None = None


class SuspensionRequested(Event, tag="suspension.requested"):
    by: str


class RunResumed(Event, tag="run.resumed"):
    """The figures are new ceilings of this run, whole ones, not what is added to the old."""

    reason: str
    by: str | None = None
    tokens: int | None = None
    steps: int | None = None
    calls: int | None = None
    seconds: int | None = None
    money: int | None = None


class RunSliced(Event, tag="run.sliced"):
    pass


class RunCompleted(Event, tag="run.completed"):
    message: str
    usage: Usage
    steps: int
    ms: int


class RunFailed(Event, tag="run.failed"):
    error: Failure


class RunCancelled(Event, tag="run.cancelled"):
    by: str


class RunMoved(Event, tag="run.moved"):
    """What left is the log `log` up to `through`: the same object can be made of it again."""

    to: str | None = None
    log: str | None = None
    through: int | None = None


# --- tools, approvals, doubts


class ToolStarted(Event, tag="tool.started"):
    call: str
    tool: str
    arguments: Json
    truncated: bool = False
    agent: str | None = None


class ToolProgressed(Event, tag="tool.progressed"):
    call: str
    text: str | None = None
    fraction: float | None = None


class ToolReturned(Event, tag="tool.returned"):
    call: str
    result: str
    ms: int
    truncated: bool = False


class ToolFailed(Event, tag="tool.failed"):
    call: str
    error: Failure
    ms: int | None = None


class ToolSettled(Event, tag="tool.settled"):
    """What a call that had been given up turned out to have done. `of` is its run; it has no `run` of its own (P7)."""

    call: str
    of: str
    result: str | None = None
    error: Failure | None = None


class ApprovalRequested(Event, tag="approval.requested"):
    """`changed`: a server's tool has another definition than the one that this conversation went by."""

    call: str
    tool: str
    arguments: Json
    digest: str
    truncated: bool = False
    summary: str | None = None
    expires_at: int | None = None
    changed: bool = False


class ApprovalDecided(Event, tag="approval.decided"):
    call: str
    decision: Literal["approved", "denied", "expired", "cancelled"]
    by: str
    reason: str | None = None
    arguments: Json | None = None
    always: bool = False


class AlwaysRevoked(Event, tag="always.revoked"):
    tool: str
    by: str


class DoubtRaised(Event, tag="doubt.raised"):
    call: str
    tool: str
    arguments: Json
    digest: str
    truncated: bool = False


class DoubtSettled(Event, tag="doubt.settled"):
    call: str
    outcome: Literal["done", "rerun", "skip"]
    by: str
    result: str | None = None


# --- context, notes, archive


class Shortened(msgspec.Struct, kw_only=True):
    """The text of the event with seq `of` is told to the model in about `chars` characters and a reference."""

    of: int
    chars: int


class CompactionStarted(Event, tag="compaction.started"):
    """A level's history from `from` to `to` is being summarised by a model; `words` as in `context.compacted`.

    `reads`: how many characters of history it is given; `writes`: how many its summary may have.
    """

    from_: int = msgspec.field(name="from")
    to: int
    attempt: int
    model: str
    words: int
    reads: int
    writes: int
    request: str | None = None


class CompactionFailed(Event, tag="compaction.failed"):
    """No summary came of this attempt."""

    attempt: int
    error: Failure
    retry_at: int | None = None


class ContextCompacted(Event, tag="context.compacted"):
    """What the model is told from now on; the log stays as it is. `before` and `after`: tokens of the whole request.

    `references`: the texts in `shortened` are told in short. Otherwise history up to `to` is told as `summary`, written
    by a model or mechanically, beside the newest `words` messages of the person in it. `usage`: of the summariser.
    """

    from_: int = msgspec.field(name="from")
    to: int
    before: int
    after: int
    summary: str
    kind: Literal["references", "summary", "mechanical"] = "summary"
    shortened: list[Shortened] = []
    words: int = 0
    usage: Usage | None = None


class NoteSaved(Event, tag="note.saved"):
    """`by`: who said it over the wire, or `call`: the call whose tool wrote it. A checkpoint has `task` and `result`.

    The id of a note that is there already: the try of a repeated call has written another text, which takes its place.
    """

    note: str
    kind: NoteKind
    text: str
    by: str | None = None
    call: str | None = None
    task: str | None = None
    result: str | None = None
    next: str | None = None


class ArchiveFlushed(Event, tag="archive.flushed"):
    through: int


class UnknownEvent(Event, tag="unknown"):
    """An event of a newer version: kept, passed on, ignored by the fold."""

    name: str = ""


Piece = TextStreamed | ReasoningStreamed | ToolProgressed
AttemptEnd = ModelReplied | ModelInterrupted | ModelFailed
CallEnd = ToolReturned | ToolFailed
Terminal = RunCompleted | RunFailed | RunCancelled | RunMoved


def owner_of(event: Event) -> str | None:
    """The name of what supersedes this piece (its attempt or its call); None for a lasting event."""
    match event:
        case TextStreamed() | ReasoningStreamed():
            return f"{event.run}/{'/'.join(event.path)}#{event.step}.{event.attempt}"
        case ToolProgressed():
            return f"{event.run}/{'/'.join(event.path)}/{event.call}"
    return None


def supersedes(event: Event) -> str | None:
    """The owner whose pieces this event makes superfluous, or None."""
    match event:
        case ModelReplied() | ModelInterrupted() | ModelFailed():
            return f"{event.run}/{'/'.join(event.path)}#{event.step}.{event.attempt}"
        case ToolReturned() | ToolFailed():
            return f"{event.run}/{'/'.join(event.path)}/{event.call}"
    return None
