"""SEMANTICS.md §7 on the pure floor, rule by rule: references, summaries, what the provider calls too long. FAULTS 85.

A window of 2,000 tokens is 8,000 characters; of these 1,000 are kept for the reply and some hundreds are tools.
"""

from __future__ import annotations

import pytest

from app.core import commands as c
from app.core import events as e
from app.core.effects import Summary
from app.core.events import Call, Usage
from app.core.ledger import Ledger
from app.core.reading import READ_RESULT, find, reading
from app.core.rebuild import Rebuilding
from app.core.summarising import summary_request
from app.core.transcript import messages, tools
from tests.core.stage import Stage
from tests.core.test_properties import check_strict
from tests.core.world import FakeAgent, FakeTool, named

WINDOW = 2_000
AGENT = FakeAgent(tools=named(FakeTool("safe", rerun="safe"), FakeTool("guarded", approval=True)))


def staged(text: str = "go", **rules: object) -> Stage:
    """A run in a small window."""
    stage = Stage(agent=AGENT, **{"context_tokens": WINDOW, "steps_max": 90, **rules})
    stage.prompt(text=text)
    return stage


def work(stage: Stage, chars: int, text: str = "", usage: Usage | None = None) -> list[str]:
    """A step with one call whose result has so many characters; what came of its end."""
    call = f"k{len(stage.run.levels[stage.path].ids) + 1}"
    stage.reply(text, Call(call=call, tool="safe", arguments="{}"), usage=usage)
    stage.begin(call)
    lines = "".join(f"{call} line {number}\n" for number in range(chars))
    return stage.end(call, lines[:chars])


def until(stage: Stage, tag: str, chars: int = 900, usage: Usage | None = None) -> list[str]:
    """Steps until this is what comes of one."""
    for _ in range(30):
        if tag in (came := work(stage, chars, usage=usage)):
            return came
    raise AssertionError(f"no {tag}")


def summary(stage: Stage) -> Summary:
    return next(effect for effect in stage.wanted if isinstance(effect, Summary))


def summarise(stage: Stage, text: str = "In short.", usage: Usage | None = None) -> list[str]:
    return stage.report(c.Summarised(summary(stage), text, "stop", usage or Usage(input=100, output=9), asked=400))


def fail(stage: Stage, kind: str = "overloaded", retry_after: float | None = None) -> list[str]:
    retryable = kind == "overloaded"
    return stage.report(c.SummaryFailed(summary(stage), kind, "no", retryable, retry_after))


def compacting(**rules: object) -> Stage:
    """A run that waits for its first summary."""
    stage = staged("the task", **rules)
    until(stage, "compaction.started")
    return stage


def requested(stage: Stage) -> str:
    """What the summariser is asked."""
    assert stage.state.run is not None
    level = stage.state.run.levels[summary(stage).path]
    assert level.compacting is not None
    asked = summary_request(level, level.compacting).messages
    assert [message["role"] for message in asked] == ["system", "user"]
    return str(asked[1]["content"])


def offered(stage: Stage) -> list[str]:
    return [tool["function"]["name"] for tool in tools(stage.state, stage.path, stage.rules)]


def test_003_17_a_summary_is_rebuilt_from_the_log_alone() -> None:
    """003-17: what the summariser was asked, also by the next owner, is what its digest says."""
    stage = compacting()
    sent = requested(stage)
    stage.crash()
    assert requested(stage) == sent
    summarise(stage)
    rebuilding = Rebuilding()
    found = [one for text in stage.texts() if (one := rebuilding.take(text)) is not None]
    summaries = [one for one in found if isinstance(one.event, e.CompactionStarted)]
    assert summaries and all(one.request is not None and one.equal for one in found)
    assert next(one.request.messages[1]["content"] for one in summaries if one.request is not None) == sent


# --- references


def test_a_short_chat_shows_nothing_of_it() -> None:
    """§7, 003-19: default settings: no compaction, no tool, no model call beyond the steps."""
    stage = Stage(agent=AGENT, steps_max=90)
    stage.prompt()
    for _ in range(49):
        work(stage, 900)
    assert not stage.all(e.ContextCompacted) and not stage.all(e.CompactionStarted)
    assert offered(stage) == ["safe", "guarded"]


