"""The state: what a log says, as values. Folding a log gives it (apply.py); nothing here changes by itself.

What may happen is decided in decide.py, what should be running in plan.py, what the model sees in transcript.py. It
is changed in place and has one owner: a copy per streamed piece would cost more than the piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from app.core import events as e
from app.core.events import Json, Path, Usage
from app.core.run_record import DeniedCall, RunRecord

Status = Literal["idle", "running", "waiting", "suspended"]
CallId = tuple[str, Path, str]  # run, path, call

CEILINGS = ("tokens", "steps", "calls", "seconds", "money")
"""What a person may raise when a run goes on."""


class Words(msgspec.Struct, tag_field="type", tag="words"):
    """A person's words: on their way (in `State.queue`), then delivered (in a history).

    `seq`: of the event that brought them; `told`: of the one that delivered them. A struct with a tag, as the events
    beside it in a history are, so that a snapshot can tell them apart.
    """

    kind: Literal["prompt", "hint"]
    message: str
    text: str
    author: str
    seq: int
    run: str | None = None
    told: int = 0


@dataclass(slots=True)
class OpenCall:
    """One tool call of the batch that a level works on. `asked` is what the model wrote, `arguments` what will run.

    `kept`: the name of what the model wrote, where that was cut.
    """

    call: str
    tool: str
    asked: str
    kept: str | None = None
    arguments: Json | None = None
    approval: e.ApprovalRequested | None = None
    doubt: e.DoubtRaised | None = None
    started: int | None = None  # seq of tool.started
    tries: int = 1
    agent: str | None = None  # the sub-agent whose level this call has opened
    ended: bool = False

    @property
    def waits(self) -> bool:
        """Whether it is a person's turn."""
        return not self.ended and (self.approval is not None or self.doubt is not None)

    @property
    def runs(self) -> bool:
        """Whether a tool is at work; a sub-agent's call is open, but what works is inside it."""
        return not self.ended and self.started is not None and self.doubt is None and self.agent is None


@dataclass(frozen=True, slots=True)
class Request:
    """One model call: Chat Completions messages and tools, as core/transcript builds them."""

    model: str
    messages: list[Json]
    tools: list[Json] = field(default_factory=list)


HistoryItem = Words | e.ModelReplied | e.ModelInterrupted | e.ApprovalDecided | e.ToolReturned | e.ToolFailed


@dataclass(slots=True)
class Context:
    """How a history is told to its model; all of it recorded, so that the same log gives the same messages.

    History up to the seq `through` is told as `summary` beside the newest `words` messages of the person in it.
    `shortened`: seq of an item → characters of it that are told. `refers`: something can be read back by reference.
    `asked` characters were `input` tokens to the provider, the last time it said so. `refused`: the size in characters
    of the smallest request that it called too long, 0 = none. Of the history up to the seq `forgotten` only what may
    still be told is here, the rest in the log alone (snapshot.py).
    """

    through: int = 0
    summary: str = ""
    words: int = 0
    shortened: dict[int, int] = field(default_factory=dict)
    refers: bool = False
    asked: int = 0
    input: int = 0
    refused: int = 0
    forgotten: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """A server's tool as a model is told of it: strangers' words, cleaned and bounded. `name`: the one in `schema`.

    `digest` is that of all the rest: what an approval, or a call, is about.
    """

    name: str
    origin: e.Origin
    schema: Json
    digest: str


@dataclass(slots=True)
class Level:
    """The run of one agent inside a run. `step` and `attempt` count from 1; `asking`: the attempt is open.

    `root` is the run's agent, `via` the names of the tools through which this level was opened. `told`: the servers'
    tools, by name, as its first step told of them; None before it. `request`: what the open attempt asks, for the owner
    that began it; the log has its digest only, so it is no part of equality. `asked`: the newest one's characters.
    `compacting`: a summary is being written, for the `summaries`-th time. Since the last step began the provider has
    called `too_long` requests of it, and `overflows` requests for a summary, too long.
    """

    root: str
    history: list[HistoryItem]
    context: Context = field(default_factory=Context)
    via: tuple[str, ...] = ()
    opened_at: int = 0
    told: Mapping[str, Told] | None = None
    step: int = 0
    attempt: int = 0
    asking: bool = False
    notes: list[e.NoteSaved] = field(default_factory=list)  # as the open attempt was told them
    request: Request | None = field(default=None, compare=False, repr=False)
    text: list[str] = field(default_factory=list)
    text_length: int = 0
    reasoning: list[str] = field(default_factory=list)
    reasoning_length: int = 0
    reply: e.ModelReplied | None = None
    batch: dict[str, OpenCall] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)  # every call id of this run at this level
    retry_at: int | None = None
    trouble_since: int | None = None
    bad_steps: int = 0
    bad_step: int = 0
    model: str = ""  # of the newest attempt
    asked: int = 0  # the size of its request in characters
    last: Usage | None = None  # what this level's last whole call took
    repeated: frozenset[tuple[str, str]] = frozenset()  # tools and arguments of the last reply
    repeats: int = 0  # so many replies in a row have asked for just that
    compacting: e.CompactionStarted | None = None
    summaries: int = 0
    too_long: int = 0
    overflows: int = 0

    @property
    def busy(self) -> bool:
        """Whether a model is at work for this level: on its next step, or on a summary."""
        return self.asking or self.compacting is not None

    @property
    def place(self) -> tuple[str, ...]:
        """Where its agent stands among the agents: names may repeat, places do not."""
        return (self.root, *self.via)

    @property
    def open_calls(self) -> list[OpenCall]:
        return [call for call in self.batch.values() if not call.ended]


