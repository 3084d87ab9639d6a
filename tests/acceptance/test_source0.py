"""Source 0, Letta's long-running executions: rows of ACCEPTANCE.md, each in its test's name.

Long waits are shortened by settings: a heartbeat of 1 s stands for 20 s, a proxy that cuts at 0.4 s for one that
cuts at 20 s, a tool deadline of 0.4 s for one of 120 s.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from .conftest import Launch
from .harness import Client, Proxy, Server, eventually, fresh, settled
from .history import Json
from .stub import Answer, Call, Story, Use, refuse, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

SETTINGS = {
    "HOLDFAST_HEARTBEAT_SECONDS": "1",
    "HOLDFAST_STEPS_MAX": "200",
    "HOLDFAST_CALLS_MAX": "100000",
    "HOLDFAST_REPEATS_MAX": "200",
    "HOLDFAST_CONTEXT_TOKENS": "100000000",
}


def stepping(steps: int, tools: int = 1) -> Answer:
    """A model that calls `tick` in every step but the last."""

    async def answer(call: Call) -> None:
        done = sum(1 for message in call.messages if message["role"] == "assistant")
        if done == steps - 1:
            await say("All ", "done.")(call)
        else:
            await use(*(Use("tick", {"number": n}) for n in range(tools)), text=f"Step {done + 1}.")(call)

    return answer


async def test_000_1_tokens_arrive_on_the_same_connection(server: Server, story: Story) -> None:
    """000-1: the first token is with the reader within 300 ms of the stub's first token (best of three)."""
    tab, delays = await server.open(), []
    for number in range(1, 4):
        await tab.do("prompt", text=story.says("Hello"))
        call = await story.call()
        await call.text(f"Hi {number}")
        began = time.monotonic()
        await tab.shows(f"Hi {number}")
        delays.append(time.monotonic() - began)
        await call.end()
        await tab.ended(number)
    assert min(delays) < 0.3, delays


async def test_000_2_a_run_does_not_need_the_connection_that_started_it(server: Server, story: Story) -> None:
    """000-2: the connection is dropped after three pieces; the run completes with the whole text."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Go on without me"))
    call = await story.call()
    for number in range(3):
        await call.text(f"{number} ")
        await tab.shows_at_last(f"{number} ")
    run = tab.run
    await tab.vanish()
    await call.text("3 ", "4")
    await call.end()
    item = await server.outcome(run)
    assert (item["status"], item["result"]) == ("completed", "0 1 2 3 4")


async def test_000_3_every_event_has_its_run_and_seq_live_and_replayed(server: Server, story: Story) -> None:
    """000-3: all events of one run share `run`, seq ascends, and the bytes are the same live and replayed."""
    tab = await server.open()
    story.then(use(Use("tick", {"number": 1}), text="One moment."), say("There ", "you ", "are."))
    await tab.do("prompt", text=story.says("Count"))
    await tab.ended()
    log = await settled(server, tab)
    names = ("run.", "step.", "model.", "text.", "tool.")
    assert {record.event["run"] for record in log if record.type.startswith(names)} == {tab.run}
    assert all(isinstance(record.seq, int) and isinstance(record.event["at"], int) for record in log)
    again = await server.attach(tab.attached["conversation"])
    await again.until(lambda c: c.cursor >= log[-1].seq)
    assert [record.text for record in again.records][: len(log)] == [record.text for record in log]


async def test_000_4_each_kind_of_piece_is_an_event_type_of_its_own(server: Server, story: Story) -> None:
    """000-4: reasoning, text and tool calls arrive as types of their own, in pieces live and whole in the archive."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Think"))
    call = await story.call()
    await call.reasoning("Let me ")
    await tab.until(lambda c: c.text("reasoning.streamed") == "Let me ")
    await call.reasoning("think.")
    await tab.until(lambda c: c.text("reasoning.streamed") == "Let me think.")
    await call.text("I shall ")
    await tab.shows("I shall ")
    await call.text("count.")
    await call.use(Use("tick", {"number": 7}, id="k7"))
    await call.end("tool_calls")
    await (await story.call()).end()
    await tab.ended()
    [first, _] = tab.all("model.replied")
    assert (first["text"], first["reasoning"]) == ("I shall count.", "Let me think.")
    assert first["calls"] == [{"call": "k7", "tool": "tick", "arguments": '{"number": 7}'}]
    assert tab.all("tool.started", call="k7", tool="tick", arguments={"number": 7})
    assert tab.all("tool.returned", call="k7", result="tick 7")
    messages = (await server.archived(tab.attached["conversation"], tab.run))["messages"]
    assert "I shall count." in [message["text"] for message in messages if message["role"] == "assistant"]


