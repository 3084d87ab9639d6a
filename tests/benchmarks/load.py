"""Ratios, measured in one run on one machine: `python -m tests.benchmarks.load [--conversations 100]`.

latency   from the model's emission of a piece to the reader that has it, N conversations with one reader each
durable   CPU seconds per piece with SQLite (synchronous=FULL) against the same in memory
replay    a long conversation read from its beginning, for the first time and again, against the same frames from a
          bare server
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import httpx2
import websockets

RATE = 30.0
DATABASE = "holdfast.db"


@dataclass(frozen=True)
class Measured:
    """Latencies in ms, sorted; `cpu` in seconds."""

    latencies: list[float]
    cpu: float

    def at(self, quantile: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * quantile))]

    @property
    def cpu_us(self) -> float:
        """CPU per emitted piece, in µs."""
        return self.cpu / len(self.latencies) * 1e6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def streaming(store: str, conversations: int, seconds: float) -> Measured:
    """N conversations at 30 pieces a second, one reader each."""
    port = free_port()
    with tempfile.TemporaryDirectory() as data:
        arguments = [sys.executable, "-m", "tests.benchmarks.server", store, str(port), data, str(RATE), str(seconds)]
        server = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        try:
            base = f"http://127.0.0.1:{port}"
            await _ready(base)
            async with httpx2.AsyncClient(base_url=base) as http:
                made = [(await http.post("/api/conversations", json={})).json() for _ in range(conversations)]
            latencies: list[float] = []
            start = asyncio.Barrier(conversations)
            await asyncio.gather(*(_read(port, one["conversation"], start, latencies) for one in made))
        finally:
            server.send_signal(signal.SIGTERM)
            output, _ = server.communicate(timeout=30)
    cpu = next(float(line.split()[1]) for line in output.splitlines() if line.startswith("cpu "))
    return Measured(sorted(latencies), cpu)


async def _ready(base: str) -> None:
    async with httpx2.AsyncClient() as http, asyncio.timeout(30):
        while True:
            try:
                if (await http.get(f"{base}/readyz")).status_code == 200:
                    return
            except httpx2.TransportError:
                await asyncio.sleep(0.05)


async def _read(port: int, conversation: str, start: asyncio.Barrier, latencies: list[float]) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{port}/ws/{conversation}", compression=None) as socket:
        await start.wait()
        await socket.send(json.dumps({"type": "prompt", "id": "p", "text": "go"}))
        length = 0
        async for text in socket:
            now = time.monotonic_ns()
            for event in json.loads(text).get("events", ()):
                if event["type"] in ("text.streamed", "model.replied"):
                    fresh = event["text"] if event["type"] == "text.streamed" else event["text"][length:]
                    length += len(fresh)
                    latencies.extend((now - int(emitted)) / 1e6 for emitted in fresh.split())
                if event["type"] == "run.completed":
                    return


@dataclass(frozen=True)
class Replay:
    """Seconds to read a conversation from its beginning: first of all (`cold`), once it was read (`warm`), and to
    receive the very same frames from a bare server (`raw`)."""

    cold: list[float]
    warm: list[float]
    raw: list[float]

    @property
    def ratio(self) -> float:
        """Of a conversation that somebody has read since the start: its pages are read once and shared."""
        return statistics.median(self.warm) / statistics.median(self.raw)

    @property
    def cold_ratio(self) -> float:
        """Of the very first reading: what the database costs is in it, and the raw server has no database."""
        return statistics.median(self.cold) / statistics.median(self.raw)


async def replay(events: int, repeats: int) -> Replay:
    """A conversation as an agent leaves it, and copies of it that nobody has read since the server started."""
    cold, warm = [], []
    with tempfile.TemporaryDirectory() as data:
        port = free_port()
        async with _serving(port, data):
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                id = (await http.post("/api/conversations", json={})).json()["conversation"]
            await _fill(port, id, events)
        copies = _copies(Path(data) / DATABASE, id, repeats)
        port = free_port()
        async with _serving(port, data):
            for copy in copies:
                url = f"ws://127.0.0.1:{port}/ws/{copy}"
                await _frames(f"{url}?after={events}")  # the actor is in memory, the log is not
                cold.append(await _timed(url))
                warm.append(await _timed(url))
            frames = await _frames(url)
    return Replay(cold, warm, await _raw(frames, repeats))


@asynccontextmanager
async def _serving(port: int, data: str) -> AsyncIterator[None]:
    arguments = [sys.executable, "-m", "tests.benchmarks.server", "sqlite", str(port), data, "30", "0"]
    server = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    try:
        await _ready(f"http://127.0.0.1:{port}")
        yield
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def _copies(database: Path, id: str, count: int) -> list[str]:
    """The same log under other names, row by row."""
    copies = [f"copy-{number}" for number in range(count)]
    with closing(sqlite3.connect(database)) as connection:
        for table, own in (("log_conversations", ("conversation", "log", "creation")), ("log", ("conversation",))):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            values = ", ".join(":copy" if column in own else column for column in columns)
            statement = f"INSERT INTO {table} SELECT {values} FROM {table} WHERE conversation = :id"
            connection.executemany(statement, [{"copy": copy, "id": id} for copy in copies])
        connection.commit()
    return copies


async def _raw(frames: list[str], repeats: int) -> list[float]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(frames, file)
        file.flush()
        port = free_port()
        bare = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.raw", str(port), file.name])
        try:
            await _frames(f"ws://127.0.0.1:{port}")  # until it listens
            return [await _timed(f"ws://127.0.0.1:{port}") for _ in range(repeats)]
        finally:
            bare.kill()
            bare.wait()


async def _fill(port: int, conversation: str, events: int) -> None:
    """A long log as an agent leaves it: a step of four tool calls is ten events. Ends when it is archived, too."""
    steps = events // 10
    url = f"ws://127.0.0.1:{port}/ws/{conversation}"
    async with websockets.connect(url, compression=None, max_size=2_000_000) as socket:
        await socket.send(json.dumps({"type": "prompt", "id": "p", "text": f"work {steps * 4}"}))
        ended = 0
        async for frame in socket:
            for event in json.loads(frame).get("events", ()):
                if event["type"] in ("run.completed", "run.failed"):
                    ended = event["seq"]
                if ended and event["type"] == "archive.flushed" and event["through"] >= ended:
                    return


async def _timed(url: str) -> float:
    began = time.perf_counter()
    await _frames(url)
    return time.perf_counter() - began


async def _frames(url: str) -> list[str]:
    frames: list[str] = []
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            async with websockets.connect(url, compression=None, max_size=2_000_000) as socket:
                async for frame in socket:
                    frames.append(str(frame))
                    if '"type":"live"' in frames[-1][:40]:
                        return frames
        except OSError:
            await asyncio.sleep(0.02)
    raise TimeoutError


async def report(conversations: int, seconds: float, events: int) -> None:
    memory = await streaming("memory", conversations, seconds)
    sqlite = await streaming("sqlite", conversations, seconds)
    for name, measured in (("memory", memory), ("sqlite", sqlite)):
        print(
            f"{name}: {conversations} conversations x {RATE:g} pieces/s, one reader each, server on one core: "
            f"median {measured.at(0.5):.1f} ms, p90 {measured.at(0.9):.1f}, p99 {measured.at(0.99):.1f}, "
            f"max {measured.at(1):.1f}; {measured.cpu_us:.0f} us CPU a piece"
        )
    print(
        f"durable / in memory: median latency {sqlite.at(0.5) / memory.at(0.5):.2f} (limit 1.5), "
        f"CPU a piece {sqlite.cpu_us / memory.cpu_us:.2f}"
    )
    print(f"p99 {sqlite.at(0.99):.1f} ms (limit 250)")
    read = await replay(events, 9)
    print(
        f"replay of {events} events: cold {_spread(read.cold)}, warm {_spread(read.warm)}, the same frames raw "
        f"{_spread(read.raw)}: ratio {read.ratio:.2f} (limit 3), of the first reading {read.cold_ratio:.2f} (limit 5)"
    )


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.1f} ms ({min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--conversations", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--events", type=int, default=10_000)
    given = parser.parse_args()
    os.sched_setaffinity(0, {(os.cpu_count() or 2) - 1})
    asyncio.run(report(given.conversations, given.seconds, given.events))
