"""The contract of the event log: what outlives the process, and the errors that say what a failed append means.

A log is a chain of rows per conversation. `after` is the seq that a row follows, `through` its last seq; the row
that follows `after` is written once, by the owner whose `epoch` is the newest (fencing). A row holds lasting events
or pieces of one owner, never both: the pieces of an owner are deleted in the very commit that supersedes them. The
text of a row is the JSON of its events joined by `SEPARATOR`, which JSON never contains: merging, cutting at a cursor
and pruning are string work.

An append is atomic, and durable when the call returns. Variants: `log_memory`, `log_sqlite`; one shared suite runs
against both. No driver exception and no transaction leaks out of a variant.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.core.errors import Conflict, Corrupt, HoldfastError

SEPARATOR = "\n"


class Fenced(Conflict):
    """A newer epoch owns this conversation: stop, write nothing more."""


class LogTorn(Conflict):
    """The log does not end where this append follows: drop the memory, claim and fold again."""


class Unavailable(HoldfastError):
    """The store can't answer (full, busy, time-out). For an append the outcome is unknown: retry the same bytes."""


class AlreadyCreated(HoldfastError):
    """This creation id was used before by this owner; `conversation` and `run` are the first answer."""

    def __init__(self, conversation: str, run: str | None) -> None:
        super().__init__(conversation)
        self.conversation = conversation
        self.run = run


@dataclass(frozen=True, slots=True)
class Row:
    """One row of an append. `owner` names the attempt or call that its pieces belong to; None = lasting events.

    `seqs` are the seqs of the events in `texts`, ascending; `through` >= seqs[-1] (pieces superseded within the same
    append are never stored, their numbers are skipped).
    """

    through: int
    seqs: tuple[int, ...]
    texts: tuple[str, ...]
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """What the list of conversations shows, and what recovery asks for; kept beside the log, replaced as a whole.

    `busy`: the owner had work in flight or wanted some: activate it at start. `wake_at` (ms): activate it then.
    `run` is the id of the newest run, `status` one of idle, running, waiting, suspended.
    """

    conversation: str
    agent: str
    title: str
    owner: str
    status: str
    created_at: int
    updated_at: int
    run: str | None = None
    run_status: str | None = None
    started_at: int | None = None
    step: int = 0
    waiting_for: str | None = None
    busy: bool = False
    wake_at: int | None = None


