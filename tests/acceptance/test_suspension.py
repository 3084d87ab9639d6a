"""SEMANTICS.md §3, §6, §9 and source 2: runs that are parked at a step boundary, by whom or what, and how they go on.

Rows 002-5, 002-9, 002-10, 002-12, 002-13, 002-14 (the other rows of source 2 are in test_source2.py), 004-17, 004-18,
004-19, 004-20, 004-21 (without continuations as values, which have rows of their own). One
server per kind of limit; several are killed and brought back in the middle: the state of these rules is in the log.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from .conftest import Configured
from .harness import Client, Server, fresh, settled
from .history import Json
from .parts import Brain, Held, agent_of, asked_at, at, decision, parts, spoken
from .stub import Answer, Call, Story, Use, refuse, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

SERVED = ("tests.acceptance.levels:agents",)
SLICE = {"SLICE_SECONDS": "0.2", "STEPS_MAX": "100", "REPEATS_MAX": "100"}
TURNS = {"TURNS": "2"}
FEW = {"STEPS_MAX": "3"}
CHEAP = {"TOKENS_MAX": "60", "TOOLS_PARALLEL": "1", "TOOLS_MAX": "1"}
SHORT = {"SECONDS_MAX": "1"}
IMPATIENT = {"RETRY_SECONDS": "1"}


def on(line: str, id: str = "k1", tool: str = "once", **more: Any) -> Use:
    """A call of a tool that writes this line into the ledger."""
    return Use(tool, {"line": line, **more}, id=id)


def table(place: str, id: str = "book") -> Use:
    return Use("reserve", {"place": place, "people": 2}, id=id)


def asking(story: Story, id: str = "w", agent: str = "worker") -> Use:
    return Use(agent, {"prompt": story.says("Work")}, id=id)


def counting(line: str, last: int, **more: Any) -> Brain:
    """An agent that uses `once` for each number from 1 in a step of its own, and then says the total of all results."""

    def brain(call: Call) -> Answer:
        number = spoken(call) + 1
        if number <= last:
            return use(on(line, f"n{number}", **more))
        return say(f"The total is {sum(int(id[1:]) for id in call.results)}")

    return brain


def numbers(server: Server, line: str) -> list[int]:
    """The numbers that were used, in order; each must have begun and ended once."""
    entries = [entry.split() for entry in server.ledger(line)]
    began = [int(entry[3][1:]) for entry in entries if entry[1] == "begin"]
    assert sorted(began) == sorted(int(entry[3][1:]) for entry in entries if entry[1] == "end")
    return began


def above(story: Story, worker: Brain | Sequence[Answer]) -> Brain:
    """`lead` asks its worker, who has this part, and then says "All done."."""
    return parts(lead=[use(asking(story)), say("All done.")], worker=worker)


async def begin(server: Server, story: Story, brain: Brain, agent: str = "worker") -> Client:
    """A run of this agent, and its reader."""
    story.brain = brain
    tab = await server.open(agent=agent)
    await tab.do("prompt", text=story.says("Go"))
    return tab


async def stopped(server: Server, tab: Client, reason: str, times: int = 1) -> Json:
    """The n-th suspension of this run; it is for this reason, and every view says so."""
    event = (await tab.count("run.suspended", times))[times - 1]
    assert event["reason"] == reason
    item = await server.get(f"/api/conversations/{tab.attached['conversation']}")
    assert item["status"] == (await server.get(f"/api/runs/{tab.run}"))["status"] == "suspended"
    return event


async def parked(server: Server, story: Story, brain: Brain, line: str) -> Client:
    """A run of `worker` whose first tool has the line for a gate, suspended by request after it."""
    tab = await begin(server, story, brain)
    await server.wrote(line)
    await tab.do("suspend", "stop-here")
    server.let(line)
    await stopped(server, tab, "request")
    return tab


# --- slices


async def test_002_10_the_same_as_without_slices(server: Server, configured: Configured, story: Story) -> None:
    """002-10, 004-26: messages to the model, the archive and the outcome equal those of a run without slices."""
    seen = []
    for place in (server, await configured(**SLICE)):
        line, asked = fresh("line"), len(story.calls)
        tab = await begin(place, story, above(story, counting(line, 8, seconds=0.06)), "lead")
        await tab.ended()
        assert bool(tab.all("run.sliced")) == (place is not server)
        requests = [call.messages for call in story.calls[asked:]]
        kept = (await place.archived(tab.attached["conversation"], tab.run))["messages"]
        told = [{key: m.get(key) for key in ("path", "role", "text", "calls", "call")} for m in kept]
        seen.append(json.dumps([requests, told, numbers(place, line)]).replace(line, "LINE"))
        await settled(place, tab)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("inside", [False, True])
async def test_002_12_a_tool_longer_than_a_slice(configured: Configured, story: Story, inside: bool) -> None:
    """002-12: five slices long, in a sub-agent, too: runs once to its end, its result counts; the slice ends after."""
    server, line = await configured(**SLICE), fresh("line")
    brain = above(story, [use(on(line, seconds=1.0)), say("Worked.")])
    tab = await begin(server, story, brain, "lead" if inside else "worker")
    assert (await tab.ended())["type"] == "run.completed"
    assert len(server.ledger(line)) == 2
    [returned] = tab.all("tool.returned", call="k1")
    assert returned["result"] == f"{line} is done" and returned["ms"] >= 1000
    [sliced] = [event for event in tab.all("run.sliced") if event["seq"] > returned["seq"]][:1]
    assert sliced["at"] - returned["at"] < 1000
    assert not [
        e for e in tab.all("run.sliced") if tab.all("tool.started", call="k1")[0]["seq"] < e["seq"] < returned["seq"]
    ]
    await settled(server, tab)


@pytest.mark.parametrize(("tool", "begun"), [("once", 1), ("safe", 2)])
async def test_002_12_killed_in_a_tool_longer_than_a_slice(
    configured: Configured, story: Story, tool: str, begun: int
) -> None:
    """002-12 with kill -9: in doubt, or run again, as its tool declares."""
    server, line = await configured(**SLICE), fresh("line")
    tab = await begin(server, story, parts(worker=[use(on(line, tool=tool, gate=line)), say("Worked.")]))
    await server.wrote(line)
    await server.kill()
    server.let(line)
    await server.start()
    tab = await server.again(tab)
    assert (await tab.ended())["type"] == "run.completed"
    assert len([entry for entry in server.ledger(line) if " begin " in entry]) == begun
    assert [event["error"]["kind"] for event in tab.all("tool.failed")] == ([] if begun == 2 else ["in_doubt"])
    await settled(server, tab)


async def test_002_5_killed_between_slices(configured: Configured, story: Story) -> None:
    """002-5, 002-14: what was pending is closed, once; what had ended is untouched; no result is fetched again."""
    server, line, held = await configured(**SLICE), fresh("line"), Held()
    count = counting(line, 20, seconds=0.06)
    tab = await begin(server, story, lambda call: held if spoken(call) == 10 else count(call))
    first = await held.call()
    assert tab.all("run.sliced")
    before = await server.replay(tab.attached["conversation"])
    await server.restart()
    again = await held.call()
    assert again.messages == first.messages
    tab = await server.again(tab)
    after = await server.replay(tab.attached["conversation"])
    assert [record.text for record in after[: len(before)]] == [record.text for record in before]
    new = [record.type for record in after[len(before) :]]
    assert [kind for kind in new if kind != "run.sliced"][:3] == ["actor.activated", "model.failed", "step.started"]
    await again.use(on(line, "n11"))
    await again.end("tool_calls")
    assert (await tab.ended())["type"] == "run.completed"
    assert numbers(server, line) == list(range(1, 21))
    assert len(tab.all("tool.started")) == len(tab.all("tool.returned")) == 20
    assert {tuple(call.words) for call in story.calls} == {(story.says("Go"),)}
    await settled(server, tab)


async def test_002_14_a_stored_result_is_used_again(configured: Configured, story: Story) -> None:
    """002-14: killed after the result is stored and before the next reply: the tool is not repeated, at two levels."""
    server, line, held = await configured(**SLICE), fresh("line"), Held()
    roles: dict[str, list[Answer]] = {"lead": [use(asking(story), on(line, "top")), say("All done.")]}
    tab = await begin(server, story, parts(**roles, worker=[use(on(line, "inner")), held]), "lead")
    await held.call()
    await tab.event("tool.returned", call="top")
    await server.restart()
    call = await held.call()
    assert call.results == {"inner": f"{line} is done"}
    await call.end()
    tab = await server.again(tab)
    await tab.ended()
    assert len(server.ledger(line)) == 4
    await settled(server, tab)


# --- suspend and resume


async def test_004_19_suspended_by_request(server: Server, story: Story) -> None:
    """004-19, 004-5: nothing is cut; parked at the next step boundary; asked of nobody; goes on where it was."""
    line = fresh("line")
    tab = await parked(server, story, counting(line, 3, gate=line), line)
    requested = await tab.event("suspension.requested", cause="stop-here")
    assert requested["by"] and len(story.calls) == 1
    assert tab.all("tool.returned", call="n1"), "the tool was not cut"
    other = await server.attach(tab.attached["conversation"])
    await other.frame("live")
    assert (other.attached["status"], other.attached["run"]["status"]) == ("suspended", "suspended")
    active = (await server.get("/api/runs", status="active"))["runs"]
    assert [run["status"] for run in active if run["run"] == tab.run] == ["suspended"]
    await tab.do("resume", "go-on")
    resumed = await tab.event("run.resumed", cause="go-on", reason="request")
    assert resumed["by"]
    assert (await tab.ended())["type"] == "run.completed"
    assert numbers(server, line) == [1, 2, 3] and len(story.calls) == 4
    assert (await tab.do("resume", "go-on"))["duplicate"] is True
    await settled(server, tab)


async def test_suspended_while_the_model_speaks(server: Server, story: Story) -> None:
    """§6: the reply is not cut, nor is the tool that it asks for; the boundary after them is the place."""
    line, held = fresh("line"), Held()
    tab = await begin(server, story, parts(worker=[held, say("Worked.")]))
    call = await held.call()
    await call.text("I will ")
    await tab.shows("I will ")
    await tab.do("suspend")
    await call.text("do it.")
    await call.use(on(line))
    await call.end("tool_calls")
    await stopped(server, tab, "request")
    assert tab.all("model.replied")[0]["text"] == "I will do it." and len(server.ledger(line)) == 2
    await tab.do("resume")
    assert (await tab.ended())["type"] == "run.completed"
    await settled(server, tab)


async def test_suspended_during_the_final_answer(server: Server, story: Story) -> None:
    """§6: there is no boundary after it: the run ends, and the next one is not held."""
    held = Held()
    tab = await begin(server, story, lambda call: held)
    call = await held.call()
    await call.text("The end")
    await tab.do("suspend")
    await call.end()
    assert (await tab.ended())["type"] == "run.completed"
    await tab.do("prompt", text=story.says("More?"))
    await (await held.call()).end()
    assert (await tab.ended(2))["type"] == "run.completed"
    await settled(server, tab)


async def test_suspend_twice_is_one_suspension(server: Server, story: Story) -> None:
    """P3: another id, from another reader: both accepted, each leaves its event, parked once."""
    line = fresh("line")
    tab = await begin(server, story, counting(line, 2, gate=line))
    other = await server.attach(tab.attached["conversation"])
    await server.wrote(line)
    await asyncio.gather(tab.do("suspend", "one"), other.do("suspend", "two", run=tab.run))
    assert (await tab.do("suspend", "one"))["duplicate"] is True
    server.let(line)
    await stopped(server, tab, "request")
    await tab.do("resume")
    await tab.ended()
    assert {event["cause"] for event in tab.events if "cause" in event} >= {"one", "two"}
    assert len(tab.all("run.suspended")) == 1
    await settled(server, tab)


async def test_002_13_only_one_acts(server: Server, story: Story) -> None:
    """002-13: gone on with twice at the same instant, or while it still works: one loop, one model call at a time."""
    line = fresh("line")
    tab = await begin(server, story, counting(line, 3, gate=line))
    other = await server.attach(tab.attached["conversation"])
    await server.wrote(line)
    await tab.refused("not_running", "resume")
    await tab.do("suspend")
    await tab.refused("not_running", "resume")
    server.let(line)
    await tab.event("run.suspended")
    answers = await asyncio.gather(*(client.send("resume") for client in (tab, other, tab, other)))
    assert [answer["type"] for answer in answers].count("accepted") == 1
    assert {answer.get("code") for answer in answers} == {None, "not_running"}
    assert (await tab.ended())["type"] == "run.completed"
    assert len(tab.all("run.resumed")) == 1 and story.most_open == 1 and numbers(server, line) == [1, 2, 3]
    await settled(server, tab)


async def test_out_of_place(server: Server, story: Story) -> None:
    """§1.2: `not_running` where there is nothing to suspend or to resume, over the socket and HTTP (409)."""
    tab = await server.open(agent="worker")
    conversation = tab.attached["conversation"]
    for kind in ("suspend", "resume"):
        await tab.refused("not_running", kind)
        assert (await server.command(conversation, kind)).status_code == 409
    line = fresh("line")
    story.brain = counting(line, 2, gate=line)
    await tab.do("prompt", text=story.says("Go"))
    await server.wrote(line)
    for kind in ("suspend", "resume"):
        await tab.refused("not_running", kind, run="another")
    assert (await server.command(conversation, "suspend", run=tab.run)).status_code == 202
    server.let(line)
    await stopped(server, tab, "request")
    await tab.refused("not_running", "suspend")
    await tab.refused("not_running", "resume", run="another")
    for wrong in ({"steps": 0}, {"steps": -1}, {"tokens": 0}, {"steps": "many"}, {"tokens": 1.5}, {"steps": True}):
        await tab.refused("bad_command", "resume", **wrong)
    assert not tab.all("run.resumed")
    assert (await server.command(conversation, "resume", run=tab.run)).status_code == 202
    await tab.ended()
    for kind in ("suspend", "resume"):
        await tab.refused("not_running", kind, run=tab.run)
    await settled(server, tab)


async def test_nothing_moves_while_suspended(server: Server, story: Story) -> None:
    """004-6, P5: over SIGTERM and kill -9: still suspended, nobody is asked; words are kept; then it goes on."""
    line = fresh("line")
    tab = await parked(server, story, counting(line, 2, gate=line), line)
    assert await server.terminate(within=8) == 0
    await server.start()
    await server.restart()
    tab = await server.again(tab)
    assert tab.attached["status"] == "suspended" and len(story.calls) == 1
    await tab.do("prompt", "next", text="And then?")
    await tab.event("prompt.queued", message="next")
    assert tab.attached["run"]["run"] == tab.run and len(tab.all("run.suspended")) == 1
    await tab.do("resume")
    await tab.ended(2)
    assert numbers(server, line) == [1, 2] and tab.all("run.started")[1]["message"] == "next"
    await settled(server, tab)


async def test_cancelled_while_suspended(server: Server, story: Story) -> None:
    """§10: ends at once, at every level; the model is not asked again; words that waited come back."""
    line = fresh("line")
    tab = await begin(server, story, above(story, [use(on(line, gate=line))]), "lead")
    await server.wrote(line)
    await tab.do("suspend")
    server.let(line)
    await stopped(server, tab, "request")
    await tab.do("prompt", "later", text="Later")
    await tab.do("cancel")
    assert (await tab.ended())["type"] == "run.cancelled"
    assert tab.all("tool.failed", call="w")[0]["error"]["kind"] == "cancelled"
    assert tab.all("prompt.dropped", message="later") and len(story.calls) == 2
    await settled(server, tab)


@pytest.mark.parametrize("interrupt", [False, True])
async def test_a_hint_resumes_what_was_suspended_by_request(server: Server, story: Story, interrupt: bool) -> None:
    """§3: kept, resumes the run, and is given with its next step."""
    line = fresh("line")
    tab = await parked(server, story, counting(line, 2, gate=line), line)
    await tab.do("hint", "h1", text="Go on like this", interrupt=interrupt)
    assert (await tab.ended())["type"] == "run.completed"
    assert tab.all("run.resumed") and tab.all("hint.applied", message="h1")[0]["step"] == 2
    assert story.calls[1].words[-1] == "Go on like this" and numbers(server, line) == [1, 2]
    await settled(server, tab)


async def test_a_hint_before_the_boundary_is_given_after_it(server: Server, story: Story) -> None:
    """§3, §6: a hint that came before the suspension neither prevents it nor is lost by it."""
    line = fresh("line")
    tab = await begin(server, story, counting(line, 2, gate=line))
    await server.wrote(line)
    await tab.do("hint", "h1", text="Mind this")
    await tab.do("suspend")
    server.let(line)
    await stopped(server, tab, "request")
    await server.restart()
    tab = await server.again(tab)
    assert [queued["message"] for queued in tab.attached["queued"]] == ["h1"]
    await tab.do("resume")
    await tab.ended()
    assert story.calls[1].words[-1] == "Mind this"
    await settled(server, tab)


async def test_suspending_parks_every_level(server: Server, story: Story) -> None:
    """§5, §6: one sub-agent is at a boundary, another's tool works: parked once it has ended; then all go on."""
    quick, slow, held = fresh("line"), fresh("line"), Held()

    def worker(call: Call) -> Answer:
        if slow in call.words[0]:
            return say("Slow worked.") if call.results else use(on(slow, gate=slow))
        return say("Quick worked.") if call.results else held

    both = [Use("worker", {"prompt": story.says(line)}, id=f"w-{line}") for line in (quick, slow)]
    tab = await begin(server, story, parts(lead=[use(*both), say("All done.")], worker=worker), "lead")
    await server.wrote(slow)
    call = await held.call()
    await tab.do("suspend")
    await call.use(on(quick))
    await call.end("tool_calls")
    await tab.event("tool.returned", path=[f"w-{quick}"], call="k1")
    await tab.ping()
    assert not tab.all("run.suspended")
    server.let(slow)
    suspended = await stopped(server, tab, "request")
    assert tab.all("tool.returned", path=[f"w-{slow}"])[0]["seq"] < suspended["seq"]
    await server.restart()
    tab = await server.again(tab)
    assert len(story.calls) == 3 and tab.attached["status"] == "suspended"
    await tab.do("resume")
    assert (await tab.ended())["type"] == "run.completed"
    assert len(server.ledger(quick)) == len(server.ledger(slow)) == 2 and len(story.calls) == 6
    await settled(server, tab)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_004_20_suspended_while_approvals_are_pending(server: Server, story: Story, when: str) -> None:
    """004-20: pending calls survive, also one that is decided while the run is suspended; each runs exactly once."""
    line, place = fresh("line"), fresh("place")

    brain = parts(
        lead=[use(asking(story, "w1"), asking(story, "w2", "stern_worker")), say("All done.")],
        worker=[use(on(line, gate=line)), say("Worked.")],
        stern_worker=[use(table(place)), say("Booked.")],
    )
    tab = await begin(server, story, brain, "lead")
    await server.wrote(line)
    requested = await asked_at(tab, "w2")
    await tab.do("suspend")
    server.let(line)
    await stopped(server, tab, "request")
    await server.restart()
    tab = await server.again(tab)
    assert [decision(event) for event in tab.attached["approvals"]] == [decision(requested)]
    if when == "before":
        await tab.do("approve", **decision(requested))
        await server.restart()
        tab = await server.again(tab)
        assert tab.attached["status"] == "suspended" and server.ledger(place) == []
        await tab.do("resume")
    else:
        await tab.do("resume")
        await tab.event("run.suspended", reason="approval")
        await tab.do("approve", **decision(requested))
    assert (await tab.ended())["type"] == "run.completed"
    assert len(server.ledger(place)) == len(server.ledger(line)) == 2
    await settled(server, tab)


