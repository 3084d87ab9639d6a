"""The server under load: the real house on one core, with a model that streams so many pieces a second.

Each piece is the moment of its emission (CLOCK_MONOTONIC, which all processes share), so that whoever reads it knows
how long it took. `python -m tests.benchmarks.server STORE PORT DATA RATE SECONDS`; prints its CPU seconds on SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from app.agent import Agent, tool
from app.agent.model import Delta, Finished, Request, TextDelta
from app.core.events import Call
from app.main import house_of
from app.server import Server, bind
from app.settings import read
from app.store.archive import Archive
from app.store.archive_memory import MemoryArchive
from app.store.archive_sqlite import SqliteArchive
from app.store.event_log import EventLog
from app.store.log_memory import MemoryLog
from app.store.log_sqlite import SqliteLog
from app.store.sqlite import Database

CALLS_A_STEP = 4


@tool(rerun="safe")
async def measure(number: int) -> str:
    """Measure something; the result is about as long as results are."""
    return f"Measurement {number}: " + "a line of what a tool usually has to say. " * 5


class Metronome:
    """Streams the time, `rate` times a second, for so many seconds; told "work N", it calls N tools instead."""

    name = "metronome"

    def __init__(self, rate: float, seconds: float) -> None:
        self._pause = 1 / rate
        self._pieces = int(rate * seconds)

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        if str(request.messages[0]["content"]).startswith("work "):
            async for delta in self._work(request):
                yield delta
            return
        due = asyncio.get_running_loop().time()
        for _ in range(self._pieces):
            due += self._pause
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            yield TextDelta(f"{time.monotonic_ns()} ")
        yield Finished("stop", [])

    async def _work(self, request: Request) -> AsyncIterator[Delta]:
        done = sum(message["role"] == "tool" for message in request.messages)
        if done >= int(request.messages[0]["content"].split()[1]):
            yield TextDelta("Done.")
            yield Finished("stop", [])
            return
        numbers = range(done, done + CALLS_A_STEP)
        calls = [Call(call=f"call-{number}", tool="measure", arguments=f'{{"number":{number}}}') for number in numbers]
        yield Finished("tool_calls", calls)

    async def close(self) -> None:
        pass


async def main(store: str, port: int, data: Path, rate: float, seconds: float) -> None:
    settings = read(
        {
            "PORT": str(port),
            "HOLDFAST_DATA": str(data),
            "HOLDFAST_RUNS_MAX": "10000",
            "HOLDFAST_STEPS_MAX": "10000",
            "HOLDFAST_CALLS_MAX": "100000",
            "HOLDFAST_CONTEXT_TOKENS": "100000000",
            "HOLDFAST_RATE": "1000",
        }
    )
    database: Database | None = None
    log: EventLog = MemoryLog()
    archive: Archive = MemoryArchive()
    if store == "sqlite":
        data.mkdir(parents=True, exist_ok=True)
        database = await Database.open(data)
        sqlite_log = SqliteLog(database)
        await sqlite_log.start()
        log, archive = sqlite_log, SqliteArchive(database)
    house = house_of(settings, {"a": Agent("a", tools=[measure])}, Metronome(rate, seconds), log, archive)
    await house.directory.start()
    await Server(settings, house).serve(sockets=[bind(settings)])
    print(f"cpu {time.process_time()}", flush=True)
    if database is not None:
        await database.close()


if __name__ == "__main__":
    os.sched_setaffinity(0, {0})
    store, port, data, rate, seconds = sys.argv[1:]
    uvloop.run(main(store, int(port), Path(data), float(rate), float(seconds)))
