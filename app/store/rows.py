"""What every variant of the event log must do alike, as pure functions of values.

Where the rows of an append lie, when an append is fenced, how a page is cut: here once, so that two variants cannot
drift apart. No storage is touched here and nothing is awaited.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

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


def page(after: int, bytes_max: int, head: int, rows: Iterable[tuple[Sequence[int], Sequence[str]]]) -> Page:
    """Cuts a page from rows in order (seqs, texts); takes no more of them than it needs, so they may be lazy."""
    seqs: list[int] = []
    texts: list[str] = []
    size = 0
    for row_seqs, row_texts in rows:
        for seq, text in zip(row_seqs, row_texts, strict=True):
            if seq <= after:
                continue
            size += len(text)
            if seqs and size > bytes_max:
                return Page(after, seqs[-1], head, seqs, texts)
            seqs.append(seq)
            texts.append(text)
    return Page(after, max(after, head), head, seqs, texts)
