"""SEMANTICS.md §6 on the pure floor: a suspended run as a value: looked at, answered, carried; refused when changed.

Rows 004-2, 004-8, 004-9, 004-10, 004-11, 004-24 and 004-28 of ACCEPTANCE.md, without a server.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from app.agent import Continuation
from app.core.continuation import Place, check, check_readable, decisions, export, is_genuine
from app.core.errors import Rejected
from app.core.events import Call, Json
from app.core.transcript import messages
from tests.core.stage import Stage
from tests.core.world import DEEP

SECRET = b"s" * 32
OTHER = b"o" * 32


def waiting() -> Stage:
    """An agent that waits for one approval of its own and two of a sub-agent inside its sub-agent."""
    stage = Stage(agent=DEEP)
    stage.prompt()
    ask = Call(call="k1", tool="inner", arguments='{"prompt": "do"}')
    stage.reply("Two things.", ask, Call(call="k2", tool="guarded", arguments='{"n": 1}'))
    stage.path = ("k1",)
    stage.reply("", Call(call="k1", tool="inner", arguments='{"prompt": "deeper"}'))
    stage.path = ("k1", "k1")
    # the same id at every level, and twice the same tool
    stage.reply(
        "", Call(call="k1", tool="guarded", arguments='{"n": 2}'), Call(call="k2", tool="guarded", arguments="{}")
    )
    assert stage.state.status == "waiting"
    return stage


def exported(stage: Stage, secret: bytes = SECRET, *, taken: bool = False) -> Json:
    place = Place("c1", "L1", stage.texts(), {"r/k9/arguments-0": "kept"})
    found: Json = msgspec.json.decode(msgspec.json.encode(export(stage.state, place, stage.rules, secret, taken=taken)))
    return found


PATHS = [("k1", "k1", "k1"), ("k1", "k1", "k2"), ("k2",)]


def refusal(object: Any, code: str, *, force: bool = False, secret: bytes = SECRET) -> str:
    with pytest.raises(Rejected) as refused:
        check(object, secret, force=force)
        decisions(object)
    assert refused.value.code == code, refused.value
    return refused.value.message


# --- looked at, answered, carried


def test_004_2_a_continuation_says_what_it_is_and_what_it_waits_for() -> None:
    """004-2, 004-9, 004-11: reason, run, agent; each pending call with its path, ids, exact text and arguments."""
    stage = waiting()
    value = Continuation(exported(stage))
    assert (value.run, value.conversation, value.agent) == (stage.run.run, "c1", "a")
    assert (value.end_reason, value.suspend_list, value.taken) == ("approval_required", [], False)
    assert [one.path_ids for one in value.pending] == PATHS
    assert [one.paths for one in value.pending] == [("inner", "inner", "guarded")] * 2 + [("guarded",)]
    assert [one.arguments for one in value.pending] == [{"n": 2}, {}, {"n": 1}]
    assert [one.tool for one in value.pending] == ["guarded"] * 3
    assert value.pending[0].tool_call["function"]["arguments"] == '{"n": 2}', "byte for byte"
    assert value.messages[0] == {"role": "system", "content": "Be brief."}


def test_004_8_messages_are_what_the_model_gets_next() -> None:
    """004-8: each level's messages, and with the pending results the next request."""
    stage = waiting()
    object = exported(stage)
    top = object["continuation"]
    inmost = top["resume_request"][0]["continuation"]["resume_request"][0]["continuation"]
    for path, said in (((), top), (("k1", "k1"), inmost)):
        pending = {call["id"] for call in said["resume_request"]}
        told = [one for one in messages(stage.state, path, stage.rules) if one.get("tool_call_id") not in pending]
        assert said["messages"] == told and pending


def test_004_10_answers_travel_as_json_and_back() -> None:
    """004-10: approved, denied and open round trip; nothing but the answers changes; the value keeps its own."""
    object = exported(waiting())
    before = copy.deepcopy(object)
    value = Continuation(object)
    value.approve(PATHS[0])
    value.deny(list(PATHS[2]))
    assert [one.path_ids for one in value.pending] == [PATHS[1]]
    assert object == before
    again = Continuation.from_json(value.to_json())
    assert [one.approved for one in again.approvals] == [True, None, False]
    assert [(tuple(path), approved) for path, _, approved in decisions(again.to_object())] == [
        (PATHS[0], True),
        (PATHS[2], False),
    ]
    check(again.to_object(), SECRET, force=False)
    again.decide({PATHS[0]: None, PATHS[2]: None})
    assert again.to_object() == before


@pytest.mark.parametrize("path", [(), ("k1",), ("k1", "k1"), ("k3",), ("k1", "k1", "k1", "k1"), ("k1/k1/k1",)])
def test_004_28_an_answer_to_what_was_not_asked_is_refused(path: tuple[str, ...]) -> None:
    """004-28: unknown path; nothing else of the same decision is taken either."""
    value = Continuation(exported(waiting()))
    with pytest.raises(Rejected) as refused:
        value.decide({PATHS[0]: True, path: True})
    assert refused.value.code == "no_such_approval" and len(value.pending) == 3


# --- what comes back changed


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every plain value in an object."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not isinstance(value, dict | list):
        yield at
    for name, one in inner:
        yield from leaves(one, (*at, name))


