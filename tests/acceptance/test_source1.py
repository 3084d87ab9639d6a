"""Source 1, the article on long agent calls with Durable Objects: rows of ACCEPTANCE.md, each in its test's name.

A heartbeat of 1 s stands for one of 20 s.
"""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from pathlib import Path

import pytest

from .conftest import Launch
from .harness import Client, Server, fresh, settled
from .stub import Answer, Call, Story, Use, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

SETTINGS = {
    "HOLDFAST_HEARTBEAT_SECONDS": "1",
    "HOLDFAST_STEPS_MAX": "200",
    "HOLDFAST_CALLS_MAX": "100000",
    "HOLDFAST_REPEATS_MAX": "200",
    "HOLDFAST_CONTEXT_TOKENS": "100000000",
}


async def test_001_1_feedback_while_it_works(server: Server, story: Story) -> None:
    """001-1: status, tokens and tool events arrive before the run has ended."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("once", {"line": line, "gate": line}), text="I am at it."))
    await tab.do("prompt", text=story.says("Work"))
    await tab.event("tool.started")
    for kind in ("run.started", "step.started", "model.replied"):
        assert tab.all(kind)
    assert tab.all("run.completed") == []
    assert (await server.get(f"/api/conversations/{tab.attached['conversation']}"))["status"] == "running"
    server.let(line)
    call = await story.call()
    await call.text("So ")
    await tab.shows("So ")
    await call.end()
    await tab.ended()


async def test_001_2_a_person_can_help(server: Server, story: Story) -> None:
    """001-2: a hint given in the middle of a run is an event, and is in the model's next request."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("once", {"line": line, "gate": line})))
    await tab.do("prompt", text=story.says("Look"))
    await server.wrote(line)
    receipt = await tab.do("hint", "help-1", text="Look in the drawer")
    given = await tab.event("hint.given", message="help-1", text="Look in the drawer")
    assert (given["seq"], given["cause"]) == (receipt["seq"], "help-1")
    server.let(line)
    call = await story.call()
    assert any("Look in the drawer" in words for words in call.words)
    assert (await tab.event("hint.applied", message="help-1"))["step"] == 2
    await call.end()
    await tab.ended()
    await settled(server, tab)


async def test_001_3_readable_afterwards_without_any_socket(launch: Launch, story: Story) -> None:
    """001-3: after the end, and after a restart, everything is there over HTTP alone."""
    server = await launch()
    story.then(say("Kept."))
    made = await server.create(prompt=story.says("Keep this"))
    await server.outcome(made["run"])
    kept = await server.archived(made["conversation"], made["run"])
    before = await server.replay(made["conversation"])
    assert [message["text"] for message in kept["messages"]] == [story.says("Keep this"), "Kept."]
    await server.restart()
    after = await server.replay(made["conversation"])
    assert [record.text for record in after][: len(before)] == [record.text for record in before]
    assert (await server.get(f"/api/conversations/{made['conversation']}/messages"))["messages"] == kept["messages"]
    assert (await server.get(f"/api/runs/{made['run']}"))["result"] == "Kept."


async def test_001_4_closing_the_browser_cancels_nothing(server: Server, story: Story) -> None:
    """001-4: all sockets are closed during a model call: the provider's connection stays."""
    tabs = [await server.open()]
    tabs.append(await server.attach(tabs[0].attached["conversation"]))
    await tabs[0].do("prompt", text=story.says("Go on"))
    call = await story.call()
    await call.text("still ")
    await tabs[1].shows("still ")
    run = tabs[0].run
    await tabs[0].close()
    await tabs[1].vanish()
    with pytest.raises(TimeoutError):
        await call.aborted(0.5)
    await call.text("here")
    await call.end()
    assert (await server.outcome(run))["result"] == "still here"


def counting(steps: int) -> Answer:
    async def answer(call: Call) -> None:
        done = sum(1 for message in call.messages if message["role"] == "assistant")
        await (say("Counted.") if done == steps - 1 else use(Use("tick", {"number": done})))(call)

    return answer


async def test_001_5_one_step_and_001_6_a_hundred_and_twenty_without_reloading(server: Server, story: Story) -> None:
    """001-5: the same configuration serves a run of 1 step and one of 120, in order and with its state.

    001-6: the bytes that the process reads per step (the kernel's counters) stay flat over the 120 steps.
    """
    story.brain = lambda _: counting(1)
    made = await server.create(prompt=story.says("Count 1"))
    assert (await server.outcome(made["run"]))["step"] == 1
    read: list[int] = []

    def answer(_: Call) -> Answer:
        counters = Path(f"/proc/{server.pid}/io").read_text().split()
        read.append(int(counters[counters.index("rchar:") + 1]))
        return counting(120)

    story.brain = answer if Path("/proc/self/io").exists() else lambda _: counting(120)
    made = await server.create(prompt=story.says("Count 120"))
    item = await server.outcome(made["run"], within=50)
    assert (item["status"], item["step"], item["result"]) == ("completed", 120, "Counted.")
    log = await server.replay(made["conversation"])
    assert [r.event["arguments"]["number"] for r in log if r.type == "tool.started"] == list(range(119))
    steps = [later - earlier for earlier, later in pairwise(read)]
    if steps:
        early, late = sorted(steps[5:35])[15], sorted(steps[-30:])[15]
        assert late <= 2 * early + 16384, (early, late)