@pytest_asyncio.fixture(name="long", loop_scope="module")
async def _long(server: Server, story: Story) -> Client:
    """A finished conversation of more than 60 events, and a reader that saw all of it."""
    story.brain = lambda _: stepping(18)
    tab = await server.open()
    await tab.do("prompt", text=story.says("Count"))
    await tab.ended()
    await settled(server, tab)
    return tab


async def test_000_5_resume_after_every_event(server: Server, long: Client) -> None:
    """000-5: for every n of a run of more than 60 events the rest, and only the rest, follows."""
    conversation = long.attached["conversation"]
    log = await server.replay(conversation)
    assert len(log) > 60
    for n in range(log[-1].seq + 1):
        tab = await server.attach(conversation, after=n)
        await tab.frame("live")
        assert [r.text for r in tab.records if r.seq <= log[-1].seq] == [r.text for r in log if r.seq > n], n
        await tab.close()


async def test_000_6_zero_minus_one_and_nothing_begin_at_the_first_event(server: Server, long: Client) -> None:
    """000-6: over the socket, the event stream and HTTP."""
    conversation = long.attached["conversation"]
    for after in (0, -1, None):
        tab = await server.attach(conversation, after=after)
        await tab.frame("live")
        assert (tab.events[0]["seq"], tab.events[0]["type"]) == (1, "conversation.created"), after
        query: dict[str, Any] = {} if after is None else {"after": after}
        page = await server.get(f"/api/conversations/{conversation}/events", **query)
        assert page["events"][0]["seq"] == 1, after
        stream, _, _ = await server.stream(conversation, None, **query)
        await stream.frame("live")
        assert stream.events[0]["seq"] == 1, after


