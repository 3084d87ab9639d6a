"""SEMANTICS.md §5 on the pure floor: sub-agents wait, are parked, are too many, and never leave a run hanging."""

from __future__ import annotations

from app.core import commands as c
from app.core import events as e
from app.core.bounds import CHILDREN_MAX
from app.core.events import Call
from tests.core.stage import Stage, kinds
from tests.core.world import FakeAgent, FakeTool

INNER = FakeAgent("inner", tools={tool.name: tool for tool in (FakeTool("never"), FakeTool("guarded", approval=True))})
OUTER = FakeAgent(
    tools={
        "inner": FakeTool("inner", rerun="safe", interruptible=False, agent=INNER),
        "never": FakeTool("never"),
        "guarded": FakeTool("guarded", approval=True),
    }
)


def opened(*more: str, inner: int = 1, **rules: object) -> Stage:
    """A run with so many sub-agents, called as k1, k2, …, and these calls beside them."""
    stage = Stage(agent=OUTER, **rules)
    stage.prompt()
    calls = [Call(call=f"k{n}", tool="inner", arguments='{"prompt": "do it"}') for n in range(1, inner + 1)]
    calls += [Call(call=f"k{inner + n}", tool=tool, arguments="{}") for n, tool in enumerate(more, 1)]
    stage.reply("", *calls)
    return stage


def test_the_call_stays_open_until_the_level_has_its_answer() -> None:
    """§5: its own instructions, messages, steps; its events carry `path`; the result is its final text."""
    stage = opened()
    started = stage.last(e.ToolStarted)
    assert (started.call, started.agent, started.path) == ("k1", "inner", ())
    stage.path = ("k1",)
    assert stage.reply("", "never") == ["model.replied"]
    stage.begin()
    assert stage.last(e.ToolStarted).path == ("k1",)
    stage.end()
    assert stage.reply("it is done") == ["model.replied", "tool.returned", "step.started"]
    assert (stage.last(e.ToolReturned).path, stage.last(e.ToolReturned).result) == ((), "it is done")
    assert stage.told[-1] == ("tool", "it is done")


def test_equal_call_ids_at_two_levels_do_not_collide() -> None:
    """§5: addressed by the path of call ids."""
    stage = opened("guarded")
    stage.path = ("k1",)
    stage.reply("", "guarded")
    assert stage.run.status == "waiting"
    assert stage.deny("k1", "d1")[-2:] == ["run.resumed", "step.started"], "its level goes on while k2 waits"
    assert stage.reply("so be it") == ["model.replied", "tool.returned", "run.suspended"]
    stage.path = ()
    assert kinds(stage.all(e.ToolFailed)) == [("k1", "denied")] and stage.call("k2").approval is not None
    assert stage.approve("k2", "d2")[0] == "approval.decided"


def test_more_sub_agents_than_may_work_at_a_time_wait_for_a_person_all_the_same() -> None:
    """P5, §5: `waiting` as soon as nothing runs and an approval is open, though some calls wait for a place."""
    stage = opened(inner=CHILDREN_MAX + 2, steps_max=50)
    for number in range(1, CHILDREN_MAX + 1):
        stage.path = (f"k{number}",)
        assert stage.run.status == "running"
        stage.reply("", "guarded")
    assert (stage.run.status, stage.wanted, stage.plan.wake_at) == ("waiting", [], None)
    assert stage.crash() == ["actor.activated"]
    stage.path = ("k1",)
    stage.deny("k1", "d1")
    assert stage.run.status == "running"
    assert stage.reply("so be it")[-2:] == ["tool.started", "step.started"], "its place is taken by the next"


def test_a_level_whose_calls_are_decided_goes_on_also_after_a_drain() -> None:
    """§5, §11, P5: decisions are independent; what the drain kept from going on goes on by itself afterwards."""
    stage = opened("guarded")
    stage.path = ("k1",)
    stage.reply("", "guarded")
    stage.drain()
    assert stage.deny("k1", "d1")[-1] == "run.resumed"
    assert stage.state.unfinished and stage.wanted == []
    stage.drain(False)
    assert stage.crash() == ["actor.activated", "step.started"]
    assert stage.last(e.StepStarted).path == ("k1",)


def test_a_level_that_waits_to_retry_is_not_woken_before_it_may_go_on() -> None:
    """P8, §6: parked by a request while another level works: a time in the past would turn the wheel for ever."""
    stage = opened("never")
    stage.begin("k2")
    stage.say(c.Suspend(id="s"))
    stage.path = ("k1",)
    stage.fail(retry_after=5)
    stage.wait(6_000)
    assert stage.plan.wake_at is None or stage.plan.wake_at > stage.at
    stage.path = ()
    assert stage.end("k2") == ["tool.returned", "run.suspended"]
    assert stage.plan.wake_at is None


def test_two_levels_that_wait_to_retry_are_parked_when_both_could_go_on() -> None:
    """§6: at a step boundary of the run, at the later of the two times, and not by turning until then."""
    stage = opened(inner=2)
    stage.say(c.Suspend(id="s"))
    stage.path = ("k1",)
    stage.fail(retry_after=5)
    stage.path = ("k2",)
    stage.fail(retry_after=20)
    stage.wait(6_000)
    assert stage.until_due() == ["run.suspended"]
    assert stage.last(e.RunSuspended).reason == "request"


def test_a_level_that_waits_to_retry_is_not_woken_by_a_process_that_drains() -> None:
    """§11, P8: nothing begins any more; what another level does may still take its time."""
    stage = opened("never")
    stage.begin("k2")
    stage.path = ("k1",)
    stage.fail(retry_after=5)
    stage.drain()
    stage.at += 6_000
    assert stage.plan.wake_at is None
    stage.path = ()
    assert stage.end("k2") == ["tool.returned"]
    stage.drain(False)
    assert "step.started" in stage.crash()


def test_cancelling_closes_every_level() -> None:
    """§5: every open call and approval, sub-agents' before those of who called them."""
    stage = opened("guarded", inner=2)
    stage.path = ("k1",)
    stage.reply("", "guarded", "never")
    stage.begin("k2")
    stage.path = ("k2",)
    stage.stream("half ")
    stage.path = ()
    assert stage.cancel() == ["cancel.requested"]
    stage.until_due()
    paths = [(*event.path, event.call) for event in stage.all(e.ToolFailed)]
    assert sorted(paths) == [("k1",), ("k1", "k1"), ("k1", "k2"), ("k2",), ("k3",)]
    assert paths.index(("k1", "k1")) < paths.index(("k1",)) and not stage.all(e.RunCancelled)[1:]
    assert [event.text for event in stage.all(e.ModelInterrupted)] == ["half "]
