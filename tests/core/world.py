"""A seeded world on the pure floor: random commands and reports against `decide`, no event loop, no clock.

It plays people and effects at once: whatever the plan wants may be reported, in any order, also late or never.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from app.core import commands as c
from app.core.catalogue import AgentSpec, Rules, ServerSpec, ToolSpec
from app.core.codec import encode
from app.core.decide import Decision, decide
from app.core.effects import Admission, ArchiveFlush, Effect, ModelCall, Summary, ToolCall
from app.core.errors import Rejected
from app.core.events import Call, Event, Failure, Usage
from app.core.plan import plan
from app.core.state import State


@dataclass(frozen=True)
class FakeTool:
    """A declaration, nothing more: the pure floors never see a tool's code."""

    name: str
    rerun: Literal["never", "safe", "ask"] = "never"
    interruptible: bool = True
    approval: bool = False
    timeout: float | None = None
    expires_in: float | None = None
    agent: AgentSpec | None = None

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "function", "function": {"name": self.name, "parameters": {"type": "object"}}}

    def check(self, arguments: dict[str, Any]) -> str | None:
        return "`wrong` is not an argument." if "wrong" in arguments else None

    def needs_approval(self, arguments: dict[str, Any]) -> bool:
        return self.approval


def named(*tools: FakeTool) -> Mapping[str, ToolSpec]:
    return MappingProxyType({tool.name: tool for tool in tools})


FUNCTIONS = (
    FakeTool("never"),
    FakeTool("safe", rerun="safe"),
    FakeTool("ask", rerun="ask"),
    FakeTool("stubborn", interruptible=False),
    FakeTool("guarded", approval=True),
    FakeTool("hurried", approval=True, expires_in=5),
)


@dataclass(frozen=True)
class FakeAgent:
    name: str = "a"
    instructions: str = "Be brief."
    model: str | None = None
    end_on_denial: bool = False
    tools: Mapping[str, ToolSpec] = field(default_factory=lambda: named(*FUNCTIONS))
    servers: Mapping[str, ServerSpec] = field(default_factory=dict)


INMOST = FakeTool("inner", rerun="safe", interruptible=False, agent=FakeAgent("inner"))
INNER = FakeTool(
    "inner",
    rerun="safe",
    interruptible=False,
    agent=FakeAgent("inner", tools=named(*FUNCTIONS, INMOST)),
    approval=False,
)
DEEP = FakeAgent(tools=named(*FUNCTIONS, INNER))
"""An agent with a sub-agent that has a sub-agent of the same name."""

RULES = Rules(agents={"a": FakeAgent()}, model="m", steps_max=8, queue_max=3, retry_ms=20_000)


