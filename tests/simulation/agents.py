"""A model and tools of every kind of trouble, and the ledger of what they really did to the world outside."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import msgspec

from app.agent import Agent, ToolContext, tool
from app.agent.model import Delta, Finished, ModelError, ReasoningDelta, Request, TextDelta
from app.core.events import Call, Usage
from tests.core.test_properties import check_strict


@dataclass
class Ledger:
    """What happened outside: how often each call was begun, under (run, call).

    `started` and `ended` are what the disk holds of tool starts and run ends: each call that begins is compared with
    them at that very moment. An old owner that is still alive (`overlapped`) may repeat what is safe to repeat.
    """

    begun: Counter[tuple[str, str]] = field(default_factory=Counter)
    never: set[tuple[str, str]] = field(default_factory=set)
    started: set[tuple[str, str]] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    overlapped: bool = False
    wrong: list[str] = field(default_factory=list)

    def committed(self, texts: Iterable[str]) -> None:
        """Takes note of what an append has made durable."""
        for text in texts:
            if '"type":"tool.started"' in text:
                event = msgspec.json.decode(text)
                self.started.add((event["run"], event["call"]))
            elif '"type":"run.c' in text or '"type":"run.failed"' in text:
                self.ended.add(msgspec.json.decode(text)["run"])

    def begin(self, ctx: ToolContext, *, repeatable: bool = False) -> None:
        """A tool begins to work."""
        call = (ctx.run_id, ctx.call_id)
        if not repeatable:
            self.never.add(call)
        self.begun[call] += 1
        if call not in self.started:
            self.wrong.append(f"{call} began before its tool.started was committed")
        if ctx.run_id in self.ended and not (repeatable and self.overlapped):
            self.wrong.append(f"P7: {call} began after the end of its run")


class RandomModel:
    """Streams, calls tools, stalls, fails, is cut; every request is checked as a strict provider would."""

    name = "random"

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.trouble = 0.25
        self.violations: list[Request] = []
        self.calls = 0
        self.finished: set[str] = set()

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        try:
            check_strict(request.messages)
        except AssertionError:
            self.violations.append(request)
        self.calls += 1
        chance, said = self._chance, ""
        for number in range(chance.randrange(5)):
            await asyncio.sleep(chance.random() * 0.3)
            if chance.random() < self.trouble / 3:
                raise await self._fault()
            if chance.random() < 0.2:
                yield ReasoningDelta(f"r{number} ")
                continue
            word = f"w{number}é{self.calls} "
            said += word
            yield TextDelta(word)
        calls = self._calls() if len(request.messages) < 24 and chance.random() < 0.6 else []
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

    def _calls(self) -> list[Call]:
        names = ["count", "look", "ask", "guarded", "stubborn", "broken", "unknown"]
        return [
            Call(
                call=self._chance.choice(["", "k1", "k2"]),
                tool=self._chance.choice(names),
                arguments=self._chance.choice(['{"n": 1}', '{"n": 1}', '{"n": 2}', '{"n": "x"}', "{"]),
            )
            for _ in range(self._chance.randrange(1, 4))
        ]

    async def close(self) -> None:
        pass


def make_agent(chance: random.Random, ledger: Ledger) -> Agent:
    """An agent whose tools write what they do into the ledger."""

    async def work(ctx: ToolContext, n: int, *, repeatable: bool = False) -> str:
        ledger.begin(ctx, repeatable=repeatable)
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

    @tool(rerun="never", timeout=1, interruptible=False)
    async def stubborn(n: int, ctx: ToolContext) -> str:
        """Does not stop when it is told to."""
        ledger.begin(ctx)
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

    return Agent("sim", "Be brief.", tools=[count, look, ask, guarded, stubborn, broken])