async def test_001_7_the_start_does_not_wait_for_the_model(server: Server, story: Story) -> None:
    """001-7: the call that starts a run returns before the first model call has finished."""
    made = await server.create(prompt=story.says("Start"))
    call = await story.call()
    assert not call.over.is_set()
    assert (await server.get(f"/api/runs/{made['run']}"))["status"] == "running"
    await call.end()


async def test_001_8_each_phase_is_told_before_and_after(server: Server, story: Story) -> None:
    """001-8: "finding places", "evaluating": an event before, during and after each tool."""
    gates = [fresh("gate"), fresh("gate")]
    tab = await server.open(agent="dinner")
    story.then(
        use(Use("find_places", {"near": "here", "gate": gates[0]}, id="find")),
        use(Use("evaluate_places", {"places": ["Da Enzo"], "gate": gates[1]}, id="weigh")),
        say("Da Enzo it is."),
    )
    await tab.do("prompt", text=story.says("Dinner?"))
    for call, gate, tool in (("find", gates[0], "find_places"), ("weigh", gates[1], "evaluate_places")):
        await tab.event("tool.started", call=call, tool=tool)
        if call == "find":
            await tab.event("tool.progressed", call=call, text="Looking at the map", fraction=0.5)
        assert tab.all("tool.returned", call=call) == []
        server.let(gate)
        await tab.event("tool.returned", call=call)
    await tab.ended()
    await settled(server, tab)


async def test_001_9_reconnecting_gives_all_history_then_live(server: Server, story: Story) -> None:
    """001-9: without a cursor everything from event 1, in order, then live; with one only the rest."""
    tab = await server.open()
    story.then(use(Use("tick", {"number": 1}), text="One."))
    await tab.do("prompt", text=story.says("Tell"))
    call = await story.call()
    await call.text("Two ")
    await tab.shows("Two ")
    cursor = tab.cursor
    await tab.vanish()
    whole = await server.attach(tab.attached["conversation"], after=None)
    rest = await server.again(tab)
    for reader in (whole, rest):
        await reader.frame("live")
    assert whole.events[0]["seq"] == 1 and whole.text() == "Two " == rest.text()
    await call.text("three.")
    for reader in (whole, rest):
        await reader.shows("Two three.")
    assert all(event["seq"] > cursor for frame in rest.frames if frame["type"] == "events" for event in frame["events"])
    await call.end()
    for reader in (whole, rest):
        await reader.ended()
        await settled(server, reader)


async def test_001_10_two_tabs_see_the_same(server: Server, story: Story) -> None:
    """001-10: what one tab starts both see, equal to the byte, and either may help."""
    one = await server.open()
    two = await server.attach(one.attached["conversation"])
    await one.do("prompt", text=story.says("Both"))
    call = await story.call()
    await call.text("For both")
    for tab in (one, two):
        await tab.shows("For both")
    await two.do("hint", text="From the other tab")
    assert (await one.event("hint.given"))["text"] == "From the other tab"
    story.then(say("Thanks."))
    await call.end()
    for tab in (one, two):
        await tab.flushed()
    assert [r.text for r in await settled(server, one)] == [r.text for r in await settled(server, two)]


async def test_001_11_saved_once_also_when_killed_before_the_flush(launch: Launch, story: Story) -> None:
    """001-11, FAULTS 9: one row set per run, written after its terminal event; killed at that event, once after all."""
    server = await launch()
    for number in range(2):
        tab = await server.open()
        story.then(use(Use("tick", {"number": number}, id="k")), say("Saved."))
        await tab.do("prompt", text=story.says("Save"))
        await tab.event("run.completed")
        await server.restart()
        conversation, run = tab.attached["conversation"], tab.run
        kept = await server.archived(conversation, run)
        assert [item["run"] for item in kept["runs"]] == [run]
        assert [m["text"] for m in kept["messages"] if m["role"] in ("user", "assistant") and m["text"]] == [
            story.says("Save"),
            "Saved.",
        ]
        assert server.sql("select count(*) from runs where run = ?", run) == [(1,)]
        assert server.sql("select count(*) from tool_calls where run = ?", run) == [(1,)]
        assert server.sql("select count(*) from conversations where conversation = ?", conversation) == [(1,)]
        log = await server.replay(conversation)
        flushes = [record.event for record in log if record.type == "archive.flushed"]
        [ended] = [record.seq for record in log if record.type == "run.completed"]
        assert flushes and flushes[-1]["through"] >= ended and flushes[-1]["seq"] > ended


