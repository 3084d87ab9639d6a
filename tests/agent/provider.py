"""A small HTTP server that answers like a provider, or as badly as a test wants: real sockets, bytes under control."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from app.core.events import Json

Script = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request and the connection on which it is answered."""

    path: str
    headers: dict[str, str]
    body: Json
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connection: int

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def status(self, status: int, body: object = "", headers: dict[str, str] | None = None) -> None:
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        kind = "text/html" if isinstance(body, str) else "application/json"
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(raw)}\r\n{more}\r\n"
        await self.send(head.encode() + raw)

    async def begin(self) -> None:
        await self.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def chunk(self, chunk: object) -> None:
        await self.raw(f"data: {json.dumps(chunk)}\n\n".encode())

    async def text(self, text: str, finish: str | None = None) -> None:
        await self.chunk({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})

    async def end(self, done: bool = True) -> None:
        if done:
            await self.raw(b"data: [DONE]\n\n")
        await self.send(b"0\r\n\r\n")

    def cut(self) -> None:
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Until the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            await self.reader.read()


@dataclass
class Provider:
    """`script` answers each request; `exchanges` keeps them in their order."""

    url: str = ""
    script: Script | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        connection = self.connections
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                exchange = Exchange(first.split()[1], headers, body, reader, writer, connection)
                self.exchanges.append(exchange)
                assert self.script is not None
                await self.script(exchange)
        writer.close()


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Provider]:
    provider = Provider()
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, limit=1 << 24)
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield provider
    finally:
        server.close()
        for exchange in provider.exchanges:
            exchange.writer.close()
        await server.wait_closed()
        if provider.tasks:
            await asyncio.wait(provider.tasks, timeout=5)
