"""SEMANTICS.md §9 (time, money, provider trouble), as far as the pure floor decides."""

from __future__ import annotations

import pytest

from app.core import commands as c
from app.core import events as e
from app.core.bounds import RETRY_AFTER_MS_MAX, RETRY_DELAY_MS_MAX, RETRY_FLOOR_MS
from app.core.events import Call, Usage
from app.core.transcript import messages
from tests.core.stage import Stage, kinds
from tests.core.test_properties import check_strict


@pytest.mark.parametrize(
    ("retry_after", "ms"), [(2.0, 2_000), (0.0, RETRY_FLOOR_MS), (900.0, RETRY_AFTER_MS_MAX), (0.25, 250)]
)
def test_retry_after_is_obeyed_capped_and_visible(retry_after: float, ms: int) -> None:
    """§9, FAULTS 75: the wait is visible and costs no step."""
    stage = Stage(retry_ms=300_000)
    stage.prompt()
    assert stage.fail("rate_limited", retry_after=retry_after) == ["model.failed"]
    failed = stage.last(e.ModelFailed)
    assert failed.retry_at == stage.at + ms == stage.plan.wake_at
    assert stage.wanted == [] and stage.run.status == "running"
    assert stage.until_due() == ["step.started"]
    assert (stage.run.top.step, stage.run.top.attempt) == (1, 2)


@pytest.mark.parametrize(("chance", "least", "most"), [(0.0, 100, 100), (0.999, 400, 500)])
def test_without_it_the_wait_is_exponential_with_full_jitter(chance: float, least: int, most: int) -> None:
    """§9, FAULTS 76."""
    stage = Stage(retry_ms=10**9)
    stage.prompt()
    stage.chance.random = lambda: chance  # type: ignore[method-assign]
    for attempt in range(1, 12):
        stage.fail()
        wait = (stage.last(e.ModelFailed).retry_at or 0) - stage.at
        doubled = 2 ** (attempt - 1)
        if chance:
            assert min(least * doubled, RETRY_DELAY_MS_MAX * 0.9) <= wait <= min(most * doubled, RETRY_DELAY_MS_MAX)
        else:
            assert wait == RETRY_FLOOR_MS
        stage.until_due()


@pytest.mark.parametrize(("kind", "reason"), [("stall", "stall"), ("cut", "upstream"), ("malformed", "upstream")])
def test_text_that_was_shown_is_taken_back_by_an_event(kind: str, reason: str) -> None:
    """§9, FAULTS 77, 78, 79: cuts, stalls and malformed streams are failures, never finished answers."""
    stage = Stage()
    stage.prompt()
    stage.stream("half of ")
    assert stage.fail(kind, retry_after=1) == ["model.interrupted"]
    ended = stage.last(e.ModelInterrupted)
    assert (ended.reason, ended.text, ended.retry_at) == (reason, "half of ", stage.at + 1_000)
    assert ended.error is not None and ended.error.kind == kind
    stage.until_due()
    assert stage.told == [("user", "go")], "left out of the next request"


@pytest.mark.parametrize("streamed", [True, False])
def test_what_is_not_worth_a_retry_fails_the_run(streamed: bool) -> None:
    """§9, FAULTS 87: 400/401/404: no retry, clear error."""
    stage = Stage()
    stage.prompt()
    if streamed:
        stage.stream("half")
    ended = "model.interrupted" if streamed else "model.failed"
    assert stage.fail("unauthorized", retryable=False) == [ended, "run.failed"]
    assert stage.last(e.RunFailed).error.kind == "unauthorized"
    assert stage.plan.wake_at is None


def trouble(stage: Stage) -> None:
    """A provider that is down until the run is suspended."""
    while stage.run.status == "running":
        stage.fail(retry_after=5)
        if stage.run.status == "running":
            stage.until_due()


def test_after_the_budget_the_run_is_suspended_and_woken_by_itself() -> None:
    """§9, FAULTS 76: reason `retry`, `until`; then the same step again."""
    stage = Stage(retry_ms=20_000)
    stage.prompt()
    began = stage.at
    trouble(stage)
    suspended = stage.last(e.RunSuspended)
    assert (suspended.reason, suspended.until) == ("retry", stage.at + 20_000)
    assert 10_000 < stage.at - began <= 20_000
    assert (stage.run.status, stage.wanted) == ("suspended", [])
    assert stage.until_due() == ["run.resumed", "step.started"]
    assert stage.last(e.RunResumed).reason == "retry" and stage.run.top.step == 1


