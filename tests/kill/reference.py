"""The reference run on a real server, and one death of it at an exact place.

The run streams text, calls a `never` and a `safe` tool in parallel, waits for an approval, takes a hint, and ends; its
reader comes back with its cursor. Whoever acts does it by what they see, so the run finds its end wherever the process
died (dies_at.py says where).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path

import httpx2
from websockets.exceptions import WebSocketException

from tests.acceptance.harness import Client, Server, fresh
from tests.acceptance.history import differences, faults
from tests.acceptance.stub import Answer, Call, Story, Stub, Use


def model(line: str) -> Answer:
    """Text and two tools, a reservation that needs approval, and an answer; always the same."""

    async def answer(call: Call) -> None:
        match sum(message["role"] == "assistant" for message in call.messages):
            case 0:
                await call.text("First ", "this. ")
                await call.use(Use("once", {"line": line}, id="n"), Use("safe", {"line": f"{line}-safe"}, id="s"))
            case 1:
                await call.use(Use("reserve", {"place": line, "people": 2}, id="r"))
            case _:
                await call.text("All ", "done.")
                await call.end()
                return
        await call.end("tool_calls")

    return answer


def _brain(line: str, _: Call) -> Answer:
    return model(line)


class Run:
    """The reference run and its reader, over the lives of a server."""

    def __init__(self, server: Server, story: Story, line: str) -> None:
        self.server, self.story, self.line = server, story, line
        self.conversation = ""
        self.reader: Client | None = None
        self.ended = False

    async def live(self) -> None:
        """One life: create, approve what is open, give a hint, read; until the process dies or the run is archived."""
        with contextlib.suppress(httpx2.HTTPError, OSError, WebSocketException, AssertionError, EOFError, KeyError):
            async with asyncio.timeout(20):
                while not await self.server.is_ready():
                    if not self.server.alive:
                        return
                    await asyncio.sleep(0.02)
                body = {"id": "the-creation", "agent": "desk", "prompt": self.story.says(self.line)}
                answer = await self.server.http.post("/api/conversations", json=body)
                self.conversation = answer.json()["conversation"]
                before = self.reader if self.reader and self.reader.follower.attached else None
                self.reader = await (self.server.again(before) if before else self.server.attach(self.conversation))
                while self.server.alive and not self.ended:
                    await self._go_on(self.reader)
                    await asyncio.sleep(0.01)

    async def _go_on(self, reader: Client) -> None:
        shown = await self.server.get(f"/api/conversations/{self.conversation}")
        for asked in shown["approvals"]:
            where = {"run": asked["run"], "call": [asked["call"]], "digest": asked["digest"]}
            await self.server.command(self.conversation, "hint", "the-hint", text="Quickly, please.")
            await self.server.command(self.conversation, "approve", "the-approval", **where)
        self.ended = shown["status"] == "idle" and bool(reader.all("run.completed") and reader.all("archive.flushed"))

    async def check(self) -> None:
        """P1-P6, from what the reader saw, the log, and what the tools did."""
        assert self.ended and self.reader is not None
        log = await self.server.replay(self.conversation)
        await self.reader.until(lambda c: c.cursor >= log[-1].seq, "the end of the log")
        assert faults(log) == []
        assert not differences(list(self.reader.records), self.reader.cursor, log)
        for id in ("the-creation", "the-hint", "the-approval"):
            assert sum(record.event.get("cause") == id for record in log) == 1, id
        begun = [entry for entry in self.server.ledger(self.line) if entry.split()[:2] == ["once", "begin"]]
        assert len(begun) <= 1, "a tool that may not be repeated ran twice"


AT_ONCE = 4
"""Servers that die at a time."""


async def die_at_each(home: Path, places: Sequence[Sequence[str]]) -> int:
    """A server for each of these places; how many came there and died. An `ExceptionGroup` says what did not hold."""
    gate = asyncio.Semaphore(AT_ONCE)
    stub = await Stub().start()

    async def one(number: int, where: Sequence[str]) -> bool:
        async with gate:
            return await die_at(home / str(number), stub, *where)

    try:
        async with asyncio.TaskGroup() as group:
            deaths = [group.create_task(one(number, where)) for number, where in enumerate(places)]
    finally:
        await stub.close()
    return sum(death.result() for death in deaths)


async def die_at(home: Path, stub: Stub, *where: str) -> bool:
    """A server of its own that dies there, then lives: P1-P6 hold. False when its first life never came there."""
    story, line = stub.story(), fresh("line")
    story.brain = functools.partial(_brain, line)
    server = Server(home, stub.url)
    run = Run(server, story, line)
    try:
        server.program = ("-m", "tests.kill.dies_at", *where)
        await server.start(ready=False)
        await run.live()
        survived = run.ended and server.alive
        server.program, run.ended = ("-m", "app"), False
        await server.kill()
        await server.start()
        await run.live()
        await run.check()
    except BaseException as error:
        error.add_note(f"killed at {where}; {server.said()[-2000:]}")
        raise
    finally:
        await server.close()
    return not survived
