"""SEMANTICS.md §10: a stop works from every state, keeps what was shown, and has exactly one end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.core import commands as c
from app.core import events as e
from app.core.effects import Admission, ModelCall, ToolCall
from app.core.events import Failure
from tests.core.stage import Stage, kinds


def before_the_first_token(stage: Stage) -> None:
    stage.prompt()


def while_streaming(stage: Stage) -> None:
    stage.prompt()
    stage.stream("Once upon ", "hm")
    stage.stream("a time")


def while_a_tool_waits_for_its_slot(stage: Stage) -> None:
    stage.prompt()
    stage.reply("", "never")


def while_a_tool_runs(stage: Stage) -> None:
    stage.prompt()
    stage.reply("", "never")
    stage.begin()


def while_waiting_for_approval(stage: Stage) -> None:
    stage.prompt()
    stage.reply("", "guarded")


def while_in_doubt(stage: Stage) -> None:
    stage.prompt()
    stage.reply("", "ask")
    stage.begin()
    stage.crash()


def while_waiting_to_retry(stage: Stage) -> None:
    stage.prompt()
    stage.fail(retry_after=5)


def while_suspended(stage: Stage) -> None:
    stage.prompt()
    stage.say(c.Suspend(id="s"))
    stage.reply("", "missing")


def while_waiting_for_a_place(stage: Stage) -> None:
    stage.change(admit=False)
    stage.prompt()


STATES: list[Callable[[Stage], None]] = [
    before_the_first_token,
    while_streaming,
    while_a_tool_waits_for_its_slot,
    while_a_tool_runs,
    while_waiting_for_approval,
    while_in_doubt,
    while_waiting_to_retry,
    while_suspended,
    while_waiting_for_a_place,
]
everywhere = pytest.mark.parametrize("reach", STATES, ids=lambda reach: reach.__name__)


@everywhere
def test_cancel_works_from_every_state(reach: Callable[[Stage], None]) -> None:
    """§10, FAULTS 69: exactly one terminal event, every call has one result, nothing is wanted any more."""
    stage = Stage()
    reach(stage)
    run = stage.run.run
    stage.cancel()
    if stage.state.run is not None:
        assert stage.wanted == [], "all that runs is told to stop"
        stage.until_due()
    assert stage.state.run is None and stage.wanted == []
    assert [(end.run, end.by) for end in stage.all(e.RunCancelled)] == [(run, "ann")]
    asked = [call.call for reply in stage.all(e.ModelReplied) for call in reply.calls]
    ended = [end.call for end in stage.all(e.ToolReturned)] + [end.call for end in stage.all(e.ToolFailed)]
    assert sorted(ended) == asked
    assert not stage.state.unfinished
    assert stage.state.runs[run].status == "cancelled" and stage.state.runs[run].finished_at == stage.at


@everywhere
def test_after_the_end_nothing_moves(reach: Callable[[Stage], None]) -> None:
    """P7, §10: late answers are dropped; reconnecting, time and a restart never start it again."""
    stage = Stage()
    reach(stage)
    late: list[c.Internal] = []
    for effect in stage.wanted:
        match effect:
            case ModelCall():
                late += [c.Streamed(effect, "more"), c.Replied(effect, "late", "", [], "stop", None, asked=1)]
                late += [c.AttemptFailed(effect, "overloaded", "busy", True)]
            case ToolCall():
                late += [c.ToolStarting(effect), c.Progressed(effect, "half", 0.5)]
            case Admission():
                late += [c.Admitted(effect)]
    stage.cancel()
    stage.wait(10_000)
    before = len(stage.log)
    for report in late:
        assert stage.report(report) == []
    assert stage.wait(10**9) == []
    assert stage.crash() == ["actor.activated"]
    assert len(stage.log) == before + 1 and stage.wanted == []


def test_partial_text_is_kept_byte_for_byte() -> None:
    """§10, FAULTS 69: what readers saw; the model of the next run sees it too (§1)."""
    stage = Stage()
    while_streaming(stage)
    assert stage.cancel() == ["model.interrupted", "run.cancelled"]
    ended = stage.last(e.ModelInterrupted)
    assert (ended.reason, ended.text, ended.reasoning) == ("cancel", "Once upon a time", "hm")
    stage.prompt("p2", "again")
    assert stage.told == [("user", "go"), ("assistant", "Once upon a time"), ("user", "again")]


def test_nothing_shown_ends_as_failed() -> None:
    """PROTOCOL §3.1: `model.failed`: nothing had been streamed."""
    stage = Stage()
    stage.prompt()
    assert stage.cancel() == ["model.failed", "run.cancelled"]
    assert stage.last(e.ModelFailed).error.kind == "cancel"


def test_a_running_tool_has_the_grace_time_to_confirm() -> None:
    """§2: `cancelled` when it confirms; the closing append waits for it."""
    stage = Stage()
    while_a_tool_runs(stage)
    working = stage.tool("k1")
    assert stage.cancel() == ["cancel.requested"]
    stopped = Failure(kind="cancelled", message="The tool was stopped.")
    assert stage.report(c.ToolEnded(working, 5, error=stopped)) == ["tool.failed", "run.cancelled"]
    assert kinds(stage.all(e.ToolFailed)) == [("k1", "cancelled")]


def test_a_tool_that_ends_in_the_grace_time_has_its_result() -> None:
    """§2: the truth is kept."""
    stage = Stage()
    while_a_tool_runs(stage)
    working = stage.tool("k1")
    stage.cancel()
    assert stage.report(c.ToolEnded(working, 5, result="done after all")) == ["tool.returned", "run.cancelled"]


@pytest.mark.parametrize(("tool", "kind"), [("never", "in_doubt"), ("ask", "in_doubt"), ("safe", "cancelled")])
def test_a_tool_that_does_not_confirm_is_given_up(tool: str, kind: str) -> None:
    """§2, FAULTS 72: in doubt unless `safe`; what it turns out to have done is kept as `tool.settled`."""
    stage = Stage(grace_ms=700)
    stage.prompt()
    stage.reply("", tool)
    stage.begin()
    working = stage.tool("k1")
    run = stage.run.run
    stage.cancel()
    assert stage.wait(699) == []
    assert stage.until_due() == ["tool.failed", "run.cancelled"]
    assert kinds(stage.all(e.ToolFailed)) == [("k1", kind)]
    stage.at += 60_000
    assert stage.report(c.ToolEnded(working, 60_000, result="it was booked")) == ["tool.settled"]
    settled = stage.last(e.ToolSettled)
    assert (settled.run, settled.of, settled.call, settled.result) == (None, run, "k1", "it was booked")
    assert stage.report(c.ToolEnded(working, 60_000, result="it was booked")) == [], "said once"
    stage.prompt("p2")
    assert "it was booked" not in str(stage.told), "not told to the model"


def test_calls_without_a_start_are_cancelled_with_the_others() -> None:
    """§2, §10: in one append, before the terminal event."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "never", "safe", "guarded")
    stage.begin("k1")
    stage.cancel()
    assert stage.until_due() == ["tool.failed", "tool.failed", "approval.decided", "tool.failed", "run.cancelled"]
    assert kinds(stage.all(e.ToolFailed)) == [("k1", "in_doubt"), ("k2", "cancelled"), ("k3", "cancelled")]