async def test_004_21_at_every_boundary(server: Server, story: Story) -> None:
    """004-21: suspended at each step boundary, killed there, resumed: nothing done before is done again."""
    line = fresh("line")
    gates = [fresh("gate") for _ in range(3)]

    def brain(call: Call) -> Answer:
        done = spoken(call)
        return use(on(line, f"n{done + 1}", gate=gates[done])) if done < len(gates) else say("Done.")

    tab = await begin(server, story, above(story, brain), "lead")
    for number, gate in enumerate(gates, start=1):
        await server.wrote(line, times=number)
        await tab.do("suspend")
        server.let(gate)
        await tab.count("run.suspended", number)
        await server.restart()
        tab = await server.again(tab)
        assert tab.attached["status"] == "suspended"
        await tab.do("resume")
    assert (await tab.ended())["type"] == "run.completed"
    assert numbers(server, line) == [1, 2, 3] and len(story.calls) == 6
    assert [event["attempt"] for event in tab.all("step.started")] == [1] * 6
    await settled(server, tab)


# --- every so many steps


@pytest.mark.parametrize("inside", [False, True])
async def test_004_18_every_so_many_steps(configured: Configured, story: Story, inside: bool) -> None:
    """004-18: again and again, counted over all levels; kept across kill -9; no second time at once on resume."""
    server, line = await configured(**TURNS), fresh("line")
    count = counting(line, 3 if inside else 5)
    agent = "lead" if inside else "worker"
    tab = await begin(server, story, above(story, count), agent)
    for times in (1, 2):
        await stopped(server, tab, "turns", times)
        assert len(story.calls) == 2 * times
        await server.restart()
        tab = await server.again(tab)
        assert tab.attached["status"] == "suspended" and len(tab.all("run.suspended")) == times
        await tab.do("resume")
    assert (await tab.ended())["type"] == "run.completed"
    assert numbers(server, line) == list(range(1, 4 if inside else 6)) and len(story.calls) == 6
    await settled(server, tab)


