"""Misfortune under load, and what it costs the others: readers that all come back at once, readers that never read,
sockets that join and leave, while one conversation streams and a bystander reads it.

A bystander measures how long a piece takes from the provider to its screen. Printed: median and worst, before and
during; memory of the server before and after. The bounds are generous, for machines that are shared.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket as sockets
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from .conftest import Launch
from .harness import Client, Server, eventually
from .stub import Call, Gone, Story

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

PACE_SECONDS = 0.1
CALM_SECONDS = 2.0
MEDIAN_SECONDS_MAX = 1.0
WORST_SECONDS_MAX = 8.0
MEGABYTES_MAX = 150
"""By which the server's memory may grow."""

NEVER_READ = 100
LONG_WORDS = 100
COMINGS_AND_GOINGS = 200
AT_ONCE = 50
"""Handshakes that this test has under way at a time."""


def megabytes(server: Server) -> float:
    """The resident memory of the server."""
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def descriptors(server: Server) -> int:
    """How many sockets the server holds open; its files come and go with the daily copy of the database."""
    count = 0
    for entry in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed in the meantime
            count += str(entry.readlink()).startswith("socket:")
    return count


class Bystander:
    """One reader of a conversation that streams the time of day; it knows how late each piece is."""

    def __init__(self, server: Server, story: Story, tab: Client) -> None:
        self.server, self.tab = server, tab
        self.conversation: str = tab.attached["conversation"]
        self._story = story
        self._stop = asyncio.Event()
        self._talking: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        await self.tab.do("prompt", text=self._story.says("What time is it?"))
        self._talking = asyncio.create_task(self._talk(await self._story.call()))
        await self.tab.event("text.streamed")

    async def _talk(self, call: Call) -> None:
        with contextlib.suppress(Gone):
            while not self._stop.is_set():
                await call.text(f"{time.monotonic():.4f} ")
                await asyncio.sleep(PACE_SECONDS)
            await call.end()

    def delays(self, since: float) -> list[float]:
        """Seconds from provider to screen of everything said since then."""
        late = []
        for frame, arrived in zip(self.tab.frames, self.tab.arrived, strict=True):
            for event in frame.get("events", []):
                if event["type"] == "text.streamed":
                    late += [arrived - float(said) for said in event["text"].split() if float(said) >= since]
        return late

    async def during(self, name: str, misfortune: Callable[[], Awaitable[None]], rest: float = 1.0) -> None:
        """Calm, then the misfortune; prints and bounds what it does to the bystander and to the memory."""
        began = time.monotonic()
        await asyncio.sleep(CALM_SECONDS)
        calm, before = self.delays(began), megabytes(self.server)
        struck = time.monotonic()
        await misfortune()
        took = time.monotonic() - struck
        await asyncio.sleep(rest)
        hit, after = self.delays(struck), megabytes(self.server)
        print(
            f"\n{name}: {took:.1f} s; a bystander's delay, calm: median {statistics.median(calm) * 1000:.0f} ms,"
            f" worst {max(calm) * 1000:.0f} ms; meanwhile: median {statistics.median(hit) * 1000:.0f} ms,"
            f" worst {max(hit) * 1000:.0f} ms; memory {before:.0f} -> {after:.0f} MB"
        )
        assert self.server.alive and not self.tab.over
        assert len(hit) >= 0.3 * (took + rest) / PACE_SECONDS, "the conversation stood still"
        assert statistics.median(hit) <= MEDIAN_SECONDS_MAX
        assert max(hit) <= WORST_SECONDS_MAX
        assert after - before <= MEGABYTES_MAX

    async def end(self) -> None:
        """The conversation comes to its end, whole."""
        self._stop.set()
        assert self._talking is not None
        await self._talking
        ended = await self.tab.ended(within=30)
        assert ended["type"] == "run.completed"
        [replied] = self.tab.all("model.replied")
        assert replied["text"] == self.tab.text()


@contextlib.asynccontextmanager
async def streaming(launch: Launch, story: Story) -> AsyncIterator[Bystander]:
    server = await launch(HOLDFAST_SOCKETS_MAX="5000", HOLDFAST_SEND_SECONDS="2")
    bystander = Bystander(server, story, await server.open())
    await bystander.begin()
    yield bystander
    await bystander.end()
    assert (await server.http.get("/healthz")).status_code == 200


