"""SEMANTICS.md §3: what becomes of a hint, row by row of its table, and the rules around it."""

from __future__ import annotations

import pytest

from app.core import commands as c
from app.core import events as e
from tests.core.stage import Stage, kinds
from tests.core.world import FakeAgent, FakeTool


def agent(*tools: FakeTool) -> FakeAgent:
    return FakeAgent(tools={tool.name: tool for tool in tools})


# --- the rows


def test_streaming_and_then_tools_the_hint_waits_for_every_result() -> None:
    """§3 row 1, FAULTS 65, 67: not cut off; given after all results of that batch, before the next model call."""
    stage = Stage()
    stage.prompt()
    stage.stream("let me ")
    assert stage.hint() == ["hint.given"]
    assert stage.wanted == [stage.model], "the model is not cut off"
    assert stage.reply("let me see", "never", "safe") == ["model.replied"]
    stage.begin("k1")
    stage.begin("k2")
    assert stage.end("k2") == ["tool.returned"]
    assert stage.end("k1") == ["tool.returned", "hint.applied", "step.started"]
    assert stage.last(e.HintApplied).step == 2
    assert [role for role, _ in stage.told] == ["user", "assistant", "tool", "tool", "user"]


def test_streaming_the_final_answer_takes_one_more_step() -> None:
    """§3 row 2, FAULTS 64: one more step in the same run."""
    stage = Stage()
    stage.prompt()
    run = stage.run.run
    stage.hint()
    assert stage.reply("all done") == ["model.replied", "hint.applied", "step.started"]
    assert (stage.run.run, stage.run.top.step) == (run, 2)


@pytest.mark.parametrize("limit", [{"steps_max": 1}, {"tokens_max": 15}])
def test_final_answer_at_a_limit_carries_the_hint_into_the_next_run(limit: dict[str, int]) -> None:
    """§3 row 2, FAULTS 64: at the step or budget limit: carried, starts the next run."""
    stage = Stage(**limit)
    stage.prompt()
    first = stage.run.run
    stage.hint()
    assert stage.reply("all done") == [
        "model.replied", "hint.carried", "run.completed", "run.started", "step.started",
    ]  # fmt: skip
    assert stage.run.run == stage.last(e.HintCarried).into != first
    assert stage.last(e.RunStarted).message == "h1"
    assert stage.told[-1] == ("user", "left")


def test_running_tool_the_hint_waits() -> None:
    """§3 row 3, FAULTS 65: waits."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "never")
    stage.begin()
    assert stage.hint() == ["hint.given"]
    assert stage.tools == ["k1"]
    assert stage.wait(60_000) == []
    assert stage.end() == ["tool.returned", "hint.applied", "step.started"]


def test_interrupt_stops_what_allows_it_skips_what_has_not_begun_and_leaves_approvals_open() -> None:
    """§3 row 3: cancelled tools get a result, calls without `tool.started` are skipped, approvals stay open."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "never", "stubborn", "safe", "guarded")
    stage.begin("k1")
    stage.begin("k2")
    working = stage.tool("k1")
    assert stage.hint(interrupt=True) == ["hint.given", "tool.failed"]
    assert kinds(stage.all(e.ToolFailed)) == [("k3", "skipped")]
    assert stage.tools == ["k2"], "k1 is to stop, k2 does not allow it"
    assert stage.report(c.ToolEnded(working, 5, error=e.Failure(kind="cancelled", message=""))) == ["tool.failed"]
    assert stage.end("k2") == ["tool.returned", "run.suspended"]
    assert stage.run.status == "waiting"
    assert stage.deny("k4") == [
        "approval.decided", "tool.failed", "run.resumed", "hint.applied", "step.started",
    ]  # fmt: skip


def test_interrupted_tool_that_does_not_confirm_gets_its_result_after_the_grace_time() -> None:
    """§3 row 3, §2: in doubt unless `safe`, and the hint is given."""
    stage = Stage(agent=agent(FakeTool("never"), FakeTool("safe", rerun="safe")))
    stage.prompt()
    stage.reply("", "never", "safe")
    stage.begin("k1")
    stage.begin("k2")
    stage.hint(interrupt=True)
    assert stage.tools == []
    assert stage.wait(999) == []
    assert stage.until_due() == ["tool.failed", "tool.failed", "hint.applied", "step.started"]
    assert kinds(stage.all(e.ToolFailed)) == [("k1", "in_doubt"), ("k2", "cancelled")]


