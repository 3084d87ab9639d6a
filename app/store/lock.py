"""One process per data directory: an operating-system lock, which ends with the process however it dies.

A file with a process id in it would outlive a `kill -9`; the id is written for people only. Nothing else may decide
who owns the directory.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

from app.core.errors import HoldfastError
from app.store.event_log import Unavailable

POLL_SECONDS = 0.05


class Locked(HoldfastError):
    """Another process has this data directory."""


class Lock:
    """A lock that is held; `release` or the end of the process gives it back."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        os.close(self._descriptor)


async def acquire(path: Path, wait_seconds: float) -> Lock:
    """Takes the lock, waiting up to `wait_seconds` for a process that is going down; makes the data directory.

    Raises Locked, or Unavailable where there can be no such directory.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(f"the data directory cannot be used: {error.strerror}") from error
    try:
        await _wait(descriptor, wait_seconds)
    except TimeoutError:
        owner = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise Locked(
            f"another process (id {owner}) uses the data directory {path.parent}: stop it first, or give this one "
            "a directory of its own"
        ) from None
    except asyncio.CancelledError:
        os.close(descriptor)
        raise
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
    return Lock(descriptor)


async def _wait(descriptor: int, wait_seconds: float) -> None:
    async with asyncio.timeout(wait_seconds):
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(POLL_SECONDS)
