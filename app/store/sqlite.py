"""The embedded database: one file in the data directory, one writing connection, a few reading ones.

Opening it checks it, brings its schema up to date and counts the start (boot.py). What is stored is not known here;
`log_sqlite` and `archive_sqlite` hand in jobs, each a function of a `sqlite3.Connection` that runs on that
connection's thread. No transaction and no driver error gets out. One process per directory: see lock.py.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import aiosqlite

from app.core.errors import Corrupt
from app.store.backups import ASIDE, back_up, restore
from app.store.boot import count_on, count_start, is_stale, settle, write_beside
from app.store.event_log import Unavailable
from app.store.sqlite_hop import T, blame, connect, hop, transaction
from app.store.sqlite_migrations import migrate
from app.store.sqlite_writer import WAL_BYTES, Writer

FILE = "holdfast.db"
BUSY_MS = 2_000
"""How long a statement waits for another program's lock."""
READERS = 3
"""Reading connections, a thread each; further reads wait."""
READ_SECONDS = 10.0
"""A read that takes longer ends with Unavailable: a long reader keeps the write-ahead log from shrinking."""
BACKUP_LOOK_SECONDS = 3_600.0
"""How often is looked whether a backup is due."""
COUNT_SECONDS = 60.0
"""How often a copy of the database is told from the one that goes on (boot.py), while something is written."""
_INSTRUCTIONS_PER_LOOK = 50_000

logger = logging.getLogger(__name__)


