"""Both variants do the same, whatever is asked in whatever order, and SQLite still after it was closed and opened."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from app.core.errors import HoldfastError
from app.store.event_log import Append, EventLog, Row, Snapshot
from app.store.log_memory import MemoryLog
from app.store.log_sqlite import SqliteLog
from app.store.sqlite import Database
from tests.store.builders import item

NAMES = st.sampled_from(["c", "d"])
OWNERS = st.sampled_from([None, None, "a", "b"])
KEYS = st.sampled_from([None, "k1", "k2"])


@st.composite
def row_shapes(draw: st.DrawFn) -> list[tuple[str | None, list[int], int]]:
    """Rows without their place: owner, distances between the seqs, numbers skipped at the end."""
    row = st.tuples(OWNERS, st.lists(st.integers(1, 3), min_size=1, max_size=3), st.sampled_from([0, 0, 1, 2]))
    return draw(st.lists(row, max_size=3))


def place(after: int, shapes: list[tuple[str | None, list[int], int]]) -> tuple[Row, ...]:
    rows = []
    for owner, distances, skipped in shapes:
        seqs = []
        for distance in distances:
            after += distance
            seqs.append(after)
        after += skipped
        rows.append(Row(after, tuple(seqs), tuple(f"{owner} {seq}" for seq in seqs), owner))
    return tuple(rows)


class Variants(RuleBasedStateMachine):
    """Asks both the same and compares what they answer or raise."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.memory = MemoryLog()
        self.database, self.sqlite = self.runner.run(self._open())
        self.heads: dict[str, tuple[int, int]] = {}
        self.appends: list[Append] = []

    async def _open(self) -> tuple[Database, SqliteLog]:
        database = await Database.open(Path(self.folder.name))
        log = SqliteLog(database)
        await log.start()
        return database, log

    def teardown(self) -> None:
        self.runner.run(self.database.close())
        self.runner.close()
        self.folder.cleanup()

    def both(self, ask: Callable[[EventLog], Awaitable[Any]]) -> Any:
        answers = [self.runner.run(_answer(ask, log)) for log in (self.memory, self.sqlite)]
        assert answers[0] == answers[1]
        return answers[0]

    @rule(name=NAMES, key=KEYS, shapes=row_shapes(), log=st.sampled_from(["L1", "L2"]))
    def create(self, name: str, key: str | None, shapes: list[tuple[str | None, list[int], int]], log: str) -> None:
        append = Append(name, 0, 1, place(0, shapes), item=item(name), runs=(f"run-{name}",), creation=key)
        self.both(lambda variant: variant.create(append, log, "ann"))

    @rule(
        name=NAMES,
        shapes=row_shapes(),
        after=st.sampled_from([0, 0, 0, 0, 0, -1, 1]),
        epoch=st.sampled_from([0, 0, 0, 0, -1, 1]),
        superseded=st.sets(st.sampled_from(["a", "b"])),
        title=st.sampled_from([None, "one", "two"]),
    )
    def append(
        self,
        name: str,
        shapes: list[tuple[str | None, list[int], int]],
        after: int,
        epoch: int,
        superseded: set[str],
        title: str | None,
    ) -> None:
        newest, head = self.heads.get(name, (1, 0))
        place_after = max(0, head + after)
        append = Append(
            name,
            place_after,
            max(0, newest + epoch),
            place(place_after, shapes),
            superseded=tuple(sorted(superseded)),
            item=None if title is None else item(name, title=title, busy=title == "one"),
        )
        self.appends.append(append)
        self.both(lambda variant: variant.append(append))

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        if self.appends:
            append = data.draw(st.sampled_from(self.appends))
            self.both(lambda variant: variant.append(append))

    @rule(name=NAMES, cursor=st.integers(-1, 60), bytes_max=st.integers(0, 40))
    def read(self, name: str, cursor: int, bytes_max: int) -> None:
        self.both(lambda variant: _read_on(variant, name, cursor, bytes_max))

    @rule(name=NAMES, after=st.integers(0, 30), length=st.integers(0, 60))
    def merge(self, name: str, after: int, length: int) -> None:
        through = min(after + length, self.heads.get(name, (1, 0))[1])
        self.both(lambda variant: variant.merge(name, after, through))
        self.appends = [one for one in self.appends if one.conversation != name or one.after >= through]

    @rule(name=NAMES, at=st.integers(1, 9))
    def delete(self, name: str, at: int) -> None:
        self.both(lambda variant: variant.delete(name, at))

    @rule(name=NAMES, at=st.integers(1, 9))
    def restore(self, name: str, at: int) -> None:
        self.both(lambda variant: variant.restore(name, at))

    @rule(at=st.integers(1, 9))
    def purge(self, at: int) -> None:
        self.both(lambda variant: variant.deleted(at))
        self.both(lambda variant: variant.purge(at))

    @rule(name=NAMES, text=st.text(st.characters(codec="utf-8"), max_size=5))
    def keep(self, name: str, text: str) -> None:
        self.both(lambda variant: variant.keep(name, "ref", text))
        self.both(lambda variant: variant.kept(name, "ref"))
        self.both(lambda variant: variant.kept_refs(name))

    @rule(name=NAMES, through=st.integers(0, 60), state=st.binary(max_size=5))
    def snapshot(self, name: str, through: int, state: bytes) -> None:
        self.both(lambda variant: variant.save_snapshot(name, Snapshot("L1", through, "code", state)))

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.database.close())
        self.database, self.sqlite = self.runner.run(self._open())

    @invariant()
    def same(self) -> None:
        self.both(lambda variant: variant.items("ann", limit=9))
        self.both(lambda variant: variant.unfinished(0))
        for name in ("c", "d"):
            self.both(lambda variant, name=name: _read_on(variant, name, 0, 10_000))  # type: ignore[misc]
            self.both(lambda variant, name=name: variant.snapshot(name))  # type: ignore[misc]
            answer = self.both(lambda variant, name=name: variant.head(name))  # type: ignore[misc]
            if answer[0] == "returned":
                self.heads[name] = answer[1].epoch, answer[1].head
            else:
                self.heads.pop(name, None)


async def _read_on(log: EventLog, name: str, cursor: int, bytes_max: int) -> tuple[int, int, list[int], list[str]]:
    """All that comes after a cursor, page by page: where a page ends is a variant's own business, within the bound."""
    seqs: list[int] = []
    texts: list[str] = []
    page = await log.read(name, cursor, bytes_max)
    while page.seqs:
        assert len(page.seqs) == 1 or sum(map(len, page.texts)) <= bytes_max
        seqs += page.seqs
        texts += page.texts
        page = await log.read(name, page.through, bytes_max)
    return page.through, page.head, seqs, texts


async def _answer(ask: Callable[[EventLog], Awaitable[Any]], log: EventLog) -> tuple[str, Any]:
    try:
        return "returned", await ask(log)
    except (HoldfastError, KeyError, ValueError) as error:
        return type(error).__name__, str(error)


def test_variants_cannot_be_told_apart() -> None:
    run_state_machine_as_test(Variants, settings=settings(max_examples=40, stateful_step_count=25, deadline=None))
