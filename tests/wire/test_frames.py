"""What the server says, as text: PROTOCOL.md §1.1 frame by frame, and the bounds of §4."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from app.core import commands as c
from app.core import events as e
from app.core.bounds import FRAME_BYTES_MAX
from app.core.errors import Rejected
from app.core.events import Call
from app.wire.frames import (
    FRAME_ROOM,
    Limits,
    Standing,
    accepted_frame,
    attached_frame,
    conversation_deleted_frame,
    conversation_frame,
    draining_frame,
    events_frame,
    heartbeat_frame,
    live_frame,
    rejected_frame,
    split,
    standing,
)
from tests.core.stage import Stage

DECISION = {"decision": "denied", "by": "bob", "at": 1}


def attached(shown: Standing, after: int = 0, *, reset: bool = False) -> dict[str, Any]:
    text = attached_frame(
        "c", shown, after=after, reset=reset, viewer={"id": "ann", "role": "owner"}, limits=Limits(), now=7
    )
    assert len(text.encode()) <= FRAME_BYTES_MAX, "PROTOCOL §1.1: no frame is larger"
    frame: dict[str, Any] = json.loads(text)
    return frame


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        (
            events_frame(3, 5, ['{"seq":4}', '{"seq":5}']),
            {"type": "events", "after": 3, "through": 5, "events": [{"seq": 4}, {"seq": 5}]},
        ),
        (events_frame(3, 9, []), {"type": "events", "after": 3, "through": 9, "events": []}),
        (live_frame(9), {"type": "live", "through": 9}),
        (heartbeat_frame(9, 7), {"type": "heartbeat", "head": 9, "at": 7}),
        (draining_frame(1_000), {"type": "draining", "retry_after_ms": 1_000}),
        (accepted_frame("a", 2, False), {"type": "accepted", "id": "a", "seq": 2, "duplicate": False}),
        (
            rejected_frame(None, Rejected("bad_json", "No.")),
            {"type": "rejected", "id": None, "code": "bad_json", "message": "No."},
        ),
        (
            rejected_frame("a", Rejected("already_decided", "No.", decision=DECISION)),
            {
                "type": "rejected",
                "id": "a",
                "code": "already_decided",
                "message": "No.",
                "decision": DECISION,
            },
        ),
        (conversation_frame({"conversation": "c"}), {"type": "conversation", "item": {"conversation": "c"}}),
        (conversation_deleted_frame("c"), {"type": "conversation_deleted", "conversation": "c"}),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_frame_has_exactly_its_fields(text: str, frame: dict[str, Any]) -> None:
    assert json.loads(text) == frame


def test_attached_when_idle() -> None:
    """PROTOCOL §1.1: `run` is null; `limits` states every bound."""
    stage = Stage()
    frame = attached(standing(stage.state, "L1"), 1)
    assert {name: frame[name] for name in ("type", "protocol", "conversation", "log", "after", "head", "reset")} == {
        "type": "attached", "protocol": 1, "conversation": "c", "log": "L1", "after": 1, "head": 1, "reset": False,
    }  # fmt: skip
    assert (frame["status"], frame["run"], frame["agent"], frame["title"]) == ("idle", None, "a", "")
    assert (frame["approvals"], frame["queued"], frame["now"]) == ([], [], 7)
    assert frame["viewer"] == {"id": "ann", "role": "owner"}
    assert frame["limits"]["frame_bytes"] == 262_144 and frame["limits"]["text_bytes"] == 65_536


def test_attached_describes_the_conversation_at_its_head() -> None:
    """PROTOCOL §1.1: approvals = the open events; queued = what is not yet delivered, in order."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "ask", "guarded")
    stage.begin("k1")
    stage.crash()
    stage.hint("h1", "left")
    stage.prompt("p2", "next")
    frame = attached(standing(stage.state, "L1"))
    assert frame["status"] == "waiting"
    assert frame["run"] == {"run": stage.run.run, "status": "waiting", "started_at": stage.run.started_at, "step": 1}
    events = {event["seq"]: event for event in map(json.loads, stage.texts())}
    assert [event["type"] for event in frame["approvals"]] == ["approval.requested", "doubt.raised"]
    assert all(event == events[event["seq"]] for event in frame["approvals"]), "the events themselves"
    assert frame["queued"] == [
        {"kind": "hint", "target": "h1", "message": "h1", "text": "left", "author": "ann"},
        {"kind": "prompt", "target": "p2", "message": "p2", "text": "next", "author": "ann"},
    ]
    stage.cancel()
    frame = attached(standing(stage.state, "L1"))
    assert (frame["approvals"], frame["queued"], frame["run"]) == ([], [], None)


