"""A stage for one rule at a time: a conversation on the pure floor, played line by line.

Unlike `World` nothing happens by chance. What the plan wants is looked up by name; what is not wanted cannot report.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, TypeVar

from app.core import commands as c
from app.core import events as e
from app.core.apply import fold
from app.core.codec import decode
from app.core.effects import ArchiveFlush, Effect, ModelCall, ToolCall
from app.core.errors import Rejected
from app.core.events import Call, Event, Failure, Path, Usage
from app.core.plan import Plan, plan
from app.core.state import OpenCall, Run
from app.core.transcript import messages
from tests.core.world import RULES, FakeAgent, World

T = TypeVar("T", bound=Event)
USAGE = Usage(input=10, output=5)


class Stage(World):
    """`stage.at` is the time in ms, `stage.path` the level whose model and tools report; the rest is in `stage.log`."""

    def __init__(self, **rules: Any) -> None:
        self.path: Path = ()
        agent = rules.pop("agent", FakeAgent())
        super().__init__(random.Random(0), replace(RULES, agents={"a": agent}, **rules))

    # --- what people do

    def say(self, command: c.FromClient, by: str = "ann") -> list[str]:
        """The tags of what came of a command."""
        return tags(self.do(command, by).events)

    def refuses(self, command: c.FromClient, by: str = "ann") -> Rejected:
        """The refusal of a command; the state is as it was."""
        before = len(self.log)
        try:
            self.do(command, by)
        except Rejected as refusal:
            assert len(self.log) == before
            return refusal
        raise AssertionError(f"{command} was accepted")

    def prompt(self, id: str = "p1", text: str = "go") -> list[str]:
        return self.say(c.Prompt(id=id, text=text))

    def hint(self, id: str = "h1", text: str = "left", *, interrupt: bool = False) -> list[str]:
        return self.say(c.Hint(id=id, text=text, interrupt=interrupt))

    def cancel(self, id: str = "stop") -> list[str]:
        return self.say(c.Cancel(id=id))

    def approve(self, call: str = "k1", id: str = "yes", **fields: Any) -> list[str]:
        where = [*self.path, call]
        return self.say(c.Approve(id=id, run=self.run.run, call=where, digest=self.digest(call), **fields))

    def deny(self, call: str = "k1", id: str = "no", **fields: Any) -> list[str]:
        where = [*self.path, call]
        return self.say(c.Deny(id=id, run=self.run.run, call=where, digest=self.digest(call), **fields))

    def settle(self, outcome: Any, call: str = "k1", id: str = "settled", **fields: Any) -> list[str]:
        return self.say(c.Settle(id=id, run=self.run.run, call=[call], outcome=outcome, **fields))

    # --- what effects report

    def stream(self, text: str, reasoning: str = "") -> list[str]:
        return self.report(c.Streamed(self.model, text, reasoning))

    def reply(
        self, text: str = "done", *tools: str | Call, finish: str = "stop", usage: Usage | None = USAGE
    ) -> list[str]:
        """A reply; tools named in it are called without arguments, as k1, k2, … within their run."""
        first = len(self.run.levels[self.path].ids) + 1
        calls = [
            tool if isinstance(tool, Call) else Call(call=f"k{number}", tool=tool, arguments="{}")
            for number, tool in enumerate(tools, first)
        ]
        return self.report(c.Replied(self.model, text, "", calls, finish, usage, asked=40))

    def fail(self, kind: str = "overloaded", *, retryable: bool = True, retry_after: float | None = None) -> list[str]:
        return self.report(c.AttemptFailed(self.model, kind, "busy", retryable, retry_after))

    def begin(self, call: str = "k1") -> list[str]:
        return self.report(c.ToolStarting(self.tool(call)))

    def end(self, call: str = "k1", result: str = "fine") -> list[str]:
        return self.report(c.ToolEnded(self.tool(call), 5, result=result))

    def break_(self, call: str = "k1", kind: str = "error") -> list[str]:
        return self.report(c.ToolEnded(self.tool(call), 5, error=Failure(kind=kind, message="broke")))

    def report(self, command: c.Internal) -> list[str]:
        return tags(self.do(command, "").events)

    # --- what time and the process do

    def wait(self, ms: int) -> list[str]:
        """Lets time pass, then asks what is due."""
        self.at += ms
        return self.report(c.Wake())

    def until_due(self) -> list[str]:
        """Lets time pass until the plan's own time."""
        wake_at = self.plan.wake_at
        assert wake_at is not None and wake_at > self.at, f"woken at {wake_at}, and it is {self.at}"
        return self.wait(wake_at - self.at)

    def crash(self) -> list[str]:
        """The process dies; the next one folds what the log says and takes over."""
        self.state = fold(decode(text) for text in self.texts())
        return self.report(c.Activate(self.state.epoch + 1))

    def drain(self, draining: bool = True) -> None:
        self.change(draining=draining)

    def change(self, **rules: Any) -> None:
        self.rules = replace(self.rules, **rules)

    # --- what is

    @property
    def run(self) -> Run:
        assert self.state.run is not None, "no run is going on"
        return self.state.run

    @property
    def plan(self) -> Plan:
        return plan(self.state, self.rules)

    @property
    def wanted(self) -> list[Effect]:
        """What should be in flight, the archive aside."""
        return [effect for effect in self.plan.effects if not isinstance(effect, ArchiveFlush)]

    @property
    def model(self) -> ModelCall:
        return next(one for one in self.wanted if isinstance(one, ModelCall) and one.path == self.path)

    def tool(self, call: str) -> ToolCall:
        calls = [effect for effect in self.wanted if isinstance(effect, ToolCall) and effect.path == self.path]
        return next(effect for effect in calls if effect.call == call)

    @property
    def tools(self) -> list[str]:
        """The calls that should be running."""
        return [effect.call for effect in self.wanted if isinstance(effect, ToolCall)]

    def call(self, call: str = "k1") -> OpenCall:
        return self.run.levels[self.path].batch[call]

    def digest(self, call: str) -> str:
        request = self.call(call).approval
        return request.digest if request else "gone"

    @property
    def told(self) -> list[tuple[str, str]]:
        """What the model gets next, as (role, content), the instructions left out."""
        return [(m["role"], m.get("content", "")) for m in messages(self.state, (), self.rules)[1:]]

    def last(self, kind: type[T]) -> T:
        """The newest event of a kind."""
        return next(event for event in reversed(self.log) if isinstance(event, kind))

    def all(self, kind: type[T]) -> list[T]:
        return [event for event in self.log if isinstance(event, kind)]


def tags(events: list[Event]) -> list[str]:
    """The types of events, as the wire names them."""
    return [str(event.__struct_config__.tag) for event in events]


def kinds(events: list[e.ToolFailed]) -> list[tuple[str, str]]:
    """(call, kind) of failures."""
    return [(event.call, event.error.kind) for event in events]