def test_large_old_results_become_references() -> None:
    """§7, 003-5: from 70 % on, first and last lines; the newest stays; the tool is there from then on."""
    stage = staged()
    assert "context.compacted" not in work(stage, 2_500)
    assert offered(stage) == ["safe", "guarded"]
    assert work(stage, 2_200) == ["tool.returned", "context.compacted", "step.started"]
    told = stage.last(e.ContextCompacted)
    assert (told.kind, told.summary, told.after < told.before) == ("references", "", True)
    first, second = [content for role, content in stage.told if role == "tool"]
    original = stage.all(e.ToolReturned)[0].result
    assert first.startswith("k1 line 0\n") and first.endswith(original[-30:]) and len(first) < 500
    assert f"{stage.run.run}/k1" in first and second == stage.all(e.ToolReturned)[1].result
    assert offered(stage) == ["safe", "guarded", "read_result"]
    check_strict(messages(stage.state, (), stage.rules))


def test_the_tool_is_a_call_like_any_other() -> None:
    """§7: unknown before there is a reference; then checked, started, ended; the log has the original."""
    stage = staged()
    assert stage.reply("", Call(call="k0", tool="read_result", arguments='{"reference": "x"}'))[1] == "tool.failed"
    work(stage, 2_500)
    work(stage, 2_200)
    ref = f'{{"reference": "{stage.run.run}/k2", "offset": 10}}'
    stage.reply("", Call(call="r1", tool="read_result", arguments=ref))
    assert stage.begin("r1") == ["tool.started"]
    item = find(stage.run.top.history, f"{stage.run.run}/k2")
    assert isinstance(item, e.ToolReturned)
    assert (
        reading(item.result, 10, 20, 100)
        == f"[characters 10 to 30 of 2500; go on with offset 30]\n{item.result[10:30]}"
    )
    assert reading(item.result, 2_450, 0, 100) == f"[characters 2450 to 2500 of 2500]\n{item.result[2_450:]}"
    assert find(stage.run.top.history, "elsewhere/k2") is None


@pytest.mark.parametrize(
    "arguments", [{}, {"reference": 1}, {"reference": "a", "offset": -1}, {"reference": "a", "x": 1}]
)
def test_arguments_that_do_not_fit_are_told(arguments: e.Json) -> None:
    assert READ_RESULT.check(arguments) is not None


def test_an_agent_may_have_a_tool_of_that_name() -> None:
    """It is the agent's own; there is never a second one."""
    agent = FakeAgent(tools=named(FakeTool("safe", rerun="safe"), FakeTool("read_result", approval=True)))
    stage = Stage(agent=agent, context_tokens=WINDOW)
    stage.prompt()
    work(stage, 2_500)
    work(stage, 2_200)
    assert stage.all(e.ContextCompacted) and offered(stage) == ["safe", "read_result"]
    assert "approval.requested" in stage.reply("", "read_result")


def test_one_huge_result_is_capped() -> None:
    """§7, FAULTS 92: what is too large for the window is told in part, and readable as a whole."""
    stage = staged()
    assert work(stage, 60_000) == ["tool.returned", "context.compacted", "step.started"]
    (_, _, result) = stage.told
    assert result[0] == "tool" and 1_000 < len(result[1]) < 2_000 and f"{stage.run.run}/k1" in result[1]
    assert stage.last(e.StepStarted).asked <= 4 * WINDOW and "read_result" in offered(stage)
    assert len(stage.last(e.ToolReturned).result) == 60_000, "the log is untouched"


def test_a_result_that_was_cut_for_its_event_can_be_read() -> None:
    """§7, FAULTS 92: the tool is there as soon as something is kept, in a large window too."""
    stage = Stage(agent=AGENT)
    stage.prompt()
    stage.reply("", "safe")
    stage.begin()
    stage.report(c.ToolEnded(stage.tool("k1"), 5, result="cut", truncated=True))
    assert "read_result" in offered(stage)


def test_words_larger_than_the_window_are_told_in_part() -> None:
    """§7: a prompt too; its reference is its message."""
    stage = Stage(agent=AGENT, context_tokens=WINDOW)
    stage.prompt("p1", "word " * 9_000)
    assert stage.last(e.ContextCompacted).kind == "references"
    (told,) = stage.told
    assert "kept as p1" in told[1] and len(told[1]) < 4 * WINDOW
    assert getattr(find(stage.run.top.history, "p1"), "text", "") == "word " * 9_000


# --- a summary