@dataclass(frozen=True, slots=True)
class Append:
    """All that one pass of the wheel has decided for one conversation, committed together or not at all.

    after       seq that the first row follows (0 for a new log)
    epoch       the writer's; larger than the stored one = a claim, which shuts out the older owner
    superseded  owners whose stored pieces this append deletes
    item        the new list item, None = unchanged
    runs        ids of runs that are at home here from now on (found again by `find_run`)
    creation    the creation's idempotency key, for the first append of a log only
    kept        texts that are kept from the start, by name, for the first append of a log only
    """

    conversation: str
    after: int
    epoch: int
    rows: tuple[Row, ...]
    superseded: tuple[str, ...] = ()
    item: Item | None = None
    runs: tuple[str, ...] = ()
    creation: str | None = None
    kept: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log stands: its incarnation, its newest epoch, its last committed seq."""

    log: str
    epoch: int
    head: int
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Surviving events with `after` < seq <= `through`, ascending. `head` = last committed seq when it was read.

    `parts` are (seqs, events joined by SEPARATOR), as stored where possible: a frame is made of them without taking
    them apart.
    """

    after: int
    through: int
    head: int
    parts: Sequence[tuple[Sequence[int], str]] = field(default_factory=list)

    @property
    def seqs(self) -> list[int]:
        return [seq for seqs, _ in self.parts for seq in seqs]

    @property
    def texts(self) -> list[str]:
        return [text for _, events in self.parts for text in events.split(SEPARATOR)]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a log says up to `through`, folded: a cache. `log`: the incarnation that was folded; `stamp`: by which code.

    Whoever reads one decides whether to believe it: a store promises no more than that it gives what it was given.
    """

    log: str
    through: int
    stamp: str
    state: bytes


class EventLog(Protocol):
    """Every method may raise `Unavailable`; those that name a conversation raise `KeyError` where there is none.

    An append that no log may hold (rows out of order, the separator in a text) is a broken caller: `ValueError`.
    """

    async def create(self, append: Append, log: str, owner: str) -> None:
        """Starts a log with its first append (from 0, with rows and an item).

        Raises AlreadyCreated when (owner, append.creation) exists, LogTorn when the conversation does. The same
        again, log id included, succeeds without effect.
        """

    async def append(self, append: Append) -> None:
        """Commits one append; durable on return. The same append again, byte for byte, succeeds without effect, as
        long as all its rows are still stored.

        Raises Fenced, LogTorn (nothing stored), Unavailable (outcome unknown). A refused append never harms
        others that happen to be committed with it.
        """

    async def head(self, conversation: str) -> Head:
        """Where the log stands, deleted ones included. Raises Corrupt when its rows contradict each other."""

    async def read(self, conversation: str, after: int, bytes_max: int) -> Page:
        """Next page of surviving events after a cursor, about `bytes_max` of text, at least one event if there is any.

        At the end of the log `through` == `head`. Raises Corrupt when the chain of lasting rows is broken.
        """

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
        """Items and heads of an owner's conversations, not deleted, newest first: by (created_at, id), descending.

        `before` = strictly less than that (created_at, id). `status`: one of Item.status. `title`: only those whose
        title contains it (case-insensitive, taken literally) or whose id is in `among` (read only with `title`).
        """

    async def item(self, conversation: str) -> tuple[Item, int]:
        """One item and its head, deleted ones included."""

    async def find_run(self, run: str) -> str | None:
        """The conversation in which a run is at home: where it started, or was put back last. None: nowhere here."""

    async def unfinished(self, now: int) -> list[str]:
        """Conversations, not deleted, that are `busy` or whose `wake_at` is not None and <= `now`; oldest first."""

    async def next_wake(self) -> int | None:
        """The earliest `wake_at` of all conversations that are not deleted."""

    async def delete(self, conversation: str, at: int) -> None:
        """Hides a conversation (its log stays until `purge`); again: the first `at` stands."""

    async def restore(self, conversation: str, since: int) -> bool:
        """Undoes a deletion made at or after `since` (ms); False if there is none."""

    async def deleted(self, until: int) -> list[str]:
        """What `purge` would remove now, so that all else that hangs on it can go first; by id."""

    async def purge(self, until: int) -> list[str]:
        """Removes for ever what was deleted before `until` (ms): log, item, kept texts; returns the ids."""

    async def keep(self, conversation: str, ref: str, text: str) -> None:
        """Keeps a text that is too large for an event, durable on return; the same ref again replaces it."""

    async def kept(self, conversation: str, ref: str) -> str | None:
        """A kept text, or None."""

    async def save_snapshot(self, conversation: str, snapshot: Snapshot) -> None:
        """Keeps a snapshot beside the log, in place of the one before; durable on return, gone with the log."""

    async def snapshot(self, conversation: str) -> Snapshot | None:
        """The snapshot that was saved last, or None."""

    async def merge(self, conversation: str, after: int, through: int) -> None:
        """Housekeeping: may join the small rows that lie after `after` and up to `through` (committed long ago) into
        larger ones. Every read gives the same as before.
        """

    async def kept_refs(self, conversation: str) -> list[str]:
        """The names of all kept texts, in their order."""

    async def writable(self) -> bool:
        """Whether an append would be taken right now (the store answers and is not full, read-only or quarantined)."""


async def walk(log: EventLog, conversation: str, after: int, through: int, page_bytes: int) -> AsyncIterator[Page]:
    """The pages of a log, from `after` to the one that reaches `through`. Raises Corrupt where it ends before."""
    while after < through:
        page = await log.read(conversation, after, page_bytes)
        if page.through <= after:
            raise Corrupt(f"{conversation}: the log ends at {after} and should reach {through}")
        yield page
        after = page.through
