"""Source 2, the Convex issue on runs longer than their time limit: rows 002-1, 002-2, 002-3, 002-4, 002-6, 002-7,
002-8 and 002-11. The others, which need kills or suspensions, are in test_suspension.py.

One run of fifty tools under a slice of 0.2 s (it stands for 480 s) is looked at from every side.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise

import pytest
import pytest_asyncio

from .conftest import Configured
from .harness import Client, Server, fresh, settled
from .history import ATTEMPT_ENDS, CALL_ENDS, RUN_ENDS, Json
from .stub import Answer, Call, Story, Stub, Use, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

SERVED = ("tests.acceptance.levels:agents",)
NUMBERS = 50


@dataclass
class Fifty:
    """The run after its end. `between`: what a reader was told who came right after its first slice."""

    server: Server
    tab: Client
    story: Story
    line: str
    between: Json
    log: list[Json]

    def all(self, *kinds: str) -> list[Json]:
        return [event for event in self.log if event["type"] in kinds]


@pytest_asyncio.fixture(name="fifty", scope="module", loop_scope="module")
async def _fifty(configured: Configured, stub: Stub) -> Fifty:
    """The numbers from 1 to 50, each with a tool in a step of its own, and then their total."""
    server, story, line = await configured(SLICE_SECONDS="0.2", STEPS_MAX="100"), stub.story(), fresh("line")

    def brain(call: Call) -> Answer:
        done = [int(id[1:]) for id in call.results]
        if len(done) == NUMBERS:
            return say(f"The total is {sum(done)}")
        number = len(done) + 1
        return use(Use("once", {"line": line, "seconds": 0.03}, id=f"n{number}"))

    story.brain = brain
    tab = await server.open(agent="worker")
    await tab.do("prompt", text=story.says("Add the numbers from 1 to 50"))
    await tab.event("run.sliced")
    other = await server.attach(tab.attached["conversation"])
    await other.until(lambda c: c.follower.attached, "attached")
    await tab.ended(within=40)
    return Fifty(server, tab, story, line, other.attached, [record.event for record in await settled(server, tab)])


async def test_002_1_a_run_of_fifty_tools_goes_through_its_slices(fifty: Fifty) -> None:
    """002-1: it completes through at least five slices, each of which has lasted its time."""
    sliced = fifty.all("run.sliced")
    assert len(sliced) >= 5 and fifty.all(*RUN_ENDS)[0]["type"] == "run.completed"
    began = fifty.all("run.started")[0]["at"]
    assert all(b - a >= 200 for a, b in pairwise([began, *(event["at"] for event in sliced)]))


async def test_002_2_one_to_fifty_in_order_and_then_the_total(fifty: Fifty) -> None:
    """002-2: each number's tool runs exactly once, in order, one at a time; the total is right."""
    entries = [entry.split() for entry in fifty.server.ledger(fifty.line)]
    assert [(entry[1], entry[3]) for entry in entries] == [
        (what, f"n{number}") for number in range(1, NUMBERS + 1) for what in ("begin", "end")
    ]
    assert [len(event["calls"]) for event in fifty.all("model.replied")] == [1] * NUMBERS + [0]
    total = sum(range(1, NUMBERS + 1))
    assert (await fifty.server.outcome(fifty.tab.run))["result"] == f"The total is {total}" == "The total is 1275"


async def test_002_3_slices_end_on_step_boundaries(fifty: Fifty) -> None:
    """002-3: nothing is open where a slice ends, a step follows; no request and no tool was cut off."""
    asking = working = 0
    for event, following in pairwise(fifty.log):
        asking += (event["type"] == "step.started") - (event["type"] in ATTEMPT_ENDS)
        working += (event["type"] == "tool.started") - (event["type"] in CALL_ENDS)
        if event["type"] == "run.sliced":
            assert (asking, working, following["type"]) == (0, 0, "step.started"), event
    assert not any(call.gone.is_set() for call in fifty.story.calls) and fifty.story.most_open == 1
    assert not fifty.all("tool.failed", "model.failed", "model.interrupted")
    assert [event["attempt"] for event in fifty.all("step.started")] == [1] * (NUMBERS + 1)