async def test_001_12_history_from_sql_equals_the_log(launch: Launch, story: Story) -> None:
    """001-12: with the process gone, what SQL holds is what the log says."""
    server = await launch()
    story.then(use(Use("tick", {"number": 5}, id="k5"), text="Counting."), say("Counted to ", "five."))
    made = await server.create(title="Counting", prompt=story.says("Count to five"))
    await server.outcome(made["run"])
    await server.archived(made["conversation"], made["run"])
    log = await server.replay(made["conversation"])
    await server.kill()
    said = [record.event["text"] for record in log if record.type in ("prompt.given", "model.replied")]
    order = "select text from messages where conversation = ? and role in ('user', 'assistant') order by seq"
    assert [text for (text,) in server.sql(order, made["conversation"])] == said
    assert server.sql("select title from conversations where conversation = ?", made["conversation"]) == [("Counting",)]
    assert server.sql("select status from runs where run = ?", made["run"]) == [("completed",)]
    assert server.sql("select tool from tool_calls where run = ?", made["run"]) == [("tick",)]


async def test_001_13_the_whole_swim_lane(server: Server, story: Story) -> None:
    """001-13: dinner: start, two updates, disconnect, reconnect gets both, final update, a row in SQL."""
    gates, place = [fresh("gate"), fresh("gate")], fresh("Enzo")
    tab = await server.open(agent="dinner", title="Dinner")
    conversation = tab.attached["conversation"]
    story.then(
        use(Use("find_places", {"near": "here", "gate": gates[0]}, id="find"), text="Finding places."),
        use(Use("evaluate_places", {"places": [place], "gate": gates[1]}, id="weigh"), text="Evaluating."),
        use(Use("reserve", {"place": f"{place}-table", "people": 2}, id="book"), text="I would reserve Da Enzo."),
        say("A table at Da Enzo ", "is reserved."),
    )
    await tab.do("prompt", text=story.says("Can you order dinner?"))
    await tab.event("model.replied", text="Finding places.")
    await tab.event("tool.started", call="find")
    seen = tab.cursor
    await tab.vanish()
    server.let(gates[0])
    await server.wrote(place)
    again = await server.attach(conversation, after=None)
    await again.frame("live")
    assert [e["text"] for e in again.all("model.replied")] == ["Finding places.", "Evaluating."]
    tab = await server.again(tab)
    await tab.event("tool.started", call="weigh")
    assert tab.all("tool.returned", call="find")[0]["seq"] > seen
    server.let(gates[1])
    asked = await tab.event("approval.requested", call="book", tool="reserve")
    await tab.event("run.suspended", reason="approval")
    assert server.ledger(f"{place}-table") == []
    await tab.do("approve", run=tab.run, call=["book"], digest=asked["digest"])
    for reader in (tab, again):
        ended = await reader.ended()
        assert ended["type"] == "run.completed"
        await settled(server, reader)
    assert len(server.ledger(f"{place}-table")) == 2
    kept = await server.archived(conversation, tab.run)
    assert kept["messages"][-1]["text"] == "A table at Da Enzo is reserved."
    assert server.sql("select status from runs where run = ?", tab.run) == [("completed",)]
    tools = {tool for (tool,) in server.sql("select tool from tool_calls where run = ?", tab.run)}
    assert tools == {"find_places", "evaluate_places", "reserve"}


async def test_001_14_nobody_there_for_the_whole_run(server: Server, story: Story) -> None:
    """001-14: started over HTTP, never looked at: completed and in the archive."""
    story.then(use(Use("tick", {"number": 1})), say("Nobody saw."))
    made = await server.create(prompt=story.says("Alone"))
    kept = await server.archived(made["conversation"], made["run"])
    assert kept["messages"][-1]["text"] == "Nobody saw."


async def test_001_15_never_silent_for_longer_than_a_heartbeat(server: Server, story: Story) -> None:
    """001-15: while a tool works for 3 s, a frame at least every heartbeat (1 s; 0.7 s allowed for a busy machine)."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("once", {"line": line, "gate": line})), say("Done."))
    await tab.do("prompt", text=story.says("Work in silence"))
    await server.wrote(line)
    began = time.monotonic()
    await tab.until(lambda c: time.monotonic() - began > 3, "three seconds have passed")
    server.let(line)
    await tab.ended()
    gaps = [b - a for a, b in pairwise(tab.arrived)]
    assert max(gaps) < 1.7, sorted(gaps)[-3:]


async def test_001_16_starting_twice_starts_once(server: Server, story: Story) -> None:
    """001-16: a double click, a re-send on another socket, a repeated creation: one run each."""
    story.brain = lambda _: say("Once.")
    tab = await server.open()
    other: Client = await server.attach(tab.attached["conversation"])
    sent = [client.do("prompt", "click", text=story.says("Start")) for client in (tab, other)]
    receipts = await asyncio.gather(*sent)
    assert receipts[0]["seq"] == receipts[1]["seq"]
    assert sorted(receipt["duplicate"] for receipt in receipts) == [False, True]
    await tab.ended()
    assert (await tab.do("prompt", "click", text="other words"))["duplicate"] is True
    log = await settled(server, tab)
    assert len([record for record in log if record.type == "run.started"]) == 1
    id = fresh("new")
    first = await server.create(id=id, prompt=story.says("Start"))
    again = await server.post("/api/conversations", {"id": id, "prompt": story.says("Start")}, 200)
    assert again == {**first, "duplicate": True}
    await server.outcome(first["run"])
    assert len(story.calls) == 2
