"""Daily copies of the database, and what becomes of a damaged one: the newest good copy replaces it.

Nothing is ever thrown away: the damaged file is kept aside, whole, for whoever wants to rescue more from it. The count
beside the database (boot.py) goes ahead before the copy is in place, so that however this ends the next start takes the
copy for what it is, an older one. Plain functions that block; nothing here awaits. Off unless told how many to keep.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from app.store.boot import put_ahead

FOLDER = "backups"
ASIDE = "damaged"
EVERY_SECONDS = 86_400
"""A copy is made when the newest one is older than this."""
BYTES_MAX = 1 << 30
"""A larger database is not copied: meanwhile its write-ahead log could not shrink."""
ASIDE_MAX = 3
"""With so many damaged files kept the start is refused: the disk is to blame, and copies would only fill it."""
_INSTRUCTIONS_PER_LOOK = 100_000

logger = logging.getLogger(__name__)


def back_up(database: Path, keep: int, unwanted: Callable[[], bool]) -> Path | None:
    """Makes a copy if one is due and there is something to keep; stops when it is `unwanted`.

    Raises OSError, or sqlite3.Error; then there is no new copy, and the old ones are as they were.
    """
    folder = database.parent / FOLDER
    copies = _copies(folder)
    if copies and time.time() - copies[0].stat().st_mtime < EVERY_SECONDS:
        return None
    size = sum(file.stat().st_size for file in _files(database))
    if size > BYTES_MAX or shutil.disk_usage(database.parent).free < 2 * size:
        logger.warning("no backup was made: the database has %d bytes; make one by other means", size)
        return None
    folder.mkdir(mode=0o700, exist_ok=True)
    fresh = folder / "unfinished"
    fresh.unlink(missing_ok=True)
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        if connection.execute("SELECT 1 FROM log_conversations").fetchone() is None:
            return None
        connection.set_progress_handler(unwanted, _INSTRUCTIONS_PER_LOOK)
        connection.execute("VACUUM INTO ?", (str(fresh),))
    os.chmod(fresh, 0o600)
    _sync(fresh)
    made = fresh.rename(folder / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.db")
    _sync(folder)
    for copy in _copies(folder)[keep:]:
        copy.unlink()
    return made


def restore(database: Path) -> Path | None:
    """Puts the newest good copy in the place of a damaged database, which is kept; None where that can't be done.

    A crash on the way leaves the damaged file in place, or the copy. Raises OSError.
    """
    folder = database.parent / ASIDE
    folder.mkdir(mode=0o700, exist_ok=True)
    copy = next((copy for copy in _copies(database.parent / FOLDER) if _is_good(copy)), None)
    if copy is None or len(list(folder.iterdir())) >= ASIDE_MAX:
        return None
    fresh = database.with_name(f"{database.name}.new")
    shutil.copyfile(copy, fresh)
    os.chmod(fresh, 0o600)
    _sync(fresh)
    put_ahead(database.parent, fresh)
    aside = folder / str(time.time_ns())
    aside.mkdir(mode=0o700)
    wal, shm = (database.with_name(f"{database.name}-{kind}") for kind in ("wal", "shm"))
    os.link(database, aside / database.name)
    if wal.exists():
        wal.rename(aside / wal.name)  # it belongs to the damaged file and must not be taken for the copy's
    shm.unlink(missing_ok=True)
    fresh.replace(database)
    _sync(database.parent)
    return copy


def _copies(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted(folder.glob("*.db"), reverse=True)


def _files(database: Path) -> list[Path]:
    return [file for file in (database, database.with_name(f"{database.name}-wal")) if file.exists()]


def _is_good(copy: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            verdict: list[tuple[str]] = connection.execute("PRAGMA quick_check(1)").fetchall()
            connection.execute("SELECT count(*) FROM log_conversations").fetchone()
            return verdict == [("ok",)]
    except sqlite3.Error:
        return False


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
