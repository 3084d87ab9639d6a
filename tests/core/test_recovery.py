"""SEMANTICS.md §1, §2, §11: what a new owner finds and does, the crash-loop guard, and what a drain leaves."""

from __future__ import annotations

import pytest

from app.core import commands as c
from app.core import events as e
from app.core.apply import fold
from app.core.codec import decode, encode
from app.core.decide import decide
from app.core.events import Call
from tests.core.stage import Stage, kinds


def test_a_half_streamed_reply_is_closed_and_asked_again() -> None:
    """§1, FAULTS 4: `attempt + 1` of the same step; the partial reply is left out of the request."""
    stage = Stage()
    stage.prompt()
    before = stage.told
    stage.stream("half of ", "hm ")
    stage.stream("a reply")
    assert stage.crash() == ["actor.activated", "model.interrupted", "step.started"]
    ended = stage.last(e.ModelInterrupted)
    assert (ended.reason, ended.text, ended.reasoning, ended.attempt) == ("crash", "half of a reply", "hm ", 1)
    started = stage.last(e.StepStarted)
    assert (started.step, started.attempt) == (1, 2)
    assert stage.told == before, "the same request again"
    stage.stream("a whole ")
    assert stage.last(e.TextStreamed).offset == 0, "attempt 2 is never appended to attempt 1"


def test_nothing_streamed_is_a_failed_attempt() -> None:
    """PROTOCOL §3.1: an attempt ends in exactly one of three."""
    stage = Stage()
    stage.prompt()
    assert stage.crash() == ["actor.activated", "model.failed", "step.started"]
    assert stage.last(e.ModelFailed).error.kind == "crash"


def test_an_answer_of_an_older_epoch_is_dropped() -> None:
    """DESIGN §4c: the key of an effect holds the epoch."""
    stage = Stage()
    stage.prompt()
    old = stage.model
    stage.crash()
    assert stage.report(c.Streamed(old, "late")) == []
    assert stage.report(c.Replied(old, "late", "", [], "stop", None, asked=1)) == []


def test_two_owners_of_the_same_ms_are_two() -> None:
    """P6, P7: a log takes what it holds already for a repeat, so no two owners may begin with the same bytes."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "guarded")
    begun = set()
    for fresh in ("one", "two"):
        state = fold(decode(text) for text in stage.texts())
        decision = decide(state, c.Activate(state.epoch + 1), c.Stamp(stage.at, "", fresh, 0.5), stage.rules)
        begun.add(encode(decision.events[0]))
    assert len(begun) == 2


def test_a_call_that_had_not_begun_simply_runs() -> None:
    """§2, FAULTS 5 the other way: a call without `tool.started` simply runs."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "never", "ask", "safe")
    assert stage.crash() == ["actor.activated"]
    assert stage.tools == ["k1", "k2", "k3"]


def test_never_is_in_doubt_and_the_model_is_told_neutrally() -> None:
    """§2, FAULTS 5, 7: not run again; it may or may not have happened and must be verified."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "never")
    stage.begin()
    assert stage.crash() == ["actor.activated", "tool.failed", "step.started"]
    assert kinds(stage.all(e.ToolFailed)) == [("k1", "in_doubt")]
    assert "may or may not" in stage.told[-1][1] and "verify" in stage.told[-1][1]


def test_safe_runs_again_with_the_same_id_and_no_second_start() -> None:
    """§2: the call id is the idempotency key; `tool.started` is not written again."""
    stage = Stage()
    stage.prompt()
    stage.reply("", Call(call="k1", tool="safe", arguments='{"n": 1}'))
    stage.begin()
    assert stage.crash() == ["actor.activated"]
    assert stage.tools == ["k1"]
    assert stage.begin() == []
    assert stage.end()[0] == "tool.returned"
    assert [started.arguments for started in stage.all(e.ToolStarted)] == [{"n": 1}]


def test_a_tool_that_is_gone_is_in_doubt() -> None:
    """§2: nobody can say any more what it had declared; the careful default."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "safe")
    stage.begin()
    stage.change(agents={})
    stage.crash()
    assert kinds(stage.all(e.ToolFailed)) == [("k1", "in_doubt")]


def test_a_result_in_the_log_is_never_fetched_again() -> None:
    """§2, 002-14: after the result, before the next model call."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "never", "safe")
    stage.begin("k1")
    stage.end("k1")
    stage.crash()
    assert stage.tools == ["k2"]


def test_what_waits_for_a_time_goes_on_waiting() -> None:
    """§9, §11: the state of these rules lives in the log."""
    stage = Stage()
    stage.prompt()
    stage.fail(retry_after=5)
    wake_at = stage.plan.wake_at
    assert stage.crash() == ["actor.activated"]
    assert stage.plan.wake_at == wake_at
    assert stage.until_due() == ["step.started"]


@pytest.mark.parametrize("crashes", [1, 2])
def test_fewer_crashes_than_the_guard_go_on(crashes: int) -> None:
    """§1."""
    stage = Stage()
    stage.prompt()
    for _ in range(crashes):
        assert "step.started" in stage.crash()


def test_the_third_crash_in_a_step_fails_the_run() -> None:
    """§1, FAULTS 12: consecutive activations that found the same step; queued words go back."""
    stage = Stage()
    stage.prompt()
    stage.hint()
    stage.crash()
    stage.stream("half ")
    stage.crash()
    stage.stream("half ")
    assert stage.crash() == ["actor.activated", "model.interrupted", "run.failed"]
    assert stage.last(e.RunFailed).error.kind == "crash_loop"
    assert "3 times" in stage.last(e.RunFailed).error.message
    assert stage.prompt("p2")[-1] == "step.started", "the conversation goes on"


def test_the_third_crash_in_a_safe_call_fails_the_call_only() -> None:
    """§1: a call gets `tool.failed{error}` saying that the process died three times in it."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "safe")
    stage.begin()
    stage.crash()
    stage.crash()
    assert stage.crash() == ["actor.activated", "tool.failed", "step.started"]
    assert kinds(stage.all(e.ToolFailed)) == [("k1", "error")]
    assert "died 3 times" in stage.last(e.ToolFailed).error.message


