"""Events become records: each is encoded once, and grouped into the rows of one append.

A row holds lasting events, or pieces of one owner. A piece that the same append supersedes is never stored and never
shown; its number is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.core.codec import encode
from app.core.events import Event, owner_of, supersedes
from app.store.event_log import Row


@dataclass(frozen=True, slots=True)
class Record:
    """An event with its seq and its one text; `owner` names what supersedes it, None = lasting."""

    seq: int
    text: str
    owner: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one pass of the wheel has decided, ready to append and to publish."""

    records: list[Record]
    rows: tuple[Row, ...]
    superseded: frozenset[str]
    lasting: bool


def pack(events: list[Event], texts: list[str] | None = None) -> Batch:
    """Encodes the events of one pass (at least one), unless they have their texts, and groups them into rows."""
    texts = [encode(event) for event in events] if texts is None else texts
    superseded = frozenset(owner for event in events if (owner := supersedes(event)) is not None)
    records = [
        Record(event.seq, text, owner)
        for event, text in zip(events, texts, strict=True)
        if (owner := owner_of(event)) is None or owner not in superseded
    ]
    rows: list[Row] = []
    start = 0
    for index in range(1, len(records) + 1):
        if index < len(records) and records[index].owner == records[start].owner:
            continue
        group = records[start:index]
        through = records[index].seq - 1 if index < len(records) else events[-1].seq
        rows.append(Row(through, tuple(r.seq for r in group), tuple(r.text for r in group), group[0].owner))
        start = index
    lasting = any(record.owner is None for record in records)
    return Batch(records, tuple(rows), superseded, lasting)
