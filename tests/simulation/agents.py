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

from app.agent import Agent, NoteRefused, ToolContext, tool
from app.agent.agents import SubAgent
from app.agent.model import Delta, Finished, ModelError, ReasoningDelta, Request, TextDelta
from app.agent.tools import Tool
from app.core.codec import to_json
from app.core.events import Call, Json, Usage
from app.core.request import digest_of
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

MARKS = re.compile(r'é(\d+)[ .]|"n": (\d+)\}|Task (\d+)\."')
"""Whole numbers in what a level has said and asked for; what was cut in the middle is none."""

SUMMARISER = "You condense the history"
"""How the house's own requests begin."""

STANDING_IN = "[Summary of the conversation"
"""How a message begins that stands for what came before it."""

KEPT_AS = re.compile(r"kept as (\S+), from offset")
NO_SUMMARY = 0.1
"""How often a summariser finds its request too long, refuses it, or says nothing; each."""


def key_of(event: Json) -> Key:
    """The call that an event with arguments is about."""
    return event["run"], event["call"], event["arguments"].get("n", 0)


def level_of(messages: list[Json]) -> str:
    """Whose messages these are: the top's, or those of a sub-agent with this prompt, which no other one has."""
    if is_summary(messages):
        inside = re.match(
            r"# Messages of people that stay beside the summary\nperson: (Task \d+\.)\n", told(messages[1])
        )
        return inside[1] if inside else ""
    return told(messages[1]) if messages[0]["content"].startswith(INSIDE) else ""


def is_summary(messages: list[Json]) -> bool:
    """Whether the house asks for a summary here."""
    return told(messages[0]).startswith(SUMMARISER)


def told(message: Json) -> str:
    """The text of a message."""
    return message.get("content") or ""


def size(request: Request) -> int:
    """A request in characters of text."""
    calls = [call["function"] for message in request.messages for call in message.get("tool_calls", [])]
    texts = sum(len(told(message)) for message in request.messages)
    return texts + sum(len(call["name"] + call["arguments"]) for call in calls) + len(to_json(request.tools))