def test_the_older_part_is_summarised() -> None:
    """§7, 003-1, 003-2: instructions, the person's own words, the summary, the recent tail; then the step."""
    stage = compacting()
    assert stage.wanted == [summary(stage)]
    began = stage.last(e.CompactionStarted)
    assert "the task" in requested(stage) and "k1 line 0" in requested(stage)
    assert summarise(stage) == ["context.compacted", "step.started"]
    done = stage.last(e.ContextCompacted)
    assert (done.from_, done.to, done.kind, done.words) == (began.from_, began.to, "summary", 1)
    assert done.after < done.before <= WINDOW
    roles = [role for role, _ in stage.told]
    assert roles[:3] == ["user", "user", "assistant"] and roles[-1] == "tool"
    assert stage.told[0] == ("user", "the task") and "In short." in stage.told[1][1]
    check_strict(messages(stage.state, (), stage.rules))
    assert len(stage.run.top.history) > len(stage.told), "people and the log keep all"


def test_a_batch_is_never_cut_in_two() -> None:
    """§7: a boundary where every call has its result: a batch that is larger than the tail goes as a whole."""
    stage = staged("the task")
    while not stage.run.top.compacting:
        stage.reply("", *["safe"] * 5)
        for call in list(stage.run.top.batch):
            stage.begin(call)
            stage.end(call, "r" * 380)
    while stage.run.top.compacting:
        summarise(stage)
    check_strict(messages(stage.state, (), stage.rules))
    assert [role for role, _ in stage.told][:3] in (["user", "user"], ["user", "user", "assistant"])
    assert len(stage.told) % 6 == 2, "whole batches"


def test_a_summary_takes_in_the_one_before() -> None:
    """§7: nothing is summarised twice, and nothing falls out between two of them."""
    stage = compacting()
    summarise(stage, "The first summary.")
    first = stage.last(e.ContextCompacted)
    until(stage, "compaction.started")
    assert "The first summary." in requested(stage) and "k1 line 0" not in requested(stage)
    assert stage.last(e.CompactionStarted).from_ > first.to
    summarise(stage, "The second summary.")
    told = str(stage.told)
    assert "The second summary." in told and "The first summary." not in told


def test_every_message_is_told_to_the_summariser() -> None:
    """Many words and few replies: each word that leaves is in the request for the summary, if only how it begins."""
    stage = staged("Do 0. " + "please " * 40)
    for number in range(1, 11):
        stage.cancel(f"stop{number}")
        stage.prompt(f"again{number}", f"Do {number}. " + "please " * 40)
    until(stage, "compaction.started", chars=600)
    asked = requested(stage)
    missing = [number for number in range(11) if f"Do {number}." not in asked]
    assert not missing, asked


def test_notes_stay_as_they_are() -> None:
    """§7, 003-3, 003-4: decisions and failed approaches are in the request after it and after a crash, each once."""
    stage = staged("the task")
    ledger = Ledger(stage.state, c.Stamp(stage.at, "ann", "f", 0.5))
    for kind in ("progress", "knowledge", "environment", "decision"):
        ledger.emit(e.NoteSaved(note=kind, kind=kind, text=f"a note on {kind}"))
    stage.log += ledger.events
    until(stage, "compaction.started")
    summarise(stage)
    stage.crash()
    assert [note.text for note in stage.state.notes] == [note.text for note in stage.all(e.NoteSaved)]
    assert str(messages(stage.state, (), stage.rules)).count("a note on") == 4


def test_hints_come_after_it() -> None:
    """§3, §7: compact first, then give the hint; it is never summarised away at once."""
    stage = compacting()
    stage.hint(text="to the left")
    assert "to the left" not in requested(stage)
    assert summarise(stage) == ["context.compacted", "hint.applied", "step.started"]
    assert stage.told[-1] == ("user", "to the left")


def test_a_hint_that_comes_with_a_final_answer() -> None:
    """§3: one more step; withdrawn meanwhile, the answer stands."""
    stage = staged("the task")
    for _ in range(4):
        work(stage, 50, "t" * 600)
    stage.hint("h1", "x" * 3_000)
    assert "compaction.started" in stage.reply("that is all")
    stage.say(c.Withdraw(id="w", target="h1"))
    assert summarise(stage) == ["context.compacted", "run.completed"]


def test_the_next_run_begins_with_it() -> None:
    """§7: the history is the conversation's: what is summarised stays so, references too."""
    stage = compacting()
    summarise(stage)
    stage.reply("done")
    told = str(messages(stage.state, (), stage.rules)) if stage.state.run else ""
    assert not told
    stage.prompt("p2", "and now?")
    assert "In short." in str(stage.told) and stage.told[-1] == ("user", "and now?")


