"""What a reader saw and what may be said of it: the client's side of PROTOCOL.md, sans-IO.

`Follower` applies frames and raises `Broken` at the first rule that a client can see broken. `surviving`, `faults` and
`differences` judge whole histories. No socket, no clock, nothing of app/: an independent reading of the contract.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Json = dict[str, Any]
Key = tuple[Any, ...]

FRAME_BYTES_MAX = 1_000_000
EVENT_BYTES_MAX = 900_000
STREAMED = ("text.streamed", "reasoning.streamed")
ATTEMPT_ENDS = ("model.replied", "model.interrupted", "model.failed")
CALL_ENDS = ("tool.returned", "tool.failed")
RUN_ENDS = ("run.completed", "run.failed", "run.cancelled", "run.moved")
HINT_ENDS = ("hint.applied", "hint.carried", "hint.withdrawn", "hint.dropped")

_decode = json.JSONDecoder().raw_decode
_events_field = re.compile(r'"events"\s*:\s*\[')
_between = re.compile(r"[\s,]*")


class Broken(AssertionError):
    """The server broke a rule of the contract."""


@dataclass(frozen=True, slots=True)
class Record:
    """An event with the very text it was sent as."""

    seq: int
    text: str
    event: Json

    @property
    def type(self) -> str:
        return str(self.event["type"])


def records_in(text: str) -> list[Record]:
    """The events of a frame, or of an answer of `GET …/events`, with their exact texts."""
    start = _events_field.search(text)
    if start is None:
        return []
    position, records = start.end(), []
    while text[position := _skip(text, position)] != "]":
        event, end = _decode(text, position)
        records.append(Record(event["seq"], text[position:end], event))
        position = end
    return records


def _skip(text: str, position: int) -> int:
    found = _between.match(text, position)
    return found.end() if found else position


def level_of(event: Json) -> Key:
    """Run and path: what identities of calls and attempts are relative to."""
    return (event.get("run"), *event.get("path", ()))


def superseded_by(event: Json) -> Key | None:
    """The name of what takes this piece away when it ends; None for a lasting event."""
    if event["type"] in STREAMED:
        return (*level_of(event), event["step"], event["attempt"])
    return (*level_of(event), event["call"]) if event["type"] == "tool.progressed" else None


def ends(event: Json) -> Key | None:
    """The name of what ends with this event: an attempt or a call."""
    if event["type"] in ATTEMPT_ENDS:
        return (*level_of(event), event["step"], event["attempt"])
    return (*level_of(event), event["call"]) if event["type"] in CALL_ENDS else None


def surviving(records: Iterable[Record]) -> list[Record]:
    """The history without what it supersedes itself (§3.3): what a fresh replay must show."""
    kept = list(records)
    ended = {ends(record.event) for record in kept} - {None}
    return [record for record in kept if superseded_by(record.event) not in ended]


@dataclass
class Follower:
    """One reader's state: a cursor, the records up to it, and the rules of §1.1 checked on every frame."""

    cursor: int = 0
    log: str | None = None
    records: list[Record] = field(default_factory=list)
    attached: Json | None = None
    live: bool = False
    pings: int = 0
    _shown: dict[Key, str] = field(default_factory=dict)
    _from_start: bool = False

    def again(self) -> Follower:
        """The state with which this reader comes back after its connection is gone."""
        return Follower(
            self.cursor, self.log, list(self.records), _shown=dict(self._shown), _from_start=self._from_start
        )

    def receive(self, text: str) -> Json:
        """Apply one frame; what breaks a rule raises `Broken`."""
        _rule(len(text.encode()) <= FRAME_BYTES_MAX, f"frame of {len(text.encode())} bytes")
        frame = json.loads(text)
        _rule(isinstance(frame, dict) and isinstance(frame.get("type"), str), f"no frame: {text[:200]}")
        first = self.attached is None
        _rule(first == (frame["type"] == "attached"), f"exactly one attached, first; got {text[:200]}")
        match frame["type"]:
            case "attached":
                self._attach(frame)
            case "events":
                self._apply(frame, records_in(text))
            case "live":
                _rule(not self.live, "live twice")
                _rule(frame["through"] == self.cursor, f"live through {frame['through']} at cursor {self.cursor}")
                head = self.attached["head"] if self.attached else 0
                _rule(self.cursor >= head, f"live at {self.cursor}, before the head {head} that was announced")
                self.live = True
            case "heartbeat":
                self._beat(frame)
            case "accepted":
                _rule(isinstance(frame["id"], str) and frame["seq"] >= 1, f"receipt {frame}")
                _rule(isinstance(frame["duplicate"], bool), f"receipt {frame}")
            case "rejected":
                _rule({"id", "code", "message"} <= frame.keys(), f"refusal {frame}")
        return dict(frame)

    def _attach(self, frame: Json) -> None:
        self.attached = frame
        if frame["reset"]:
            self.cursor = 0
            self.records.clear()
            self._shown.clear()
        self._from_start = self._from_start or self.cursor == 0
        _rule(frame["after"] == self.cursor, f"attached after {frame['after']}, asked for {self.cursor}")
        _rule(frame["head"] >= self.cursor, f"attached with head {frame['head']} before the cursor {self.cursor}")
        self.log = frame["log"]

    def _apply(self, frame: Json, records: Sequence[Record]) -> None:
        after, through = frame["after"], frame["through"]
        _rule(after == self.cursor, f"events after {after} for the cursor {self.cursor}")
        _rule(through >= after, f"events after {after} through {through}")
        previous = after
        for record in records:
            _rule(previous < record.seq <= through, f"seq {record.seq} after {previous} in a frame through {through}")
            _rule(len(record.text.encode()) <= EVENT_BYTES_MAX, f"event {record.seq} is larger than an event may be")
            self._fold(record.event)
            previous = record.seq
        self.records.extend(records)
        self.cursor = through

    def _beat(self, frame: Json) -> None:
        _rule("seq" not in frame, "a heartbeat with a seq")
        if self.pings:
            self.pings -= 1
        elif self.live:
            _rule(frame["head"] == self.cursor, f"heartbeat head {frame['head']} at cursor {self.cursor}")

    def _fold(self, event: Json) -> None:
        """Pieces append without a gap, and an attempt ends with the text that was shown."""
        if event["type"] in STREAMED:
            key = (event["type"], superseded_by(event))
            shown = self._shown.get(key, "" if self._from_start else None)
            if shown is not None:
                _rule(event["offset"] == len(shown), f"piece at offset {event['offset']} after {len(shown)} characters")
                self._shown[key] = shown + event["text"]
        elif event["type"] in ATTEMPT_ENDS and "text" in event:
            shown = self._shown.pop(("text.streamed", ends(event)), "")
            _rule(event["text"].startswith(shown), f"shown {shown!r:.200} but ended as {event['text']!r:.200}")


