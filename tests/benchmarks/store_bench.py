"""What an append costs: SQLite beside memory, 100 conversations at once, measured one after the other in the same run.

    python -m tests.benchmarks.store_bench [--rounds 7] [--conversations 100] [--appends 30]

Two loads. Saturated: every conversation appends the next as soon as the last is durable. Live: every conversation has
30 pieces a second, as streamed text has; what counts is then the CPU time and the latency, not the throughput. The
figures of one machine mean little; the ratio to memory and to a bare fsync in the same directory means more.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from app.store.event_log import Append, EventLog, Item, Row
from app.store.log_memory import MemoryLog
from app.store.log_sqlite import SqliteLog
from app.store.sqlite import Database

TEXT = '{"type":"text.streamed","seq":%d,"at":1763683200123,"run":"r","step":1,"attempt":1,"offset":0,"text":"%s"}'
PIECES_PER_SECOND = 30
STEP = 20
"""Every so many appends one supersedes the pieces before it."""


def append(conversation: str, number: int) -> Append:
    """The append that makes the head `number`: pieces, and now and then the end of their attempt."""
    ends = number % STEP == 0
    row = Row(number, (number,), (TEXT % (number, "x" * 100),), None if ends else "attempt")
    return Append(conversation, number - 1, 1, (row,), ("attempt",) if ends else ())


async def prepare(log: EventLog, conversations: int) -> list[str]:
    names = [f"c{number}" for number in range(conversations)]
    for name in names:
        item = Item(name, "agent", "title", "ann", "running", 1, 1)
        await log.create(Append(name, 0, 1, (Row(1, (1,), ("{}",)),), item=item), f"log-{name}", "ann")
    return names


async def saturated(log: EventLog, names: list[str], start: int, appends: int) -> float:
    """Microseconds of wall time for one append."""

    async def follow(name: str) -> None:
        for number in range(start, start + appends):
            await log.append(append(name, number))

    begun = time.perf_counter()
    await asyncio.gather(*map(follow, names))
    return (time.perf_counter() - begun) / (appends * len(names)) * 1e6


async def live(log: EventLog, names: list[str], start: int, appends: int) -> tuple[float, list[float]]:
    """Microseconds of CPU time for one append, and milliseconds that each took."""
    took: list[float] = []

    async def follow(name: str, delay: float) -> None:
        await asyncio.sleep(delay)
        due = time.perf_counter()
        for number in range(start, start + appends):
            due += 1 / PIECES_PER_SECOND
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            begun = time.perf_counter()
            await log.append(append(name, number))
            took.append((time.perf_counter() - begun) * 1e3)

    begun = time.process_time()
    await asyncio.gather(*(follow(name, index / len(names) / PIECES_PER_SECOND) for index, name in enumerate(names)))
    return (time.process_time() - begun) / (appends * len(names)) * 1e6, took


def fsync_cost(directory: Path, times: int = 50) -> float:
    """Microseconds of one write of a page with fsync: below this no durable commit can be."""
    with (directory / "fsync").open("wb") as file:
        begun = time.perf_counter()
        for _ in range(times):
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        return (time.perf_counter() - begun) / times * 1e6


def spread(figures: Sequence[float]) -> str:
    return f"{statistics.median(figures):8.1f}  ({min(figures):.1f} to {max(figures):.1f})"


async def main(rounds: int, conversations: int, appends: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = await Database.open(Path(folder))
        stored = SqliteLog(database)
        await stored.start()
        logs: dict[str, EventLog] = {"sqlite": stored, "memory": MemoryLog()}
        names = {kind: await prepare(log, conversations) for kind, log in logs.items()}
        wall: dict[str, list[float]] = {kind: [] for kind in logs}
        cpu: dict[str, list[float]] = {kind: [] for kind in logs}
        took: dict[str, list[float]] = {kind: [] for kind in logs}
        fsyncs: list[float] = []
        groups: list[float] = []
        head = 2
        for _ in range(rounds):
            fsyncs.append(fsync_cost(Path(folder)))
            for kind, log in logs.items():
                before = database.writer.commits
                wall[kind].append(await saturated(log, names[kind], head, appends))
                if kind == "sqlite":
                    groups.append(conversations * appends / (database.writer.commits - before))
            head += appends
            for kind, log in logs.items():
                used, times = await live(log, names[kind], head, appends)
                cpu[kind].append(used)
                took[kind] += times
            head += appends
        await database.close()
    print(f"{conversations} conversations, {rounds} rounds of {appends} appends each; medians (least to most)")
    print(f"one page with fsync          µs {spread(fsyncs)}")
    print(f"appends in one commit           {spread(groups)}")
    for kind in logs:
        print(f"{kind}  saturated, wall     µs {spread(wall[kind])}")
    print(f"ratio   sqlite / memory         {spread([a / b for a, b in zip(*wall.values(), strict=True)])}")
    for kind in logs:
        print(f"{kind}  live, CPU           µs {spread(cpu[kind])}")
    print(f"ratio   sqlite / memory         {spread([a / b for a, b in zip(*cpu.values(), strict=True)])}")
    for kind in logs:
        quantiles = statistics.quantiles(took[kind], n=100)
        print(f"{kind}  live, latency       ms {quantiles[49]:8.2f}  (p99 {quantiles[98]:.2f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--conversations", type=int, default=100)
    parser.add_argument("--appends", type=int, default=30)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.rounds, arguments.conversations, arguments.appends))