def changed(object: Json, at: tuple[Any, ...], change: Any) -> Json:
    """A copy in which this place is changed."""
    copied = copy.deepcopy(object)
    inside: Any = copied
    for name in at[:-1]:
        inside = inside[name]
    change(inside, at[-1])
    return copied


def other(inside: Any, name: Any) -> None:
    """Another value of the same type."""
    match inside[name]:
        case bool(value):
            inside[name] = not value
        case int(value):
            inside[name] = value + 1
        case str(value):
            inside[name] = value + "x"
        case None:
            inside[name] = "x"


def gone(inside: Any, name: Any) -> None:
    del inside[name]


@pytest.mark.parametrize("change", [other, gone])
def test_004_24_whatever_is_changed_is_refused(change: Any) -> None:
    """004-24, 004-28: every single value of the object, changed or taken out; only the answers may differ."""
    object = exported(waiting())
    places = [at for at in leaves(object) if at[-1] != "approved"]
    assert len(places) > 60
    for at in places:
        with pytest.raises(Rejected) as refused:
            check(changed(object, at, change), SECRET, force=False)
        assert refused.value.code in ("digest_mismatch", "bad_command"), at


def test_004_28_versions_shapes_and_depths_have_their_own_refusals() -> None:
    """004-28: newer version, too deep a path, no list, no object; also where `force` trusts another key."""
    object = exported(waiting(), OTHER)
    ours, info = object["holdfast"], object["approval_info"][0]
    assert "version 2" in refusal({**object, "holdfast": {**ours, "version": 2}}, "bad_command", force=True)
    deep = {**object, "approval_info": [{**info, "path_ids": ["k"] * 10}]}
    assert "1 to 9" in refusal(deep, "bad_command", force=True)
    for wrong in ({}, {"path_ids": ["k1"]}, [{**info, "path_ids": [1]}], [{**info, "approved": "yes"}], [None]):
        refusal({**object, "approval_info": wrong}, "bad_command", force=True)
    for name in ("run", "digests", "events", "signature", "key", "taken"):
        refusal({**object, "holdfast": {**ours, name: 7}}, "bad_command", force=True)
        refusal({**object, "holdfast": {one: ours[one] for one in ours if one != name}}, "bad_command", force=True)
    nothings: list[Json] = [{}, {"holdfast": ours}, {"continuation": {}}, {**object, "holdfast": []}]
    for nothing in nothings:
        refusal(nothing, "bad_command", force=True)
    asked_nothing = {**object, "approval_info": [{**info, "path_ids": ["k7"], "approved": True}]}
    refusal(asked_nothing, "no_such_approval", force=True)
    for text in ("{", "[]", "7", '"\\ud800"', "[" * 100_000):
        with pytest.raises(Rejected) as refused:
            Continuation.from_json(text)
        assert refused.value.code == "bad_json"


def test_force_trusts_a_server_that_is_gone_but_not_a_forged_signature_of_ours() -> None:
    object = exported(waiting(), OTHER)
    refusal(object, "digest_mismatch")
    ours, genuine = check(object, SECRET, force=True)
    assert ours.run and not genuine
    object["holdfast"]["signature"] = "0" * 64
    refusal(object, "digest_mismatch", force=True, secret=OTHER)


def test_004_28_an_unsigned_object_must_say_what_its_log_says() -> None:
    """004-28: a missing id in `processed`, another pending call, other arguments, other digests."""
    stage = waiting()
    stage.path = ()
    stage.deny("k2")
    object = exported(stage, OTHER)
    assert object["continuation"]["processed"] == [{"id": "k2", "approved": False}]
    check_readable(object, stage.state, stage.rules)
    for at in leaves(object):
        if at[0] in ("continuation", "approval_info") and not {"messages", "approved"} & set(at):
            for change in (other, gone):
                with pytest.raises(Rejected) as refused:
                    check_readable(changed(object, at, change), stage.state, stage.rules)
                assert refused.value.code == "digest_mismatch", at
    for wrong in ([], [{"id": "k2", "approved": True}], None):
        with pytest.raises(Rejected):
            check_readable(changed(object, ("continuation", "processed"), lambda i, n, to=wrong: i.update({n: to})),
                           stage.state, stage.rules)  # fmt: skip


def test_004_10_processed_lists_what_was_decided() -> None:
    """004-10: approved and denied, by the server only, at their level."""
    stage = waiting()
    stage.path = ()
    stage.deny("k2")
    stage.path = ("k1", "k1")
    stage.approve("k1")
    stage.begin("k1")
    stage.end("k1")
    top = exported(stage)["continuation"]
    inmost = top["resume_request"][0]["continuation"]["resume_request"][0]["continuation"]
    assert top["processed"] == [{"id": "k2", "approved": False}]
    assert inmost["processed"] == [{"id": "k1", "approved": True}]
    assert [call["id"] for call in inmost["resume_request"]] == ["k2"]


def test_a_signature_does_not_depend_on_the_order_of_keys() -> None:
    """Other languages and stores sort as they like."""
    object = exported(waiting())
    chance = random.Random(7)

    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            names = chance.sample(list(value), len(value))
            return {name: shuffled(value[name]) for name in names}
        return [shuffled(one) for one in value] if isinstance(value, list) else value

    assert is_genuine(shuffled(object), SECRET)