def test_a_run_may_begin_with_a_summary() -> None:
    """§7: before its first step, too; the new words stay."""
    stage = staged("first")
    for _ in range(4):
        work(stage, 50, "t" * 600)
    stage.reply("done")
    assert stage.prompt("p2", "y" * 3_000)[-1] == "compaction.started"
    assert stage.wanted == [summary(stage)] and stage.run.top.step == 0
    assert summarise(stage) == ["context.compacted", "step.started"]
    assert stage.told[-1] == ("user", "y" * 3_000) or stage.told[-2] == ("user", "y" * 3_000)


def test_every_level_has_its_own() -> None:
    """§5, §7: a sub-agent's history; its events carry the path; the level above knows nothing of it."""
    inner = FakeTool("inner", rerun="safe", agent=AGENT)
    stage = Stage(agent=FakeAgent(tools=named(inner)), context_tokens=WINDOW, steps_max=90)
    stage.prompt()
    stage.reply("", Call(call="k1", tool="inner", arguments='{"prompt": "look into it"}'))
    stage.path = ("k1",)
    until(stage, "compaction.started")
    assert summary(stage).path == ("k1",) and "look into it" in requested(stage)
    assert summarise(stage) == ["context.compacted", "step.started"]
    assert stage.last(e.ContextCompacted).path == ("k1",)
    inside = messages(stage.state, ("k1",), stage.rules)
    assert inside[1] == {"role": "user", "content": "look into it"} and "In short." in inside[2]["content"]
    stage.reply("the answer")
    assert stage.last(e.StepStarted).path == () and "In short." not in str(stage.told)


def test_its_usage_is_the_runs() -> None:
    """§9, 003-8: the summariser included; estimated where the provider was silent."""
    stage = compacting()
    before = stage.run.usage.input
    summarise(stage, usage=Usage(input=1_000, output=50))
    assert stage.run.usage.input == before + 1_000 and stage.last(e.ContextCompacted).usage is not None
    until(stage, "compaction.started")
    stage.report(c.Summarised(summary(stage), "Again.", "stop", None, asked=4_000))
    used = stage.last(e.ContextCompacted).usage
    assert used is not None and used.estimated and used.input == 1_001


def test_the_estimate_learns_from_usage() -> None:
    """§7: two characters a token, as the provider counts: half as much fits."""
    plain, dense = staged(), staged()
    for stage, usage in ((plain, None), (dense, Usage(input=2_000, output=1))):
        until(stage, "compaction.started", usage=usage)
    assert len(dense.all(e.ToolReturned)) < len(plain.all(e.ToolReturned))
    silent = staged()
    until(silent, "compaction.started", usage=Usage(input=1, output=1))
    assert len(silent.all(e.ToolReturned)) == len(plain.all(e.ToolReturned)), "nonsense is not believed"


# --- trouble


def test_trouble_is_retried_in_the_open() -> None:
    """§7, §9: the same policy as a step's; the wait is visible, costs no step, and can be cancelled."""
    stage = compacting()
    step = stage.run.top.step
    assert fail(stage, retry_after=5) == ["compaction.failed"]
    assert stage.wanted == [] and stage.plan.wake_at == stage.last(e.CompactionFailed).retry_at
    assert stage.until_due() == ["compaction.started"] and summary(stage).attempt == 2
    assert summarise(stage) == ["context.compacted", "step.started"] and stage.run.top.step == step + 1
    until(stage, "compaction.started")
    fail(stage, retry_after=5)
    assert stage.cancel() == ["run.cancelled"] and stage.wanted == []


def test_long_trouble_suspends() -> None:
    """§9: with `retry`, woken by itself; the summary is then tried again."""
    stage = compacting(retry_ms=20_000)
    for _ in range(20):
        if "run.suspended" in fail(stage, retry_after=8):
            break
        stage.until_due()
    assert (stage.run.status, stage.run.reason, stage.wanted) == ("suspended", "retry", [])
    assert stage.until_due() == ["run.resumed", "compaction.started"]
    assert summarise(stage)[-1] == "step.started"


def test_what_no_retry_mends_fails_the_run() -> None:
    """§9: as a step's model call would."""
    stage = compacting()
    assert fail(stage, "unauthorized") == ["compaction.failed", "run.failed"]


