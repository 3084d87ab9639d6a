"""SEMANTICS.md §4: approvals, what is always allowed, and doubts, which a person decides in the same way."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from app.core import commands as c
from app.core import events as e
from app.core.codec import digest
from app.core.events import Call
from tests.core.stage import Stage, kinds
from tests.core.world import FakeAgent, FakeTool


def asked(*tools: str, **rules: Any) -> Stage:
    """A run whose model asked for these calls: k1, k2, …"""
    stage = Stage(**rules)
    stage.prompt()
    stage.reply("", *tools)
    return stage


def approve(stage: Stage, **fields: Any) -> c.Approve:
    where = {"run": stage.run.run, "call": ["k1"], "digest": digest("guarded", {})}
    return c.Approve(**{"id": "yes", **where, **fields})


def test_a_marked_call_waits_and_an_unmarked_one_runs() -> None:
    """§5, 004-1: the run is `waiting` as soon as nothing runs and an approval is open."""
    stage = asked("guarded", "safe")
    request = stage.last(e.ApprovalRequested)
    assert (request.call, request.tool, request.arguments) == ("k1", "guarded", {})
    assert request.digest == digest("guarded", {}) and request.expires_at is None
    assert (stage.tools, stage.run.status) == (["k2"], "running")
    stage.begin("k2")
    assert stage.end("k2") == ["tool.returned", "run.suspended"]
    assert (stage.run.status, stage.last(e.RunSuspended).reason, stage.wanted) == ("waiting", "approval", [])


def test_approving_resumes_and_starts_the_call_once() -> None:
    """§4: the decision is durable before the tool starts; a crash between the two starts it once."""
    stage = asked("guarded")
    assert stage.approve() == ["approval.decided", "run.resumed"]
    decided = stage.last(e.ApprovalDecided)
    assert (decided.decision, decided.by, decided.cause, decided.always) == ("approved", "ann", "yes", False)
    assert stage.tools == ["k1"] and not stage.all(e.ToolStarted)
    assert stage.crash() == ["actor.activated"]
    assert stage.tools == ["k1"]
    assert stage.begin() == ["tool.started"]
    assert stage.begin() == [], "it starts once"


def test_denial_is_the_result_and_the_run_goes_on() -> None:
    """§4, 004-14: the tool is not run; refusal text reaches the model."""
    stage = asked("guarded")
    assert stage.deny(reason="too dear") == ["approval.decided", "tool.failed", "run.resumed", "step.started"]
    assert stage.last(e.ApprovalDecided).reason == "too dear"
    assert kinds(stage.all(e.ToolFailed)) == [("k1", "denied")]
    assert not stage.all(e.ToolStarted)
    assert "too dear" in stage.told[-1][1] and stage.told[-1][0] == "tool"


def test_an_agent_with_end_on_denial_ends_the_run() -> None:
    """§4: and closes what is open."""
    stage = asked("guarded", "guarded", agent=FakeAgent(end_on_denial=True))
    assert stage.deny("k1") == [
        "approval.decided", "tool.failed", "approval.decided", "tool.failed", "run.failed",
    ]  # fmt: skip
    assert stage.last(e.ApprovalDecided).decision == "cancelled"
    assert stage.last(e.RunFailed).error.kind == "denied"


@pytest.mark.parametrize("decisions", list(product([True, False], repeat=3)))
def test_decisions_are_independent(decisions: tuple[bool, ...]) -> None:
    """§5, 004-16: each of the combinations gives exactly the decided set; a decided call starts at once."""
    stage = asked("guarded", "guarded", "guarded")
    for n, yes in enumerate(decisions, 1):
        decide = stage.approve if yes else stage.deny
        assert decide(f"k{n}", f"d{n}")[0] == "approval.decided"
        if yes:
            assert f"k{n}" in stage.tools
    approved = [f"k{n}" for n, yes in enumerate(decisions, 1) if yes]
    assert stage.run.top.step == (1 if approved else 2)
    for call in approved:
        stage.begin(call)
        stage.end(call)
    assert [started.call for started in stage.all(e.ToolStarted)] == approved
    assert stage.run.top.step == 2


def test_the_first_decision_wins() -> None:
    """§4, FAULTS 59, 60: the same again is noted; a different one learns who was first and when."""
    stage = asked("guarded")
    said = approve(stage)
    assert stage.say(said, by="ann")[0] == "approval.decided"
    first = stage.last(e.ApprovalDecided)
    stage.at += 100
    assert stage.say(approve(stage, id="again"), by="bob") == ["command.noted"]
    refusal = stage.refuses(c.Deny(id="late", run=stage.run.run, call=["k1"], digest=said.digest), by="bob")
    assert refusal.code == "already_decided"
    assert refusal.details == {"decision": {"decision": "approved", "by": "ann", "at": first.at}}


def test_the_same_decision_with_other_arguments_is_a_different_one() -> None:
    """§4: a different one later → `already_decided`."""
    stage = asked("guarded")
    stage.approve(arguments={"n": 1})
    assert stage.refuses(approve(stage, id="other")).code == "already_decided"
    assert stage.say(approve(stage, id="same", arguments={"n": 1})) == ["command.noted"]


def test_a_decision_is_remembered_after_the_run() -> None:
    """FAULTS 61: after a restart and in a later run too."""
    stage = asked("guarded")
    run, digest = stage.run.run, stage.digest("k1")
    stage.deny()
    stage.reply("so be it")
    stage.crash()
    again: dict[str, Any] = {"run": run, "call": ["k1"], "digest": digest}
    assert stage.say(c.Deny(id="d2", **again)) == ["command.noted"]
    assert stage.refuses(c.Approve(id="d3", **again)).code == "already_decided"


def test_a_decision_about_other_arguments_is_never_the_same_one() -> None:
    """§4: a decision is about run, path and digest."""
    stage = asked("guarded")
    wrong: dict[str, Any] = {"run": stage.run.run, "call": ["k1"], "digest": "x"}
    stage.approve()
    assert stage.refuses(c.Approve(id="d2", **wrong)).code == "digest_mismatch"
    assert stage.refuses(c.Deny(id="d3", **wrong)).code == "digest_mismatch"


def test_after_a_cancel_it_is_closed() -> None:
    """§4, FAULTS 61: `already_closed`."""
    stage = asked("guarded")
    said = approve(stage)
    assert stage.cancel() == ["approval.decided", "tool.failed", "run.cancelled"]
    assert stage.last(e.ApprovalDecided).decision == "cancelled"
    assert kinds(stage.all(e.ToolFailed)) == [("k1", "cancelled")]
    assert stage.refuses(said).code == "already_closed"


def test_while_a_stop_waits_for_tools_it_is_closed_already() -> None:
    """§4, §10: the cancel was accepted; its closing append waits for the grace time."""
    stage = asked("guarded", "never")
    stage.begin("k2")
    said = approve(stage)
    assert stage.cancel() == ["cancel.requested"]
    assert stage.refuses(said).code == "already_closed"
    stage.until_due()
    assert stage.refuses(said).code == "already_closed"


def test_expiry_counts_as_denial() -> None:
    """§4, FAULTS 61: with `expires_in`; the model is told, and a late decision is refused."""
    stage = asked("hurried")
    request = stage.last(e.ApprovalRequested)
    assert request.expires_at == stage.at + 5_000 == stage.plan.wake_at
    said = approve(stage, digest=request.digest)
    assert stage.wait(4_999) == []
    assert stage.until_due() == ["approval.decided", "tool.failed", "run.resumed", "step.started"]
    assert (stage.last(e.ApprovalDecided).decision, kinds(stage.all(e.ToolFailed))) == ("expired", [("k1", "denied")])
    assert stage.refuses(said).code == "already_closed"


def test_a_decision_that_comes_when_time_is_up_is_too_late() -> None:
    """§4, FAULTS 61: also where nobody was awake to say so."""
    stage = asked("hurried")
    said = approve(stage, digest=stage.digest("k1"))
    stage.at += 5_000
    assert stage.refuses(said).code == "already_closed"
    assert stage.crash() == ["actor.activated", "approval.decided", "tool.failed", "run.resumed", "step.started"]


def test_without_expiry_it_waits_for_ever() -> None:
    """§4: slow is not a decision; P5: after a restart too, the same approval (FAULTS 8)."""
    stage = asked("guarded")
    assert stage.plan.wake_at is None
    before = stage.call().approval
    assert stage.wait(10**12) == []
    assert stage.crash() == ["actor.activated"]
    assert stage.call().approval == before and stage.run.status == "waiting"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"run": "another"}, "no_such_approval"),
        ({"call": ["k9"]}, "no_such_approval"),
        ({"call": ["k1", "k1"]}, "no_such_approval"),
        ({"call": []}, "bad_command"),
        ({"digest": "forged"}, "digest_mismatch"),
        ({"arguments": {"wrong": 1}}, "bad_arguments"),
        ({"arguments": {"n": "x" * 70_000}}, "bad_arguments"),
    ],
)
def test_what_is_not_this_approval_is_refused(fields: dict[str, Any], code: str) -> None:
    """§4, FAULTS 35, 62, 63: and it stays open."""
    stage = asked("guarded")
    assert stage.refuses(approve(stage, **fields)).code == code
    assert stage.call().approval is not None
    assert stage.approve()[0] == "approval.decided"


def test_a_decision_about_other_arguments_is_refused() -> None:
    """§4, FAULTS 62: the model has asked for something else meanwhile; a decision is about its own arguments only."""
    stage = Stage()
    stage.prompt()
    stage.reply("", *(Call(call=f"k{n}", tool="guarded", arguments=f'{{"n": {n}}}') for n in (1, 2)))
    for decision in (c.Approve, c.Deny):
        about_the_other = decision(id="d", run=stage.run.run, call=["k2"], digest=stage.digest("k1"))
        assert stage.refuses(about_the_other).code == "digest_mismatch"
    assert stage.approve("k2")[0] == "approval.decided"


def test_a_refused_denial() -> None:
    """§4: bounded, and bound to the digest as well."""
    stage = asked("guarded")
    where: dict[str, Any] = {"run": stage.run.run, "call": ["k1"]}
    assert stage.refuses(c.Deny(id="d1", digest="x", **where)).code == "digest_mismatch"
    long = c.Deny(id="d2", digest=stage.digest("k1"), reason="x" * 5_000, **where)
    assert stage.refuses(long).code == "too_large"


def test_a_running_call_has_no_approval() -> None:
    """PROTOCOL §1.2: none: `no_such_approval`."""
    stage = asked("never")
    stage.begin()
    assert stage.refuses(approve(stage)).code == "no_such_approval"


def test_edited_arguments_replace_are_recorded_run_and_told() -> None:
    """§4: a full replacement, recorded, shown, and told to the model; still so after a crash."""
    stage = Stage()
    stage.prompt()
    stage.reply("", Call(call="k1", tool="guarded", arguments='{"n": 1, "m": 2}'))
    stage.approve(arguments={"n": 7})
    assert stage.last(e.ApprovalDecided).arguments == {"n": 7}
    stage.crash()
    stage.begin()
    assert stage.last(e.ToolStarted).arguments == {"n": 7}
    stage.end(result="booked")
    told = stage.told[-1][1]
    assert '{"n":7}' in told and told.endswith("booked")


def test_always_allows_this_tool_in_this_conversation_until_it_is_revoked() -> None:
    """§4: visible, revocable."""
    stage = asked("guarded")
    stage.approve(always=True)
    assert stage.last(e.ApprovalDecided).always
    stage.begin()
    stage.end()
    stage.reply("", Call(call="k2", tool="guarded", arguments="{}"))
    assert stage.tools == ["k2"] and len(stage.all(e.ApprovalRequested)) == 1
    stage.begin("k2")
    stage.end("k2")
    assert stage.say(c.Revoke(id="r1", tool="guarded")) == ["always.revoked"]
    assert stage.say(c.Revoke(id="r2", tool="guarded")) == ["command.noted"]
    stage.crash()
    stage.reply("", Call(call="k3", tool="guarded", arguments="{}"))
    assert stage.run.status == "waiting"


def test_equal_call_ids_in_two_runs_do_not_collide() -> None:
    """§5: the address holds the run."""
    stage = asked("guarded")
    first = stage.run.run
    stage.deny()
    stage.reply("so be it")
    stage.prompt("p2")
    stage.reply("", "guarded")
    assert stage.refuses(approve(stage, id="x", run=first)).code == "already_decided"
    assert stage.approve() == ["approval.decided", "run.resumed"]


@pytest.mark.parametrize("decide", ["approve", "deny"])
def test_a_decision_during_a_drain_is_carried_out_by_the_next_process(decide: str) -> None:
    """P5, §11: the decision was accepted; nobody has to ask again, and nothing begins before the restart."""
    stage = asked("guarded")
    stage.drain()
    assert getattr(stage, decide)()[-1] == "run.resumed"
    assert stage.wanted == [] and stage.state.unfinished
    stage.drain(False)
    stage.crash()
    assert stage.wanted != []


# --- doubts


def in_doubt(**rules: Any) -> Stage:
    stage = asked("ask", **rules)
    stage.begin()
    assert stage.crash() == ["actor.activated", "doubt.raised", "run.suspended"]
    return stage


def test_a_doubt_waits_for_a_person() -> None:
    """§2, FAULTS 6: `rerun="ask"`."""
    stage = in_doubt()
    raised = stage.last(e.DoubtRaised)
    assert (raised.call, raised.tool, raised.arguments, raised.digest) == ("k1", "ask", {}, digest("ask", {}))
    assert (stage.run.status, stage.last(e.RunSuspended).reason, stage.wanted) == ("waiting", "in_doubt", [])
    assert stage.crash() == ["actor.activated"], "raised once"


def test_done_with_a_result_is_the_result() -> None:
    """§2: done (with a result); nothing runs."""
    stage = in_doubt()
    assert stage.settle("done", result="table 4") == ["doubt.settled", "tool.returned", "run.resumed", "step.started"]
    assert stage.last(e.DoubtSettled).by == "ann"
    assert stage.told[-1] == ("tool", "table 4")


@pytest.mark.parametrize("result", [None, ""])
def test_done_without_a_result_is_told_in_words(result: str | None) -> None:
    """§2: a strict provider takes no empty message."""
    stage = in_doubt()
    stage.settle("done", result=result)
    assert stage.told[-1][1] and stage.last(e.ToolReturned).result == stage.told[-1][1]


def test_rerun_runs_it_once_more_and_says_so() -> None:
    """§2, P6: run again, only because a person said so; a second crash asks again."""
    stage = in_doubt()
    assert stage.settle("rerun") == ["doubt.settled", "run.resumed"]
    assert stage.tool("k1").tries == 2
    assert stage.begin() == ["tool.started"]
    assert stage.crash() == ["actor.activated", "doubt.raised", "run.suspended"]
    assert stage.settle("skip", id="s2") == ["doubt.settled", "tool.failed", "run.resumed", "step.started"]
    assert kinds(stage.all(e.ToolFailed)) == [("k1", "skipped")]


def test_an_answer_of_the_try_before_is_dropped() -> None:
    """DESIGN §4c: an effect's key holds the try."""
    stage = asked("ask")
    stage.begin()
    old = stage.tool("k1")
    stage.crash()
    stage.settle("rerun")
    stage.begin()
    assert stage.report(c.ToolEnded(old, 5, result="late")) == []
    assert stage.end(result="new")[0] == "tool.returned"


