"""The life of one MCP server: connected, its tools listed, and again whenever it was lost. One task each.

The process does not depend on it: it waits a moment at its start, then goes on; what a server offered last stays known
while it is away, and a call to it fails at once. How the library is spoken to is in mcp_client.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from app.agent.context import ToolContext, ToolError
from app.agent.tools import contained
from app.core.events import Json
from app.core.state import Told

if TYPE_CHECKING:
    from app.agent.mcp_client import Connected

logger = logging.getLogger(__name__)

START_SECONDS = 10.0
"""How long a start waits for its servers' first lists; one that takes longer is there for later runs."""

CONNECT_SECONDS = 60.0
LIST_SECONDS = 30.0
LIST_AGAIN_SECONDS = 60.0
"""How often an idle server is asked for its list, though it says nothing: also whether it is still there."""

LIST_PAUSE_SECONDS = 0.5
LIST_REST = 4.0
"""A list that changes all the time is asked for no more often, and after a rest of so many times what it took."""

BACK_OFF_SECONDS = (0.5, 30.0)
STEADY_SECONDS = 30.0
"""A connection that held so long begins the back-off anew."""

CLOSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Where:
    """How a server is reached. `repr` shows neither variables nor headers: they hold secrets."""

    name: str
    command: tuple[str, ...]
    url: str | None
    env: dict[str, str] = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    cwd: Path | str | None


class Link:
    """A server's connection, shared by all that declare it. Nothing is connected before `open`."""

    def __init__(self, where: Where) -> None:
        self.where = where
        self._listed: Sequence[Told] = ()
        self._offers: dict[frozenset[str] | None, Sequence[Told]] = {}
        self._connected: Connected | None = None
        self._calls = 0
        self._users = 0
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()

    # --- what it offers

    def offers(self, wanted: frozenset[str] | None, bytes_max: int) -> Sequence[Told]:
        """What the server offered last, of the tools that are wanted (None = all), in so many bytes."""
        if (offered := self._offers.get(wanted)) is None:
            from app.agent.mcp_tools import bounded

            meant = [told for told in self._listed if wanted is None or told.origin.tool in wanted]
            offered, left_out = bounded(meant, bytes_max)
            self._offers[wanted] = offered
            self._tell_left_out(left_out, "there are too many; say which ones with only(…)")
        return offered

    async def call(self, told: Told, arguments: Json, context: ToolContext, *, repeatable: bool) -> str:
        """The result of a call. Raises ToolError and CancelledError as `McpTool.run`."""
        connected = self._connected
        if connected is None or connected.ended.is_set():
            raise ToolError("error", f"The server {self.where.name} is not available; nothing was called.")
        if told.digest not in {known.digest for known in self._listed}:
            raise ToolError(
                "error",
                f"The server {self.where.name} does not offer {told.name} any more as this run was told of it; "
                "nothing was called. A new run is told anew.",
            )
        self._calls += 1
        try:
            return await connected.call(told.origin.tool, arguments, context, repeatable=repeatable)
        finally:
            self._calls -= 1

    # --- its life

    def open(self) -> None:
        """Begins to connect, and goes on until it was closed as often."""
        self._users += 1
        if self._users == 1:
            self._tried = asyncio.Event()
            self._task = asyncio.create_task(self._keep(self._tried))

    async def tried(self) -> None:
        """Until the server has told of its tools, or could not."""
        await self._tried.wait()

    async def close(self) -> None:
        self._users -= 1
        if self._users == 0 and self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait({task}, timeout=CLOSE_SECONDS)

    async def _keep(self, tried: asyncio.Event) -> None:
        loop, pause, said = asyncio.get_running_loop(), BACK_OFF_SECONDS[0], ""
        while True:
            began, reason = loop.time(), "it has ended"
            try:
                with contained():
                    await self._stay(tried)
            except ToolError as error:
                reason = _reason(error)
            if self._users == 0:
                return
            tried.set()
            if loop.time() - began > STEADY_SECONDS:
                pause, said = BACK_OFF_SECONDS[0], ""
            if reason != said:  # said once, however often it is tried again
                logger.warning("the MCP server %s is not available: %s", self.where.name, reason)
            said = reason
            await asyncio.sleep(pause)
            pause = min(pause * 2, BACK_OFF_SECONDS[1])

    async def _stay(self, tried: asyncio.Event) -> None:
        """Connects, lists, and lists again where there is reason to; returns when the server has ended."""
        from app.agent.mcp_client import connected

        async with connected(self.where, CONNECT_SECONDS) as there:
            took = await self._list(there)
            self._connected = there
            tried.set()
            try:
                while await there.waited(LIST_AGAIN_SECONDS):
                    if there.changed.is_set():
                        await asyncio.sleep(LIST_PAUSE_SECONDS + LIST_REST * took)
                    elif self._calls:
                        continue  # it may have no time for us, and need not
                    there.changed.clear()
                    try:
                        took = await self._list(there)
                    except TimeoutError:
                        if not self._calls:
                            raise
            finally:
                self._connected = None

    async def _list(self, there: Connected) -> float:
        """Lists the tools, and says how many seconds that took."""
        from app.agent.mcp_tools import fit

        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(LIST_SECONDS):
            declared = await there.list()
            listed, left_out = await asyncio.to_thread(fit, self.where.name, declared)
        if listed != self._listed:
            self._listed, self._offers = listed, {}
            self._tell_left_out(left_out, "too large, or nothing that a person could look through")
        return asyncio.get_running_loop().time() - began

    def _tell_left_out(self, tools: Sequence[str], why: str) -> None:
        if tools:
            shown = ", ".join(repr(tool) for tool in tools[:10]) + (", …" if len(tools) > 10 else "")
            logger.warning(
                "%d tools of the MCP server %s are left out (%s): %s", len(tools), self.where.name, why, shown
            )


@contextlib.asynccontextmanager
async def linked(links: Iterable[Link]) -> AsyncIterator[None]:
    """All of these servers, connected as far as they are there; goes on after START_SECONDS in any case."""
    opened = list(links)
    if opened:
        import app.agent.mcp_client  # here, and not in anybody's time: it takes a while  # noqa: F401
    for link in opened:
        link.open()
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                for link in opened:
                    await link.tried()
        yield
    finally:
        await asyncio.gather(*(link.close() for link in opened))


def _reason(error: ToolError) -> str:
    """What went wrong, in one line: a group of errors by the first one in it."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return repr(f"{type(cause).__name__}: {cause}"[:300])[1:-1] if cause is not None else error.message