async def socket(server: Server, conversation: str, after: int = 0, *, deaf: bool = False) -> ClientConnection:
    """A bare reader; a deaf one has hardly any buffer and reads nothing that comes after the handshake."""
    options: dict[str, Any] = {"max_queue": 1} if deaf else {}
    if deaf:
        options["sock"] = plain = sockets.socket()
        plain.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", server.port))
    settings = {"max_size": 4_000_000, "ping_interval": None, "close_timeout": 1, "open_timeout": 60, **options}
    address = f"ws://127.0.0.1:{server.port}/ws/{conversation}?after={after}"
    connection = await connect(address, proxy=None, compression=None, **settings)
    if deaf:
        connection.transport.pause_reading()
    return connection


async def until_live(connection: ClientConnection) -> int:
    """The cursor at which it is live."""
    cursor = -1
    async for text in connection:
        frame = json.loads(text)
        if frame["type"] == "attached":
            cursor = frame["after"]
        elif frame["type"] == "events":
            assert frame["after"] == cursor
            cursor = frame["through"]
        elif frame["type"] == "live":
            return cursor
    raise AssertionError(f"closed with {connection.close_code}")


async def test_everybody_comes_back_at_once(launch: Launch, story: Story, request: pytest.FixtureRequest) -> None:
    """N readers of one conversation that streams come back in the same second, as after a restart of a proxy."""
    count = int(request.config.getoption("--readers"))
    async with streaming(launch, story) as bystander:
        gate = asyncio.Semaphore(AT_ONCE)
        back: list[ClientConnection] = []

        async def come_back() -> None:
            async with gate:
                connection = await socket(bystander.server, bystander.conversation)
                back.append(connection)
                assert await until_live(connection) > 0

        async def misfortune() -> None:
            await asyncio.gather(*(come_back() for _ in range(count)))
            assert len(back) == count

        await bystander.during(f"{count} readers come back at once", misfortune)
        for connection in back:
            connection.transport.abort()


async def test_readers_that_never_read(launch: Launch, story: Story) -> None:
    """FAULTS: a peer that does not read is aborted, costs nobody anything and leaves nothing behind."""
    async with streaming(launch, story) as bystander:
        server = bystander.server
        big = await server.open()
        deaf: list[ClientConnection] = []
        await big.do("prompt", text=story.says("Wait."))
        for number in range(LONG_WORDS):  # more than the kernel holds for a socket
            await big.do("prompt", f"long-{number}", text="x" * 60_000)
            await big.do("withdraw", target=f"long-{number}")
        gate = asyncio.Semaphore(AT_ONCE)

        async def join() -> None:
            async with gate:
                deaf.append(await socket(server, big.attached["conversation"], deaf=True))

        held = descriptors(server)

        async def misfortune() -> None:
            await asyncio.gather(*(join() for _ in range(NEVER_READ)))
            assert descriptors(server) > held
            await eventually(lambda: descriptors(server) <= held + 5, "every deaf reader is aborted", within=20)

        await bystander.during(f"{NEVER_READ} readers that never read", misfortune)
        for connection in deaf:
            connection.transport.abort()
        await big.do("cancel")


async def test_sockets_that_come_and_go(launch: Launch, story: Story) -> None:
    """Some leave politely, some are torn off, some before they are attached."""
    async with streaming(launch, story) as bystander:
        chance = random.Random(7)
        gate = asyncio.Semaphore(AT_ONCE)

        async def visit() -> None:
            async with gate:
                connection = await socket(bystander.server, bystander.conversation, chance.randrange(3))
                stay = chance.choice([0, 0, 0.05, 0.3])
                if stay:
                    await until_live(connection)
                    await asyncio.sleep(stay)
                if chance.random() < 0.5:
                    connection.transport.abort()
                else:
                    await connection.close()

        async def misfortune() -> None:
            await asyncio.gather(*(visit() for _ in range(COMINGS_AND_GOINGS)))

        await bystander.during(f"{COMINGS_AND_GOINGS} sockets come and go", misfortune)