async def test_004_18_the_count_survives_a_crash_in_between(configured: Configured, story: Story) -> None:
    """004-18: killed in the second of two steps: a repeated attempt is no step; suspended after it, not later."""
    server, line, held = await configured(**TURNS), fresh("line"), Held()
    count = counting(line, 3)
    tab = await begin(server, story, lambda call: held if spoken(call) == 1 else count(call))
    await held.call()
    await server.restart()
    call = await held.call()
    await call.use(on(line, "n2"))
    await call.end("tool_calls")
    tab = await server.again(tab)
    await stopped(server, tab, "turns")
    assert numbers(server, line) == [1, 2]
    await tab.do("resume")
    await tab.ended()
    await settled(server, tab)


async def test_a_hint_resumes_what_was_suspended_by_turns(configured: Configured, story: Story) -> None:
    """§3: kept, and resumes the run."""
    server, line = await configured(**TURNS), fresh("line")
    tab = await begin(server, story, counting(line, 3))
    await stopped(server, tab, "turns")
    await tab.do("hint", "h1", text="Go on")
    assert (await tab.ended())["type"] == "run.completed"
    assert [event["step"] for event in tab.all("hint.applied")] == [3] and story.calls[2].words[-1] == "Go on"
    await settled(server, tab)


# --- budgets


