"""`python -m app` that kills itself at one exact commit: `python -m tests.kill.dies_at NUMBER before|after [flags]`.

The commits of the one writing connection are counted; at the wanted one the process is gone by SIGKILL, right before it
or right after it, before anybody hears of it. The product has no hook for this: the transaction is patched here.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from app import __main__ as product
from app.store import sqlite_hop, sqlite_writer


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(number: int, when: str) -> None:
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


if __name__ == "__main__":
    arm(int(sys.argv[1]), sys.argv[2])
    del sys.argv[1:3]
    product.main()