def test_interrupt_that_no_running_tool_allows_waits_like_any_hint() -> None:
    """§3 row 3: if no running tool allows it, it waits; nothing is skipped."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "stubborn", "never")
    stage.begin("k1")
    assert stage.hint(interrupt=True) == ["hint.given"]
    assert stage.tools == ["k1", "k2"]
    stage.begin("k2")
    assert stage.tools == ["k1", "k2"], "what began after the hint is not stopped by it"
    stage.end("k1")
    assert stage.end("k2") == ["tool.returned", "hint.applied", "step.started"]


@pytest.mark.parametrize("interrupt", [False, True])
def test_waiting_for_a_person_the_hint_decides_nothing(interrupt: bool) -> None:
    """§3 row 4: kept and shown; decides nothing (`interrupt` too); delivered with the results once decided."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "guarded")
    assert stage.hint(interrupt=interrupt) == ["hint.given"]
    assert stage.run.status == "waiting" and stage.call().approval is not None
    stage.approve()
    stage.begin()
    assert stage.tools == ["k1"], "the approved call is not stopped by an older hint"
    assert stage.end() == ["tool.returned", "hint.applied", "step.started"]


def test_waiting_to_retry_the_provider_the_hint_comes_with_the_next_attempt() -> None:
    """§3 row 5."""
    stage = Stage()
    stage.prompt()
    stage.fail(retry_after=5)
    assert stage.hint(interrupt=True) == ["hint.given"]
    assert stage.until_due() == ["hint.applied", "step.started"]
    assert (stage.run.top.step, stage.run.top.attempt) == (1, 2)
    assert stage.last(e.HintApplied).step == 1
    assert stage.told == [("user", "go"), ("user", "left")]


def test_suspended_by_request_the_hint_resumes_the_run() -> None:
    """§3 row 6."""
    stage = Stage()
    stage.prompt()
    stage.say(c.Suspend(id="s"))
    stage.reply("", "missing")
    assert (stage.run.status, stage.run.reason) == ("suspended", "request")
    assert stage.hint() == ["hint.given", "run.resumed", "hint.applied", "step.started"]
    assert stage.last(e.RunResumed).by == "ann"


def suspended_by_budget(stage: Stage) -> None:
    stage.reply("", "missing")


def suspended_by_retry(stage: Stage) -> None:
    while stage.run.status == "running":
        stage.fail(retry_after=5)
        if stage.run.status == "running":
            stage.until_due()


@pytest.mark.parametrize(
    ("reason", "suspend"), [("budget", suspended_by_budget), ("retry", suspended_by_retry)], ids=["budget", "retry"]
)
@pytest.mark.parametrize("interrupt", [False, True])
def test_suspended_by_a_limit_the_hint_is_kept_and_does_not_resume(
    reason: str, suspend: object, interrupt: bool
) -> None:
    """§3 row 7."""
    stage = Stage(steps_max=1)
    stage.prompt()
    assert callable(suspend)
    suspend(stage)
    assert (stage.run.status, stage.run.reason) == ("suspended", reason)
    assert stage.hint(interrupt=interrupt) == ["hint.given"]
    assert stage.run.status == "suspended"
    resumed = stage.say(c.Resume(id="r", steps=5))
    assert resumed[0] == "run.resumed"
    if resumed == ["run.resumed"]:
        resumed += stage.until_due()  # a provider's Retry-After is obeyed all the same
    assert resumed == ["run.resumed", "hint.applied", "step.started"]


def test_idle_a_hint_is_a_prompt() -> None:
    """§3 row 10: decided by the owner in one step."""
    stage = Stage()
    assert stage.hint() == ["prompt.given", "run.started", "step.started"]
    assert stage.last(e.PromptGiven).message == "h1"


def test_hint_then_cancel_drops_the_hint() -> None:
    """§3 row 11: order of acceptance; hint first → dropped and returned to the composer."""
    stage = Stage()
    stage.prompt()
    stage.hint()
    assert stage.cancel() == ["model.failed", "hint.dropped", "run.cancelled"]
    assert (stage.last(e.HintDropped).message, stage.last(e.HintDropped).reason) == ("h1", "cancelled")
    assert stage.state.status == "idle" and not stage.state.queue


def test_cancel_then_hint_starts_a_new_run() -> None:
    """§3 row 11: cancel first → starts a new run, also while tools have their grace time."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "never")
    stage.begin()
    stage.hint("early")
    assert stage.cancel() == ["cancel.requested"]
    assert stage.hint("late") == ["prompt.queued"]
    assert stage.until_due() == ["tool.failed", "hint.dropped", "run.cancelled", "run.started", "step.started"]
    assert stage.last(e.HintDropped).message == "early"
    assert stage.last(e.RunStarted).message == "late"


# --- the rules around the table


def test_the_hint_cuts_the_model_off_when_it_interrupts() -> None:
    """§1: when a person interrupts with a hint, the partial stays in the history, closed, before the person's words."""
    stage = Stage()
    stage.prompt()
    stage.stream("I will now ")
    stage.stream("do it")
    assert stage.hint(interrupt=True) == ["hint.given", "model.interrupted", "hint.applied", "step.started"]
    ended = stage.last(e.ModelInterrupted)
    assert (ended.reason, ended.text, ended.retry_at) == ("hint", "I will now do it", None)
    assert (stage.run.top.step, stage.run.top.attempt) == (1, 2)
    assert stage.told == [("user", "go"), ("assistant", "I will now do it"), ("user", "left")]