def test_a_suspended_run_is_not_woken_before_its_time() -> None:
    """§9: the time of the next try has no meaning while the run is suspended (it made the actor turn for ever)."""
    stage = Stage(retry_ms=20_000)
    stage.prompt()
    trouble(stage)
    assert stage.plan.wake_at == stage.run.until
    stage.wait(6_000)
    assert stage.plan.wake_at == stage.run.until and stage.run.status == "suspended"


def test_a_run_suspended_by_request_in_a_retry_wait_has_nothing_to_wake_for() -> None:
    """§6, §9."""
    stage = Stage()
    stage.prompt()
    stage.fail(retry_after=5)
    stage.say(c.Suspend(id="s"))
    assert stage.until_due() == ["run.suspended"]
    assert stage.plan.wake_at is None


def test_a_success_gives_the_budget_back() -> None:
    """§9: seconds without success."""
    stage = Stage(retry_ms=20_000)
    stage.prompt()
    for step in range(1, 4):
        stage.fail(retry_after=15)
        stage.until_due()
        stage.reply("", "safe")
        stage.begin(f"k{step}")
        stage.end(f"k{step}")
    assert stage.run.status == "running"


def test_a_person_may_resume_earlier() -> None:
    """PROTOCOL §1.2 `resume`: with a budget of its own."""
    stage = Stage(retry_ms=20_000)
    stage.prompt()
    trouble(stage)
    assert stage.say(c.Resume(id="r")) == ["run.resumed"]
    assert stage.last(e.RunResumed).by == "ann"
    assert stage.until_due() == ["step.started"]
    assert stage.fail(retry_after=5) == ["model.failed"]


# --- money and steps


def test_usage_is_summed_and_missing_usage_says_so() -> None:
    """§9, FAULTS 89."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "missing", usage=Usage(input=10, output=5, cached=3))
    assert stage.run.usage == Usage(input=10, output=5, cached=3)
    stage.reply("", "missing", usage=None)
    assert stage.run.usage.estimated and stage.run.usage.input > 10
    stage.reply("done")
    assert stage.last(e.RunCompleted).usage == stage.state.runs[stage.last(e.RunCompleted).run or ""].usage


@pytest.mark.parametrize(
    ("limit", "raised"),
    [
        ({"steps_max": 2}, c.Resume(id="r", steps=3)),
        ({"tokens_max": 40}, c.Resume(id="r", tokens=60)),
        ({"seconds_max": 7}, c.Resume(id="r")),
    ],
    ids=["steps", "tokens", "seconds"],
)
def test_a_ceiling_suspends_before_the_call_that_would_cross_it(limit: dict[str, int], raised: c.Resume) -> None:
    """§9, FAULTS 84, 002-9: and raising it resumes."""
    stage = Stage(**limit)
    stage.prompt()
    stage.at += 4_000
    assert stage.reply("", "missing")[-1] == "step.started"
    stage.at += 4_000
    assert stage.reply("", "missing")[-1] == "run.suspended"
    assert (stage.run.reason, stage.wanted, stage.plan.wake_at) == ("budget", [], None)
    stage.crash()
    assert stage.say(raised)[-1] == "step.started"
    assert stage.run.top.step == 3


def test_resuming_without_raising_it_suspends_again() -> None:
    """§9: no call is made, no loop is entered."""
    stage = Stage(steps_max=1)
    stage.prompt()
    stage.reply("", "missing")
    assert stage.say(c.Resume(id="r1")) == ["run.resumed", "run.suspended"]
    assert stage.say(c.Resume(id="r2", steps=1)) == ["run.resumed", "run.suspended"]


def test_a_retry_costs_no_step() -> None:
    """§9: at the ceiling too."""
    stage = Stage(steps_max=1)
    stage.prompt()
    stage.fail(retry_after=1)
    assert stage.until_due() == ["step.started"]


# --- what the model asks for


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (Call(call="k1", tool="missing", arguments="{}"), "unknown_tool"),
        (Call(call="k1", tool="never", arguments='{"wrong": 1}'), "bad_arguments"),
        (Call(call="k1", tool="never", arguments="{broken"), "bad_arguments"),
        (Call(call="k1", tool="never", arguments="[1]"), "bad_arguments"),
        (Call(call="k1", tool="never", arguments='{"n":' * 900 + "1" + "}" * 900), "bad_arguments"),
        (Call(call="k1", tool="never", arguments='{"n": 1e999}'), "bad_arguments"),
    ],
    ids=["unknown", "misfit", "broken", "list", "deep", "huge"],
)
def test_what_cannot_run_goes_back_to_the_model(call: Call, kind: str) -> None:
    """§9, FAULTS 46, 81, 82: as an error result, valid for a strict provider; nothing starts."""
    stage = Stage()
    stage.prompt()
    assert stage.reply("", call) == ["model.replied", "tool.failed", "step.started"]
    assert kinds(stage.all(e.ToolFailed)) == [("k1", kind)]
    check_strict(messages(stage.state, (), stage.rules))
    assert stage.tools == []


def test_three_bad_steps_fail_the_run() -> None:
    """§9, FAULTS 81, 82: 3 times, then the run fails; one that can run in between begins the count anew."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "missing")
    stage.reply("", "missing", "missing")
    stage.reply("", "safe")
    stage.begin("k4")
    stage.end("k4")
    stage.reply("", "missing")
    stage.reply("", "missing")
    assert stage.reply("", "missing") == ["model.replied", "tool.failed", "run.failed"]
    assert stage.last(e.RunFailed).error.kind == "bad_calls"