async def test_002_9_so_many_steps_at_most(configured: Configured, story: Story) -> None:
    """002-9: suspended before the step too many; goes on under a raised ceiling only; after kill -9, too."""
    server, line = await configured(**FEW), fresh("line")
    tab = await begin(server, story, counting(line, 5))
    await stopped(server, tab, "budget")
    assert numbers(server, line) == [1, 2, 3] and len(story.calls) == 3
    await tab.do("resume")
    await stopped(server, tab, "budget", 2)
    assert len(story.calls) == 3, "the same ceiling holds"
    await tab.do("resume", "raise", steps=4)
    assert (await tab.event("run.resumed", cause="raise"))["steps"] == 4
    await stopped(server, tab, "budget", 3)
    assert len(story.calls) == 4
    await server.restart()
    tab = await server.again(tab)
    assert tab.attached["status"] == "suspended"
    await tab.do("resume", steps=20)
    await tab.ended()
    assert numbers(server, line) == [1, 2, 3, 4, 5]
    assert (await server.outcome(tab.run))["result"] == "The total is 15"
    await settled(server, tab)


async def test_a_hint_does_not_resume_what_a_budget_has_suspended(configured: Configured, story: Story) -> None:
    """§3: kept, over kill -9, also with `interrupt`; given once the ceiling is raised."""
    server, line = await configured(**FEW), fresh("line")
    tab = await begin(server, story, counting(line, 3))
    await stopped(server, tab, "budget")
    await tab.do("hint", "h1", text="Is it much?")
    await tab.do("hint", "h2", text="Hurry", interrupt=True)
    await server.restart()
    tab = await server.again(tab)
    assert tab.attached["status"] == "suspended" and not tab.all("run.resumed") and len(story.calls) == 3
    assert [queued["message"] for queued in tab.attached["queued"]] == ["h1", "h2"]
    await tab.do("resume", steps=20)
    await tab.ended()
    assert story.calls[3].words[-2:] == ["Is it much?", "Hurry"]
    await settled(server, tab)


