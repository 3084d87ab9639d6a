"""Recorded logs of every kind: seeded random lives of a conversation, decided by core itself.

`live(seed, moves)` lets people, a model, tools, a clock and a failing process do whatever is possible at each moment
and returns the log. No event loop, no server, no chance but the seed's.
"""

from __future__ import annotations

import json
import random
from typing import get_args

from app.agent import Agent, tool
from app.core import commands as c
from app.core.catalogue import Price, Rules
from app.core.decide import decide
from app.core.effects import Admission, ArchiveFlush, Effect, ModelCall, ToolCall
from app.core.errors import Rejected
from app.core.events import Call, Event, Failure, Json, NoteKind
from app.core.plan import plan
from app.core.state import OpenCall, State

TEXTS = ["Find", " a place", "\n\n", "**quiet** é漢", "`code`", "\u202e", "…"]


@tool(rerun="safe")
async def look(near: str) -> str:
    """Look around."""
    return near


@tool(rerun="never")
async def order(dish: str) -> str:
    """Order."""
    return dish


@tool(rerun="ask")
async def call_them(number: int) -> str:
    """Call them."""
    return str(number)


@tool(approval=True)
async def reserve(place: str, people: int) -> str:
    """Reserve a table."""
    return place


@tool(approval=True, expires_in=60)
async def pay(amount: int) -> str:
    """Pay."""
    return str(amount)


AGENT = Agent("waiter", instructions="Order dinner.", tools=[look, order, call_them, reserve, pay])
ARGUMENTS: dict[str, Json] = {
    "look": {"near": "here"},
    "order": {"dish": "soup \u200b"},
    "call_them": {"number": 7},
    "reserve": {"place": "Da Enzo", "people": 4},
    "pay": {"amount": 12},
    "nothing_like_it": {},
}


PRICES = {"demo": Price(input=250_000, output=2_000_000, cached=25_000)}