class Database:
    """An open database; `open` makes one, `close` must end it.

    `restored`: an older database was put back, so all log ids are new. `stale`: its runs have not been stopped yet;
    `settle` says that they have.
    """

    def __init__(
        self, path: Path, writer: Writer, readers: list[aiosqlite.Connection], restored: bool, stale: bool, backups: int
    ) -> None:
        self.restored = restored
        self.stale = stale
        self.writer = writer
        self.write = writer.write
        self._path = path
        self._closing = asyncio.Event()
        self._counting = asyncio.create_task(self._count(), name="store count")
        self._copying = asyncio.create_task(self._back_up(backups), name="store backup") if backups else None
        self._readers = readers
        self._free: asyncio.LifoQueue[aiosqlite.Connection] = asyncio.LifoQueue()
        for reader in readers:
            self._free.put_nowait(reader)

    @classmethod
    async def open(cls, directory: Path, *, busy_ms: int = BUSY_MS, backups: int = 0) -> Database:
        """Opens, or makes, the database of a data directory; keeps so many `backups`, and falls back on them.

        Raises Corrupt (the file is damaged, and no backup is good), NewerSchema, or Unavailable (it cannot be read or
        written).
        """
        path = directory / FILE
        try:
            return await cls._open(path, busy_ms, backups)
        except Corrupt as fault:
            try:
                copy = await asyncio.to_thread(restore, path) if backups else None
            except (OSError, sqlite3.Error) as error:
                raise Unavailable(f"the backup of the damaged database cannot be used: {error}") from fault
            if copy is None:
                raise
            said = "%s: done, backup %s is in its place; the damaged file is kept in %s"
            logger.critical(said, fault, copy.name, path.parent / ASIDE)
            return await cls._open(path, busy_ms, backups)

    @classmethod
    async def _open(cls, path: Path, busy_ms: int, backups: int) -> Database:
        try:
            _make(path)
            async with AsyncExitStack() as opened:
                connection = await opened.enter_async_context(connect(path, busy_ms))
                await hop(connection, _prepare)
                restored = await hop(connection, partial(count_start, directory=path.parent))
                stale = await hop(connection, is_stale)
                readers = [await opened.enter_async_context(connect(path, busy_ms)) for _ in range(READERS)]
                for reader in readers:
                    await hop(reader, _prepare_reader)
                opened.pop_all()
        except sqlite3.Error as error:
            if (fault := blame(error)) is not None:
                raise fault from error
            raise
        except OSError as error:
            raise Unavailable(f"the data directory cannot be used: {error}") from error
        if restored:
            logger.warning("an older database was put back: every log has a new id, readers start over")
        return cls(path, Writer(connection, path.with_name(f"{FILE}-wal")), readers, restored, stale, backups)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` in one short reading transaction and returns what it does.

        It sees everything that was committed before. Raises Unavailable, or Corrupt when a text or the file is
        damaged (the file: all writing stops).
        """
        if self._closing.is_set():
            raise Unavailable("the database is closed")
        reader = await self._free.get()
        try:
            return await hop(reader, partial(_read, work))
        except sqlite3.Error as error:
            if (fault := blame(error)) is None:
                raise
            if isinstance(fault, Corrupt):
                self.writer.condemn(fault)
            raise fault from error
        finally:
            self._free.put_nowait(reader)

    async def writable(self) -> bool:
        """Whether a job would be committed right now; tries it with a row that takes new pages."""
        try:
            await self.write(_probe)
        except Unavailable:
            return False
        return True

    async def settle(self) -> None:
        """The runs of an older database have been stopped. Raises Unavailable."""
        await self.write(settle)
        self.stale = False

    async def close(self) -> None:
        """Commits what waits and closes all connections; reads under way end first."""
        if self._closing.is_set():
            return
        self._closing.set()
        await self._counting
        if self._copying is not None:
            await self._copying
        for _ in self._readers:
            await (await self._free.get()).close()
        await self.writer.close()

    async def _count(self) -> None:
        """Counts on from time to time and at the end, whenever there was a commit since."""
        counted = self.writer.commits
        while not self._closing.is_set():
            try:
                async with asyncio.timeout(COUNT_SECONDS):
                    await self._closing.wait()
            except TimeoutError:
                pass
            if self.writer.commits == counted:
                continue
            try:
                await asyncio.to_thread(write_beside, self._path.parent, await self.write(count_on))
            except (Unavailable, OSError) as error:
                logger.warning("a copy of the database made just now could not be told from it: %s", error)
            counted = self.writer.commits

    async def _back_up(self, keep: int) -> None:
        """Makes a backup whenever one is due; the end of the process does not wait for it."""
        while not self._closing.is_set():
            try:
                await asyncio.to_thread(back_up, self._path, keep, self._closing.is_set)
            except (OSError, sqlite3.Error) as error:
                if not self._closing.is_set():
                    logger.warning("no backup could be made: %s", error)
            try:
                async with asyncio.timeout(BACKUP_LOOK_SECONDS):
                    await self._closing.wait()
            except TimeoutError:
                pass


def _make(path: Path) -> None:
    """What people said stays theirs: nobody else on the machine may read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)


def _prepare(connection: sqlite3.Connection) -> None:
    [(mode,)] = connection.execute("PRAGMA journal_mode = WAL").fetchall()
    if mode != "wal":
        raise Unavailable(f"the data directory allows no write-ahead log (journal mode {mode}): is it a network disk?")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # macOS: an ordinary fsync stops at the drive's cache
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES:d}")
    [(verdict,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
    if verdict != "ok":
        raise Corrupt(f"the database file is damaged ({verdict}): restore the newest good backup")
    migrate(connection)


def _prepare_reader(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only = ON")
    connection.create_function("folded", 1, str.casefold, deterministic=True)


def _read(work: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    deadline = time.monotonic() + READ_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _INSTRUCTIONS_PER_LOOK)
    try:
        with transaction(connection, "BEGIN"):
            return work(connection)
    except sqlite3.OperationalError as error:
        if "Could not decode" in str(error):  # Python's own complaint: the file is whole, this text is not
            raise Corrupt(f"a stored text is no text any more ({error})") from error
        raise


def _probe(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT OR REPLACE INTO holdfast (name, value) VALUES ('probe', zeroblob(16384))")
    connection.execute("DELETE FROM holdfast WHERE name = 'probe'")
