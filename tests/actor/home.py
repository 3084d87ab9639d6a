"""A process in miniature for tests of this floor: real directory, actors, runner and feed; virtual time.

The log is in memory and can be made to misbehave (`home.log.down`, `home.log.gate`); the model says what a test tells
it to; tools are real. `@virtual` runs a test on the virtual clock.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any, ParamSpec

import msgspec

from app.actor.directory import Directory
from app.actor.listing import Listing
from app.actor.surroundings import Surroundings
from app.agent import Agent
from app.agent.model import Delta, Finished, ModelError, Request, TextDelta
from app.core.catalogue import Rules
from app.core.commands import FromClient
from app.core.decide import Decision
from app.core.events import Call, Usage
from app.core.state import State
from app.store.archive_memory import MemoryArchive
from app.store.event_log import Unavailable
from app.store.log_memory import MemoryLog
from tests.simulation import clock

P = ParamSpec("P")
Json = dict[str, Any]
Line = list[str | Call | Exception | asyncio.Event]
BEGAN_MS = 1_760_000_000_000


def virtual(story: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test on the virtual clock: days pass in milliseconds."""

    @functools.wraps(story)
    def test(*args: P.args, **kwargs: P.kwargs) -> None:
        clock.run(story(*args, **kwargs))

    return test


class MoodyLog:
    """The memory log. `down`: it cannot answer. `gate`: appends wait until it is set; `answers`: they are stored and
    their answers wait. `doubtful`: so many appends are stored and yet answered with Unavailable."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.down = False
        self.doubtful = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.answers = asyncio.Event()
        self.answers.set()
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self.log, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            if name in ("append", "create"):
                await self.gate.wait()
            writes = name in ("append", "create", "delete", "restore", "purge", "keep", "save_snapshot")
            if self.down and writes:
                raise Unavailable("the disk is full")
            result = await method(*arguments, **named)
            if writes:
                await self.answers.wait()
            if writes and self.doubtful:
                self.doubtful -= 1
                raise Unavailable("no answer came")
            return result

        return call


class ScriptedModel:
    """Says what is in `lines`, one list per call: texts, calls, errors to raise, events to wait for. Then "done"."""

    name = "scripted"

    def __init__(self) -> None:
        self.lines: deque[Line] = deque()
        self.requests: list[Request] = []
        self.closed = 0

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        self.requests.append(request)
        calls: list[Call] = []
        try:
            for line in self.lines.popleft() if self.lines else ["done"]:
                match line:
                    case str():
                        yield TextDelta(line)
                    case Call():
                        calls.append(line)
                    case asyncio.Event():
                        await line.wait()
                    case error:
                        raise error
        finally:
            self.closed += 1
        yield Finished("tool_calls" if calls else "stop", calls, Usage(input=10, output=5))

    async def close(self) -> None:
        pass


class Home:
    """One process. `log.log` and `archive` are what is durable; `boot` makes the next process on them."""

    directory: Directory

    def __init__(self, *agents: Agent, disk: MemoryLog | None = None, **rules: Any) -> None:
        self.model = ScriptedModel()
        self.log = MoodyLog(disk or MemoryLog())
        self.archive = MemoryArchive()
        self.items: list[str] = []
        self.agents = {agent.name: agent for agent in agents or (Agent("a"),)}
        self.rules = Rules(agents=self.agents, model="m", **rules)
        self.ids = itertools.count(1)
        self.boot()

    def boot(self, **around: Any) -> None:
        runs = asyncio.Semaphore(around.pop("runs", 8))
        fields: dict[str, Any] = {
            "log": self.log,
            "archive": self.archive,
            "agents": self.agents,
            "model": self.model,
            "rules": lambda: replace(self.rules, admit=not runs.locked(), draining=self.directory.draining),
            "clock": lambda: BEGAN_MS + int(asyncio.get_running_loop().time() * 1000),
            "fresh": lambda: f"i{next(self.ids)}",
            "chance": lambda: 0.5,
            "runs": runs,
            "tools": asyncio.Semaphore(8),
            "on_item": lambda item, head: self.items.append(item.status),
            **around,
        }
        self.around = Surroundings(**fields)
        self.directory = Directory(self.around, Listing())

    def crash(self) -> None:
        """The process dies on the spot; what it still tries to write reaches nothing. `boot` before going on."""
        dead, self.log = self.log, MoodyLog(self.log.log)
        dead.down = True
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def create(self, prompt: str | None = "go", id: str | None = None, agent: str | None = None) -> str:
        created = await self.directory.create(
            owner="ann", agent=agent or next(iter(self.agents)), title="", prompt=prompt, id=id
        )
        return created.conversation

    async def say(self, conversation: str, command: FromClient) -> Decision:
        return await self.directory.submit(conversation, command, "ann")

    async def state(self, conversation: str) -> State:
        """The committed state. Only for a look at it."""
        state: State = await self.directory.ask(conversation, lambda state: state)
        return state

    async def events(self, conversation: str) -> list[Json]:
        """What is durable."""
        page = await self.log.log.read(conversation, 0, 10**9)
        return [msgspec.json.decode(text) for text in page.texts]

    async def types(self, conversation: str) -> list[str]:
        return [event["type"] for event in await self.events(conversation)]

    async def until(self, conversation: str, type: str, times: int = 1, seconds: float = 600) -> Json:
        """The event of this type, for the n-th time, once it is durable."""
        pause = 0.01
        async with asyncio.timeout(seconds):
            while len(found := [event for event in await self.events(conversation) if event["type"] == type]) < times:
                await asyncio.sleep(pause)
                pause = min(1.0, pause * 1.2)
        return found[times - 1]

    @property
    def in_memory(self) -> list[str]:
        return list(self.directory._actors)


def calls(*tools: str, arguments: str = "{}", first: int = 1) -> Line:
    """A line of the model that calls these tools as k1, k2, …"""
    return [Call(call=f"k{n}", tool=tool, arguments=arguments) for n, tool in enumerate(tools, first)]


def busy(kind: str = "overloaded", retry_after: float | None = None) -> ModelError:
    return ModelError(kind, "busy", retryable=True, retry_after=retry_after)