def test_no_arguments_are_an_empty_object() -> None:
    """FAULTS 83: some providers send nothing for a tool without parameters."""
    stage = Stage()
    stage.prompt()
    stage.reply("", Call(call="k1", tool="never", arguments=""))
    stage.begin()
    assert stage.last(e.ToolStarted).arguments == {}


@pytest.mark.parametrize("finish", ["length", "limit"])
def test_half_received_arguments_are_never_executed(finish: str) -> None:
    """§1, FAULTS 80: a reply that was cut off before its arguments had begun."""
    stage = Stage()
    stage.prompt()
    calls = [Call(call="k1", tool="never", arguments='{"n": 1}'), Call(call="k2", tool="never", arguments="")]
    stage.reply("", *calls, finish=finish)
    assert stage.tools == ["k1"]
    assert kinds(stage.all(e.ToolFailed)) == [("k2", "bad_arguments")]


def test_call_ids_are_made_unique() -> None:
    """FAULTS 83, PROTOCOL §3.1: where they are missing or repeat within the run; the model gets back the same."""
    stage = Stage()
    stage.prompt()
    calls = [Call(call=id, tool="safe", arguments="{}") for id in ("", "k1", "k1")]
    stage.reply("", *calls)
    named = [call.call for call in stage.last(e.ModelReplied).calls]
    assert named[1] == "k1" and len(set(named)) == 3 and all(named)
    for call in named:
        stage.begin(call)
        stage.end(call)
    stage.reply("", "safe")
    assert stage.last(e.ModelReplied).calls[0].call not in named
    check = [m["tool_call_id"] for m in messages(stage.state, (), stage.rules) if m["role"] == "tool"]
    assert check[:3] == named


@pytest.mark.parametrize(
    ("text", "finish", "kind"),
    [("", "stop", "empty_answer"), ("  \n", "stop", "empty_answer"), ("x", "content_filter", "content_filter")],
)
def test_no_answer_is_an_end_that_is_seen(text: str, finish: str, kind: str) -> None:
    """FAULTS 86: content filter, refusal, empty answer: visible, the run ends in a defined state."""
    stage = Stage()
    stage.prompt()
    assert stage.reply(text, finish=finish) == ["model.replied", "run.failed"]
    assert stage.last(e.RunFailed).error.kind == kind


def test_an_answer_that_was_cut_off_is_an_answer() -> None:
    """FAULTS 80: `finish` says so."""
    stage = Stage()
    stage.prompt()
    assert stage.reply("as far as it goes", finish="length") == ["model.replied", "run.completed"]
    assert stage.last(e.ModelReplied).finish == "length"


def test_an_empty_result_is_no_empty_message() -> None:
    """Strict providers refuse it; what the event says is what the model gets."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "safe")
    stage.begin()
    stage.end(result="")
    assert stage.told[-1] == ("tool", stage.last(e.ToolReturned).result) and stage.told[-1][1]