async def test_one_budget_for_all_levels(configured: Configured, story: Story) -> None:
    """§5: the sub-agent's steps count; suspended inside it, and resumed there: nothing is asked again."""
    server, line = await configured(**FEW), fresh("line")
    count = counting(line, 3)
    tab = await begin(server, story, above(story, count), "lead")
    await stopped(server, tab, "budget")
    assert [agent_of(call) for call in story.calls] == ["lead", "worker", "worker"] and numbers(server, line) == [1, 2]
    await server.restart()
    tab = await server.again(tab)
    await tab.do("resume", steps=20)
    assert (await tab.ended())["type"] == "run.completed"
    assert numbers(server, line) == [1, 2, 3] and len(story.calls) == 6
    assert [event["step"] for event in at(tab.all("step.started"), "w")] == [1, 2, 3, 4]
    await settled(server, tab)


async def test_the_final_answer_is_no_step_too_many(configured: Configured, story: Story) -> None:
    """§3, §9: a run that ends with its last step ends; a hint that it cannot hear any more starts the next run."""
    server, line, held = await configured(**FEW), fresh("line"), Held()
    count = counting(line, 2)
    tab = await begin(server, story, lambda call: held if spoken(call) == 2 else count(call))
    call = await held.call()
    await tab.do("hint", "late", text=story.says("And one more"))
    await call.end()
    story.brain = lambda _: say("One more.")
    assert (await tab.ended(1))["type"] == (await tab.ended(2))["type"] == "run.completed"
    [carried] = tab.all("hint.carried", message="late")
    assert carried["into"] == tab.all("run.started")[1]["run"] == tab.run and not tab.all("run.suspended")
    await settled(server, tab)


