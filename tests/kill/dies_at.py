"""`python -m app` that kills itself at one exact place: `python -m tests.kill.dies_at WHERE WHEN [flags]`.

    7 before, 7 after             the 7th commit of the one writing connection, before anybody hears of it
    7 migrating                   before the 7th statement of the schema's migrations
    app/actor/actor.py:110 3      when what this line awaits is there for the third time, before it goes on
    FILE awaits                   nowhere: writes each line that had awaited to that file, once for each time

The process is gone by SIGKILL. The product has no hook for this: what is counted is patched here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from app import __main__ as product
from app.store import sqlite_hop, sqlite_migrations, sqlite_writer

APP = str(Path(product.__file__).parent)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm_commit(number: int, when: str) -> None:
    """Makes the writer's transaction number `number` (from 1) the last thing that this process does."""
    committed = 0

    @contextmanager
    def transaction(connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        nonlocal committed
        committed += 1
        with sqlite_hop.transaction(connection, begin):
            yield
            if committed == number and when == "before":
                die()
        if committed == number and when == "after":
            die()

    sqlite_writer.transaction = transaction  # type: ignore[attr-defined]


def arm_migrations(number: int) -> None:
    """Makes this process die before that statement (from 1) of its migrations."""
    statements, seen = sqlite_migrations._statements, 0

    def dying(script: str) -> Iterator[str]:
        nonlocal seen
        for statement in statements(script):
            seen += 1
            if seen == number:
                die()
            yield statement

    sqlite_migrations._statements = dying


def arm_awaits(passing: Callable[[str], None]) -> None:
    """Tells of every step of every task: where in app/ it goes on now."""

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(Stepped(work, passing), loop=loop, **options)

    async def counted(main: Coroutine[Any, Any, None]) -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await asyncio.create_task(main)

    run = uvloop.run
    product.uvloop.run = lambda main: run(counted(main))  # type: ignore[attr-defined]


class Stepped(Coroutine[Any, Any, Any]):
    """A task's coroutine that says where it stands before each step."""

    def __init__(self, work: Any, passing: Callable[[str], None]) -> None:
        self._work, self._passing = work, passing

    def send(self, value: Any) -> Any:
        self._tell()
        return self._work.send(value)

    def throw(self, *error: Any) -> Any:
        self._tell()
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Any:
        return self._work.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)  # what inspects coroutines finds this one's

    def _tell(self) -> None:
        """The innermost line of ours; uvicorn's and starlette's own steps are not told of."""
        place, inner = "", self._work
        while inner is not None:
            frame = getattr(inner, "cr_frame", None)
            if frame is not None and frame.f_code.co_filename.startswith(APP):
                place = f"app{frame.f_code.co_filename.removeprefix(APP)}:{frame.f_lineno}"
            inner = getattr(inner, "cr_await", None)
        if place:
            self._passing(place)


def arm_place(place: str, time: int) -> None:
    """Makes this process die when it comes there for that time (from 1)."""
    times: Counter[str] = Counter()

    def passing(here: str) -> None:
        times[here] += 1
        if here == place and times[here] == time:
            die()

    arm_awaits(passing)


def arm_list(file: str) -> None:
    listing = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def passing(place: str) -> None:
        os.write(listing, f"{place}\n".encode())

    arm_awaits(passing)


if __name__ == "__main__":
    where, when = sys.argv[1:3]
    del sys.argv[1:3]
    if when in ("before", "after"):
        arm_commit(int(where), when)
    elif when == "migrating":
        arm_migrations(int(where))
    elif when == "awaits":
        arm_list(where)
    else:
        arm_place(where, int(when))
    product.main()
