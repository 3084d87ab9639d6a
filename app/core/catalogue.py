"""What the pure floors know of agents and tools: their declarations, never their code.

The agent room's `Agent` and `Tool` satisfy these protocols by shape. `check` and `approval` are promised to be pure
functions of the arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from app.core.events import Json
from app.core.reading import READ_RESULT
from app.core.state import Level

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


class AgentSpec(Protocol):
    """One agent as it is declared. `model` None = the setting."""

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
        """A tool of a level's agent; and what reads references back, where there are any."""
        found = self.agent(level)
        tool = found.tools.get(name) if found else None
        if tool is None and level.context.refers and name == READ_RESULT.name:
            return READ_RESULT
        return tool
