"""A reader is a cursor: where it begins, what it is sent, when it is live. PROTOCOL.md §1, §1.1, §3.3, §3.4."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.wire.frames import Limits, Standing, events_frame
from app.wire.reader import Behind, Reader


@dataclass
class Tail:
    """A feed that holds these seqs after `floor`, two to a frame."""

    head: int
    floor: int = 0
    seqs: list[int] = field(default_factory=list)

    def frame(self, after: int) -> tuple[int, str] | None:
        if after >= self.head:
            return None
        rest = [seq for seq in self.seqs if seq > after]
        through = rest[1] if len(rest) > 2 else self.head
        return through, events_frame(after, through, [f'{{"seq":{seq}}}' for seq in rest if seq <= through])


def reader(after: int, head: int, log: str | None = None) -> Reader:
    return Reader(Standing("L1", head, "idle", "a", "", None, [], []), after, log)


def frames(one: Reader, tail: Tail) -> list[dict[str, Any]]:
    """All that a reader is sent now."""
    sent = []
    while (text := one.pull(tail)) is not None:
        assert isinstance(text, str), text
        sent.append(json.loads(text))
    return sent


@pytest.mark.parametrize(
    ("after", "log", "cursor", "reset"),
    [
        (0, None, 0, False),
        (-1, None, 0, False),
        (-(10**20), None, 0, False),
        (4, None, 4, False),
        (10, None, 10, False),
        (10, "L1", 10, False),
        (11, None, 0, True),
        (10**20, "L1", 0, True),
        (4, "L0", 0, True),
        (0, "L0", 0, True),
        (4, "", 0, True),
    ],
)
def test_where_a_reader_begins(after: int, log: str | None, cursor: int, reset: bool) -> None:
    """PROTOCOL §1, §3.4, FAULTS 22, 38: any integer from 0 to the head; beyond it, or of another log: from 0."""
    one = reader(after, 10, log)
    frame = json.loads(one.attached("c", {"id": "ann", "role": "owner"}, Limits(), 5))
    assert (one.cursor, frame["after"], frame["reset"], frame["head"]) == (cursor, cursor, reset, 10)


def test_replay_then_live_then_as_things_happen() -> None:
    """PROTOCOL §1.1: `events`, one `live` when it has caught up for the first time, then `events`."""
    tail = Tail(5, seqs=[1, 2, 3, 4, 5])
    one = reader(0, 5)
    sent = frames(one, tail)
    assert [frame["type"] for frame in sent] == ["events", "events", "events", "live"]
    assert sent[-1]["through"] == one.cursor == 5
    tail.seqs += [6, 7]
    tail.head = 7
    assert [(frame["type"], frame["after"], frame["through"]) for frame in frames(one, tail)] == [("events", 5, 7)]
    assert frames(one, tail) == []


def test_every_frame_follows_the_one_before() -> None:
    """PROTOCOL §1.1: a frame whose `after` is not the cursor is a fault; P4: no gap, wherever it begins.

    FAULTS 36: whoever asks again is answered from where it stands by now.
    """
    tail = Tail(20, seqs=[1, 2, 3, 7, 8, 12, 13, 14, 20])
    for after in range(21):
        one, cursor, seen = reader(after, 20), after, []
        for frame in frames(one, tail)[:-1]:
            assert frame["after"] == cursor and frame["through"] > cursor
            cursor = frame["through"]
            seen += [event["seq"] for event in frame["events"]]
        assert cursor == 20 and seen == [seq for seq in tail.seqs if seq > after]


def test_a_cursor_among_events_that_no_longer_exist() -> None:
    """PROTOCOL §3.3: numbers may be missing; `through` may be greater than the last event's seq."""
    one = reader(5, 9)
    sent = frames(one, Tail(9, seqs=[1, 8]))
    assert (sent[0]["after"], sent[0]["through"], [event["seq"] for event in sent[0]["events"]]) == (5, 9, [8])


def test_a_cursor_at_the_head_is_live_at_once() -> None:
    sent = frames(reader(9, 9), Tail(9, floor=9))
    assert sent == [{"type": "live", "through": 9}]


def test_what_is_before_the_feed_is_read_from_the_log() -> None:
    """DESIGN §1.4: replay is a cursor that has not caught up; one path, no gap between the two."""
    tail = Tail(10, floor=6, seqs=[7, 8, 9, 10])
    one = reader(2, 10)
    assert one.pull(tail) == Behind(2)
    assert json.loads(one.take(4, events_frame(2, 4, []), 10)) == {
        "type": "events",
        "after": 2,
        "through": 4,
        "events": [],
    }
    assert one.pull(tail) == Behind(4)
    one.take(6, events_frame(4, 6, []), 10)
    assert [frame["after"] for frame in frames(one, tail)[:-1]] == [6, 8]


def test_a_page_of_the_log_may_be_ahead_of_the_feed() -> None:
    """DESIGN §1.3: it was committed, only not published yet; nothing is sent twice."""
    tail = Tail(6, floor=6)
    one = reader(2, 6)
    assert one.pull(tail) == Behind(2)
    one.take(8, events_frame(2, 8, []), 8)
    assert frames(one, tail) == [{"type": "live", "through": 8}]
    tail.seqs, tail.head = [7, 8], 8
    assert frames(one, tail) == []


def test_who_was_shown_the_log_as_it_is_stays_with_it_until_the_feed_knows_as_much() -> None:
    """PROTOCOL §3.3: the feed may still hold the rest of pieces whose beginning the log has left out, as superseded."""
    tail = Tail(6, floor=4, seqs=[5, 6])
    one = reader(2, 6)
    assert one.pull(tail) == Behind(2)
    one.take(4, events_frame(2, 4, []), 9)
    assert one.pull(tail) == Behind(4, 9)
    tail.head, tail.seqs = 8, [5, 6, 8]
    assert one.pull(tail) == Behind(4, 9)
    tail.head, tail.seqs = 9, [9]
    assert [frame["type"] for frame in frames(one, tail)] == ["events", "live"]
    assert one.cursor == 9


def test_live_is_never_before_what_attached_said() -> None:
    """PROTOCOL §1.1: `live.through` ≥ `attached.head`, also where the feed has not heard of it (an append in doubt)."""
    tail = Tail(6, floor=0, seqs=[1, 6])
    one = reader(0, 8)
    assert one.pull(tail) == Behind(0, 8)
    one.take(8, events_frame(0, 8, []), 8)
    assert frames(one, tail) == [{"type": "live", "through": 8}]


def test_a_slow_reader_gets_larger_frames_of_the_same_events() -> None:
    """DESIGN §1.4: there is no queue; live is said once."""
    tail = Tail(2, seqs=[1, 2])
    one = reader(0, 2)
    frames(one, tail)
    tail.seqs, tail.head, tail.floor = [90, 91], 91, 80
    assert one.pull(tail) == Behind(2), "what it missed meanwhile is in the log"
    one.take(91, events_frame(2, 91, []), 91)
    assert frames(one, tail) == []
