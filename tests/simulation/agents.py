"""A model and tools of every kind of trouble, and the ledger of what they really did to the world outside.

Agents stand up to three deep in each other, under one name. Every number in a call's arguments is used once in a world,
so that what a tool did is known by it, whatever its call id; every word and number belongs to one level, so that what
one level is told of another is noticed.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from app.agent import Agent, ToolContext, tool
from app.agent.agents import SubAgent
from app.agent.model import Delta, Finished, ModelError, ReasoningDelta, Request, TextDelta
from app.agent.tools import Tool
from app.core.events import Call, Json, Usage
from tests.core.test_properties import check_strict

Key = tuple[str, str, int]
"""A call as its tool knows it: run, call id, and the number in its arguments. Call ids repeat from level to level."""

GUARDED = ("guarded", "hurried", "vetted")
"""What needs a person's approval."""

SUB_AGENTS = ("inner", "vetted")
INSIDE = "You are inside"
"""How the instructions of a sub-agent begin."""

TROUBLE = 0.25
"""How often a model has trouble, until there is peace."""

LEVEL_MESSAGES_MAX = 24
"""A level with so many messages asks for nothing more."""


def key_of(event: Json) -> Key:
    """The call that an event with arguments is about."""
    return event["run"], event["call"], event["arguments"].get("n", 0)


def level_of(messages: list[Json]) -> str:
    """Whose messages these are: the top's, or those of a sub-agent with this prompt, which no other one has."""
    return str(messages[1]["content"]) if messages[0]["content"].startswith(INSIDE) else ""


@dataclass
class Ledger:
    """What happened outside: how often each call was begun.

    `started`, `ended` and `parked` are what the disk holds of tool starts, run ends and suspended runs: each call that
    begins is compared with them at that very moment. An old owner that is still alive (`overlapped`) may repeat what is
    safe to repeat.
    """

    begun: Counter[Key] = field(default_factory=Counter)
    never: set[Key] = field(default_factory=set)
    started: set[Key] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    parked: set[str] = field(default_factory=set)
    overlapped: bool = False
    wrong: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def committed(self, texts: Iterable[str]) -> None:
        """Takes note of what an append has made durable."""
        for text in texts:
            if '"type":"tool.started"' in text:
                self.started.add(key_of(msgspec.json.decode(text)))
            elif '"type":"run.' in text:
                event = msgspec.json.decode(text)
                match event["type"]:
                    case "run.completed" | "run.failed" | "run.cancelled" | "run.moved":
                        self.ended.add(event["run"])
                        self.parked.discard(event["run"])
                    case "run.suspended":
                        self.parked.add(event["run"])
                    case "run.resumed":
                        self.parked.discard(event["run"])

    def begin(self, ctx: ToolContext, n: int, *, repeatable: bool = False) -> None:
        """A tool begins to work."""
        call = (ctx.run_id, ctx.call_id, n)
        if not repeatable:
            self.never.add(call)
        self.begun[call] += 1
        if call not in self.started:
            self.wrong.append(f"{call} began before its tool.started was committed")
        if repeatable and self.overlapped:
            return
        if ctx.run_id in self.ended:
            self.wrong.append(f"P7: {call} began after the end of its run")
        if ctx.run_id in self.parked:
            self.wrong.append(f"{call} began while its run was suspended")