class World:
    """One conversation, its log so far, and everything that may happen to it next."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.rules = Rules(agents={AGENT.name: AGENT}, model="demo", steps_max=3, prices=PRICES)
        self.state = State()
        self.log: list[Event] = []
        self.at = 1_763_683_200_000
        self.ids = 0
        self.do(c.Create(agent=AGENT.name, title="", owner="anna", prompt="Dinner?", id=self.fresh()))

    def fresh(self) -> str:
        self.ids += 1
        return f"id-{self.ids}"

    def do(self, command: c.Command) -> None:
        self.at += self.chance.choice((1, 40, 900))
        by = self.chance.choice(("anna", "ben"))
        stamp = c.Stamp(at=self.at, by=by, fresh=self.fresh(), chance=self.chance.random())
        try:
            self.log += decide(self.state, command, stamp, self.rules).events
        except Rejected:
            pass

    def move(self) -> None:
        """Something happens: mostly work goes on, now and then somebody or something comes between."""
        effects = plan(self.state, self.rules).effects
        if effects and self.chance.random() < 0.75:
            self._work(self.chance.choice(effects))
        elif self.chance.random() < 0.85:
            self.do(self._person())
        else:
            self._fate()

    def _work(self, effect: Effect) -> None:
        chance = self.chance
        match effect:
            case ModelCall():
                self._model(effect)
            case ToolCall():
                call = next(call for _, call in self.state.run.calls if call.call == effect.call)  # type: ignore[union-attr]
                if call.started is None:
                    self.do(c.ToolStarting(effect))
                elif chance.random() < 0.4:
                    self.do(c.Progressed(effect, chance.choice((None, "half way")), chance.choice((None, 0.5))))
                elif chance.random() < 0.3:
                    self.do(c.SaveNote(effect, chance.choice((1, 2)), self._draft()))
                elif chance.random() < 0.7:
                    self.do(c.ToolEnded(effect, 120, result="done", truncated=chance.random() < 0.1))
                else:
                    self.do(c.ToolEnded(effect, 120, error=Failure(kind="error", message="It broke.")))
            case Admission():
                self.do(c.Admitted(effect))
            case ArchiveFlush():
                self.do(c.Flushed(effect, self.state.seq))

    def _draft(self) -> c.Draft:
        task, following = self.chance.choice(("find", "eat")), self.chance.choice((None, "find", "eat"))
        done = c.Draft("progress", task=task, result=self.chance.choice(("", "found")), next=following)
        return self.chance.choice((done, c.Draft("knowledge", self.chance.choice(TEXTS[:2]))))

    def _model(self, effect: ModelCall) -> None:
        chance, level = self.chance, self.state.run.levels[effect.path]  # type: ignore[union-attr]
        kind = chance.random()
        if kind < 0.55:
            text = chance.choice(TEXTS)
            self.do(c.Streamed(effect, reasoning=text) if kind < 0.15 else c.Streamed(effect, text=text))
        elif kind < 0.65:
            retryable = chance.random() < 0.8
            self.do(c.AttemptFailed(effect, "overloaded", "The provider is busy.", retryable=retryable))
        else:
            names = chance.sample(sorted(ARGUMENTS), chance.choice((0, 1, 1, 2, 3)))
            calls = [Call(call=f"k{n}", tool=t, arguments=json.dumps(ARGUMENTS[t])) for n, t in enumerate(names)]
            said = "".join(level.text) or ("" if calls else "All done.")
            reasoning = "".join(level.reasoning)
            finish = "tool_calls" if calls else "stop"
            self.do(c.Replied(effect, said, reasoning, calls, finish, None, asked=400))

    def _person(self) -> c.FromClient:
        chance, run, id = self.chance, self.state.run, self.fresh()
        words = [words.message for words in self.state.queue] or ["nothing"]
        choices: list[c.FromClient] = [
            c.Prompt(id=id, text="And ice cream?"),
            c.Hint(id=id, text="Vegetarian", interrupt=chance.random() < 0.4),
            c.Hint(id=id, text="Not far"),
            c.Withdraw(id=id, target=chance.choice(words)),
            c.Rename(id=id, title=f"Dinner {id}"),
            c.Revoke(id=id, tool="reserve"),
            c.Note(id=id, kind=chance.choice(get_args(NoteKind)), text=chance.choice(TEXTS[1:])),
        ]
        if chance.random() < 0.3:
            choices += [c.Cancel(id=id), c.Suspend(id=id), c.Resume(id=id, steps=20)]
        for path, call in run.calls if run else []:
            choices += self._decisions(run.run if run else "", [*path, call.call], call)
        return chance.choice(choices)

    def _decisions(self, run: str, where: list[str], call: OpenCall) -> list[c.FromClient]:
        chance, id = self.chance, f"id-{self.ids}"
        if call.doubt:
            return [c.Settle(id=id, run=run, call=where, outcome=chance.choice(("done", "rerun", "skip")))] * 4
        if call.approval is None:
            return []
        digest, always, reason = call.approval.digest, chance.random() < 0.2, chance.choice((None, "Too dear"))
        edited = {**ARGUMENTS["reserve"], "people": 2} if call.tool == "reserve" and chance.random() < 0.5 else None
        approve = c.Approve(id=id, run=run, call=where, digest=digest, arguments=edited, always=always)
        deny = c.Deny(id=id, run=run, call=where, digest=digest, reason=reason)
        return [approve, approve, approve, deny]

    def _fate(self) -> None:
        """Time passes, or the process goes and another one takes over."""
        chance = self.chance.random()
        if chance < 0.5:
            self.at += 70_000
            self.do(c.Wake())
            return
        if chance < 0.7:
            self.do(c.Drain())
        self.do(c.Activate(epoch=self.state.epoch + 1))


def live(seed: int, moves: int) -> list[Event]:
    """The log of one such life."""
    world = World(seed)
    for _ in range(moves):
        world.move()
    return world.log