async def test_so_many_tokens_at_most(configured: Configured, story: Story) -> None:
    """§9: suspended before the call that would cross it, whichever level asks; `tokens` raises it.

    A single slot for tools is enough: a sub-agent holds none while its own tools want it.
    """
    server, line = await configured(**CHEAP), fresh("line")
    tab = await begin(server, story, above(story, [use(on(line)), use(on(line, "k2")), say("Worked.")]), "lead")
    await stopped(server, tab, "budget")
    usage = (await server.get(f"/api/runs/{tab.run}"))["usage"]
    spent = usage["input"] + usage["output"]
    assert 18 < spent <= 60 and spent == 18 * len(story.calls)
    await tab.do("resume")
    await stopped(server, tab, "budget", 2)
    assert spent == 18 * len(story.calls), "the same ceiling holds"
    await tab.do("resume", tokens=1000)
    ended = await tab.ended()
    assert ended["type"] == "run.completed" and ended["usage"]["input"] + ended["usage"]["output"] == 5 * 18
    assert len(server.ledger(line)) == 4
    await settled(server, tab)


async def test_004_17_so_many_seconds_at_most(configured: Configured, story: Story) -> None:
    """004-17: at the boundary after the time is up, no tool cut; the clock restarts on resume, and fires again."""
    server, line = await configured(**SHORT), fresh("line")
    tab = await begin(server, story, counting(line, 2, seconds=1.05))
    for times in (1, 2):
        suspended = await stopped(server, tab, "budget", times)
        [returned] = tab.all("tool.returned", call=f"n{times}")
        assert suspended["at"] - returned["at"] < 900 and len(story.calls) == times
        await tab.do("resume")
    assert (await tab.ended())["type"] == "run.completed"
    assert numbers(server, line) == [1, 2]
    await settled(server, tab)


