"""The course of a run on the pure floor: prompts, steps, batches of calls, suspension by request, the archive.

SEMANTICS.md §2, §5, §6 and the general rule; PROTOCOL.md §1.2 and §3.
"""

from __future__ import annotations

import random

import msgspec
import pytest

from app.core import commands as c
from app.core import events as e
from app.core.bounds import TEXT_BYTES_MAX, TITLE_CHARS_MAX
from app.core.codec import encode
from app.core.decide import decide
from app.core.effects import Admission, ArchiveFlush, ModelCall
from app.core.errors import Rejected
from app.core.events import Call
from app.core.state import State
from tests.core.stage import Stage, tags
from tests.core.world import RULES


def create(prompt: str | None = None, title: str = "", id: str | None = None) -> list[e.Event]:
    stamp = c.Stamp(1_000, "ann", "fresh", random.Random(0).random())
    command = c.Create("a", title, "ann", prompt, id)
    return decide(State(), command, stamp, RULES).events


# --- beginnings


def test_a_conversation_begins_with_its_creation() -> None:
    """PROTOCOL §2: with a prompt its run is known before the first model call; `id` is the prompt's command id."""
    assert tags(create()) == ["conversation.created"]
    created, given, started, step = create("hello", "T", "c1")
    assert isinstance(created, e.ConversationCreated) and (created.title, created.owner) == ("T", "ann")
    assert isinstance(given, e.PromptGiven) and (given.message, given.text, given.author) == ("c1", "hello", "ann")
    assert isinstance(started, e.RunStarted) and started.message == "c1" and started.run == given.run == step.run
    assert [event.cause for event in (created, given, started, step)] == ["c1", None, None, None]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"prompt": " \n"}, "text_empty"),
        ({"prompt": "x" * (TEXT_BYTES_MAX + 1)}, "too_large"),
        ({"title": "x" * (TITLE_CHARS_MAX + 1)}, "too_large"),
    ],
)
def test_a_creation_that_is_refused(fields: dict[str, str], code: str) -> None:
    """PROTOCOL §4."""
    with pytest.raises(Rejected) as refusal:
        create(**fields)
    assert refusal.value.code == code


def test_a_prompt_starts_a_run() -> None:
    """PROTOCOL §5: given, started, first step of first attempt, by the agent's model or the setting's."""
    stage = Stage()
    assert stage.prompt() == ["prompt.given", "run.started", "step.started"]
    step = stage.last(e.StepStarted)
    assert (step.step, step.attempt, step.model) == (1, 1, "m")
    assert stage.wanted == [ModelCall(1, stage.run.run, (), 1, 1)]
    assert stage.told == [("user", "go")]


def test_a_run_that_finds_no_place_waits_visibly() -> None:
    """DESIGN §8 HOLDFAST_RUNS_MAX: its first step waits; it can be stopped meanwhile."""
    stage = Stage(admit=False)
    assert stage.prompt() == ["prompt.given", "run.started"]
    (effect,) = stage.wanted
    assert isinstance(effect, Admission) and stage.run.status == "running"
    assert stage.wait(60_000) == []
    assert stage.report(c.Admitted(effect)) == ["step.started"]