@dataclass
class Ledger:
    """What happened outside: how often each call was begun.

    `started`, `saved`, `ended` and `parked` are what the disk holds of tool starts, notes, run ends and suspended runs:
    each call that begins, and each note that its tool has saved, is compared with them at that very moment. `noted`:
    the notes that tools and people were told are saved. An old owner that is still alive (`overlapped`) may repeat what
    is safe to repeat.
    """

    begun: Counter[Key] = field(default_factory=Counter)
    never: set[Key] = field(default_factory=set)
    started: set[Key] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    parked: set[str] = field(default_factory=set)
    saved: set[str] = field(default_factory=set)
    noted: set[str] = field(default_factory=set)
    overlapped: bool = False
    wrong: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def committed(self, texts: Iterable[str]) -> None:
        """Takes note of what an append has made durable."""
        for text in texts:
            if '"type":"tool.started"' in text:
                self.started.add(key_of(msgspec.json.decode(text)))
            elif '"type":"note.saved"' in text:
                self.saved.add(msgspec.json.decode(text)["text"])
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

    def note(self, text: str) -> None:
        """A tool was told that its note is saved."""
        self.noted.add(text)
        if text not in self.saved:
            self.wrong.append(f"§8: {text} is not durable")

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

    `asking`: it calls mostly sub-agents and what needs approval. `wordy`: it talks at length, drawn from this.
    `takes`: how many characters it reads at once. `leaks`: what a level was told that another one had said or asked
    for. `heard`: requests by digest. `written`: by its number, the request that a summary was the answer to.
    """

    name = "random"

    def __init__(
        self,
        chance: random.Random,
        numbers: Iterator[int],
        *,
        asking: bool = False,
        wordy: random.Random | None = None,
        takes: int | None = None,
    ) -> None:
        self._asking = asking
        self._chance = chance
        self._wordy = wordy
        self._takes = takes
        self._numbers = numbers
        self._level: dict[int, str] = {}
        self.trouble = TROUBLE
        self.violations: list[Request] = []
        self.leaks: list[str] = []
        self.calls = 0
        self.summaries = 0
        self.finished: set[str] = set()
        self.heard: dict[str, Request] = {}
        self.written: dict[int, str] = {}

    def hear(self, request: Request) -> str:
        """Takes in a request; the level that it is of."""
        try:
            check_strict(request.messages)
        except AssertionError:
            self.violations.append(request)
        level = level_of(request.messages)
        if is_summary(request.messages):
            self.summaries += 1
        else:
            self.calls += 1
            self.heard[digest_of(request)] = request
        for text in said_in(request.messages):
            marks = {int("".join(found)) for found in MARKS.findall(text)}
            if {self._level.get(mark, level) for mark in marks} - {level}:
                self.leaks.append(f"level {level!r} is told what another one said: {text}")
        return level

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        level = self.hear(request)
        if self._takes is not None and size(request) > self._takes:
            raise ModelError("context", "too long", retryable=False)
        if is_summary(request.messages):
            yield TextDelta(await self._summary(request, level))
            yield Finished("stop", [], Usage(input=10, output=5))
            return
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
        last = "and so on " * self._wordy.choice([0, 10, 60]) if self._wordy else ""
        if not calls:
            last += "that is all"
        if last:
            said += last
            yield TextDelta(last)
        self.finished.add(said)
        usage = Usage(input=10, output=5) if chance.random() < 0.8 else None
        yield Finished("tool_calls" if calls else "stop", calls, usage)

    async def _summary(self, request: Request, level: str) -> str:
        """A short, a long or an empty one, or none."""
        assert self._wordy is not None, "nothing is too long here"
        await asyncio.sleep(self._wordy.random() * 0.5)
        if self._wordy.random() < self.trouble:
            raise await self._fault()
        roll = self._wordy.random() / NO_SUMMARY
        if roll < 2:
            raise ModelError("context" if roll < 1 else "refused", "no", retryable=False)
        if roll < 3:
            return " "
        mark = self._mark(level)
        self.written[mark] = told(request.messages[1])
        return f"é{mark}. In short: " + "and so on " * self._wordy.choice([0, 10, 400])

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
        if "read_result" in names:
            names += ["read_result"] * len(names)
        if self._asking:
            names = [name for name in names if name in (*SUB_AGENTS, "guarded", "read_result")] * 2 + names
        return [
            Call(
                call=self._chance.choice(["", "k1", "k2"]),
                tool=(name := self._chance.choice([*names, "unknown"])),
                arguments=self._arguments(name, level, request),
            )
            for _ in range(self._chance.randrange(1, 4))
        ]

    def _arguments(self, tool: str, level: str, request: Request) -> str:
        if tool == "read_result":
            known = [ref for message in request.messages for ref in KEPT_AS.findall(told(message))]
            return to_json({"reference": self._chance.choice(known or ["nothing"])})
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


def said_in(messages: list[Json]) -> Iterator[str]:
    """What a request tells a level that it has said itself: its replies, its calls, the summary of them."""
    for message in messages:
        if message["role"] == "assistant":
            yield told(message)
            yield from (f'{call["function"]["arguments"]}"' for call in message.get("tool_calls", []))
        elif told(message).startswith(STANDING_IN):
            yield from re.findall(r"^é\d+\.", told(message), re.MULTILINE)
    if is_summary(messages):
        yield from (line for line in told(messages[1]).split("\n") if line.startswith("assistant"))


def result_of(n: int, *, wordy: bool) -> str:
    """What a tool tells of its work; always the same for the same number."""
    return "\n".join([f"did {n}", *(f"line {line} of {n}" for line in range((5, 25, 50, 110)[n % 4] if wordy else 0))])


def make_agent(
    chance: random.Random,
    ledger: Ledger,
    depth: int = 1,
    *,
    stern: bool = False,
    wordy: bool = False,
    notes: bool = False,
) -> Agent:
    """An agent whose tools write what they do into the ledger, `depth` levels deep with those inside it.

    `stern`: those inside end the run when a person denies a call. `wordy`: what tools return may be long. `notes`: one
    of them writes notes.
    """
    own = _tools(chance, ledger, wordy=wordy, notes=notes)

    def tools(below: int) -> list[Tool | SubAgent]:
        if below == 0:
            return [*own]
        inner, vetted = (
            Agent(name, f"{INSIDE}, {name}.", tools=tools(below - 1), end_on_denial=stern) for name in SUB_AGENTS
        )
        return [*own, inner.as_tool("Works inside"), vetted.as_tool("Works inside if a person agrees", approval=True)]

    return Agent("sim", "Be brief.", tools=tools(depth - 1))


def _tools(chance: random.Random, ledger: Ledger, *, wordy: bool, notes: bool) -> list[Tool]:
    async def work(ctx: ToolContext, n: int, *, repeatable: bool = False) -> str:
        ledger.begin(ctx, n, repeatable=repeatable)
        ctx.progress("half", 0.5)
        await asyncio.sleep(chance.random() * 2)
        return result_of(n, wordy=wordy)

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

    @tool(rerun="safe")
    async def remember(n: int, ctx: ToolContext) -> str:
        """Saves two notes, with a moment between them."""
        ledger.begin(ctx, n, repeatable=True)
        for part in ("first", "second"):
            try:
                await ctx.note("knowledge", text := f"note {n} {part}")
            except NoteRefused:
                return "no more notes"
            ledger.note(text)
            await asyncio.sleep(chance.random())
        return f"did {n}"

    tools = [count, look, ask, guarded, hurried, stubborn, broken]
    return [*tools, remember] if notes else tools