def _rule(holds: bool, broken: str) -> None:
    if not holds:
        raise Broken(broken)


def faults(records: Sequence[Record]) -> list[str]:
    """Everything in a whole log (from seq 1) that PROTOCOL.md §3 forbids; empty for a right one."""
    events = [record.event for record in records]
    found = [f"seq {b['seq']} after {a['seq']}" for a, b in pairwise(events) if b["seq"] <= a["seq"]]
    if not events or events[0]["type"] != "conversation.created" or events[0]["seq"] != 1:
        found.append("the log does not begin with conversation.created at seq 1")
    causes = Counter(event["cause"] for event in events if "cause" in event)
    found += [f"cause {cause} on {times} events" for cause, times in causes.items() if times > 1]
    return (
        found
        + _faults_of_runs(events)
        + _faults_of_attempts(events)
        + _faults_of_calls(events)
        + _faults_of_words(events)
    )


def open_run(events: Iterable[Json]) -> str | None:
    """The run that has started and not ended."""
    run: str | None = None
    for event in events:
        if event["type"] == "run.started":
            run = event["run"]
        elif event["type"] in RUN_ENDS:
            run = None
    return run


def _faults_of_runs(events: Sequence[Json]) -> list[str]:
    found: list[str] = []
    running: str | None = None
    ended: dict[str, str] = {}
    for event in events:
        run, kind = event.get("run"), event["type"]
        if run in ended and not (kind == "hint.carried" and ended[run] != "run.cancelled"):
            found.append(f"{kind} at {event['seq']} of run {run} after its {ended[run]}")
        if kind == "run.started":
            if running:
                found.append(f"run {run} started at {event['seq']} while {running} was not over")
            running = run
        elif kind in RUN_ENDS:
            if run != running:
                found.append(f"{kind} at {event['seq']} of {run}, but {running} was running")
            ended[str(run)], running = kind, None
    return found


