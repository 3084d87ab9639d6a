"""Every request that was sent, built again from the log alone: no agents, no settings, no provider (ACCEPTANCE 003-17).

The agents here are what the log says of them. A request is compared by its digest; one that differs means that the log
is not the one which that request was made from, or that the model saw something that the log does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.core.apply import apply
from app.core.catalogue import AgentSpec, Rerun, Rules, ServerSpec, ToolSpec
from app.core.codec import decode
from app.core.errors import Corrupt
from app.core.events import CompactionStarted, Description, Json, StepStarted
from app.core.request import digest_of, request_of
from app.core.state import Level, Request, State
from app.core.summarising import summary_request

CONTRADICTIONS = (AssertionError, AttributeError, LookupError, StopIteration, TypeError, ValueError)
"""What folding events raises that no log of ours can hold."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """One attempt, of a step or a summary, and what it asked; `request` None: its version left no digest."""

    event: StepStarted | CompactionStarted
    request: Request | None

    @property
    def equal(self) -> bool:
        return self.request is None or digest_of(self.request) == self.event.request


class Rebuilding:
    """Takes the texts of one log, in order."""

    def __init__(self) -> None:
        self.state = State()
        self._described: dict[tuple[str, ...], Description] = {}

    def take(self, text: str) -> Rebuilt | None:
        """The attempt that this event starts, if it does. Raises Corrupt for what cannot follow."""
        event = decode(text)
        try:
            rebuilt = self._rebuilt(event) if isinstance(event, StepStarted | CompactionStarted) else None
            apply(self.state, event)
        except CONTRADICTIONS as error:
            raise Corrupt(f"the log contradicts itself at {event.seq}: {error!r}") from error
        return rebuilt

    def _rebuilt(self, event: StepStarted | CompactionStarted) -> Rebuilt:
        assert self.state.run is not None
        level = self.state.run.levels[event.path]
        if isinstance(event, CompactionStarted):
            return Rebuilt(event, summary_request(level, event) if event.request is not None else None)
        if event.described is not None:
            self._described[level.place] = event.described
        if event.request is None:
            return Rebuilt(event, None)
        rules = RecordedRules(agents={}, model=event.model, described=self._described)
        return Rebuilt(event, request_of(self.state, event.path, event.model, rules))


@dataclass(frozen=True, slots=True)
class RecordedTool:
    """A tool of which the log knows the schema. Satisfies `ToolSpec`."""

    name: str
    schema: Json
    rerun: Rerun = "never"
    interruptible: bool = False
    timeout: float | None = None
    expires_in: float | None = None
    agent: None = None

    def check(self, arguments: Json) -> str | None:
        return None

    def needs_approval(self, arguments: Json) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class RecordedAgent:
    """An agent as the log describes it. Satisfies `AgentSpec`."""

    name: str
    instructions: str
    model: str | None
    tools: Mapping[str, ToolSpec]
    servers: Mapping[str, ServerSpec] = field(default_factory=dict)
    end_on_denial: bool = False


@dataclass(frozen=True, slots=True)
class RecordedRules(Rules):
    """The catalogue of a log. Agents are found by their place: what leads there may read otherwise by now."""

    described: Mapping[tuple[str, ...], Description] = field(default_factory=dict)

    def agent(self, level: Level) -> AgentSpec | None:
        own = self.described.get(level.place)
        if own is None:
            return None
        tools = {schema["function"]["name"]: RecordedTool(schema["function"]["name"], schema) for schema in own.tools}
        return RecordedAgent(own.agent, own.instructions, own.model, tools)