@dataclass(slots=True)
class Stop:
    """A stop that was accepted while tools ran. Words accepted after `seq` belong to the next run."""

    by: str
    at: int
    seq: int
    error: e.Failure | None = None  # what the run fails with; none where it was cancelled


@dataclass(slots=True)
class Run:
    """The run that is going on. `held_since` (ms): when it started or a person last resumed it, after `held_steps`;
    the time in which it was parked is left out. `ceilings`: those that a person gave, instead of the settings'.
    """

    run: str
    agent: str
    message: str
    started_at: int
    levels: dict[Path, Level]
    held_since: int
    slice_since: int
    held_steps: int = 0
    steps: int = 0  # of all levels
    called: int = 0  # tool calls of all levels
    status: Status = "running"
    usage: Usage = field(default_factory=lambda: Usage(input=0, output=0))
    least: Usage | None = None  # what its smallest whole call took
    parked_at: int = 0
    reason: str | None = None
    until: int | None = None
    stop: Stop | None = None
    interrupt_seq: int | None = None
    interrupt_at: int = 0
    suspend: str | None = None  # who asked
    ceilings: dict[str, int] = field(default_factory=dict)
    crashes: int = 0
    denied: DeniedCall | None = None  # the newest
    last_message: str = ""
    last_text: str = ""

    @property
    def top(self) -> Level:
        return self.levels[()]

    @property
    def inmost(self) -> list[tuple[Path, Level]]:
        """Every level, sub-agents before those who called them."""
        return sorted(self.levels.items(), key=lambda item: -len(item[0]))

    @property
    def waits_for(self) -> Literal["approval", "in_doubt"]:
        """What a person has to settle first, where it waits for one."""
        return "in_doubt" if any(call.doubt and not call.ended for _, call in self.calls) else "approval"

    @property
    def calls(self) -> list[tuple[Path, OpenCall]]:
        """Every call that has no result yet, at every level, sub-agents' before those of who called them."""
        return [(path, call) for path, level in self.inmost for call in level.open_calls]


@dataclass(frozen=True, slots=True)
class Decided:
    """How an approval or a doubt ended, remembered for whoever decides it again."""

    decision: str
    by: str
    at: int
    arguments: Json | None = None
    digest: str | None = None  # of the approval


@dataclass(slots=True)
class State:
    """A conversation as its log says it is. `seq`, `at`: of the last event applied; times in ms."""

    agent: str = ""
    title: str = ""
    owner: str = ""
    created_at: int = 0
    updated_at: int = 0
    seq: int = 0
    at: int = 0
    epoch: int = 0
    drained: bool = False
    run: Run | None = None
    history: list[HistoryItem] = field(default_factory=list)
    context: Context = field(default_factory=Context)
    queue: list[Words] = field(default_factory=list)
    carried: list[Words] = field(default_factory=list)
    receipts: dict[str, int] = field(default_factory=dict)
    delivered: set[str] = field(default_factory=set)
    decisions: dict[CallId, Decided] = field(default_factory=dict)
    given_up: set[CallId] = field(default_factory=set)
    always: set[tuple[str, ...]] = field(default_factory=set)  # a tool, by the names that lead to it
    described: dict[tuple[str, ...], str] = field(default_factory=dict)  # place of an agent → digest of its description
    told: dict[tuple[str, ...], Mapping[str, Told]] = field(default_factory=dict)  # place → its servers' tools, by name
    known: dict[tuple[str, ...], str] = field(default_factory=dict)  # a server's tool, as `always` → the digest gone by
    notes: list[e.NoteSaved] = field(default_factory=list)  # replaced by a new list, never changed
    runs: dict[str, RunRecord] = field(default_factory=dict)
    flushed: int = 0
    flush_due: int = 0

    @property
    def status(self) -> Status:
        return self.run.status if self.run else "idle"

    @property
    def stopping(self) -> bool:
        """Whether a stop waits for tools, for the grace time at most."""
        return self.run is not None and self.run.stop is not None

    @property
    def unfinished(self) -> bool:
        """Whether it goes on by itself: a run is running, or words wait for the next one (a drain left them)."""
        return self.status == "running" or (self.run is None and bool(self.queue or self.carried))