@pytest.mark.parametrize("how", ["refused", "empty"])
def test_no_summary_is_no_reason_to_end(how: str) -> None:
    """§7: refused by a filter, or without a word: mechanically, and the run goes on."""
    stage = compacting()
    came = fail(stage, "refused")[1:] if how == "refused" else summarise(stage, "  ")
    assert came == ["context.compacted", "step.started"]
    done = stage.last(e.ContextCompacted)
    assert done.kind == "mechanical" and "k1 line 0" in done.summary
    check_strict(messages(stage.state, (), stage.rules))


def test_a_summariser_that_overflows() -> None:
    """§7: in chunks, then mechanical."""
    stage = compacting()
    whole = stage.last(e.CompactionStarted)
    assert fail(stage, "context") == ["compaction.failed", "compaction.started"]
    chunk = stage.last(e.CompactionStarted)
    assert chunk.from_ == whole.from_ and chunk.to < whole.to and chunk.attempt == 2
    came = summarise(stage, "A chunk.")
    assert came[0] == "context.compacted" and stage.last(e.ContextCompacted).to == chunk.to
    while came[-1] == "compaction.started":
        came = fail(stage, "context")
    assert came[-1] == "step.started"
    assert [done.kind for done in stage.all(e.ContextCompacted)][-2:] in (
        ["summary", "mechanical"],
        ["references", "summary"],
    )


def test_one_that_always_overflows_is_mechanical() -> None:
    """§7: after the second time no model is asked."""
    stage = compacting()
    fail(stage, "context")
    assert fail(stage, "context") == ["compaction.failed", "context.compacted", "step.started"]
    done = stage.last(e.ContextCompacted)
    assert done.kind == "mechanical" and done.after < done.before and done.usage is None
    assert "k1 line 0" in done.summary, "first words of what was there"


def test_too_long_compacts_harder_at_most_twice() -> None:
    """§7, FAULTS 85: no step is spent; then `run.suspended{context}`; never a loop; `resume` tries again."""
    stage = staged("the task", context_tokens=100_000)
    for _ in range(6):
        work(stage, 900)
    step = stage.run.top.step
    sizes = [stage.last(e.StepStarted).asked]
    for _ in range(2):
        came = stage.fail("context", retryable=False)
        assert came[0] == "model.failed" and stage.last(e.ModelFailed).retry_at is None
        while came[-1] != "step.started":
            came = summarise(stage)
        sizes.append(stage.last(e.StepStarted).asked)
    assert sizes[0] > sizes[1] > sizes[2]
    assert stage.fail("context", retryable=False) == ["model.failed", "run.suspended"]
    assert (stage.run.reason, stage.run.top.step, stage.plan.wake_at, stage.wanted) == ("context", step, None, [])
    assert stage.hint() == ["hint.given"], "kept; it does not resume"
    stage.crash()
    assert stage.say(c.Resume(id="r"))[0] == "run.resumed"
    assert stage.state.status == "running" and stage.last(e.StepStarted).attempt == 4
    assert stage.last(e.HintApplied).step == step


def test_what_cannot_become_smaller_is_suspended() -> None:
    """§7: nothing to compact: no request is made twice."""
    stage = staged("the task", context_tokens=100_000)
    assert stage.fail("context", retryable=False) == ["model.failed", "run.suspended"]
    assert stage.run.reason == "context"
    assert stage.say(c.Resume(id="r")) == ["run.resumed", "step.started"]
    assert stage.fail("context", retryable=False) == ["model.failed", "run.suspended"]
    assert stage.cancel() == ["run.cancelled"]


