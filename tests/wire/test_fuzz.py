"""Whatever a stranger sends, the answer is a command, a refusal or a close code, and what is decided can be told.

Structure-aware: frames that are almost right, so that they get past the first check and at the next one. `--fuzz N`
makes up N inputs in all, here and in tests/agent/test_fuzz_streams.py.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.codec import decode, encode
from app.core.commands import ClientCommand, Stamp
from app.core.decide import decide
from app.core.errors import Rejected
from app.wire.close_codes import BAD_FRAMES, TOO_MANY_FRAMES
from app.wire.frames import Limits, accepted_frame, rejected_frame
from app.wire.inbound import Close, Ear, Ping, Refused, is_id, parse_command, parse_object
from tests.core.world import World

CODES = {
    "bad_json",
    "bad_command",
    "unknown_type",
    "too_large",
    "text_empty",
    "not_found",
    "not_running",
    "no_such_approval",
    "already_decided",
    "already_closed",
    "digest_mismatch",
    "bad_arguments",
    "already_delivered",
    "queue_full",
    "rate_limited",
    "forbidden",
    "draining",
    "storage_unavailable",
    "internal",
}
TYPES = [
    "prompt",
    "hint",
    "withdraw",
    "approve",
    "deny",
    "revoke",
    "settle",
    "cancel",
    "suspend",
    "resume",
    "rename",
    "ping",
]
FIELDS = [
    "text",
    "interrupt",
    "target",
    "run",
    "call",
    "digest",
    "arguments",
    "always",
    "reason",
    "tool",
    "outcome",
    "result",
    "tokens",
    "steps",
    "title",
]

texts = st.one_of(
    st.sampled_from(
        ["", " ", "go", "k1", "f3", "never", "done", "rerun", "\x00", "\ud800", "\udfff a", "x" * 300, "ü€😀"]
    ),
    st.text(st.characters(), max_size=20),
)
plain = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), texts
)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3), max_leaves=12
)
ids = st.one_of(st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True), texts, values)
fitting: dict[str, st.SearchStrategy[Any]] = {
    "text": texts,
    "title": texts,
    "target": texts,
    "digest": texts,
    "tool": texts,
    "run": st.none() | texts,
    "reason": st.none() | texts,
    "result": st.none() | texts,
    "call": st.lists(texts, max_size=3),
    "arguments": st.none() | st.dictionaries(texts, values, max_size=3),
    "always": st.booleans(),
    "interrupt": st.booleans(),
    "outcome": st.sampled_from(["done", "rerun", "skip", "maybe"]),
    "tokens": st.none() | st.integers(),
    "steps": st.none() | st.integers(),
}


@st.composite
def frames(draw: st.DrawFn) -> dict[str, Any]:
    """Mostly the right fields with mostly the right values."""
    names = draw(st.sets(st.sampled_from(FIELDS), max_size=5)) | set(draw(st.sampled_from([FIELDS, FIELDS, []])))
    frame: dict[str, Any] = {"type": draw(st.sampled_from([*TYPES, *TYPES, "nonsense", None])), "id": draw(ids)}
    for name in names:
        frame[name] = draw(st.one_of(fitting[name], fitting[name], fitting[name], values))
    if draw(st.integers(0, 9)) == 0:
        del frame[draw(st.sampled_from(sorted(frame)))]
    if draw(st.integers(0, 19)) == 0:
        frame["deep"] = json.loads("[" * 60 + "]" * 60)
    return frame


@st.composite
def spoilt(draw: st.DrawFn) -> str:
    """The text of a frame with something cut out, doubled or put in."""
    text = json.dumps(draw(frames()), ensure_ascii=draw(st.booleans()))
    for _ in range(draw(st.integers(0, 3))):
        at, more = draw(st.integers(0, len(text))), draw(st.integers(0, 10))
        put = draw(st.sampled_from(["", text[at : at + more], '"', "{", "]", "\\ud83d", "\x00", "NaN", "1e999", "🙂"]))
        text = text[:at] + put + text[at + draw(st.sampled_from([0, more])) :]
    return text


def fuzz(count: int, what: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Gives so many made up inputs to a check."""
    chosen = settings(
        max_examples=max(count, 10), deadline=None, suppress_health_check=list(HealthCheck), database=None
    )

    @chosen
    @given(what)
    def inner(made_up: Any) -> None:
        check(made_up)

    inner()


