"""A very long conversation, written through the store itself: `python -m tests.benchmarks.long_log [--events 1000000]`.

What people and an agent leave in months: prompts, replies, tool calls with their results, several hundred bytes each,
and a summary whenever a window of 128,000 tokens would have been full. The command prints what opening it costs: after
a restart without a snapshot (the first time), with one, and with the tail that may grow behind one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import websockets

from app.actor.records import pack
from app.actor.summary import item_of
from app.core import events as e
from app.core.apply import apply
from app.core.catalogue import Rules
from app.core.events import Call, Event, Usage
from app.core.plan import plan
from app.core.snapshot import forget
from app.core.state import State
from app.store.event_log import Append, EventLog
from app.store.log_sqlite import SqliteLog
from app.store.sqlite import Database
from tests.benchmarks.load import _ready, free_port

CONVERSATION = "long"
OWNER = "owner"
BEGAN_MS = 1_700_000_000_000
WINDOW_CHARS = 300_000
"""Characters of history after which there is a summary."""
APPEND_EVENTS = 2_000
STEPS = 4
CALLS = 2


class Writing:
    """The events of one conversation, run by run; `state` is their fold, as lean as a snapshot leaves it."""

    def __init__(self, agent: str = "a") -> None:
        self.state = State()
        self._agent = agent
        self._chance = random.Random(1)
        self._told = 0
        self._runs = 0
        self._last = 0
        self._out: list[Event] = []
        self._add(e.ConversationCreated(agent=agent, title="", owner=OWNER))

    def run(self) -> list[Event]:
        """The next run, whole and archived."""
        self._runs += 1
        id, prompt = f"run-{self._runs}", f"prompt-{self._runs}"
        text = self._text(100, 800)
        self._add(e.PromptGiven(message=prompt, text=text, author=OWNER, cause=prompt))
        self._add(e.RunStarted(run=id, agent=self._agent, message=prompt))
        for step in range(1, STEPS + 1):
            self._step(id, step, text)
        usage = self.state.runs[id].usage
        self._add(e.RunCompleted(run=id, message=f"{id}-{STEPS}", usage=usage, steps=STEPS, ms=9_000))
        self._add(e.ArchiveFlushed(through=self.state.seq))
        out, self._out = self._out, []
        return out

    def _step(self, run: str, step: int, told: str) -> None:
        if self._told > WINDOW_CHARS:
            self._add(e.ContextCompacted(run=run, from_=1, to=self._last, before=9, after=1, summary=told, words=20))
            forget(self.state)
            self._told = 0
        self._last = self.state.seq
        self._add(e.StepStarted(run=run, step=step, attempt=1, model="m", asked=100_000, request="0" * 64))
        calls = [
            Call(call=f"call-{step}-{n}", tool="measure", arguments=json.dumps({"what": self._text(50, 200)}))
            for n in range(CALLS if step < STEPS else 0)
        ]
        usage = Usage(input=20_000, output=200, cached=19_000)
        finish = "tool_calls" if calls else "stop"
        self._add(
            e.ModelReplied(
                run=run,
                step=step,
                attempt=1,
                message=f"{run}-{step}",
                text=self._text(50, 600),
                calls=calls,
                finish=finish,
                usage=usage,
            )
        )
        for call in calls:
            self._add(e.ToolStarted(run=run, call=call.call, tool=call.tool, arguments=json.loads(call.arguments)))
            self._add(e.ToolReturned(run=run, call=call.call, result=self._text(100, 1_500), ms=30))

    def _text(self, least: int, most: int) -> str:
        size = self._chance.randint(least, most)
        self._told += size
        return "".join(f"{self._chance.getrandbits(40):x} and so on, " for _ in range(size // 20))

    def _add(self, event: Event) -> None:
        event.seq, event.at = self.state.seq + 1, BEGAN_MS + self.state.seq * 1_000
        apply(self.state, event)
        self._out.append(event)


async def write(log: EventLog, events: int, writing: Writing | None = None) -> Writing:
    """Writes at least so many events, as whole runs; goes on with a log that was written before. Nothing runs in it."""
    writing = writing or Writing()
    after = 0 if writing.state.seq == 1 else writing.state.seq
    aim = after + events
    for batch in _batches(writing, aim):
        rows, runs = pack(batch).rows, tuple(event.run or "" for event in batch if isinstance(event, e.RunStarted))
        item = item_of(CONVERSATION, writing.state, plan(writing.state, Rules(agents={}, model="m")))
        append = Append(CONVERSATION, after, 1, rows, item=item, runs=runs)
        await (log.create(append, "L", OWNER) if not after else log.append(append))
        await log.merge(CONVERSATION, after, batch[-1].seq)
        after = batch[-1].seq
    return writing


def _batches(writing: Writing, aim: int) -> Iterator[list[Event]]:
    while writing.state.seq < aim:
        batch: list[Event] = []
        while len(batch) < APPEND_EVENTS and writing.state.seq < aim:
            batch += writing.run()
        yield batch


# --- what it costs


@dataclass(frozen=True)
class Opened:
    """Seconds from the start of a server to ready, from the handshake to `attached`, and then to `live`; CPU seconds
    of that; memory before and after, in MB."""

    ready: float
    attached: float
    live: float
    cpu: float
    before: float
    after: float

    def __str__(self) -> str:
        return (
            f"attached after {self.attached:.2f} s, live after {self.live:.2f} s, {self.cpu:.2f} s CPU, "
            f"memory {self.before:.0f} to {self.after:.0f} MB (ready after {self.ready:.1f} s)"
        )


async def opened(data: Path, head: int) -> Opened:
    """A server is started on the data and a reader comes back near the head."""
    port, began = free_port(), time.perf_counter()
    arguments = [sys.executable, "-m", "tests.benchmarks.server", "sqlite", str(port), str(data), "30", "0"]
    server = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    try:
        await _ready(f"http://127.0.0.1:{port}")
        ready, before = time.perf_counter() - began, _megabytes(server.pid)
        began, cpu = time.perf_counter(), _cpu(server.pid)
        url = f"ws://127.0.0.1:{port}/ws/{CONVERSATION}?after={head - 50}"
        async with websockets.connect(url, compression=None, max_size=2_000_000, open_timeout=900) as socket:
            async with asyncio.timeout(900):
                assert json.loads(await socket.recv())["type"] == "attached"
                attached = time.perf_counter() - began
                while json.loads(await socket.recv())["type"] != "live":
                    pass
        live = time.perf_counter() - began
        return Opened(ready, attached, live, _cpu(server.pid) - cpu, before, _megabytes(server.pid))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _megabytes(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def report(events: int, folder: Path) -> None:
    async def grow(by: int, writing: Writing | None = None) -> Writing:
        database = await Database.open(folder, backups=0)
        log = SqliteLog(database)
        await log.start()
        writing = await write(log, by, writing)
        found = await log.snapshot(CONVERSATION)
        if found is not None:
            print(f"the snapshot: {len(found.state) / 1e6:.1f} MB, through {found.through}")
        await database.close()
        return writing

    writing = await grow(events)
    size = (folder / "holdfast.db").stat().st_size / 1e6
    print(f"{writing.state.seq} events in {writing._runs} runs, {size:.0f} MB")
    print(f"folded whole, leaving a snapshot: {await opened(folder, writing.state.seq)}")
    for _ in range(3):
        print(f"from its snapshot: {await opened(folder, writing.state.seq)}")
    for tail in (10_000, 9_900):
        await grow(tail, writing)
        print(f"with a tail of {tail} more: {await opened(folder, writing.state.seq)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        asyncio.run(report(given.events, Path(folder)))
    print(f"this writer's memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