def saved(stage: Stage, notes: int, chars: int) -> None:
    """So many notes of so many characters."""
    ledger = Ledger(stage.state, c.Stamp(stage.at, "ann", "f", 0.5))
    for number in range(notes):
        ledger.emit(e.NoteSaved(note=f"n{number}", kind="knowledge", text="known " * (chars // 6)))
    stage.log += ledger.events


def sent(stage: Stage) -> list[int]:
    """The sizes of the requests that were made, in tokens as estimated."""
    return [event.asked // 4 for event in stage.all(e.StepStarted)]


def test_notes_that_fill_the_window_suspend() -> None:
    """§7, §9, FAULTS 85: no request over the window, no loop; it is said why; a larger window makes resume go on."""
    stage = staged("the task", context_tokens=3_000)
    work(stage, 100)
    saved(stage, 4, 3_600)
    assert work(stage, 100) == ["tool.returned", "run.suspended"]
    told, notes = stage.last(e.RunSuspended), len(stage.state.notes)
    assert told.reason == "context" and told.message is not None
    assert told.message.startswith("Instructions, notes and tools alone take about 3,") and "3,000" in told.message
    assert (stage.wanted, stage.plan.wake_at) == ([], None)
    assert stage.say(c.Resume(id="r1")) == ["run.resumed", "run.suspended"], "tried again, without a request"
    stage.crash()
    assert stage.state.status == "suspended" and max(sent(stage)) < 3_000
    stage.change(context_tokens=12_000)
    assert stage.wait(1_000) == [], "a resume is a person's"
    assert stage.say(c.Resume(id="r2")) == ["run.resumed", "step.started"]
    assert len(stage.state.notes) == notes and not stage.all(e.CompactionStarted)
    assert stage.reply("done") == ["model.replied", "run.completed"]


@pytest.mark.parametrize("part", ["instructions", "tools"])
def test_instructions_that_fill_the_window_suspend(part: str) -> None:
    """§7, §9, FAULTS 85: before the first step, and at every level; nothing is ever sent that does not fit."""
    many = named(*(FakeTool(f"tool_{number}_{'x' * 50}") for number in range(80)))
    large = FakeAgent(instructions="Be good. " * 1_000) if part == "instructions" else FakeAgent(tools=many)
    stage = Stage(agent=large, context_tokens=WINDOW)
    assert stage.prompt(text="go") == ["prompt.given", "run.started", "run.suspended"]
    assert stage.run.reason == "context" and "alone take about" in str(stage.last(e.RunSuspended).message)
    assert stage.say(c.Resume(id="r1")) == ["run.resumed", "run.suspended"] and not sent(stage)
    stage.crash()
    stage.change(context_tokens=8 * WINDOW)
    assert stage.say(c.Resume(id="r2")) == ["run.resumed", "step.started"]


def test_what_is_nearly_full_is_compacted_down_to_the_window() -> None:
    """§7: where little room is left beside notes, history takes what there is, and never more."""
    stage = staged("the task", context_tokens=3_000)
    saved(stage, 3, 3_600)
    for _ in range(12):
        came = work(stage, 300)
        while came[-1] == "compaction.started":
            came = summarise(stage)
        if came[-1] == "run.suspended":
            break
    assert stage.all(e.ContextCompacted) and max(sent(stage)) <= 3_000


def test_a_smaller_window_than_was_set_is_remembered() -> None:
    """§7: what the provider has once called too long is not sent to it again, step after step."""
    stage = staged("the task", context_tokens=100_000)
    for _ in range(6):
        work(stage, 900)
    refused = stage.last(e.StepStarted).asked
    came = stage.fail("context", retryable=False)
    while came[-1] != "step.started":
        came = summarise(stage)
    for _ in range(20):
        came = work(stage, 900)
        if came[-1] == "compaction.started":
            summarise(stage)
        assert stage.last(e.StepStarted).asked < refused


# --- stopped, killed, parked


def test_a_crash_in_the_middle_wants_it_again() -> None:
    """§7: nothing doubled; the late answer of the dead process is dropped."""
    stage = compacting()
    dead = summary(stage)
    assert stage.crash() == ["actor.activated"]
    assert summary(stage).epoch == dead.epoch + 1 and stage.wanted == [summary(stage)]
    assert stage.report(c.Summarised(dead, "Late.", "stop", None, 1)) == []
    assert summarise(stage) == ["context.compacted", "step.started"]
    answered = len(stage.all(e.ContextCompacted))
    stage.crash()
    assert len(stage.all(e.ContextCompacted)) == answered and not any(isinstance(w, Summary) for w in stage.wanted)


def test_a_crash_again_and_again() -> None:
    """§1: at the third the step fails the run."""
    stage = compacting()
    stage.crash()
    stage.crash()
    assert stage.crash() == ["actor.activated", "run.failed"]
    assert stage.last(e.RunFailed).error.kind == "crash_loop"


def test_a_stop_ends_it() -> None:
    """§10: in a compaction; its answer comes too late."""
    stage = compacting()
    late = summary(stage)
    assert stage.cancel() == ["run.cancelled"] and stage.wanted == []
    assert stage.report(c.Summarised(late, "Late.", "stop", None, 1)) == []


def test_a_suspension_waits_for_it() -> None:
    """§6: at the next step boundary; nothing is cut off."""
    stage = compacting()
    assert stage.say(c.Suspend(id="s")) == ["suspension.requested"]
    assert stage.wanted == [summary(stage)]
    assert summarise(stage) == ["context.compacted", "run.suspended"]