def _faults_of_attempts(events: Sequence[Json]) -> list[str]:
    found: list[str] = []
    begun: dict[Key, tuple[int, int]] = {}
    unfinished: set[Key] = set()
    for event in events:
        kind, level = event["type"], level_of(event)
        if kind == "step.started":
            at = (event["step"], event["attempt"])
            before = begun.get(level, (0, 0))
            if at not in ((before[0], before[1] + 1), (before[0] + 1, 1)) or (at[0] == before[0] == 0):
                found.append(f"step {at} after {before} at {event['seq']}")
            begun[level] = at
            if any(key[:-2] == level for key in unfinished):
                found.append(f"step {at} at {event['seq']} before the attempt before it had ended")
            unfinished.add((*level, *at))
        elif kind in ATTEMPT_ENDS or kind in STREAMED:
            key = (*level, event["step"], event["attempt"])
            if key not in unfinished:
                found.append(f"{kind} at {event['seq']} of an attempt that is not open")
            if kind in ATTEMPT_ENDS:
                unfinished.discard(key)
    running = open_run(events)
    return found + [f"attempt {key} never ended" for key in unfinished if key[0] != running]


def _faults_of_calls(events: Sequence[Json]) -> list[str]:
    found: list[str] = []
    asked: set[Key] = set()
    started: set[Key] = set()
    ended: set[Key] = set()
    approvals: Counter[Key] = Counter()
    for event in events:
        kind, level = event["type"], level_of(event)
        if kind == "model.replied":
            new = [(*level, call["call"]) for call in event["calls"]]
            found += [f"call {key} asked twice at {event['seq']}" for key in new if key in asked or new.count(key) > 1]
            asked |= set(new)
        elif kind in ("tool.started", "tool.progressed", *CALL_ENDS, "approval.requested", "approval.decided"):
            key = (*level, event["call"])
            if key not in asked or (key in ended and kind != "approval.decided"):
                found.append(f"{kind} at {event['seq']} of call {key}, which is not open")
            if (kind == "tool.started" and key in started) or (kind == "tool.returned" and key not in started):
                found.append(f"{kind} at {event['seq']} of call {key}: started twice or never")
            if kind.startswith("approval."):
                approvals[key] += 1 if kind == "approval.requested" else -1
                if approvals[key] not in (0, 1):
                    found.append(f"{kind} at {event['seq']}: the approval of {key} changed more than once")
            started |= {key} if kind == "tool.started" else set()
            ended |= {key} if kind in CALL_ENDS else set()
        elif kind == "doubt.settled" and event["outcome"] == "rerun":
            started.discard((*level, event["call"]))  # a person lets it start again
    running = open_run(events)
    found += [f"call {key} has no result" for key in asked - ended if key[0] != running]
    return found + [f"approval of {key} was left open" for key, n in approvals.items() if n and key[0] != running]


def _faults_of_words(events: Sequence[Json]) -> list[str]:
    """Every hint has at most one outcome, and exactly one once nothing is running."""
    given = [event["message"] for event in events if event["type"] == "hint.given"]
    outcomes = Counter(event["message"] for event in events if event["type"] in HINT_ENDS)
    found = [f"hint {message} has {times} outcomes" for message, times in outcomes.items() if times > 1]
    found += [f"outcome of hint {message}, which was never given" for message in outcomes if message not in given]
    if open_run(events) is None:
        found += [f"hint {message} has no outcome" for message in given if not outcomes[message]]
    return found


@dataclass
class Differences:
    """A reader's history against the log; all four lists are empty when the promises P1, P2 and P4 held."""

    lost: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    reordered: list[int] = field(default_factory=list)
    phantom: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.reordered or self.phantom)


def differences(seen: Sequence[Record], through: int, log: Sequence[Record]) -> Differences:
    """What a reader with the cursor `through` lost, saw twice, out of order, or saw although it is not in the log."""
    found = Differences()
    logged = {record.seq: record.text for record in log}
    ended = {ends(record.event): record.seq for record in log}
    times = Counter(record.seq for record in seen)
    found.doubled = [seq for seq, n in times.items() if n > 1]
    found.lost = [record.seq for record in surviving(log) if record.seq <= through and record.seq not in times]
    previous = 0
    for record in seen:
        if record.seq < previous:
            found.reordered.append(record.seq)
        previous = record.seq
        owner = superseded_by(record.event)
        superseded = owner is not None and ended.get(owner, 0) > record.seq
        if logged.get(record.seq) != record.text and not (superseded and record.seq not in logged):
            found.phantom.append(record.seq)
    return found
