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

from app.agent import Agent
from app.agent.model import Delta, Finished, Request, TextDelta
from app.main import Server, bind, house_of
from app.settings import read
from app.store.archive import Archive
from app.store.archive_memory import MemoryArchive
from app.store.archive_sqlite import SqliteArchive
from app.store.event_log import EventLog
from app.store.log_memory import MemoryLog
from app.store.log_sqlite import SqliteLog
from app.store.sqlite import Database


class Metronome:
    """Streams the time, `rate` times a second, for so many seconds."""

    name = "metronome"

    def __init__(self, rate: float, seconds: float) -> None:
        self._pause = 1 / rate
        self._pieces = int(rate * seconds)

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        due = asyncio.get_running_loop().time()
        for _ in range(self._pieces):
            due += self._pause
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            yield TextDelta(f"{time.monotonic_ns()} ")
        yield Finished("stop", [])

    async def close(self) -> None:
        pass


async def main(store: str, port: int, data: Path, rate: float, seconds: float) -> None:
    settings = read(
        {"PORT": str(port), "HOLDFAST_DATA": str(data), "HOLDFAST_RUNS_MAX": "10000", "HOLDFAST_RATE": "1000"}
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
    house = house_of(settings, {"a": Agent("a")}, Metronome(rate, seconds), log, archive)
    await house.directory.start()
    await Server(settings, house).serve(sockets=[bind(settings)])
    print(f"cpu {time.process_time()}", flush=True)
    if database is not None:
        await database.close()


if __name__ == "__main__":
    os.sched_setaffinity(0, {0})
    store, port, data, rate, seconds = sys.argv[1:]
    uvloop.run(main(store, int(port), Path(data), float(rate), float(seconds)))
