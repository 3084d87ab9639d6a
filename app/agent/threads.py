"""The threads of synchronous tools: a bounded number of their own, so that a stuck tool takes nothing else down.

asyncio's default executor is never used for them (the store and name resolution live there), and `ThreadPoolExecutor`
neither: its threads are joined at exit, where one stuck tool would keep the process from ending. These are daemons. A
thread lives as long as there is work waiting and ends with it; there are no idle threads to look after.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import TypeVar

from app.agent.context import ToolError

T = TypeVar("T")

THREADS_SPARE = 32
"""Threads for tools that were given up and still run, beside one for each tool that may be at work."""


class Threads:
    """Runs functions in at most `limit` daemon threads; what finds none free waits in order of arrival."""

    def __init__(self, limit: int = THREADS_SPARE) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = 0
        self._open: set[Future[object]] = set()

    def room(self, tools: int) -> None:
        """Sees to it that so many tools at work find a thread each, whatever else is stuck: none waits once started."""
        self.limit = max(self.limit, tools + THREADS_SPARE)

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Runs `function` in the caller's context variables. It must not raise: a raised exception ends its thread.

        `Future.cancel()` succeeds as long as the function has not begun. Raises RuntimeError when the system gives no
        more threads.
        """
        future: Future[T] = Future()
        context = contextvars.copy_context()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                result = context.run(function)
                with contextlib.suppress(InvalidStateError):  # given up by `close`
                    future.set_result(result)

        with self._lock:
            if self._running >= self.limit:
                self._waiting.append(job)
            else:
                threading.Thread(target=self._work, args=(job,), name="holdfast-tool", daemon=True).start()
                self._running += 1
            self._open.add(future)  # type: ignore[arg-type]  # Future is invariant; only its end is touched here
        future.add_done_callback(self._open.discard)
        return future

    def close(self) -> None:
        """Gives up waiting for what still runs, at the end of the process: those calls end as `in_doubt`.

        Without this, a task that waits for a stuck tool would keep `asyncio.run` from returning.
        """
        for future in list(self._open):
            if not future.cancel():
                with contextlib.suppress(InvalidStateError):
                    future.set_exception(ToolError("in_doubt", "The process ended before this tool did."))

    def _work(self, first: Callable[[], None]) -> None:
        job: Callable[[], None] | None = first
        while job is not None:
            job()
            with self._lock:
                job = self._waiting.popleft() if self._waiting else None
                if job is None:
                    self._running -= 1


tool_threads = Threads()
"""The one pool of the process, with `room` for its tools; `tool_threads.close()` at the very end."""