# --- the provider is down for long


def failing(line: str, trouble: asyncio.Event) -> Brain:
    """A provider that is down while there is trouble; then a tool, then the end."""

    def brain(call: Call) -> Answer:
        if trouble.is_set():
            return refuse(503, retry_after="2")
        if agent_of(call) == "lead":
            return say("All done.") if call.results else use(Use("worker", {"prompt": call.words[0]}, id="w"))
        return say("Worked.") if call.results else use(on(line))

    return brain


def down() -> asyncio.Event:
    trouble = asyncio.Event()
    trouble.set()
    return trouble


@pytest.mark.parametrize("life", ["the same", "the next"])
async def test_a_retry_suspension_wakes_by_itself(configured: Configured, story: Story, life: str) -> None:
    """003-7, §9: suspended with `until`, not failed; woken by nobody, after kill -9 too; a hint is kept, not a key."""
    server, line, trouble = await configured(**IMPATIENT), fresh("line"), down()
    tab = await begin(server, story, failing(line, trouble))
    suspended = await tab.event("run.suspended")
    assert suspended["reason"] == "retry" and suspended["until"] > suspended["at"]
    await tab.do("hint", "h1", text="Are you there?")
    trouble.clear()
    if life == "the next":
        await server.restart()
        tab = await server.again(tab)
    resumed = await tab.event("run.resumed")
    assert resumed["at"] >= suspended["until"] and resumed["reason"] == "retry"
    assert (await tab.ended())["type"] == "run.completed"
    assert len(server.ledger(line)) == 2 and tab.all("step.started")[-1]["step"] == 2
    assert story.calls[1].words[-1] == "Are you there?" and tab.all("hint.applied")[0]["step"] == 1
    await settled(server, tab)


