"""One connection to an MCP server, through the library `mcp`: how it is made, asked and left.

The only file beside mcp_process.py that knows the library. Nothing is tried again in here: who keeps a connection
(mcp_link.py) makes a new one. What the library logs is strangers' text with our tracebacks around it, and is left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
from mcp import Client, MCPError, types
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost

from app.agent.context import ToolContext, ToolError
from app.agent.mcp_link import Where
from app.agent.mcp_process import process
from app.agent.mcp_tools import Block, Declared, error_text, result_text
from app.agent.tools import contained
from app.core.events import Json

for library in ("mcp", "client"):
    logging.getLogger(library).setLevel(logging.CRITICAL)

PAGES_MAX = 32
DECLARED_MAX = 1_024
"""Pages of a list, and tools in it, that are read."""

LISTEN_AGAIN_SECONDS = 5.0
HTTP_SECONDS = 30.0
"""To connect and to send; an answer has the time that the call has."""

ANSWER_BYTES_MAX = 16_777_216
"""Of an answer that comes as an event; of one in another form the library bounds nothing."""

UNREACHABLE = -32_097
"""Our own code for a request that no server has seen."""

UNKNOWN_OUTCOME = (types.CONNECTION_CLOSED, types.INTERNAL_ERROR, types.PARSE_ERROR)
"""Codes of answers that do not say whether a call was made."""


class Connected:
    """A server that answers. `changed`: there is reason to list its tools again; `ended`: it is gone."""

    def __init__(self, where: Where, changed: asyncio.Event, ended: asyncio.Event) -> None:
        self.changed = changed
        self.ended = ended
        self._where = where
        self.client: Client

    async def waited(self, seconds: float) -> bool:
        """Until there is reason to list again, or for so long; False when the server has ended."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self.changed, self.ended)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not self.ended.is_set()

    async def list(self) -> list[Declared]:
        """Its tools, as it declares them."""
        found: list[Declared] = []
        cursor: str | None = None
        for _ in range(PAGES_MAX):
            page = await self.client.list_tools(cursor=cursor, cache_mode="bypass")
            found += [Declared(tool.name, tool.description or "", tool.input_schema) for tool in page.tools]
            cursor = page.next_cursor
            if not cursor or len(found) >= DECLARED_MAX:
                break
        return found[:DECLARED_MAX]

    async def call(self, tool: str, arguments: Json, context: ToolContext, *, repeatable: bool) -> str:
        """The text of a result. Raises ToolError and CancelledError as `McpTool.run`."""

        async def progressed(progress: float, total: float | None, message: str | None) -> None:
            context.progress(message, progress / total if total else None)

        doubt, about = "error" if repeatable else "in_doubt", f"The server {self._where.name}"
        unknown = "" if repeatable else " It may or may not have happened: verify before repeating it."
        try:
            with contained():
                result = await self.client.call_tool(tool, arguments, progress_callback=progressed, meta=_meta(context))
        except ToolError as error:
            match error.__cause__:
                case asyncio.CancelledError() if repeatable:
                    raise asyncio.CancelledError from error
                case asyncio.CancelledError():
                    raise ToolError(
                        doubt, f"{about} was told to cancel this call and cannot confirm it.{unknown}"
                    ) from None
                case MCPError(code=code) if code == UNREACHABLE:
                    self.changed.set()
                    raise ToolError("error", f"{about} is not available; nothing was called.") from None
                case MCPError(code=code) as cause if code not in UNKNOWN_OUTCOME:
                    self.changed.set()
                    raise ToolError("error", error_text(cause.message)) from None
                case MCPError():
                    raise ToolError(
                        doubt, f"{about} is not available any more: it went during this call.{unknown}"
                    ) from None
            raise ToolError(doubt, f"{about} gave an answer that is no result ({error.message}).{unknown}") from None
        text = result_text([_block(part) for part in result.content], result.structured_content)
        if result.is_error:
            raise ToolError("error", error_text(text))
        return text


@asynccontextmanager
async def connected(where: Where, seconds: float) -> AsyncIterator[Connected]:
    """A connection, made within so many seconds. Raises whatever the library and the system do."""
    changed, ended = asyncio.Event(), asyncio.Event()
    there = Connected(where, changed, ended)

    async def heard(message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            changed.set()

    async with AsyncExitStack() as stack:
        async with asyncio.timeout(seconds):
            there.client = Client(_transport(where, ended), message_handler=heard, cache=None)
            await stack.enter_async_context(there.client)
        listening = asyncio.create_task(_listen(there))
        try:
            yield there
        finally:
            listening.cancel()


async def _listen(there: Connected) -> None:
    """Servers of the newer protocol say that their list has changed to those only who listen for it."""
    while True:
        try:
            async with there.client.listen(tools_list_changed=True) as heard:
                there.changed.set()  # what changed before we listened, nobody has told us
                async for _ in heard:
                    there.changed.set()
        except (ListenNotSupportedError, MCPError):
            return  # it is asked from time to time
        except SubscriptionLost:
            there.changed.set()
        await asyncio.sleep(LISTEN_AGAIN_SECONDS)


@asynccontextmanager
async def _transport(where: Where, ended: asyncio.Event) -> AsyncIterator[Any]:
    """The streams of the library's transport; `ended` is set when nothing more can come."""
    async with AsyncExitStack() as stack:
        if where.url is None:
            reading, writing = await stack.enter_async_context(process(where))
        else:
            timeout = httpx2.Timeout(HTTP_SECONDS, read=None)
            http = await stack.enter_async_context(_Reaching(headers=where.headers, timeout=timeout))
            streams = streamable_http_client(where.url, http_client=http, max_sse_event_size=ANSWER_BYTES_MAX)
            reading, writing = await stack.enter_async_context(streams)
        yield _Noticed(reading, ended), writing


class _Noticed:
    """A stream of the library that says when it has ended."""

    def __init__(self, stream: Any, ended: asyncio.Event) -> None:
        self._stream = stream
        self._ended = ended

    async def __anext__(self) -> Any:
        over = True
        try:
            item = await self._stream.__anext__()
            over = False
            return item
        finally:
            if over:
                self._ended.set()

    def __aiter__(self) -> _Noticed:
        return self

    async def __aenter__(self) -> _Noticed:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._stream.__aexit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Reaching(httpx2.AsyncClient):
    """Answers for a server that cannot be reached: of such a request it is known that nobody has seen it."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            return await super().send(request, **options)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            error = {"code": UNREACHABLE, "message": "the server cannot be reached"}
            return httpx2.Response(503, json={"jsonrpc": "2.0", "id": None, "error": error}, request=request)


def _meta(context: ToolContext) -> Any:
    """What goes with a call beside its arguments: the idempotency key."""
    return {"holdfast/key": context.key}


def _block(part: Any) -> Block:
    match part:
        case types.TextContent():
            return Block(text=part.text)
        case types.ImageContent() | types.AudioContent():
            return Block(kind=part.type, what=part.mime_type, size=_size(part.data))
        case types.EmbeddedResource(resource=types.TextResourceContents() as inner):
            return Block(text=inner.text)
        case types.EmbeddedResource(resource=types.BlobResourceContents() as inner):
            return Block(kind="resource", what=str(inner.uri), size=_size(inner.blob))
        case types.ResourceLink():
            return Block(kind="resource", what=str(part.uri))
    return Block(kind="part", what=type(part).__name__)


def _size(encoded: str) -> int:
    """Of what is encoded as base64."""
    return len(encoded) * 3 // 4 - encoded[-2:].count("=")
