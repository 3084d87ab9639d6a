"""What the pure floors know of agents and tools: their declarations, never their code.

The agent room's `Agent` and `Tool` satisfy these protocols by shape. `check` and `approval` are promised to be pure
functions of the arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from app.core.events import Json
from app.core.reading import READ_RESULT
from app.core.state import Level, Told

Rerun = Literal["never", "safe", "ask"]


class ToolSpec(Protocol):
    """One tool as it is declared. `timeout` and `expires_in` in seconds, None = the setting / for ever.

    `agent`: the sub-agent that this tool is; its call opens a level, its one parameter is `prompt`. None = a function.
    """

    @property
    def name(self) -> str: ...
    @property
    def rerun(self) -> Rerun: ...
    @property
    def interruptible(self) -> bool: ...
    @property
    def timeout(self) -> float | None: ...
    @property
    def expires_in(self) -> float | None: ...
    @property
    def agent(self) -> AgentSpec | None: ...
    @property
    def schema(self) -> Json:
        """The function tool as Chat Completions wants it: type, and function {name, description, parameters}."""

    def check(self, arguments: Json) -> str | None:
        """None when the arguments fit the declaration, otherwise a sentence that the model can act on."""

    def needs_approval(self, arguments: Json) -> bool:
        """Whether a person has to approve this call; a predicate that raises means yes."""


class ServerSpec(Protocol):
    """A server of tools that are not known before it has told of them, and may be others a moment later."""

    def offers(self) -> Sequence[Told]:
        """What it offers now, or offered last; cheap, and the same until the loop goes on."""

    def tool(self, told: Told) -> ToolSpec | None:
        """The tool that a model was told of, also while the server is away; None where the agent does not want it."""


class AgentSpec(Protocol):
    """One agent as it is declared. `model` None = the setting. `tools` are its own, `servers` have more."""

    @property
    def name(self) -> str: ...
    @property
    def instructions(self) -> str: ...
    @property
    def model(self) -> str | None: ...
    @property
    def end_on_denial(self) -> bool: ...
    @property
    def tools(self) -> Mapping[str, ToolSpec]: ...
    @property
    def servers(self) -> Mapping[str, ServerSpec]: ...


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens of a model cost, in millionths. `cached`: input that the provider had cached."""

    input: int
    output: int
    cached: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What decisions depend on besides the state: the agents and the limits. Times in ms, money in millionths.

    `repeats_max`: of steps in a row that ask for the same calls. `prices`: by the model's name. `turns`: suspend after
    so many steps, again after each resume. `slice_ms`: park and go on after so long. `context_tokens`: the model's
    window. `admit`: a place among the runs at work is free. `draining`: this process goes; nothing new is begun.
    """

    agents: Mapping[str, AgentSpec]
    model: str
    context_tokens: int = 128_000
    steps_max: int = 50
    tokens_max: int | None = None
    seconds_max: int | None = None
    money_max: int | None = None
    calls_max: int = 1_000
    repeats_max: int = 200
    prices: Mapping[str, Price] = field(default_factory=dict)
    turns: int | None = None
    slice_ms: int | None = None
    queue_max: int = 10
    grace_ms: int = 1_000
    retry_ms: int = 300_000
    crashes_max: int = 3
    bad_calls_max: int = 3
    admit: bool = True
    draining: bool = False

    def agent(self, level: Level) -> AgentSpec | None:
        """The agent of a level, found from the run's agent through the tools that opened it: names may repeat."""
        found = self.agents.get(level.root)
        for name in level.via:
            tool = found.tools.get(name) if found else None
            found = tool.agent if tool else None
        return found

    def tool(self, level: Level, name: str) -> ToolSpec | None:
        """A tool of a level's agent, or of its servers; and what reads references back, where there are any."""
        found = self.agent(level)
        tool = found.tools.get(name) if found else None
        if tool is None and found is not None and found.servers:
            tool = dict(self._served(found, [told for told in self.told(level) if told.name == name])).get(name)
        if tool is None and level.context.refers and name == READ_RESULT.name:
            return READ_RESULT
        return tool

    def tools(self, level: Level) -> Mapping[str, ToolSpec]:
        """What a level's model may call, in the order in which it is told: the agent's own, then its servers'."""
        found = self.agent(level)
        if found is None:
            return {}
        return {**found.tools, **dict(self._served(found, self.told(level)))} if found.servers else found.tools

    def told(self, level: Level) -> Iterable[Told]:
        """Servers' tools: what the level's first step was told; before it, what they offer now."""
        if level.told is not None:
            return level.told.values()
        found = self.agent(level)
        return [told for server in found.servers.values() for told in server.offers()] if found is not None else []

    def _served(self, agent: AgentSpec, tools: Iterable[Told]) -> Iterable[tuple[str, ToolSpec]]:
        for told in tools:
            server = agent.servers.get(told.origin.server)
            tool = server.tool(told) if server is not None else None
            if tool is not None:
                yield told.name, tool
