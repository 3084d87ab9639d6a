"""What every variant of the event log must do alike, as pure functions of values.

Where the rows of an append lie, when an append is fenced, how a page is cut: here once, so that two variants cannot
drift apart. No storage is touched here and nothing is awaited.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, takewhile

from app.store.event_log import SEPARATOR, Append, Fenced, LogTorn, Page, Row


def check(append: Append) -> None:
    """Raises ValueError for an append that no log may hold: the caller is broken, the log stays as it is."""
    position = append.after
    for row in append.rows:
        numbered = len(row.seqs) == len(row.texts) > 0
        if not numbered or row.seqs[0] <= position or row.through < row.seqs[-1]:
            raise ValueError(f"a row after {position} of {append.conversation} does not lie there: {row.seqs}")
        if any(later <= seq for seq, later in zip(row.seqs, row.seqs[1:], strict=False)):
            raise ValueError(f"a row after {position} of {append.conversation} is not ascending: {row.seqs}")
        if row.owner in append.superseded:
            raise ValueError(f"an append to {append.conversation} supersedes its own pieces of {row.owner}")
        if any(SEPARATOR in text for text in row.texts):
            raise ValueError(f"an event after {position} of {append.conversation} holds the separator")
        position = row.through
    if append.superseded and not append.rows:
        raise ValueError(f"an append to {append.conversation} supersedes pieces by nothing")
    if append.item is not None and append.item.conversation != append.conversation:
        raise ValueError(f"an append to {append.conversation} carries the item of {append.item.conversation}")


def check_first(append: Append) -> None:
    """As `check`, for the append that starts a log."""
    check(append)
    if append.after != 0 or not append.rows or append.item is None or append.superseded:
        raise ValueError(f"the first append of {append.conversation} starts at 0, with rows and an item")


def placed(append: Append) -> Iterator[tuple[int, Row]]:
    """The rows of an append, each with the seq that it follows."""
    after = append.after
    for row in append.rows:
        yield after, row
        after = row.through


def end(append: Append) -> int:
    """The head of the log once this append is in it."""
    return append.rows[-1].through if append.rows else append.after


def fence(append: Append, epoch: int, head: int) -> bool:
    """Whether this append is next, given the stored epoch and head; False: at best it is a repeat. Raises Fenced."""
    if append.epoch < epoch:
        raise Fenced(f"{append.conversation}: epoch {append.epoch} is older than {epoch}")
    return append.after == head


def torn(append: Append) -> LogTorn:
    """The refusal of an append that neither follows the head nor repeats what is stored."""
    return LogTorn(f"{append.conversation}: the log does not go on after {append.after}")


def page(after: int, bytes_max: int, head: int, rows: Iterable[tuple[int, Sequence[int], str]]) -> Page:
    """Cuts a page from rows in order (the seq that each follows, its seqs, its joined events).

    A page ends between two rows, but for a first row that is larger than a page. Takes no more rows than it needs, so
    they may be lazy.
    """
    parts: list[tuple[Sequence[int], str]] = []
    size = 0
    for row_after, seqs, events in rows:
        if parts and size + len(events) > bytes_max:
            return Page(after, parts[-1][0][-1], head, parts)
        if row_after < after or len(events) > bytes_max:
            last = seqs[-1]
            seqs, events = _cut(after, bytes_max, seqs, events)
            if not seqs:
                continue
            if seqs[-1] != last:
                return Page(after, seqs[-1], head, [(seqs, events)])
        parts.append((seqs, events))
        size += len(events)
    return Page(after, max(after, head), head, parts)


def _cut(after: int, bytes_max: int, seqs: Sequence[int], events: str) -> tuple[Sequence[int], str]:
    """What of a row comes after a cursor, at most `bytes_max` characters or one event."""
    start = bisect_right(seqs, after)
    texts = events.split(SEPARATOR)
    sizes = accumulate(map(len, texts[start:]))
    fitting = sum(1 for size in takewhile(lambda size: size <= bytes_max, sizes))
    end = start + max(fitting, 1)
    return seqs[start:end], SEPARATOR.join(texts[start:end])