def test_interrupting_before_the_first_word_leaves_no_empty_message() -> None:
    """§1: nothing was shown, so nothing stays."""
    stage = Stage()
    stage.prompt()
    assert stage.hint(interrupt=True) == ["hint.given", "model.failed", "hint.applied", "step.started"]
    assert stage.told == [("user", "go"), ("user", "left")]


def test_order_is_the_order_of_acceptance() -> None:
    """§3, FAULTS 66: order is the order of acceptance, also across a crash."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "safe")
    stage.begin()
    for n in range(3):
        stage.hint(f"h{n}", f"words {n}")
    stage.crash()
    stage.end()
    assert [applied.message for applied in stage.all(e.HintApplied)] == ["h0", "h1", "h2"]
    assert [content for role, content in stage.told if role == "user"] == ["go", "words 0", "words 1", "words 2"]


def test_the_next_run_takes_all_carried_hints_then_the_prompts_one_per_run() -> None:
    """§3: the first is its message, the rest come before step 1; then the queued prompts, one per run."""
    stage = Stage(steps_max=1)
    stage.prompt()
    stage.prompt("p2", "second")
    stage.hint("h1", "left")
    stage.prompt("p3", "third")
    stage.hint("h2", "right")
    stage.reply("one")
    assert stage.last(e.RunStarted).message == "h1"
    assert {carried.into for carried in stage.all(e.HintCarried)} == {stage.run.run}
    assert stage.told[-2:] == [("user", "left"), ("user", "right")]
    assert [words.message for words in stage.state.queue] == ["p2", "p3"]
    stage.reply("two")
    assert stage.last(e.RunStarted).message == "p2" and [w.message for w in stage.state.queue] == ["p3"]
    stage.reply("three")
    assert stage.last(e.RunStarted).message == "p3" and stage.state.queue == []


def test_when_a_run_fails_hints_and_prompts_are_dropped_in_the_same_append() -> None:
    """§3: they go back to the composer: a stop stops."""
    stage = Stage()
    stage.prompt()
    stage.prompt("p2")
    stage.hint()
    assert stage.fail(retryable=False) == ["model.failed", "prompt.dropped", "hint.dropped", "run.failed"]
    assert stage.last(e.HintDropped).reason == "failed"


def test_a_hint_can_be_withdrawn_until_it_is_delivered() -> None:
    """§3, FAULTS 68."""
    stage = Stage()
    stage.prompt()
    stage.hint("h1")
    stage.hint("h2")
    assert stage.say(c.Withdraw(id="w1", target="h1")) == ["hint.withdrawn"]
    assert stage.last(e.HintWithdrawn).run == stage.run.run
    stage.reply("", "missing")
    assert stage.refuses(c.Withdraw(id="w2", target="h2")).code == "already_delivered"
    assert stage.refuses(c.Withdraw(id="w3", target="h1")).code == "not_found"
    assert stage.refuses(c.Withdraw(id="w4", target="p1")).code == "already_delivered"


def test_too_many_hints_are_refused() -> None:
    """FAULTS 66: order kept, limit, then `queue_full`; prompts have a limit of their own."""
    stage = Stage(queue_max=2)
    stage.prompt()
    stage.hint("h1")
    stage.hint("h2")
    assert stage.refuses(c.Hint(id="h3", text="x")).code == "queue_full"
    stage.prompt("p2")
    stage.prompt("p3")
    assert stage.refuses(c.Prompt(id="p4", text="x")).code == "queue_full"
    stage.reply("", "missing")
    assert stage.hint("h3") == ["hint.given"]


def test_a_hint_during_a_drain_is_kept_for_the_next_process() -> None:
    """§11, §3: durable before anything else; exactly one end, also across a restart."""
    stage = Stage()
    stage.prompt()
    stage.drain()
    stage.hint()
    assert stage.reply("all done") == ["model.replied"], "a new step would be new work"
    stage.drain(False)
    assert stage.crash() == ["actor.activated", "hint.applied", "step.started"]


def test_carried_words_that_a_drain_left_start_the_next_run() -> None:
    """P5, §3: what the last process accepted and could not begin, the next one begins by itself."""
    stage = Stage(steps_max=1)
    stage.prompt()
    stage.hint()
    stage.prompt("p2")
    stage.drain()
    assert stage.reply("all done") == ["model.replied", "hint.carried", "run.completed"]
    assert stage.refuses(c.Withdraw(id="w", target="h1")).code == "already_delivered"
    assert stage.state.status == "idle" and stage.state.unfinished
    stage.drain(False)
    assert stage.crash() == ["actor.activated", "run.started", "step.started"]
    assert stage.run.run == stage.last(e.HintCarried).into and not stage.state.carried