async def test_002_4_slices_share_the_conversation_and_the_run(fifty: Fifty) -> None:
    """002-4: one run in the log, in the list of runs and in the archive; no other conversation appears."""
    assert {event["run"] for event in fifty.log if "run" in event} == {fifty.tab.run}
    assert len(fifty.all("run.started")) == 1
    conversation = fifty.tab.attached["conversation"]
    listed = (await fifty.server.get("/api/runs"))["runs"]
    assert [run["run"] for run in listed if run["conversation"] == conversation] == [fifty.tab.run]
    kept = await fifty.server.archived(conversation, fifty.tab.run)
    assert [run["run"] for run in kept["runs"]] == [fifty.tab.run]
    shown = (await fifty.server.get("/api/conversations"))["conversations"]
    assert [item["conversation"] for item in shown] == [conversation]


async def test_002_6_a_slice_goes_on_without_a_prompt(fifty: Fifty) -> None:
    """002-6: every request, after a slice too, holds the person's prompt exactly once and no other words of his."""
    prompt = fifty.story.says("Add the numbers from 1 to 50")
    assert len(fifty.story.calls) == NUMBERS + 1
    assert all(call.words == [prompt] for call in fifty.story.calls)
    assert len(fifty.all("prompt.given")) == 1 and not fifty.all("prompt.queued", "hint.given")


async def test_002_11_no_seam_is_seen(fifty: Fifty) -> None:
    """002-11: no end, suspension or owner but the one; the seqs go on; who comes in between finds it running."""
    assert [event["type"] for event in fifty.all(*RUN_ENDS)] == ["run.completed"]
    assert fifty.log[-1]["type"] in ("run.completed", "archive.flushed")
    assert not fifty.all("run.suspended", "run.resumed", "actor.activated", "actor.drained")
    assert (fifty.between["status"], fifty.between["run"]["run"]) == ("running", fifty.tab.run)
    assert fifty.between["reset"] is False and fifty.between["log"] == fifty.tab.attached["log"]
    assert [frame["type"] for frame in fifty.tab.frames].count("attached") == 1, "one connection all the way"
    for event, following in pairwise(fifty.log):
        assert following["seq"] > event["seq"]
        assert event["type"] != "run.sliced" or following["seq"] == event["seq"] + 1


async def test_002_7_the_id_at_once_and_the_pieces_for_another_client(server: Server, story: Story) -> None:
    """002-7: the start returns with the ids while the model has said nothing; another client reads the pieces."""
    began = time.monotonic()
    made = await server.create(prompt=story.says("Start"))
    assert time.monotonic() - began < 1
    tab = await server.attach(made["conversation"])
    call = await story.call()
    await call.text("piece ")
    await tab.shows("piece ")
    await call.text("by piece")
    await tab.shows("piece by piece")
    assert tab.run == made["run"]
    await call.end()
    await tab.ended()
    await settled(server, tab)


async def test_002_8_without_an_id_a_new_conversation_with_one_the_same(server: Server, story: Story) -> None:
    """002-8: no conversation named: a new one each time; one named: its history goes on."""
    story.brain = lambda _: say("Yes.")
    first, second = [await server.create(prompt=story.says("Are you there?")) for _ in range(2)]
    assert first["conversation"] != second["conversation"] and first["run"] != second["run"]
    await server.outcome(first["run"])
    assert (await server.command(first["conversation"], "prompt", text=story.says("Still?"))).status_code == 202
    tab = await server.attach(first["conversation"])
    await tab.ended(2)
    roles = [message["role"] for message in story.calls[-1].messages if message["role"] != "system"]
    assert roles == ["user", "assistant", "user"]
    assert (await server.command(fresh("none"), "prompt", text="Hello")).status_code == 404