async def test_a_sub_agents_retry_suspension(configured: Configured, story: Story) -> None:
    """§9 inside: its step is tried again as the next attempt; the agent above hears nothing of it."""
    server, line, trouble = await configured(**IMPATIENT), fresh("line"), asyncio.Event()
    brain = failing(line, trouble)

    def inside(call: Call) -> Answer:
        if agent_of(call) == "worker" and len(story.calls) == 2:
            trouble.set()
        return brain(call)

    tab = await begin(server, story, inside, "lead")
    assert (await tab.event("run.suspended"))["reason"] == "retry"
    trouble.clear()
    assert (await tab.ended())["type"] == "run.completed"
    steps = [(event["step"], event["attempt"]) for event in at(tab.all("step.started"), "w")]
    assert steps == [(1, 1), (1, 2), (2, 1)] and len(server.ledger(line)) == 2
    assert [event["path"] for event in tab.all("model.failed")] == [["w"]]
    await settled(server, tab)


@pytest.mark.parametrize("by", ["resume", "cancel"])
async def test_a_person_is_sooner_than_the_clock(configured: Configured, story: Story, by: str) -> None:
    """§9, §10: a retry suspension can be resumed before its time, and cancelled; then it does not wake any more."""
    server, line, trouble = await configured(**IMPATIENT), fresh("line"), down()
    tab = await begin(server, story, failing(line, trouble))
    suspended = await tab.event("run.suspended", reason="retry")
    trouble.clear()
    await tab.do(by, "now")
    ended = await tab.ended()
    if by == "cancel":
        assert ended["type"] == "run.cancelled" and len(story.calls) == 1 and server.ledger(line) == []
    else:
        [resumed] = tab.all("run.resumed")
        assert resumed["cause"] == "now" and resumed["at"] < suspended["until"]
        assert ended["type"] == "run.completed" and len(server.ledger(line)) == 2
    await settled(server, tab)
