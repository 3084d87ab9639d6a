"""The event log in plain dictionaries: for tests, for the simulation, and as the limit that benchmarks compare with.

Same contract as `log_sqlite`, gone with the process. Every method runs without awaiting anything, so each is atomic by
itself; nothing here may ever await in the middle of a change.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from operator import attrgetter

from app.store.event_log import SEPARATOR, AlreadyCreated, Append, Head, Item, Page, Row, Snapshot
from app.store.rows import check, check_first, end, fence, page, placed, torn


@dataclass(frozen=True, slots=True)
class _Stored:
    after: int
    epoch: int
    row: Row


@dataclass(slots=True)
class _Conversation:
    log: str
    epoch: int
    item: Item
    creation: tuple[str, str] | None
    head: int = 0
    deleted_at: int | None = None
    lasting: list[_Stored] = field(default_factory=list)
    pieces: list[_Stored] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    snapshot: Snapshot | None = None

    def holds(self, append: Append) -> bool:
        """Whether every row of this append is stored, byte for byte."""
        stored = {one.after: one for one in (*self.lasting, *self.pieces)}
        return bool(append.rows) and all(
            stored.get(after) == _Stored(after, append.epoch, row) for after, row in placed(append)
        )

    def take(self, append: Append) -> None:
        if append.superseded:
            self.pieces = [one for one in self.pieces if one.row.owner not in append.superseded]
        for after, row in placed(append):
            rows = self.lasting if row.owner is None else self.pieces
            rows.append(_Stored(after, append.epoch, row))
        self.epoch = append.epoch
        self.head = end(append)
        if append.item is not None:
            self.item = append.item

    def rows_from(self, after: int) -> Iterator[tuple[int, Sequence[int], str]]:
        start = max(0, bisect_right(self.lasting, after, key=attrgetter("after")) - 1)
        for one in merge(self.lasting[start:], self.pieces, key=attrgetter("after")):
            yield one.after, one.row.seqs, SEPARATOR.join(one.row.texts)


class MemoryLog:
    """The contract `EventLog` without storage: never raises Unavailable, is always writable."""

    def __init__(self) -> None:
        self._conversations: dict[str, _Conversation] = {}
        self._creations: dict[tuple[str, str], tuple[str, str | None]] = {}
        self._runs: dict[str, str] = {}

    async def create(self, append: Append, log: str, owner: str) -> None:
        check_first(append)
        creation = None if append.creation is None else (owner, append.creation)
        if (known := self._conversations.get(append.conversation)) is not None and known.log == log:
            if known.holds(append):
                return
            raise torn(append)
        if creation in self._creations:
            raise AlreadyCreated(*self._creations[creation])
        if known is not None:
            raise torn(append)
        assert append.item is not None
        if creation is not None:
            self._creations[creation] = append.conversation, append.runs[0] if append.runs else None
        created = _Conversation(log, append.epoch, append.item, creation, kept=dict(append.kept))
        created.take(append)
        self._conversations[append.conversation] = created
        self._start_runs(append)

    async def append(self, append: Append) -> None:
        check(append)
        conversation = self._conversations[append.conversation]
        if fence(append, conversation.epoch, conversation.head):
            conversation.take(append)
            self._start_runs(append)
        elif not conversation.holds(append):
            raise torn(append)

    def _start_runs(self, append: Append) -> None:
        for run in append.runs:
            self._runs[run] = append.conversation

    async def head(self, conversation: str) -> Head:
        known = self._conversations[conversation]
        return Head(known.log, known.epoch, known.head, known.deleted_at is not None)

    async def read(self, conversation: str, after: int, bytes_max: int) -> Page:
        known = self._conversations[conversation]
        return page(after, bytes_max, known.head, known.rows_from(after))

    async def items(
        self,
        owner: str,
        *,
        limit: int,
        status: str | None = None,
        before: tuple[int, str] | None = None,
        title: str | None = None,
        among: Sequence[str] = (),
    ) -> list[tuple[Item, int]]:
        found = [
            (known.item, known.head)
            for conversation, known in self._conversations.items()
            if known.deleted_at is None
            and known.item.owner == owner
            and (status is None or known.item.status == status)
            and (before is None or (known.item.created_at, conversation) < before)
            and (title is None or title.casefold() in known.item.title.casefold() or conversation in among)
        ]
        found.sort(key=lambda pair: (pair[0].created_at, pair[0].conversation), reverse=True)
        return found[: max(limit, 0)]

    async def item(self, conversation: str) -> tuple[Item, int]:
        known = self._conversations[conversation]
        return known.item, known.head

    async def find_run(self, run: str) -> str | None:
        return self._runs.get(run)

    def _visible(self) -> Iterator[Item]:
        return (known.item for known in self._conversations.values() if known.deleted_at is None)

    async def unfinished(self, now: int) -> list[str]:
        found = [item for item in self._visible() if item.busy or (item.wake_at is not None and item.wake_at <= now)]
        found.sort(key=lambda item: (item.created_at, item.conversation))
        return [item.conversation for item in found]

    async def next_wake(self) -> int | None:
        return min((item.wake_at for item in self._visible() if item.wake_at is not None), default=None)

    async def delete(self, conversation: str, at: int) -> None:
        known = self._conversations[conversation]
        if known.deleted_at is None:
            known.deleted_at = at

    async def restore(self, conversation: str, since: int) -> bool:
        known = self._conversations[conversation]
        if known.deleted_at is None or known.deleted_at < since:
            return False
        known.deleted_at = None
        return True

    async def deleted(self, until: int) -> list[str]:
        return sorted(
            conversation
            for conversation, known in self._conversations.items()
            if known.deleted_at is not None and known.deleted_at < until
        )

    async def purge(self, until: int) -> list[str]:
        gone = await self.deleted(until)
        for conversation in gone:
            known = self._conversations.pop(conversation)
            if known.creation is not None:
                del self._creations[known.creation]
        self._runs = {run: at for run, at in self._runs.items() if at in self._conversations}
        return gone

    async def keep(self, conversation: str, ref: str, text: str) -> None:
        self._conversations[conversation].kept[ref] = text

    async def kept(self, conversation: str, ref: str) -> str | None:
        return self._conversations[conversation].kept.get(ref)

    async def save_snapshot(self, conversation: str, snapshot: Snapshot) -> None:
        self._conversations[conversation].snapshot = snapshot

    async def snapshot(self, conversation: str) -> Snapshot | None:
        return self._conversations[conversation].snapshot

    async def merge(self, conversation: str, after: int, through: int) -> None:
        """Rows cost nothing here."""
        self._conversations[conversation]

    async def kept_refs(self, conversation: str) -> list[str]:
        return sorted(self._conversations[conversation].kept)

    async def writable(self) -> bool:
        return True
