"""The one writing connection: whatever waits is committed together, in one transaction and one hop.

While a commit is under way the next jobs gather, so load makes groups larger, not latency endless; there is no timer.
A job that fails on its own fails alone; a store that is out of order fails the whole group and nothing is told. Every
checkpoint happens here. What the jobs mean is not known here.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite

from app.core.errors import Corrupt
from app.store.event_log import Unavailable
from app.store.sqlite_hop import T, blame, hop, primary_code, transaction

WAITING_MAX = 10_000
"""Jobs that may wait; one more is refused with Unavailable."""
GROUP_MAX = 1_000
"""Jobs in one transaction."""
WAL_BYTES = 4_194_304
"""Size of the write-ahead log above which an idle writer moves it into the database."""
WAL_BUSY_BYTES = 3 * WAL_BYTES
"""What a writer without an idle moment lets it grow beyond that."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    run: Callable[[sqlite3.Connection], Any]
    answer: asyncio.Future[Any]
    key: str | None
    alone: bool
    on_commit: Callable[[Any], None] | None
    on_doubt: Callable[[], None] | None


class _Group:
    """Jobs of one transaction. `committing`: it came as far as COMMIT, so a failure leaves its outcome in doubt."""

    def __init__(self, jobs: list[_Job]) -> None:
        self.jobs = jobs
        self.committing = False

    def run(self, connection: sqlite3.Connection) -> list[Any]:
        with transaction(connection):
            results = [job.run(connection) for job in self.jobs]
            self.committing = True
        return results


class Writer:
    """Owns the writing connection until `close`.

    `commits` counts transactions, `failures` jobs that failed for want of a working store; `wal_bytes`: the log's size.
    """

    def __init__(self, connection: aiosqlite.Connection, wal: Path) -> None:
        self.commits = 0
        self.failures = 0
        self.wal_bytes = 0
        self._connection = connection
        self._wal = wal
        self._wal_limit = WAL_BYTES
        self._waiting: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._closed: Unavailable | None = None
        self._damaged: Unavailable | None = None
        self._task = asyncio.create_task(self._work(), name="store writer")

    async def write(
        self,
        run: Callable[[sqlite3.Connection], T],
        *,
        key: str | None = None,
        alone: bool = False,
        on_commit: Callable[[T], None] | None = None,
        on_doubt: Callable[[], None] | None = None,
    ) -> T:
        """Runs a job on the writer's thread, durable on return; raises what the job raises (then nothing is stored).

        Two jobs with the same `key` never share a commit, an `alone` one shares it with none. `on_commit` (with the
        result) or `on_doubt` (COMMIT itself failed) is called on the event loop before the next group begins, even if
        the caller is gone. Raises Unavailable when the store is out of order or too much waits.
        """
        if (refusal := self._damaged or self._closed) is not None:
            raise Unavailable(str(refusal))
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable(f"{WAITING_MAX} jobs wait for the database")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Job(run, answer, key, alone, on_commit, on_doubt))
        self._wake.set()
        return await answer

    def condemn(self, fault: Corrupt) -> None:
        """Stops all writing for good, what waits included: on a damaged file every further write makes it worse."""
        logger.critical("writing has stopped: %s", fault)
        self._damaged = Unavailable(str(fault))

    async def close(self) -> None:
        """Takes no further job, commits what waits, then closes the connection (which checkpoints)."""
        self._closed = Unavailable("the database is closed")
        self._wake.set()
        try:
            await self._task
        finally:
            await self._connection.close()

    async def _work(self) -> None:
        try:
            while self._waiting or self._closed is None:
                if self._waiting:
                    await self._commit(self._take())
                    await self._checkpoint()
                else:
                    self._wake.clear()
                    await self._wake.wait()
        finally:
            self._closed = self._closed or Unavailable("the writer has stopped")
            for job in self._waiting:
                _fail(job, self._closed)

    def _take(self) -> list[_Job]:
        """The next group: in order, as long as no job needs to see another's outcome first."""
        jobs: list[_Job] = []
        keys: set[str | None] = set()
        while self._waiting and len(jobs) < GROUP_MAX:
            job = self._waiting[0]
            if (job.key is not None and job.key in keys) or (job.alone and jobs):
                break
            jobs.append(self._waiting.popleft())
            keys.add(job.key)
            if job.alone:
                break
        return jobs

    async def _commit(self, jobs: list[_Job]) -> None:
        outcome, doubt = await self._try(jobs)
        if isinstance(outcome, BaseException) and primary_code(outcome) == sqlite3.SQLITE_FULL:
            await self._pragma("PRAGMA wal_checkpoint(TRUNCATE)")  # may free what is missing; once is enough
            outcome, doubt = await self._try(jobs)
        if isinstance(outcome, list):
            self.commits += 1
            for job, result in zip(jobs, outcome, strict=True):
                _succeed(job, result)
            return
        fault = blame(outcome)
        if fault is None and len(jobs) > 1:
            for job in jobs:
                await self._commit([job])  # one of them is to blame: it shall fail alone
            return
        if isinstance(fault, Corrupt):
            self.condemn(fault)
        self.failures += 0 if fault is None else len(jobs)
        for job in jobs:
            _fail(job, outcome if fault is None else Unavailable(str(fault)), doubt)

    async def _try(self, jobs: list[_Job]) -> tuple[list[Any] | BaseException, bool]:
        """The results of a group, or what it raised, as a value; and whether its outcome is in doubt."""
        if self._damaged is not None:
            return self._damaged, False
        group = _Group(jobs)
        outcomes = await asyncio.gather(hop(self._connection, group.run), return_exceptions=True)
        outcome: list[Any] | BaseException = outcomes[0]
        return outcome, group.committing and not isinstance(outcome, list)

    async def _checkpoint(self) -> None:
        """Moves the write-ahead log into the database, in an idle moment if there is one."""
        try:
            self.wal_bytes = self._wal.stat().st_size
        except FileNotFoundError:
            self.wal_bytes = 0
        if self.wal_bytes <= WAL_BYTES:
            self._wal_limit = WAL_BYTES
        elif self.wal_bytes > self._wal_limit + (WAL_BUSY_BYTES if self._waiting else 0):
            await self._pragma("PRAGMA wal_checkpoint(PASSIVE)")
            # A reader of another program may have held it back: not again before it has grown by as much once more.
            self._wal_limit = self.wal_bytes + WAL_BYTES

    async def _pragma(self, statement: str) -> None:
        """Housekeeping: a failure is logged, the next commit will tell whether it matters."""
        work = hop(self._connection, lambda connection: connection.execute(statement).fetchall())
        for outcome in await asyncio.gather(work, return_exceptions=True):
            if isinstance(outcome, BaseException):
                logger.warning("%s failed: %s", statement, outcome)


def _succeed(job: _Job, result: Any) -> None:
    if job.on_commit is not None:
        job.on_commit(result)
    if not job.answer.done():
        job.answer.set_result(result)


def _fail(job: _Job, error: BaseException, doubt: bool = False) -> None:
    if doubt and job.on_doubt is not None:
        job.on_doubt()
    if not job.answer.done():
        job.answer.set_exception(error)
