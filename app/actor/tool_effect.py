"""One tool call: its slot, its committed start, its work, its one result.

`tool.started` is durable before the tool runs. A deadline and a stop end the work the same way: it is asked to stop and
has a grace time to confirm. What a tool that was given up turns out to have done is reported all the same; core keeps
it as `tool.settled`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from app.actor.patience import until_stored
from app.actor.surroundings import Surroundings
from app.actor.tool_notes import ToolNotes
from app.agent.context import Cancelled, ToolContext, ToolError
from app.agent.mcp import McpTool
from app.agent.tools import Tool
from app.core.bounds import RESULT_CHARS_MAX
from app.core.calls import call_key, parse_arguments, shown_arguments
from app.core.codec import clean
from app.core.commands import Progressed, ToolEnded, ToolStarting
from app.core.effects import ToolCall
from app.core.errors import Corrupt
from app.core.events import Failure, Json
from app.core.state import OpenCall

KILL_SECONDS = 1.0
"""How long a killed process may take to be gone; one that the system itself holds is given up."""

Submit = Callable[[Any], asyncio.Future[Any]]


class ToolWork:
    """Runs one effect. `given_up`: nobody waits for the tool any more, though it still works."""

    def __init__(self, effect: ToolCall, conversation: str, submit: Submit, around: Surroundings) -> None:
        self.effect = effect
        self.given_up = False
        self._key = call_key(effect.run, effect.path, effect.call)
        self._conversation = conversation
        self._submit = submit
        self._around = around
        self._stop = asyncio.Event()
        self._work: asyncio.Task[str] | None = None

    @property
    def started(self) -> bool:
        return self._work is not None

    def stop(self) -> None:
        """Asks the tool to stop; it has the grace time to confirm that it did."""
        self._stop.set()

    async def run(self, tool: Tool | McpTool | None, call: OpenCall, places: asyncio.Semaphore) -> None:
        """The whole effect; ends when the tool has ended, whoever still waits for it."""
        if tool is None:
            failure = Failure(kind="unknown_tool", message=f"The tool {call.tool} is not here any more.")
            await self._submit(ToolEnded(self.effect, 0, error=failure))
            return
        async with places, self._around.tools:
            arguments = await self._arguments(call)
            await self._start()
            began = time.monotonic()
            stopping = threading.Event()
            work = self._work = asyncio.create_task(tool.run(arguments, self._context(stopping)))
            work.add_done_callback(_seen)
            try:
                late = await self._wait(work, tool, stopping)
            except asyncio.CancelledError:
                work.cancel()
                if tool.killable:
                    work.cancel()  # as after a crash: its process goes, too
                raise
        if self.given_up:
            if late is not None:
                await self._submit(ToolEnded(self.effect, _ms(began), error=late))
            late = None
            await asyncio.wait({work})
        await self._submit(await self._truth(work, _ms(began), late, harmless=tool.rerun == "safe"))

    async def _arguments(self, call: OpenCall) -> Json:
        """What the tool gets: always whole."""
        if call.kept is None:
            return shown_arguments(call)
        kept = await until_stored(partial(self._around.log.kept, self._conversation, call.kept))
        if kept is None:
            raise Corrupt(f"{self._conversation}: what was kept as {call.kept} is gone")
        return parse_arguments(kept)

    async def _start(self) -> None:
        """Until the start is durable. Stopped in that very moment, the tool is known not to have begun: it says so."""
        starting = self._submit(ToolStarting(self.effect))
        try:
            await asyncio.wait({starting})
        except asyncio.CancelledError:
            if starting.done() and not starting.cancelled() and starting.result().events:
                failure = Failure(kind="cancelled", message="The call was stopped before it began.")
                self._submit(ToolEnded(self.effect, 0, error=failure))
            raise
        starting.result()

    async def _wait(self, work: asyncio.Task[str], tool: Tool | McpTool, stopping: threading.Event) -> Failure | None:
        """Until the work has ended or is given up. The failure of a missed deadline, if that is what ended it."""
        deadline = tool.timeout if tool.timeout is not None else self._around.tool_seconds
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({work, stopped}, timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if work.done():
            return None
        timed_out = not self._stop.is_set()
        stopping.set()
        work.cancel()
        await asyncio.wait({work}, timeout=self._around.grace_seconds)
        if tool.killable and not work.done():
            work.cancel()  # the second time kills
            await asyncio.wait({work}, timeout=KILL_SECONDS)
        self.given_up = not work.done()
        if not timed_out:
            return None
        if not self.given_up or tool.rerun == "safe":
            return Failure(kind="timeout", message=f"The tool was stopped after {deadline:g} s.")
        message = (
            f"The tool did not end within {deadline:g} s and could not be stopped. "
            "It may or may not have happened: verify before repeating it."
        )
        return Failure(kind="in_doubt", message=message)

    async def _truth(self, work: asyncio.Task[str], ms: int, late: Failure | None, *, harmless: bool) -> ToolEnded:
        """What the tool has done; `late` is what a confirmed stop is called where a deadline asked for it.

        Of a killed tool nobody knows what it has done. A `harmless` one may be repeated: for it, it has just stopped.
        """
        confirmed = late or Failure(kind="cancelled", message="The tool was stopped.")
        if work.cancelled():
            return ToolEnded(self.effect, ms, error=confirmed)
        match work.exception():
            case None:
                result, truncated = await self._cut(self._safe(work.result()))
                return ToolEnded(self.effect, ms, result=result, truncated=truncated)
            case Cancelled():
                return ToolEnded(self.effect, ms, error=confirmed)
            case ToolError(kind="in_doubt") if harmless:
                return ToolEnded(self.effect, ms, error=confirmed)
            case ToolError() as error:
                return ToolEnded(self.effect, ms, error=Failure(kind=error.kind, message=self._safe(error.message)))
            case error:
                return ToolEnded(self.effect, ms, error=Failure(kind="error", message=type(error).__name__))

    async def _cut(self, text: str) -> tuple[str, bool]:
        """A result that is too large for its event is kept whole and cut with a note that says where it is."""
        if len(text) <= RESULT_CHARS_MAX:
            return text, False
        await until_stored(lambda: self._around.log.keep(self._conversation, self._key, text))
        note = f"\n[cut: {len(text):,} characters in all, kept as {self._key}]"
        return text[: RESULT_CHARS_MAX - len(note)] + note, True

    def _safe(self, text: str) -> str:
        """What a tool says, as the log may hold it."""
        return self._around.redact(clean(text))

    def _context(self, stopping: threading.Event) -> ToolContext:
        progress = _Progress(self.effect, self._submit, 1 / self._around.progress_per_second)
        return ToolContext(
            call_id=self.effect.call,
            key=self._key,
            conversation_id=self._conversation,
            run_id=self.effect.run,
            on_progress=progress,
            notes=ToolNotes(self.effect, self._submit, self._safe),
            cancelled=stopping,
            safe=self._safe,
        )


def _seen(work: asyncio.Task[str]) -> None:
    """Nobody may be left to ask for the outcome of a tool that outlives its owner."""
    if not work.cancelled():
        work.exception()


def _ms(began: float) -> int:
    return int((time.monotonic() - began) * 1000)


class _Progress:
    """Progress from any thread, merged: the latest wins, at most one in `pause` seconds goes to the log."""

    def __init__(self, effect: ToolCall, submit: Submit, pause: float) -> None:
        self._effect = effect
        self._submit = submit
        self._pause = pause
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._latest: tuple[str | None, float | None] | None = None
        self._scheduled = False
        self._sent_at = float("-inf")

    def __call__(self, text: str | None, fraction: float | None) -> None:
        with self._lock:
            self._latest = (text, fraction)
            if self._scheduled:
                return
            self._scheduled = True
        self._loop.call_soon_threadsafe(self._schedule)

    def _schedule(self) -> None:
        self._loop.call_later(max(0.0, self._sent_at + self._pause - self._loop.time()), self._send)

    def _send(self) -> None:
        with self._lock:
            latest, self._latest, self._scheduled = self._latest, None, False
        if latest is not None:
            self._sent_at = self._loop.time()
            text, fraction = latest
            self._submit(Progressed(self._effect, text or None, fraction))