@pytest.mark.parametrize(
    ("text", "code"), [("", "text_empty"), (" \t\n", "text_empty"), ("é" * (TEXT_BYTES_MAX // 2 + 1), "too_large")]
)
def test_words_that_are_refused(text: str, code: str) -> None:
    """PROTOCOL §4: bytes, not characters; for hints as for prompts, idle or not."""
    stage = Stage()
    assert stage.refuses(c.Prompt(id="p", text=text)).code == code
    assert stage.refuses(c.Hint(id="h", text=text)).code == code
    stage.prompt()
    assert stage.refuses(c.Prompt(id="p", text=text)).code == code
    assert stage.refuses(c.Hint(id="h", text=text)).code == code


def test_a_prompt_during_a_run_is_queued() -> None:
    """FAULTS 73: never two runs at a time in one conversation; delivered by `run.started`."""
    stage = Stage()
    stage.prompt()
    assert stage.prompt("p2", "next") == ["prompt.queued"]
    assert stage.reply("done") == ["model.replied", "run.completed", "run.started", "step.started"]
    assert stage.last(e.RunStarted).message == "p2"
    assert stage.told[-1] == ("user", "next")


@pytest.mark.parametrize("state", ["waiting", "suspended"])
def test_a_prompt_while_a_run_waits_is_queued(state: str) -> None:
    """PROTOCOL §1.2 `prompt`: idle: starts a run. Otherwise queued."""
    stage = Stage(steps_max=1)
    stage.prompt()
    stage.reply("", "guarded" if state == "waiting" else "missing")
    assert stage.run.status == state
    assert stage.prompt("p2") == ["prompt.queued"]


def test_a_queued_prompt_can_be_withdrawn() -> None:
    """FAULTS 68."""
    stage = Stage()
    stage.prompt()
    stage.prompt("p2")
    assert stage.say(c.Withdraw(id="w1", target="p2")) == ["prompt.withdrawn"]
    assert stage.refuses(c.Withdraw(id="w2", target="p2")).code == "not_found"
    assert stage.reply("done") == ["model.replied", "run.completed"]


# --- steps


def test_a_batch_runs_in_parallel_and_the_next_call_waits_for_all() -> None:
    """§5: the next model call of a level happens when every call of its batch has a result."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "never", "safe", "ask")
    assert stage.tools == ["k1", "k2", "k3"]
    for call in ("k3", "k1"):
        assert stage.begin(call) == ["tool.started"]
        assert stage.end(call, call) == ["tool.returned"]
    stage.begin("k2")
    assert stage.end("k2", "k2") == ["tool.returned", "step.started"]
    assert [content for role, content in stage.told if role == "tool"] == ["k1", "k2", "k3"], "in the order asked"


def test_the_end_says_what_it_cost() -> None:
    """PROTOCOL §3.1 `run.completed`: message (the final one), usage, steps, ms."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "safe")
    stage.begin()
    stage.at += 500
    stage.end()
    stage.reply("the end")
    end = stage.last(e.RunCompleted)
    assert (end.message, end.steps, end.ms) == (stage.last(e.ModelReplied).message, 2, 500)
    assert (end.usage.input, end.usage.output) == (20, 10)
    record = stage.state.runs[end.run or ""]
    assert (record.status, record.result, record.step, record.finished_at) == ("completed", "the end", 2, stage.at)


def test_pieces_carry_their_offsets_in_code_points() -> None:
    """PROTOCOL §3.1: counted separately; a client may simply append."""
    stage = Stage()
    stage.prompt()
    stage.stream("wört 🎉", "hm")
    stage.stream("!", " hm")
    assert [(p.offset, p.text) for p in stage.all(e.TextStreamed)] == [(0, "wört 🎉"), (6, "!")]
    assert [(p.offset, p.text) for p in stage.all(e.ReasoningStreamed)] == [(0, "hm"), (2, " hm")]


def test_progress_is_of_a_running_call_only() -> None:
    """PROTOCOL §3.3: superseded by the end of its call; none after it."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "safe")
    effect = stage.tool("k1")
    assert stage.report(c.Progressed(effect, "early", None)) == []
    stage.begin()
    assert stage.report(c.Progressed(effect, "half", 0.5)) == ["tool.progressed"]
    stage.end()
    assert stage.report(c.Progressed(effect, "late", 1.0)) == []


@pytest.mark.parametrize("kind", ["error", "timeout", "in_doubt"])
def test_a_failed_tool_is_told_and_the_run_goes_on(kind: str) -> None:
    """FAULTS 90, 91, 000-21."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "never")
    stage.begin()
    assert stage.break_(kind=kind) == ["tool.failed", "step.started"]
    assert stage.told[-1][0] == "tool" and kind in stage.told[-1][1]


def test_a_result_counts_once() -> None:
    """§2: every call has exactly one result in the history."""
    stage = Stage()
    stage.prompt()
    stage.reply("", "never", "safe")
    stage.begin("k1")
    working = stage.tool("k1")
    stage.end("k1")
    assert stage.report(c.ToolEnded(working, 5, result="again")) == []
    assert stage.report(c.ToolEnded(working, 5, error=e.Failure(kind="error", message=""))) == []


# --- suspension by request


def test_suspend_parks_at_the_next_boundary_and_resume_goes_on() -> None:
    """§6, 004-19: nothing is cut off; exactly there it goes on, after a restart too."""
    stage = Stage()
    stage.prompt()
    assert stage.say(c.Suspend(id="s1")) == ["suspension.requested"]
    assert stage.last(e.SuspensionRequested).by == "ann" and stage.wanted == [stage.model]
    assert stage.say(c.Suspend(id="s2")) == ["command.noted"]
    stage.reply("", "never")
    stage.begin()
    assert stage.end() == ["tool.returned", "run.suspended"]
    assert (stage.last(e.RunSuspended).reason, stage.wanted, stage.plan.wake_at) == ("request", [], None)
    assert stage.crash() == ["actor.activated"]
    assert stage.refuses(c.Suspend(id="s3")).code == "not_running"
    assert stage.say(c.Resume(id="r1")) == ["run.resumed", "step.started"]
    assert stage.refuses(c.Resume(id="r2")).code == "not_running"
    assert stage.reply("done")[-1] == "run.completed", "asked once, parked once"


def test_a_final_answer_is_no_boundary() -> None:
    """§6: there is nothing left to park."""
    stage = Stage()
    stage.prompt()
    stage.say(c.Suspend(id="s"))
    assert stage.reply("done") == ["model.replied", "run.completed"]


@pytest.mark.parametrize("asked_for", ["before", "while waiting"])
def test_a_suspension_survives_an_approval(asked_for: str) -> None:
    """§6, 004-20: it was accepted, so the run parks at the next boundary, whatever comes in between."""
    stage = Stage()
    stage.prompt()
    if asked_for == "before":
        stage.say(c.Suspend(id="s"))
    stage.reply("", "guarded")
    assert stage.run.status == "waiting"
    if asked_for == "while waiting":
        assert stage.say(c.Suspend(id="s")) == ["suspension.requested"]
    stage.crash()
    stage.approve()
    stage.begin()
    assert stage.end() == ["tool.returned", "run.suspended"]
    assert stage.last(e.RunSuspended).reason == "request"


def test_a_suspension_survives_the_provider_being_down() -> None:
    """§6, §9."""
    stage = Stage(retry_ms=1_000)
    stage.prompt()
    stage.say(c.Suspend(id="s"))
    assert stage.fail(retry_after=5) == ["model.failed", "run.suspended"]
    assert stage.run.reason == "retry"
    assert stage.until_due()[0] == "run.resumed"
    assert stage.until_due() == ["run.suspended"]
    assert stage.run.reason == "request"


@pytest.mark.parametrize(
    "command", [c.Suspend(id="x"), c.Resume(id="x"), c.Resume(id="x", run="r"), c.Suspend(id="x", run="r")]
)
def test_out_of_place(command: c.FromClient) -> None:
    """PROTOCOL §1.2: `not_running`."""
    assert Stage().refuses(command).code == "not_running"
    stage = Stage()
    stage.prompt()
    if isinstance(command, c.Resume) or command.run:  # type: ignore[union-attr]
        assert stage.refuses(command).code == "not_running"


@pytest.mark.parametrize("resume", [c.Resume(id="r", steps=0), c.Resume(id="r", tokens=-1)])
def test_a_ceiling_is_positive(resume: c.Resume) -> None:
    stage = Stage(steps_max=1)
    stage.prompt()
    stage.reply("", "missing")
    assert stage.refuses(resume).code == "bad_command"


# --- the rest of what people may say


def test_rename() -> None:
    """PROTOCOL §4: title 200 characters."""
    stage = Stage()
    assert stage.say(c.Rename(id="r1", title="x" * TITLE_CHARS_MAX)) == ["conversation.renamed"]
    assert stage.refuses(c.Rename(id="r2", title="x" * (TITLE_CHARS_MAX + 1))).code == "too_large"
    assert stage.refuses(c.Rename(id="r3", title=" ")).code == "text_empty"


def test_an_accepted_id_is_accepted_for_ever() -> None:
    """P3, FAULTS 2, 34: whatever is sent under it, and after a restart."""
    stage = Stage()
    stage.prompt("p1")
    seq = stage.accepted["p1"]
    stage.crash()
    for command in (c.Prompt(id="p1", text="go"), c.Cancel(id="p1"), c.Rename(id="p1", title="other")):
        again = stage.do(command)
        assert (again.seq, again.duplicate, again.events) == (seq, True, [])


def test_a_refusal_is_not_remembered() -> None:
    """PROTOCOL §1.1 `rejected`: a re-send is decided afresh."""
    stage = Stage()
    stage.refuses(c.Resume(id="r"))
    stage.prompt()
    stage.say(c.Suspend(id="s"))
    stage.reply("", "missing")
    assert stage.say(c.Resume(id="r"))[0] == "run.resumed"


def test_every_accepted_id_leaves_an_event_that_carries_it() -> None:
    """PROTOCOL §1.2: `command.noted` where nothing else happens; `cause` is on the first event only."""
    stage = Stage()
    stage.prompt("p1")
    stage.cancel("c1")
    stage.say(c.Cancel(id="c2"))
    assert stage.last(e.CommandNoted).outcome == "no run is going on"
    causes = [event.cause for event in stage.log if event.cause]
    assert causes == ["p1", "c1", "c2"]


# --- what the wire shows


def test_events_have_the_fields_of_the_protocol() -> None:
    """PROTOCOL §3.1: `run` on every event of a run; optional fields are left out, the others always there."""
    stage = Stage()
    stage.prompt()
    stage.reply("", Call(call="k1", tool="guarded", arguments='{"n": 1}'))
    stage.approve(arguments={"n": 2})
    stage.begin()
    stage.end()
    stage.reply("done")
    shown = {event["type"]: event for event in map(msgspec.json.decode, stage.texts())}
    envelope = {"seq", "at", "type", "run"}
    assert set(shown["run.started"]) == envelope | {"agent", "message"}
    assert set(shown["step.started"]) == envelope | {"step", "attempt", "model", "asked", "request"}
    assert set(shown["model.replied"]) == envelope | {"step", "attempt", "message", "text", "calls", "finish", "usage"}
    assert set(shown["approval.requested"]) == envelope | {"call", "tool", "arguments", "digest"}
    assert set(shown["approval.decided"]) == envelope | {"cause", "call", "decision", "by", "arguments"}
    assert set(shown["tool.started"]) == envelope | {"call", "tool", "arguments"}
    assert set(shown["tool.returned"]) == envelope | {"call", "result", "ms"}
    assert set(shown["run.completed"]) == envelope | {"message", "usage", "steps", "ms"}
    assert set(shown["run.suspended"]) == envelope | {"reason"}
    assert "run" not in shown["conversation.created"]


def test_no_event_is_changed_after_it_was_decided() -> None:
    """DESIGN §1.5: what is stored is what is sent."""
    stage = Stage()
    stage.prompt()
    texts: list[str] = []
    for step in range(3):
        stage.stream("a ")
        stage.reply("", "safe")
        stage.begin(f"k{step + 1}")
        texts += [encode(event) for event in stage.log[len(texts) :]]
        stage.end(f"k{step + 1}")
    assert stage.texts()[: len(texts)] == texts


# --- the archive


def test_the_archive_is_wanted_after_every_suspension_every_twenty_steps_and_at_the_end() -> None:
    """DESIGN §6; FAULTS 9: until the log says that it is written."""
    stage = Stage(steps_max=100, repeats_max=100)
    stage.prompt()
    for step in range(1, 20):
        assert not flushes(stage)
        stage.reply("", "safe")
        stage.begin(f"k{step}")
        stage.end(f"k{step}")
    assert flushes(stage), "step 20 has begun"
    assert written(stage) == ["archive.flushed"]
    stage.reply("", "guarded")
    assert flushes(stage), "suspended"
    written(stage)
    stage.cancel()
    stage.crash()
    assert flushes(stage), "ended; a crash between is simply still wanted"
    written(stage)
    assert stage.plan.effects == ()


def flushes(stage: Stage) -> list[ArchiveFlush]:
    return [effect for effect in stage.plan.effects if isinstance(effect, ArchiveFlush)]


def written(stage: Stage) -> list[str]:
    assert len(flushes(stage)) == 1
    return stage.report(c.Flushed(flushes(stage)[0], stage.state.seq))