def test_a_reply_or_a_result_makes_the_guard_forget() -> None:
    """§1: the same step without a new `model.replied` or tool result."""
    stage = Stage()
    stage.prompt()
    stage.crash()
    stage.crash()
    stage.reply("", "safe", "safe")
    stage.begin("k1")
    stage.crash()
    stage.crash()
    stage.end("k1")
    stage.begin("k2")
    stage.crash()
    stage.crash()
    assert stage.tools == ["k2"]
    stage.end("k2")
    stage.crash()
    stage.crash()
    assert stage.run.status == "running"


def test_an_activation_after_a_drain_is_no_crash() -> None:
    """§1, FAULTS 98: only those that followed no `draining`."""
    stage = Stage()
    stage.prompt()
    for _ in range(5):
        stage.stream("half ")
        assert stage.report(c.Drain()) == ["actor.drained"]
        assert stage.crash() == ["actor.activated", "model.interrupted", "step.started"]
    stage.crash()
    stage.crash()
    assert stage.crash()[-1] == "run.failed", "the count begins after the drain"


def test_waiting_and_suspended_runs_do_not_count() -> None:
    """§1, §4: nothing needs to run while a run waits; the process may be restarted as often as one likes."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "guarded")
    for _ in range(10):
        assert stage.crash() == ["actor.activated"]
    stage.approve()
    stage.begin()
    stage.end()
    stage.crash()
    assert stage.run.status == "running"


# --- going down


def test_a_drain_begins_nothing_and_lets_what_runs_end() -> None:
    """§11, FAULTS 98: runs park at the next boundary; a tool that ends before the deadline is not cut."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "never", "safe")
    stage.begin("k1")
    stage.drain()
    assert stage.tools == ["k1"], "what has begun goes on, what has not is held"
    assert stage.end("k1") == ["tool.returned"]
    assert stage.wanted == []
    stage.drain(False)
    stage.crash()
    assert stage.tools == ["k2"]


def test_a_start_that_was_on_its_way_when_the_drain_came_is_not_written() -> None:
    """§11: right before the call it is asked once more."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "never")
    effect = stage.tool("k1")
    stage.drain()
    assert stage.report(c.ToolStarting(effect)) == []
    assert not stage.all(e.ToolStarted)


def test_no_new_run_while_draining() -> None:
    """§11, FAULTS 98: `draining`; queued behind a run it is kept for the next process."""
    stage = Stage()
    stage.drain()
    assert stage.refuses(c.Prompt(id="p0", text="x")).code == "draining"
    assert stage.refuses(c.Hint(id="h0", text="x")).code == "draining"
    stage.drain(False)
    stage.prompt()
    stage.drain()
    assert stage.prompt("p2") == ["prompt.queued"]
    assert stage.reply("done") == ["model.replied", "run.completed"]
    assert stage.wanted == [] and stage.state.unfinished, "P5: whoever starts this process again is told"
    stage.drain(False)
    assert stage.crash() == ["actor.activated", "run.started", "step.started"]
    assert stage.last(e.RunStarted).message == "p2"


def test_the_next_step_waits_for_the_next_process() -> None:
    """§11, FAULTS 98."""
    stage = Stage()
    stage.prompt()
    stage.drain()
    assert stage.reply("", "missing") == ["model.replied", "tool.failed"]
    assert stage.wanted == [] and stage.state.unfinished
    stage.drain(False)
    assert stage.crash() == ["actor.activated", "step.started"]


# --- logs of other versions


def test_events_of_a_newer_version_are_kept_and_ignored() -> None:
    """§11, FAULTS 102: unknown types, fields and values never stop a fold."""
    stage = Stage()
    stage.prompt()
    texts = stage.texts()
    head = len(texts)
    newer = [
        f'{{"type":"mood.changed","seq":{head + 1},"at":5,"mood":"good"}}',
        f'{{"type":"run.suspended","seq":{head + 2},"at":5,"run":"{stage.run.run}","reason":"tide"}}',
        f'{{"type":"conversation.renamed","seq":{head + 3},"at":5,"title":"t","font":"serif"}}',
    ]
    state = fold(decode(text) for text in [*texts, *newer])
    assert (state.seq, state.title, state.status) == (head + 3, "t", "running")


def test_a_command_that_a_newer_version_answered_is_not_decided_again() -> None:
    """P3, FAULTS 102: the cause of an event is of the envelope, whatever its type."""
    event = decode('{"type":"mood.changed","seq":7,"at":5,"cause":"c9","mood":"good"}')
    assert isinstance(event, e.UnknownEvent) and (event.name, event.cause) == ("mood.changed", "c9")
    assert fold([event]).receipts == {"c9": 7}


def test_a_fold_of_the_log_is_the_state_at_every_step() -> None:
    """P1: what was encoded once says all; the state of a run in trouble survives a restart."""
    stage = Stage()
    stage.prompt()
    stage.say(c.Suspend(id="s"))
    stage.reply("", "guarded", "ask")
    stage.begin("k2")
    stage.hint(interrupt=True)
    for cut in range(len(stage.log)):
        prefix = fold(decode(encode(event)) for event in stage.log[:cut])
        assert fold((decode(encode(event)) for event in stage.log[cut:]), prefix) == stage.state