@pytest.fixture
def inputs(request: pytest.FixtureRequest) -> int:
    """A sixth of all of them for each test that makes some up."""
    return int(request.config.getoption("--fuzz")) // 6


def is_told(said: Any) -> None:
    """What a socket does with an answer must work: a frame that a strict reader can read."""
    match said:
        case Refused(id, refusal):
            assert id is None or is_id(id)
            assert refusal.code in CODES and refusal.message
            assert len(rejected_frame(id, refusal).encode()) < 10_000
        case Close(code):
            assert code in (BAD_FRAMES, TOO_MANY_FRAMES)
        case ClientCommand(id=id):
            assert is_id(id)
            msgspec.json.decode(accepted_frame(id, 1, duplicate=False))
        case _:
            assert isinstance(said, Ping)


@pytest.mark.timeout(3_600)
def test_an_ear_understands_or_refuses(inputs: int) -> None:
    """FAULTS bonus abuse: bidi, surrogates, depth, sizes, wrong types."""
    fuzz(inputs, spoilt(), lambda text: is_told(Ear(Limits(), 0.0).hear(text, 0.0)))


@pytest.mark.timeout(3_600)
def test_an_ear_survives_a_whole_conversation_of_nonsense(inputs: int) -> None:
    def listen(said: list[str | None]) -> None:
        ear, now = Ear(Limits(burst=5, rate=1), 0.0), 0.0
        for text in said:
            now += 0.1
            answer = ear.hear(text, now)
            is_told(answer)
            if isinstance(answer, Close):
                return

    fuzz(inputs // 4, st.lists(spoilt() | st.none() | st.text(), max_size=12), listen)


@pytest.mark.timeout(3_600)
def test_random_bytes_are_refused(inputs: int) -> None:
    def hear(data: bytes) -> None:
        try:
            assert isinstance(parse_object(data, 32), dict)
        except Rejected as refusal:
            assert refusal.code in ("bad_json", "bad_command")

    bodies = spoilt().map(lambda text: text.encode("utf-8", "surrogatepass"))
    fuzz(inputs, st.one_of(st.binary(max_size=200), bodies, bodies.map(lambda body: body[1:])), hear)


@pytest.mark.timeout(3_600)
def test_an_object_is_a_command_or_is_refused(inputs: int) -> None:
    def parse(frame: dict[str, Any]) -> None:
        try:
            assert is_id(parse_command(frame).id)
        except Rejected as refusal:
            assert refusal.code in ("bad_command", "unknown_type")

    fuzz(inputs // 4, frames(), parse)


@pytest.mark.timeout(3_600)
def test_what_is_decided_can_be_written(inputs: int) -> None:
    """Every accepted command leaves events that can be stored and read; every refusal leaves the state as it was."""
    worlds: list[World] = []

    def do(made: tuple[int, str]) -> None:
        seed, text = made
        while len(worlds) <= seed:
            worlds.append(World(random.Random(len(worlds))))
            for _ in range(60):
                worlds[-1].step()
        world = worlds[seed]
        command = Ear(Limits(), 0.0).hear(text, 0.0)
        if not isinstance(command, ClientCommand):
            return
        before = (world.state.seq, world.state.status, len(world.state.queue), len(world.state.receipts))
        try:
            decision = decide(world.state, command, Stamp(world.at, "owner", world.fresh(), 0.5), world.rules)
        except Rejected as refusal:
            is_told(Refused(command.id, refusal))
            after = (world.state.seq, world.state.status, len(world.state.queue), len(world.state.receipts))
            assert before == after
            return
        assert decision.duplicate or decision.events[0].cause == command.id
        for event in decision.events:
            assert encode(decode(encode(event))) == encode(event)
            assert "\n" not in encode(event)
        world.step()

    good = frames().map(
        lambda frame: json.dumps({**frame, "id": repr(frame.get("id"))[:9].encode("utf-8", "replace").hex()})
    )
    fuzz(inputs, st.tuples(st.integers(0, 7), st.one_of(good, spoilt())), do)