class RandomModel:
    """Streams, calls tools, stalls, fails, is cut; every request is checked as a strict provider would.

    `asking`: it calls mostly sub-agents and what needs approval. `leaks`: what a level was told that another one had
    said or asked for.
    """

    name = "random"

    def __init__(self, chance: random.Random, numbers: Iterator[int], *, asking: bool = False) -> None:
        self._asking = asking
        self._chance = chance
        self._numbers = numbers
        self._level: dict[int, str] = {}
        self.trouble = TROUBLE
        self.violations: list[Request] = []
        self.leaks: list[str] = []
        self.calls = 0
        self.finished: set[str] = set()

    def hear(self, request: Request) -> str:
        """Takes in a request; the level that it is of."""
        try:
            check_strict(request.messages)
        except AssertionError:
            self.violations.append(request)
        self.calls += 1
        level = level_of(request.messages)
        for message in request.messages:
            if message["role"] == "assistant":
                marks = re.findall(r"é(\d+)", message.get("content") or "")
                marks += re.findall(r"\d+", "".join(c["function"]["arguments"] for c in message.get("tool_calls", [])))
                if {self._level.get(int(mark), level) for mark in marks} - {level}:
                    self.leaks.append(f"level {level!r} is told what another one said: {message}")
        return level

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        level = self.hear(request)
        mark = self._mark(level)
        chance, said = self._chance, ""
        for number in range(chance.randrange(5)):
            await asyncio.sleep(chance.random() * 0.3)
            if chance.random() < self.trouble / 3:
                raise await self._fault()
            if chance.random() < 0.2:
                yield ReasoningDelta(f"r{number} ")
                continue
            word = f"w{number}é{mark} "
            said += word
            yield TextDelta(word)
        wants_tools = len(request.messages) < LEVEL_MESSAGES_MAX and chance.random() < 0.6
        calls = self._calls(request, level) if wants_tools else []
        if not calls:
            said += "that is all"
            yield TextDelta("that is all")
        self.finished.add(said)
        usage = Usage(input=10, output=5) if chance.random() < 0.8 else None
        yield Finished("tool_calls" if calls else "stop", calls, usage)

    async def _fault(self) -> ModelError:
        match self._chance.randrange(4):
            case 0:
                await asyncio.sleep(1_000)  # silent: the runner gives up on it
                raise AssertionError("nobody waits that long")
            case 1:
                return ModelError("rate_limited", "slow down", retryable=True, retry_after=self._chance.random() * 5)
            case 2:
                return ModelError("cut", "the connection was cut", retryable=True)
            case _:
                return ModelError("overloaded", "busy", retryable=True)

    def _calls(self, request: Request, level: str) -> list[Call]:
        names = [tool["function"]["name"] for tool in request.tools]
        if self._asking:
            names = [name for name in names if name in (*SUB_AGENTS, "guarded")] * 2 + names
        return [
            Call(
                call=self._chance.choice(["", "k1", "k2"]),
                tool=(name := self._chance.choice([*names, "unknown"])),
                arguments=self._arguments(name, level),
            )
            for _ in range(self._chance.randrange(1, 4))
        ]

    def _arguments(self, tool: str, level: str) -> str:
        number = self._mark(level)
        right = f'{{"prompt": "Task {number}."}}' if tool in SUB_AGENTS else f'{{"n": {number}}}'
        return self._chance.choice([right] * 3 + ['{"n": "x"}', "{"])

    def _mark(self, level: str) -> int:
        """A number that nobody used, and that this level may use from now on."""
        number = next(self._numbers)
        self._level[number] = level
        return number

    async def close(self) -> None:
        pass


def make_agent(chance: random.Random, ledger: Ledger, depth: int = 1, *, stern: bool = False) -> Agent:
    """An agent whose tools write what they do into the ledger, `depth` levels deep with those inside it.

    `stern`: those inside end the run when a person denies a call.
    """
    own = _tools(chance, ledger)

    def tools(below: int) -> list[Tool | SubAgent]:
        if below == 0:
            return [*own]
        inner, vetted = (
            Agent(name, f"{INSIDE}, {name}.", tools=tools(below - 1), end_on_denial=stern) for name in SUB_AGENTS
        )
        return [*own, inner.as_tool("Works inside"), vetted.as_tool("Works inside if a person agrees", approval=True)]

    return Agent("sim", "Be brief.", tools=tools(depth - 1))


def _tools(chance: random.Random, ledger: Ledger) -> list[Tool]:
    async def work(ctx: ToolContext, n: int, *, repeatable: bool = False) -> str:
        ledger.begin(ctx, n, repeatable=repeatable)
        ctx.progress("half", 0.5)
        await asyncio.sleep(chance.random() * 2)
        return f"did {n}"

    @tool(rerun="never")
    async def count(n: int, ctx: ToolContext) -> str:
        """May not happen twice."""
        return await work(ctx, n)

    @tool(rerun="safe")
    async def look(n: int, ctx: ToolContext) -> str:
        """May happen any number of times."""
        return await work(ctx, n, repeatable=True)

    @tool(rerun="ask")
    async def ask(n: int, ctx: ToolContext) -> str:
        """A person knows."""
        return await work(ctx, n, repeatable=True)

    @tool(approval=True, rerun="never")
    async def guarded(n: int, ctx: ToolContext) -> str:
        """Needs approval and may not happen twice."""
        return await work(ctx, n)

    @tool(approval=True, rerun="safe", expires_in=3)
    async def hurried(n: int, ctx: ToolContext) -> str:
        """Needs approval at once."""
        return await work(ctx, n, repeatable=True)

    @tool(rerun="never", timeout=1, interruptible=False)
    async def stubborn(n: int, ctx: ToolContext) -> str:
        """Does not stop when it is told to."""
        ledger.begin(ctx, n)
        until = asyncio.get_running_loop().time() + chance.random() * 4
        while asyncio.get_running_loop().time() < until:
            try:
                await asyncio.sleep(0.4)
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()  # type: ignore[union-attr]
        return f"did {n} after all"

    @tool(rerun="safe")
    async def broken(n: int) -> str:
        """Fails."""
        raise ValueError(f"no {n}")

    return [count, look, ask, guarded, hurried, stubborn, broken]
