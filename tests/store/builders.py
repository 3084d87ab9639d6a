"""Values that the tests of the store are written in: rows, items, appends and a writer that knows its place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from app.store.event_log import Append, EventLog, Item, Row
from app.store.log_sqlite import SqliteLog
from app.store.sqlite import Database

OWNER = "ann"


def text(seq: int) -> str:
    return f'{{"type":"noted","seq":{seq}}}'


def row(seqs: Iterable[int], *, through: int | None = None, owner: str | None = None) -> Row:
    numbers = tuple(seqs)
    return Row(through or numbers[-1], numbers, tuple(text(seq) for seq in numbers), owner)


def item(conversation: str = "c", **changes: object) -> Item:
    plain = Item(conversation, "hr", "A title", OWNER, "idle", 1_000, 1_000)
    return replace(plain, **changes)  # type: ignore[arg-type]


def first(conversation: str = "c", *, last: int = 2, creation: str | None = None, run: str | None = None) -> Append:
    """The append that starts a log with the events 1 to `last`."""
    runs = () if run is None else (run,)
    rows = (row(range(1, last + 1)),)
    return Append(conversation, 0, 1, rows, item=item(conversation), runs=runs, creation=creation)


async def make(log: EventLog, conversation: str = "c", *, last: int = 2, **changes: object) -> None:
    """Starts a log whose log id is `log-<conversation>`; `changes` are of its item."""
    append = replace(first(conversation, last=last), item=item(conversation, **changes))
    await log.create(append, f"log-{conversation}", OWNER)


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[SqliteLog]:
    """A log on disk, as one process after the other has it."""
    database = await Database.open(directory)
    try:
        log = SqliteLog(database)
        await log.start()
        yield log
    finally:
        await database.close()


async def whole(log: EventLog, conversation: str = "c", bytes_max: int = 60) -> list[int]:
    """All surviving seqs, read in pages."""
    seqs: list[int] = []
    after = 0
    while True:
        page = await log.read(conversation, after, bytes_max)
        assert page.texts == [text(seq) for seq in page.seqs]
        assert page.after == after
        assert page.through >= max(page.seqs, default=after)
        seqs += page.seqs
        if page.through == page.head:
            return seqs
        assert page.through > after
        after = page.through
