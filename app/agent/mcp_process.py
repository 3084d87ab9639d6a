"""An MCP server as a process of ours: started, spoken to line by line over its standard streams, and ended.

The library has this too, but reads lines of any length, at a price that grows with their square: one large result would
hold up everybody. Here a line is bounded, and one beyond it ends the connection.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from mcp import types
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from app.agent.mcp_link import Where

LINE_BYTES_MAX = 16_777_216
"""Of one message: a result of 10,000,000 characters, the most that is kept, and what JSON adds to it."""

END_SECONDS = 2.0
"""Between the end of its input, SIGTERM and SIGKILL."""

POLL_SECONDS = 0.02


@asynccontextmanager
async def process(where: Where) -> AsyncIterator[tuple[Any, Any]]:
    """The streams of a new process, which ends with this. Raises OSError where there is no such program."""
    child = await asyncio.create_subprocess_exec(
        *where.command,
        stdin=PIPE,
        stdout=PIPE,
        env=get_default_environment() | where.env,
        cwd=where.cwd,
        start_new_session=True,
        limit=LINE_BYTES_MAX,
    )
    heard, hearing = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    saying, said = anyio.create_memory_object_stream[SessionMessage](0)
    reading, writing = asyncio.create_task(_read(child, heard)), asyncio.create_task(_write(child, said))
    try:
        yield hearing, saying
    finally:
        hearing.close()
        saying.close()
        await _end(child)
        for task in (reading, writing):
            task.cancel()
        await asyncio.wait({reading, writing})
        heard.close()
        said.close()


async def _read(child: Process, heard: Any) -> None:
    """What it says, until it has ended; what is no message is passed over."""
    assert child.stdout is not None
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
        async with heard:
            while line := await _line(child.stdout):
                with suppress(ValidationError):
                    await heard.send(SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False)))


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line; nothing at the end, and where a line is longer than LINE_BYTES_MAX."""
    try:
        return await stream.readline()
    except ValueError:
        return b""


async def _write(child: Process, said: Any) -> None:
    assert child.stdin is not None
    with suppress(ConnectionError, RuntimeError):
        async with said:
            async for message in said:
                child.stdin.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                await child.stdin.drain()


async def _end(child: Process) -> None:
    """Closes its input, then asks it, then ends it, with all that it has started."""
    assert child.stdin is not None
    child.stdin.close()
    for sign in (signal.SIGTERM, signal.SIGKILL, None):
        if await _ended(child) or sign is None:
            break
        with suppress(ProcessLookupError):
            os.killpg(child.pid, sign)
    transport = getattr(child, "_transport", None)
    if transport is not None:  # it may wait for pipes that a grandchild still holds
        transport.close()


async def _ended(child: Process) -> bool:
    """Whether it has ended within END_SECONDS. Asked again and again: `wait` would wait for its grandchildren, too."""
    until = asyncio.get_running_loop().time() + END_SECONDS
    while child.returncode is None and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110
        await asyncio.sleep(POLL_SECONDS)
    return child.returncode is not None
