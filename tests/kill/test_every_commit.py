"""A real server is killed at every commit of a reference run, before and after it: enumerated, not sampled.

The run streams text, calls a `never` and a `safe` tool in parallel, waits for an approval, takes a hint, and ends; its
reader comes back with its cursor. FAULTS 1-5, 7-10: for each commit a server of its own that dies there, then lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from pathlib import Path

import httpx2
import pytest
from websockets.exceptions import WebSocketException

from tests.acceptance.harness import ROOT, Client, Server, fresh
from tests.acceptance.history import differences, faults
from tests.acceptance.stub import Answer, Call, Story, Stub, Use

COMMITS_MAX = 200
"""A reference run has fewer; the count ends when one life reaches the end of the run."""


class Dying(Server):
    """A server whose next life ends at one exact commit."""

    at: tuple[int, str] | None = None

    async def start(self, ready: bool = True, within: float = 30.0) -> Server:
        if self.at is None:
            return await super().start(ready, within)
        with self.output.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.kill.dies_at", str(self.at[0]), self.at[1]),
                *("--port", str(self.port), "--data", str(self.data), "--agent", ",".join(self.agents)),
                cwd=ROOT,
                env={"PATH": "", **self.settings},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return self


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

    def __init__(self, server: Dying, story: Story, line: str) -> None:
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
                before = self.reader
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


@pytest.mark.timeout(600)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_at_every_commit(tmp_path: Path, when: str) -> None:
    """P1-P6: whatever the commit, nothing seen is lost, the `never` tool began once, the run completes."""
    stub = await Stub().start()
    try:
        for number in range(1, COMMITS_MAX):
            story, line = stub.story(), fresh("line")
            story.brain = functools.partial(_brain, line)
            server = Dying(tmp_path / str(number), stub.url)
            run = Run(server, story, line)
            try:
                server.at = (number, when)
                await server.start()
                await run.live()
                survived = run.ended and server.alive
                server.at, run.ended = None, False
                await server.kill()
                await server.start()
                await run.live()
                await run.check()
            finally:
                await server.close()
            if survived:
                break
        print(f"killed {when} each of {number - 1} commits of the reference run")
        assert number > 10, "the reference run has many commits"
    finally:
        await stub.close()