def test_settling_twice() -> None:
    """§4 as for approvals: the same is noted, a different one learns who was first."""
    stage = in_doubt()
    run = stage.run.run
    stage.settle("skip")
    assert stage.say(c.Settle(id="s2", run=run, call=["k1"], outcome="skip")) == ["command.noted"]
    refusal = stage.refuses(c.Settle(id="s3", run=run, call=["k1"], outcome="done"))
    assert (refusal.code, refusal.details["decision"]["by"]) == ("already_decided", "ann")
    assert stage.refuses(c.Settle(id="s4", run=run, call=["k2"], outcome="done")).code == "no_such_approval"


def test_a_doubt_is_closed_by_a_cancel() -> None:
    """§2, §10: every call has exactly one result."""
    stage = in_doubt()
    assert stage.cancel() == ["tool.failed", "run.cancelled"]
    assert kinds(stage.all(e.ToolFailed)) == [("k1", "in_doubt")]


def test_a_settled_doubt_during_a_drain_is_carried_out_by_the_next_process() -> None:
    """P5, §11."""
    stage = in_doubt()
    stage.drain()
    assert stage.settle("rerun") == ["doubt.settled", "run.resumed"]
    stage.drain(False)
    stage.crash()
    assert stage.tools == ["k1"]


def test_a_result_that_is_too_long_is_refused() -> None:
    """PROTOCOL §4."""
    stage = in_doubt()
    refusal = stage.refuses(c.Settle(id="s", run=stage.run.run, call=["k1"], outcome="done", result="x" * 70_000))
    assert refusal.code == "too_large"


def test_approved_then_in_doubt_is_asked_again_by_its_own_event() -> None:
    """§2, §4: a guarded tool with `rerun="ask"`."""
    guarded = FakeTool("both", rerun="ask", approval=True)
    stage = asked("both", agent=FakeAgent(tools={"both": guarded}))
    stage.approve()
    stage.begin()
    assert stage.crash() == ["actor.activated", "doubt.raised", "run.suspended"]
    assert stage.settle("rerun") == ["doubt.settled", "run.resumed"]
    assert stage.begin() == ["tool.started"]