async def test_000_7_resume_from_any_point_repeatedly(server: Server, long: Client) -> None:
    """000-7: the same n twice gives equal bytes; at the head it waits; beyond it `reset`; malformed is refused."""
    conversation, head = long.attached["conversation"], (await server.replay(long.attached["conversation"]))[-1].seq
    for n in (0, 7, head // 2):
        tabs = [await server.attach(conversation, after=n) for _ in range(2)]
        for tab in tabs:
            await tab.frame("live")
        assert [r.text for r in tabs[0].records] == [r.text for r in tabs[1].records]
    tab = await server.attach(conversation, after=head)
    await tab.frame("live")
    await tab.do("rename", title="Still alive")
    await tab.event("conversation.renamed", title="Still alive")
    beyond = await server.attach(conversation, after=head + 1000)
    await beyond.frame("live")
    assert beyond.attached["reset"] is True and beyond.events[0]["seq"] == 1
    for malformed in ("x", "1.5", "NaN", "1e3", ""):
        with pytest.raises(InvalidStatus) as refused:
            await server.attach(conversation, after=malformed)
        assert refused.value.response.status_code == 400, malformed


async def test_000_8_resume_after_a_crash_in_the_middle(launch: Launch, story: Story) -> None:
    """000-8: kill -9 in mid-stream: nothing that was seen is repeated or lost, and the run goes on."""
    server = await launch()
    tab = await server.open()
    story.then(use(Use("tick", {"number": 1}), text="First."))
    await tab.do("prompt", text=story.says("Survive"))
    call = await story.call()
    await call.text("Half of ", "it")
    await tab.shows("Half of it")
    story.then(say("Half of it, and ", "the rest."))
    await server.restart()
    tab = await server.again(tab)
    assert tab.attached["reset"] is False
    await tab.ended()
    log = await settled(server, tab)
    assert [r.event["reason"] for r in log if r.type == "model.interrupted"] == ["crash"]
    assert [r.event["text"] for r in log if r.type == "model.replied"] == ["First.", "Half of it, and the rest."]


async def test_000_12_readers_that_come_at_different_times_see_the_same(server: Server, story: Story) -> None:
    """000-12: five clients attach at different moments of a run; at the end all have the same list."""
    tabs = [await server.open()]
    conversation = tabs[0].attached["conversation"]
    await tabs[0].do("prompt", text=story.says("Tell all"))
    call = await story.call()
    for number in range(4):
        await call.text(f"{number}")
        await tabs[0].shows_at_last(str(number))
        tabs.append(await server.attach(conversation))
    await call.end()
    lists = []
    for tab in tabs:
        await tab.flushed()
        lists.append([record.text for record in await settled(server, tab)])
    assert all(one == lists[0] for one in lists)


@pytest.mark.timeout(120)
async def test_000_13_a_long_history_in_few_batches_then_live(server: Server, story: Story) -> None:
    """000-13: 5,000 events in at most six batches of 1,000, in order, and then live one by one."""
    story.brain = lambda _: stepping(26, tools=100)
    tab = await server.open()
    await tab.do("prompt", text=story.says("Count far"))
    await tab.ended(within=90)
    conversation, seen, after, batches = tab.attached["conversation"], [], 0, 0
    while True:
        page = await server.get(f"/api/conversations/{conversation}/events", after=after, limit=1000)
        seen += [event["seq"] for event in page["events"]]
        batches, after = batches + 1, page["through"]
        assert len(page["events"]) <= 1000
        if after >= page["head"]:
            break
    assert len(seen) >= 5000 and seen == sorted(set(seen))
    assert batches <= len(seen) // 1000 + 1
    again = await server.attach(conversation, after=after)
    await again.frame("live")
    story.brain = None
    await again.do("prompt", text=story.says("And now"))
    call = await story.call()
    for piece in ("one", "two", "three"):
        await call.text(piece)
        await again.shows_at_last(piece)
    await call.end()
    await again.ended()


async def test_000_14_the_start_answers_at_once(server: Server, story: Story) -> None:
    """000-14: 201 within 200 ms while the model stalls (best of three); the run id is usable at once."""
    delays = []
    for _ in range(3):
        began = time.monotonic()
        made = await server.create(prompt=story.says("Wait for it"))
        delays.append(time.monotonic() - began)
        assert (await server.get(f"/api/runs/{made['run']}"))["status"] == "running"
        call = await story.call()
        await call.end()
    assert min(delays) < 0.2, delays


async def test_000_15_polling_tells_how_a_run_ended(server: Server, story: Story) -> None:
    """000-15: running, then completed with result, usage and times; failed and cancelled can be told apart."""
    made = await server.create(prompt=story.says("Answer"))
    call = await story.call()
    item = await server.get(f"/api/runs/{made['run']}")
    assert item["status"] == "running" and not item.get("finished_at")
    await call.text("The answer")
    await call.end()
    item = await server.outcome(made["run"])
    assert (item["status"], item["result"], item["conversation"]) == ("completed", "The answer", made["conversation"])
    assert (item["usage"]["input"], item["usage"]["output"], item["step"]) == (11, 7, 1)
    assert item["started_at"] <= item["finished_at"] <= time.time() * 1000 + 1000
    story.then(refuse(400, "no such thing"))
    failed = await server.outcome((await server.create(prompt=story.says("Fail")))["run"])
    assert failed["status"] == "failed" and failed["error"]["kind"] and failed["error"]["message"]
    made = await server.create(prompt=story.says("Stop"))
    await story.call()
    assert (await server.command(made["conversation"], "cancel")).status_code == 202
    assert (await server.outcome(made["run"]))["status"] == "cancelled"


async def test_000_16_fifty_runs_that_nobody_listens_to(launch: Launch, story: Story) -> None:
    """000-16: all complete; no more than HOLDFAST_RUNS_MAX are at work at a time."""
    server = await launch(HOLDFAST_RUNS_MAX="8")
    story.brain = lambda _: say("Forgotten ", "but done.", pace=0.02)
    made = await asyncio.gather(*(server.create(prompt=story.says(f"Job {n}")) for n in range(50)))
    for one in made:
        item = await server.outcome(one["run"])
        assert (item["status"], item["result"]) == ("completed", "Forgotten but done.")
    assert len(story.calls) == 50
    assert 1 <= story.most_open <= 8


async def test_000_17_heartbeats_during_a_long_tool(server: Server, story: Story) -> None:
    """000-17, FAULTS 51: a tool of three heartbeats' length: at least two, the connection lives, none has a seq."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("once", {"line": line, "gate": line})), say("Done."))
    await tab.do("prompt", text=story.says("Take your time"))
    await server.wrote(line)
    await tab.until(lambda c: len([f for f in c.frames if f["type"] == "heartbeat"]) >= 3, "three heartbeats", 10)
    server.let(line)
    await tab.ended()
    assert all("seq" not in f and f["at"] > 0 for f in tab.frames if f["type"] == "heartbeat")


async def test_000_19_a_proxy_that_cuts_idle_connections(server: Server, story: Story) -> None:
    """000-19, FAULTS 51: every cut is survived by coming back with the cursor; the log is unbroken."""
    tab = await server.open()
    async with Proxy(server.port, idle=0.4) as proxy:
        tab = await server.again(tab, proxy.port)
        await tab.do("prompt", text=story.says("Slowly"))
        call = await story.call()
        for number in range(3):
            await call.text(f"{number} ")
            await tab.shows_at_last(f"{number} ")
            await tab.closed(5)
            assert tab.code != 1000
            tab = await server.again(tab, proxy.port)
        await call.end()
        await tab.ended()
        assert proxy.cuts >= 3
        tab = await server.again(tab)
        await tab.frame("live")
    await settled(server, tab)


async def test_000_20_the_price_of_the_background(server: Server, story: Story) -> None:
    """000-20: first token of a run started over HTTP against one started on the socket: at most 50 ms more (median)."""

    async def first_token(tab: Client, call: Call) -> float:
        began = time.monotonic()
        await call.text("x")
        await tab.event("text.streamed")
        delay = time.monotonic() - began
        await call.end()
        await tab.ended()
        return delay

    plain, background = [], []
    for _ in range(5):
        tab = await server.open()
        await tab.do("prompt", text=story.says("Plain"))
        plain.append(await first_token(tab, await story.call()))
        made = await server.create(prompt=story.says("Background"))
        call = await story.call()
        background.append(await first_token(await server.attach(made["conversation"]), call))
    price = statistics.median(background) - statistics.median(plain)
    print(f"\n000-20 first token: plain {statistics.median(plain) * 1000:.1f} ms, background {price * 1000:+.1f} ms")
    assert price < 0.05, (plain, background)


async def test_000_21_a_tool_that_never_returns(server: Server, story: Story) -> None:
    """000-21: its deadline passes, the model is told, the run goes on."""
    tab = await server.open()
    story.then(use(Use("endless", {"line": fresh("line")}, id="k1")))
    await tab.do("prompt", text=story.says("Hang"))
    call = await story.call()
    assert call.results["k1"]
    await call.text("It did not answer.")
    await call.end()
    ended = await tab.ended()
    assert ended["type"] == "run.completed"
    assert [event["error"]["kind"] for event in tab.all("tool.failed", call="k1")] == ["timeout"]
    await settled(server, tab)


async def test_000_9_runs_are_found_by_agent_and_status(server: Server, story: Story) -> None:
    """000-9 (asked for later, promised by PROTOCOL.md §2): exactly the active runs of an agent; ended ones vanish."""
    mine = [await server.create(agent="plain", prompt=story.says("One")) for _ in range(2)]
    other = await server.create(agent="dinner", prompt=story.says("Two"))
    calls = [await story.call() for _ in range(3)]

    async def listed() -> list[Json]:
        return list((await server.get("/api/runs", status="active", agent="plain"))["runs"])

    ids = {run["run"]: run for run in await listed()}
    assert {run["run"] for run in mine} <= ids.keys() and other["run"] not in ids
    assert all(ids[run["run"]]["agent"] == "plain" and ids[run["run"]]["status"] == "running" for run in mine)
    for call in calls:
        await call.end()

    async def vanished() -> bool:
        return not {run["run"] for run in mine} & {run["run"] for run in await listed()}

    await eventually(vanished, "ended runs are no longer listed")
