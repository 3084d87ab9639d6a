"""What a stranger may send, and what becomes of it: PROTOCOL.md §1.2-§1.3, §4."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.core import commands as c
from app.core.errors import Rejected
from app.wire.close_codes import BAD_FRAMES, TOO_MANY_FRAMES
from app.wire.frames import Limits
from app.wire.inbound import Bucket, Close, Ear, Ping, Refused, Said, Tokens, is_id, parse_object


def hear(text: str | None, now: float = 0.0) -> Said:
    return Ear(Limits(), 0.0).hear(text, now)


def refused(said: Said) -> tuple[str | None, str]:
    """Whose id, and why."""
    assert isinstance(said, Refused), said
    return said.id, said.refusal.code


@pytest.mark.parametrize(
    ("frame", "command"),
    [
        ({"type": "prompt", "text": "t"}, c.Prompt(id="a", text="t")),
        ({"type": "hint", "text": "t"}, c.Hint(id="a", text="t")),
        ({"type": "hint", "text": "t", "interrupt": True}, c.Hint(id="a", text="t", interrupt=True)),
        ({"type": "withdraw", "target": "m"}, c.Withdraw(id="a", target="m")),
        (
            {"type": "approve", "run": "r", "call": ["k"], "digest": "d"},
            c.Approve(id="a", run="r", call=["k"], digest="d"),
        ),
        (
            {"type": "approve", "run": "r", "call": ["p", "k"], "digest": "d", "arguments": {"n": 1}, "always": True},
            c.Approve(id="a", run="r", call=["p", "k"], digest="d", arguments={"n": 1}, always=True),
        ),
        (
            {"type": "deny", "run": "r", "call": ["k"], "digest": "d", "reason": "no"},
            c.Deny(id="a", run="r", call=["k"], digest="d", reason="no"),
        ),
        ({"type": "revoke", "tool": "t"}, c.Revoke(id="a", tool="t")),
        (
            {"type": "settle", "run": "r", "call": ["k"], "outcome": "done", "result": "x"},
            c.Settle(id="a", run="r", call=["k"], outcome="done", result="x"),
        ),
        ({"type": "cancel"}, c.Cancel(id="a")),
        ({"type": "cancel", "run": "r"}, c.Cancel(id="a", run="r")),
        ({"type": "suspend"}, c.Suspend(id="a")),
        ({"type": "resume", "tokens": 5, "steps": 6}, c.Resume(id="a", tokens=5, steps=6)),
        ({"type": "rename", "title": "T"}, c.Rename(id="a", title="T")),
        ({"type": "note", "kind": "decision", "text": "t"}, c.Note(id="a", kind="decision", text="t")),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_every_command_of_the_protocol(frame: dict[str, Any], command: c.FromClient) -> None:
    """PROTOCOL §1.2; unknown fields are ignored (FAULTS 45)."""
    assert hear(json.dumps({"id": "a", **frame})) == command
    assert hear(json.dumps({"id": "a", **frame, "new": {"field": 1}, "__proto__": {"x": 1}})) == command


def test_ping_has_no_id() -> None:
    assert hear('{"type":"ping"}') == Ping()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"id": "a"}, "unknown_type"),
        ({"id": "a", "type": "nonsense"}, "unknown_type"),
        ({"id": "a", "type": None}, "unknown_type"),
        ({"id": "a", "type": 7}, "unknown_type"),
        ({"id": "a", "type": []}, "unknown_type"),
        ({"id": "a", "type": {}}, "unknown_type"),
        ({"id": "a", "type": ["ping"]}, "unknown_type"),
        ({"id": "a", "type": "prompt"}, "bad_command"),
        ({"id": "a", "type": "prompt", "text": 7}, "bad_command"),
        ({"id": "a", "type": "prompt", "text": None}, "bad_command"),
        ({"id": "a", "type": "hint", "text": "t", "interrupt": "yes"}, "bad_command"),
        ({"id": "a", "type": "approve", "run": "r", "call": "k", "digest": "d"}, "bad_command"),
        ({"id": "a", "type": "approve", "run": "r", "call": ["k"], "digest": "d", "arguments": [1]}, "bad_command"),
        ({"id": "a", "type": "settle", "run": "r", "call": ["k"], "outcome": "maybe"}, "bad_command"),
        ({"id": "a", "type": "resume", "steps": 1.5}, "bad_command"),
        ({"id": "a", "type": "resume", "steps": True}, "bad_command"),
        ({"id": "a", "type": "note", "text": "t"}, "bad_command"),
        ({"id": "a", "type": "note", "kind": "todo", "text": "t"}, "bad_command"),
        ({"id": "a", "type": "note", "kind": "decision", "text": 7}, "bad_command"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else value,
)
def test_a_command_that_is_none_is_refused_by_its_id(frame: dict[str, Any], code: str) -> None:
    """FAULTS 43, 44: the connection stays; nothing but a refusal comes of it."""
    ear = Ear(Limits(), 0.0)
    assert refused(ear.hear(json.dumps(frame), 0.0)) == ("a", code)
    assert ear.hear('{"type":"ping"}', 0.0) == Ping()


@pytest.mark.parametrize("id", [None, "", "x" * 65, "ä", "a b", "a\n", 7, [], {}, "a/b", True])
def test_an_id_that_is_none(id: object) -> None:
    """PROTOCOL §1.2: 1-64 characters of A-Z a-z 0-9 . _ : - ; the refusal has none then."""
    assert not is_id(id)
    assert refused(hear(json.dumps({"id": id, "type": "cancel"}))) == (None, "bad_command")


def test_an_id_that_is_one() -> None:
    assert is_id("x" * 64) and is_id("A-Z.a_z:0-9")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "7", '"x"', "null", "{]", '{"a":NaN}', '{"a":NaN,"b":"\\ud800"}', '{"a":01}', "\ufeff{}", "{}{}"],
)
def test_the_third_frame_that_is_no_object_closes(text: str) -> None:
    """PROTOCOL §1.3, FAULTS 43, 47: 4400; strict also beside text that takes the slow way."""
    ear = Ear(Limits(), 0.0)
    assert refused(ear.hear(text, 0.0)) == (None, "bad_json")
    assert refused(ear.hear(text, 0.0)) == (None, "bad_json")
    assert isinstance(ear.hear('{"type":"cancel","id":"a"}', 0.0), c.Cancel), "a good one in between changes nothing"
    assert ear.hear(text, 0.0) == Close(BAD_FRAMES)


def test_a_binary_frame_closes_at_once() -> None:
    assert hear(None) == Close(BAD_FRAMES)


def nested(depth: int) -> str:
    """An object of so many levels."""
    return '{"id":"a","type":"approve","run":"r","call":["k"],"digest":"d","arguments":' + (
        '{"a":' * (depth - 2) + "{}" + "}" * (depth - 2) + "}"
    )


def test_nesting_is_bounded() -> None:
    """PROTOCOL §4: 32; FAULTS 46: before any recursion."""
    assert isinstance(hear(nested(32)), c.Approve)
    assert isinstance(hear(nested(33)), Refused)
    for depth in (1_000, 10_000, 100_000):
        assert isinstance(hear(nested(depth)), Refused)
        assert isinstance(hear("[" * depth), Refused)


def test_lone_surrogates_and_nul_are_replaced() -> None:
    """FAULTS 42, 47, PROTOCOL: text holds no lone surrogates (replaced on the way in)."""
    said = hear('{"id":"a","type":"prompt","text":"x\\ud800y\\u0000z\\ud83d\\ude00"}')
    assert isinstance(said, c.Prompt) and said.text == "x\ufffdy\ufffdz😀"
    said = hear('{"id":"a","type":"approve","run":"r","call":["k"],"digest":"d","arguments":{"\\udfff":["\\udc00"]}}')
    assert isinstance(said, c.Approve) and said.arguments == {"\ufffd": ["\ufffd"]}
    msgspec.json.encode(said.arguments)


@pytest.mark.parametrize("number", ["1e999", "9" * 5_000, "-" + "9" * 5_000])
def test_numbers_beyond_all_measure_break_nothing(number: str) -> None:
    """FAULTS 47: whatever comes of it can be written down, also beside text that takes the slow way."""
    for text in ("x", "\\ud800"):
        frame = (
            f'{{"id":"a","type":"approve","run":"r","call":["k","{text}"],"digest":"d","arguments":{{"n":{number}}}}}'
        )
        said = hear(frame)
        if isinstance(said, c.Approve):
            json.loads(msgspec.json.encode(said), parse_constant=pytest.fail)
        else:
            assert refused(said)[1] in ("bad_json", "bad_command")


def test_a_refusal_never_holds_more_than_a_sentence() -> None:
    """PROTOCOL §1.2: a sentence for people; what was sent does not come back."""
    secret = "sk-" + "x" * 1_000
    for frame in (
        {"id": "a", "type": secret},
        {"id": "a", "type": "prompt", "text": [secret]},
        {"id": secret, "type": "cancel"},
    ):
        said = hear(json.dumps(frame))
        assert isinstance(said, Refused) and len(said.refusal.message) < 200
        assert "Traceback" not in said.refusal.message and secret not in said.refusal.message


# --- rates


def test_a_burst_then_a_rate() -> None:
    """PROTOCOL §4, FAULTS security-limits: 100 in a burst, 20 per second; over it `rate_limited`, named by its id."""
    ear = Ear(Limits(), 0.0)
    for number in range(100):
        assert isinstance(ear.hear(f'{{"type":"cancel","id":"a{number}"}}', 0.0), c.Cancel)
    assert refused(ear.hear('{"type":"cancel","id":"over"}', 0.0)) == ("over", "rate_limited")
    assert isinstance(ear.hear('{"type":"cancel","id":"later"}', 0.051), c.Cancel)
    assert refused(ear.hear('{"type":"cancel","id":"over"}', 0.051))[1] == "rate_limited"


def test_a_flood_closes() -> None:
    """PROTOCOL §1.3, FAULTS 48, security-limits: over twice the burst within 10 s: 4429."""
    ear = Ear(Limits(), 0.0)
    answers = [ear.hear('{"type":"ping"}', 0.0) for _ in range(201)]
    assert answers.count(Ping()) == 100 and all(isinstance(said, Refused) for said in answers[100:200])
    assert answers[200] == Close(TOO_MANY_FRAMES)


def test_who_keeps_to_the_rate_is_never_closed() -> None:
    """PROTOCOL §4: 20 per second for ever."""
    ear = Ear(Limits(), 0.0)
    assert all(ear.hear('{"type":"ping"}', number / 19.9) == Ping() for number in range(5_000))


def test_bytes_are_counted_like_frames() -> None:
    """FAULTS 40, 48: what is over takes nothing, so that a smaller one still goes."""
    tokens = Tokens(rate=100, burst=1_000, now=0.0)
    assert tokens.take(0.0, 1_000) and not tokens.take(0.0, 1) and not tokens.take(1.0, 101) and tokens.take(1.0, 100)
    assert not tokens.take(3_600.0, 1_001) and tokens.take(3_600.0, 1_000)


def test_a_bucket_does_not_overflow() -> None:
    """PROTOCOL §4: after a day of silence still one burst."""
    bucket = Bucket(Limits(), 0.0)
    assert sum(bucket.take(86_400.0) for _ in range(300)) == 100


# --- bodies over HTTP


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\xff\xfe", "bad_json"),
        (b"[]", "bad_json"),
        (b"{", "bad_json"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "bad_command"),
    ],
)
def test_a_body_that_is_no_object(body: bytes, code: str) -> None:
    with pytest.raises(Rejected) as refusal:
        parse_object(body, 32)
    assert refusal.value.code == code