class World:
    """One conversation, its whole log, and chance."""

    def __init__(self, chance: random.Random, rules: Rules = RULES) -> None:
        self.chance = chance
        self.rules = rules
        self.state = State()
        self.log: list[Event] = []
        self.at = 1_000
        self.ids = 0
        self.accepted: dict[str, int] = {}
        self.late: list[c.Internal] = []
        self.do(c.Create("a", "", "owner"))

    def fresh(self) -> str:
        self.ids += 1
        return f"f{self.ids}"

    def do(self, command: c.Command, by: str = "owner") -> Decision:
        """Decides a command and keeps its events as texts do: encoded at once, never changed after."""
        stamp = c.Stamp(self.at, by, self.fresh(), self.chance.random())
        decision = decide(self.state, command, stamp, self.rules)
        self.log += decision.events
        if isinstance(command, c.ClientCommand) and not decision.duplicate:
            self.accepted[command.id] = decision.seq
        return decision

    def step(self) -> None:
        """One random thing happens; refusals are part of life."""
        self.at += self.chance.choice([0, 1, 10, 500, 3_000])
        try:
            self.chance.choices([self._person, self._effect, self._late, self._crash], [4, 12, 2, 1])[0]()
        except Rejected:
            pass

    def texts(self) -> list[str]:
        return [encode(event) for event in self.log]

    def _person(self) -> None:
        id = self.chance.choice([self.fresh(), *list(self.accepted)[-3:]])
        run = self.state.run
        calls = [(path, call) for path, call in run.calls if call.waits] if run else []
        options: list[c.FromClient] = [
            c.Prompt(id=id, text="go"),
            c.Hint(id=id, text="left", interrupt=self.chance.random() < 0.4),
            c.Hint(id=id, text="right"),
            c.Withdraw(id=id, target=self.chance.choice([words.message for words in self.state.queue] or ["none"])),
            c.Cancel(id=id, run=self.chance.choice([None, run.run if run else "none"])),
            c.Suspend(id=id),
            c.Resume(id=id, steps=20),
            c.Rename(id=id, title="t"),
            c.Revoke(id=id, tool="guarded"),
            c.Note(id=id, kind="decision", text="because"),
        ]
        if run is not None:
            for path, call in calls:
                where = [*path, call.call]
                digest = call.approval.digest if call.approval else "x"
                arguments = self.chance.choice([None, None, {"n": 1}, {"wrong": 1}])
                options += [
                    c.Approve(id=id, run=run.run, call=where, digest=digest, arguments=arguments),
                    c.Approve(id=id, run=run.run, call=where, digest=digest, always=True),
                    c.Deny(id=id, run=run.run, call=where, digest=digest, reason="no"),
                    c.Settle(id=id, run=run.run, call=where, outcome=self.chance.choice(["done", "rerun", "skip"])),
                ] * 3
        self.do(self.chance.choice(options))

    def _effect(self) -> None:
        """Something that the plan wants reports."""
        wanted = plan(self.state, self.rules)
        if wanted.wake_at is not None and self.chance.random() < 0.3:
            self.at = max(self.at, wanted.wake_at)
            self.do(c.Wake(), "")
        if not wanted.effects:
            return
        report = self._report(self.chance.choice(wanted.effects))
        self.late.append(report)
        if self.chance.random() < 0.9:
            self.do(report, "")

    def _late(self) -> None:
        """A report that came before comes again, or one that was held back comes at last."""
        if self.late:
            self.do(self.chance.choice(self.late), "")

    def _crash(self) -> None:
        if self.chance.random() < 0.3:
            if self.chance.random() < 0.5:
                self.do(c.Drain(), "")
            self.do(c.Activate(self.state.epoch + 1), "")

    def _report(self, effect: Effect) -> c.Internal:
        if isinstance(effect, ModelCall):
            said: list[Callable[[ModelCall], c.Internal]] = [self._streamed, self._replied, self._failed]
            return self.chance.choices(said, [3, 6, 1])[0](effect)
        match effect:
            case Summary():
                return self._summary(effect)
            case ArchiveFlush():
                return c.Flushed(effect, self.state.seq)
            case Admission():
                return c.Admitted(effect)
            case ToolCall():
                reports: list[c.Internal] = [
                    c.ToolStarting(effect),
                    c.ToolStarting(effect),
                    c.Progressed(effect, "half", 0.5),
                    c.SaveNote(effect, self.chance.choice([1, 2]), self._draft()),
                    c.ToolEnded(effect, 5, result="fine"),
                    c.ToolEnded(effect, 5, error=Failure(kind="error", message="broke")),
                    c.ToolEnded(effect, 5, error=Failure(kind="in_doubt", message="late")),
                ]
                return self.chance.choice(reports)

    def _draft(self) -> c.Draft:
        kind = self.chance.choice(["knowledge", "environment", "no kind"])
        text = self.chance.choice(["seen", "seen </note> there", " "])
        following = self.chance.choice([None, "rest"])
        return self.chance.choice([c.Draft(kind, text), c.Draft("progress", task="t", result="r", next=following)])

    def _summary(self, effect: Summary) -> c.Internal:
        """A short, a long or no summary, or a failure of any kind."""
        if self.chance.random() < 0.6:
            text = self.chance.choice(["in short", "at length " * 400, " "])
            return c.Summarised(effect, text, "stop", self.chance.choice([None, Usage(input=10, output=5)]), asked=40)
        kind = self.chance.choice(["overloaded", "context", "context", "refused"])
        return c.SummaryFailed(effect, kind, "busy", kind == "overloaded", self.chance.choice([None, 0.0, 2.0]))

    def _streamed(self, effect: ModelCall) -> c.Internal:
        return c.Streamed(effect, self.chance.choice(["", "wört "]), self.chance.choice(["", "hm "]))

    def _replied(self, effect: ModelCall) -> c.Internal:
        tools = ["never", "safe", "ask", "stubborn", "guarded", "hurried", "missing", "inner", "inner"]
        calls = [
            Call(
                call=self.chance.choice(["", "k1", "k2"]),
                tool=self.chance.choice(tools),
                arguments=self.chance.choice(["{}", '{"prompt": "do"}', "", "{}", "{broken", '{"wrong": 1}']),
            )
            for _ in range(self.chance.choice([0, 1, 1, 3]))
        ]
        usage = self.chance.choice([None, Usage(input=10, output=5)])
        finish = self.chance.choice(["stop"] * 8 + ["length", "content_filter"])
        text = self.chance.choice(["all done"] * 9 + [""])
        return c.Replied(effect, text, "", calls, finish, usage, asked=40)

    def _failed(self, effect: ModelCall) -> c.Internal:
        retryable = self.chance.random() < 0.9
        return c.AttemptFailed(effect, "overloaded", "busy", retryable, self.chance.choice([None, 0.0, 2.0, 900.0]))


def draining(world: World) -> None:
    world.rules = replace(world.rules, draining=True)