def test_attached_shows_hints_that_a_drain_has_left_over() -> None:
    """PROTOCOL §1.1: carried and not yet delivered; first, since they start the next run."""
    stage = Stage(steps_max=1)
    stage.prompt()
    stage.hint("h1", "left")
    stage.prompt("p2", "next")
    stage.drain()
    stage.reply("done")
    frame = attached(standing(stage.state, "L1"))
    assert frame["run"] is None
    assert [(words["kind"], words["target"]) for words in frame["queued"]] == [("hint", "h1"), ("prompt", "p2")]
    stage.drain(False)
    stage.crash()
    assert [words["target"] for words in attached(standing(stage.state, "L1"))["queued"]] == ["p2"]


def test_attached_stays_within_its_bound_whatever_waits() -> None:
    """PROTOCOL §1.1: 1,000,000 bytes; digests stay, so that what is cut can still be decided."""
    stage = Stage(queue_max=10)
    stage.prompt()
    for number in range(10):
        stage.prompt(f"q{number}", "\u0001" * 65_000)
    many = "{" + ",".join(f'"a{number}":1e9' for number in range(500)) + "}"
    calls = [Call(call=f"c{number}", tool="guarded", arguments=many) for number in range(120)]
    stage.reply("", *calls)
    frame = attached(standing(stage.state, "L1"))
    assert len(frame["queued"]) == 10 and len(frame["approvals"]) == 120
    assert all(event["digest"] and event.get("truncated") for event in frame["approvals"])


def test_a_small_approval_beside_a_large_one_is_shown_whole() -> None:
    stage = Stage()
    stage.prompt()
    long = '{"text":"' + "x" * 60_000 + '"}'
    calls = [Call(call="small", tool="guarded", arguments='{"n": 1}')]
    calls += [Call(call=f"c{number}", tool="guarded", arguments=long) for number in range(20)]
    stage.reply("", *calls)
    small, large, *_ = attached(standing(stage.state, "L1"))["approvals"]
    assert small["arguments"] == {"n": 1} and "truncated" not in small
    assert 1_000 < len(large["arguments"]["text"]) <= 2_000


def test_a_split_takes_what_fits_and_at_least_one() -> None:
    """PROTOCOL §4: bytes, not characters."""
    chance = random.Random(1)
    for _ in range(200):
        texts = [chance.choice("aé🎉") * chance.randrange(1, 400) for _ in range(chance.randrange(1, 30))]
        most = chance.randrange(FRAME_ROOM + 1, 3_000)
        count = split(texts, most)
        size = len(events_frame(10**9, 10**9, texts[:count]).encode())
        assert count >= 1 and (size <= most or count == 1)
        if count < len(texts):
            assert len(",".join(texts[: count + 1]).encode()) + FRAME_ROOM > most


def test_the_text_of_an_event_is_passed_on_untouched() -> None:
    """DESIGN §1.5, FAULTS 102; PROTOCOL: whoever reads ignores what it does not know."""
    text = '{"type":"mood.changed","seq":4,"at":5,"mood":"\\u00e9",  "x":1.0}'
    assert text in events_frame(3, 4, [text])


def test_what_a_decision_needs_is_in_the_snapshot() -> None:
    """004-23: decision by plain HTTP with only what `attached` or GET says."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "guarded")
    (request,) = standing(stage.state, "L1").approvals
    said = c.Approve(
        id="y", run=request["run"], call=[*request.get("path", []), request["call"]], digest=request["digest"]
    )
    assert stage.say(said)[0] == "approval.decided"
    assert stage.last(e.ApprovalDecided).decision == "approved"