def test_cancel_twice_is_noted() -> None:
    """FAULTS 70: from two tabs, during the grace time and after the end."""
    stage = Stage()
    while_a_tool_runs(stage)
    run = stage.run.run
    assert stage.say(c.Cancel(id="c1", run=run)) == ["cancel.requested"]
    assert stage.say(c.Cancel(id="c2", run=run), by="bob") == ["command.noted"]
    stage.until_due()
    assert stage.last(e.RunCancelled).by == "ann"
    assert stage.say(c.Cancel(id="c3")) == ["command.noted"], "idle: noted"
    assert stage.refuses(c.Cancel(id="c4", run=run)).code == "not_running"


def test_cancel_of_another_run_is_refused() -> None:
    """PROTOCOL §1.2: given: only if it is the active one."""
    stage = Stage()
    stage.prompt()
    assert stage.refuses(c.Cancel(id="c1", run="another")).code == "not_running"


@pytest.mark.parametrize("reply_first", [True, False])
def test_a_race_with_the_natural_end_has_one_terminal_event(reply_first: bool) -> None:
    """FAULTS 71: and a reply that comes too late does not end the run that has begun since."""
    stage = Stage()
    stage.prompt()
    effect = stage.model
    reply = c.Replied(effect, "done", "", [], "stop", None, asked=1)
    if reply_first:
        assert stage.report(reply)[-1] == "run.completed"
        assert stage.cancel() == ["command.noted"]
    else:
        assert stage.cancel()[-1] == "run.cancelled"
        assert stage.report(reply) == []
        stage.prompt("p2")
        assert stage.report(reply) == [] and stage.wanted == [stage.model]
    assert len(stage.all(e.RunCompleted)) + len(stage.all(e.RunCancelled)) == 1


def test_a_crash_in_the_grace_time_still_cancels() -> None:
    """§10, P5: the stop is in the log; nothing is run again, not even what is safe."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "never", "safe")
    stage.begin("k1")
    stage.begin("k2")
    stage.cancel()
    stage.crash()
    assert stage.wanted == []
    stage.until_due()
    assert kinds(stage.all(e.ToolFailed)) == [("k1", "in_doubt"), ("k2", "cancelled")]
    assert len(stage.all(e.RunCancelled)) == 1


def test_queued_prompts_are_dropped_with_the_run() -> None:
    """§3: a stop stops; words that come after it was accepted start the next run."""
    stage = Stage()
    while_a_tool_runs(stage)
    stage.prompt("p2")
    stage.cancel()
    stage.prompt("p3")
    assert stage.until_due() == ["tool.failed", "prompt.dropped", "run.cancelled", "run.started", "step.started"]
    assert (stage.last(e.PromptDropped).message, stage.last(e.PromptDropped).reason) == ("p2", "cancelled")
    assert stage.last(e.RunStarted).message == "p3"
