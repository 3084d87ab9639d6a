"""SEMANTICS.md §1, §2, §11, 000-10, 000-11: killed, drained, started twice, started wrongly.

Recovery is nothing but activation, so each test is a life, an end, and another life. Seconds of drain stand for 20.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from .conftest import Launch
from .harness import DEADLINE, Server, eventually, fresh, settled
from .stub import Story, Stub, Use, refuse, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]


# --- kill -9


async def test_killed_between_a_command_and_its_receipt(launch: Launch, story: Story) -> None:
    """FAULTS 1, 2, 3, P3: killed at growing distances from the sending; sent again: applied once, seen by all."""
    server = await launch()
    tab = await server.open()
    for number in range(4):
        id = f"title-{number}"
        await tab.post({"type": "rename", "id": id, "title": id})
        await asyncio.sleep(number * 0.004)
        await server.restart()
        tab = await server.again(tab)
        await tab.do("rename", id, title=id)
        await tab.event("conversation.renamed", title=id)
    log = await settled(server, tab)
    assert [r.event["title"] for r in log if r.type == "conversation.renamed"] == [f"title-{n}" for n in range(4)]


async def test_killed_while_the_model_streams(launch: Launch, story: Story) -> None:
    """FAULTS 4, §1: what was committed stays as `model.interrupted{crash}`; attempt 2 begins from nothing."""
    server = await launch()
    tab = await server.open()
    await tab.do("prompt", text=story.says("Speak"))
    first = await story.call()
    await first.reasoning("I think ")
    await first.text("Half of it")
    await tab.shows("Half of it")
    await server.restart()
    second = await story.call()
    assert second.messages == first.messages
    tab = await server.again(tab)
    [broken] = await tab.count("model.interrupted", 1)
    assert (broken["reason"], broken["text"], broken["reasoning"], broken["attempt"]) == (
        "crash",
        "Half of it",
        "I think ",
        1,
    )
    await second.text("All of it.")
    await second.end()
    await tab.ended()
    pieces = [(e["attempt"], e["offset"]) for e in tab.all("text.streamed")]
    assert (1, 0) in pieces and (2, 0) in pieces
    await settled(server, tab)


async def test_every_unfinished_run_is_picked_up_before_ready(launch: Launch, story: Story) -> None:
    """P5, FAULTS 24: after a `kill -9`, as for want of memory, each is running or waiting when `/readyz` says yes.

    And it goes on without any reader.
    """
    server = await launch()
    story.then(use(Use("reserve", {"place": fresh("place"), "people": 1}, id="book")))
    waiting = await server.create(prompt=story.says("Book"))
    tab = await server.attach(waiting["conversation"])
    await tab.event("run.suspended")
    runs = [await server.create(prompt=story.says(f"Work {n}")) for n in range(5)]
    for _ in runs:
        await story.call()
    await server.restart()
    activated = server.sql("SELECT conversation FROM log WHERE events LIKE '%actor.activated%'")
    assert {(run["conversation"],) for run in runs} <= set(activated), "before anybody asks"
    states = {run["run"]: run["status"] for run in (await server.get("/api/runs", status="active"))["runs"]}
    assert states == {waiting["run"]: "waiting", **{run["run"]: "running" for run in runs}}
    for _ in runs:
        call = await story.call()
        await call.text("Went on.")
        await call.end()
    for run in runs:
        assert (await server.outcome(run["run"]))["result"] == "Went on."


async def test_queued_words_and_retry_waits_survive(launch: Launch, story: Story) -> None:
    """State is in the log, not in the process: the queue and the wait go on where they were."""
    server = await launch()
    tab = await server.open()
    story.then(refuse(429, retry_after="3"))
    await tab.do("prompt", text=story.says("First"))
    failed = await tab.event("model.failed")
    await tab.do("prompt", "second", text="Second")
    story.then(say("One."), say("Two."))
    await server.restart()
    tab = await server.again(tab)
    await tab.ended(2)
    assert tab.all("run.started")[1]["message"] == "second"
    again = tab.all("step.started")[1]
    assert again["at"] >= failed["retry_at"] - 50 and again["attempt"] == 2
    await settled(server, tab)


async def test_epochs_grow(launch: Launch, story: Story) -> None:
    """§3.1: each new owner says so, with a greater number."""
    server = await launch()
    tab = await server.open()
    story.brain = lambda _: say("Yes.")
    for number in range(1, 3):
        await tab.do("prompt", text=story.says("Here?"))
        await tab.ended(number)
        await server.restart()
        tab = await server.again(tab)
    await tab.do("rename", title="The end")
    epochs = [event["epoch"] for event in tab.all("actor.activated")]
    assert len(epochs) >= 2 and epochs == sorted(set(epochs))


async def test_the_third_crash_in_one_step_ends_the_run(launch: Launch, story: Story, stub: Stub) -> None:
    """FAULTS 12, §1: three lives that found the same step: it fails with a reason; another conversation goes on."""
    server = await launch()
    tab = await server.open()
    other = stub.story()
    neighbour = await server.create(prompt=other.says("I am fine"))
    await tab.do("prompt", text=story.says("Crash"))
    for life in range(3):
        await story.call()
        if life == 1:
            await (await other.call()).end()
            await server.outcome(neighbour["run"])
        await server.restart()
    tab = await server.again(tab)
    ended = await tab.ended()
    assert ended["type"] == "run.failed" and ended["error"]["message"]
    assert (await server.outcome(neighbour["run"]))["status"] == "completed"
    await settled(server, tab)
    story.then(say("Yes."))
    await tab.do("prompt", text=story.says("Still alive?"))
    assert (await tab.ended(2))["type"] == "run.completed"


async def test_the_third_crash_in_one_call_ends_the_call(launch: Launch, story: Story) -> None:
    """FAULTS 12, §1: a safe tool found three times: `tool.failed{error}`; the model is told; the run goes on."""
    server = await launch()
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("safe", {"line": line, "gate": line}, id="k1")))
    await tab.do("prompt", text=story.says("Crash"))
    for life in range(1, 4):
        await server.wrote(line, times=life)
        await server.restart()
    call = await story.call()
    tab = await server.again(tab)
    [failed] = await tab.count("tool.failed", 1, call="k1")
    assert failed["error"]["kind"] == "error" and call.results["k1"]
    await call.end()
    assert (await tab.ended())["type"] == "run.completed"
    assert len(server.ledger(line)) == 3
    await settled(server, tab)


# --- SIGTERM


async def test_a_drain_waits_for_a_tool_that_ends_in_time(launch: Launch, story: Story) -> None:
    """FAULTS 98, §11: the tool is not cut, its result is kept, no new run begins, exit 0; the next life goes on."""
    server = await launch(HOLDFAST_DRAIN_SECONDS="10")
    line = fresh("line")
    tab = await server.open()
    idle = await server.open()
    story.then(use(Use("once", {"line": line, "gate": line}, id="k1")))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    ending = asyncio.create_task(server.terminate())
    frame = await tab.frame("draining")
    assert frame["retry_after_ms"] >= 0
    if not idle.over:
        try:
            answer = await idle.send("prompt", text=story.says("One more"))
            assert (answer["type"], answer["code"]) == ("rejected", "draining")
        except Exception as gone:  # the socket may have been closed first; that is no acceptance either
            assert idle.over, gone
    server.let(line)
    assert await ending == 0
    assert len(server.ledger(line)) == 2
    await server.start()
    call = await story.call()
    assert call.results == {"k1": f"{line} is done"}
    await call.end()
    tab = await server.again(tab)
    await tab.ended()
    assert len(server.ledger(line)) == 2 and len(tab.all("tool.returned", call="k1")) == 1
    await settled(server, tab)


async def test_a_drain_ends_at_its_deadline(launch: Launch, story: Story) -> None:
    """FAULTS 98, 99: a tool, a model call, an event stream that do not end are left as by a crash: exit 0 in time.

    So is a peer that does not end its request.
    """
    server = await launch(HOLDFAST_DRAIN_SECONDS="1")
    line = fresh("line")
    tab = await server.open()
    await server.stream(tab.attached["conversation"])
    _, endless = await asyncio.open_connection("127.0.0.1", server.port)
    endless.write(f"POST /api/conversations HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n".encode())
    endless.write(b'Content-Length: 1000\r\n\r\n{"title": "I am not yet')
    story.then(use(Use("blocking", {"line": line, "gate": line}, id="k1")))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    speaking = await server.create(prompt=story.says("Speak"))
    await (await story.call()).text("Half")
    began = time.monotonic()
    assert await server.terminate() == 0
    assert time.monotonic() - began < 8
    endless.transport.abort()
    story.brain = lambda _: say("Went on.")
    await server.start()
    assert (await server.outcome(speaking["run"]))["result"] == "Went on."
    tab = await server.again(tab)
    await tab.ended()
    assert [e["error"]["kind"] for e in tab.all("tool.failed", call="k1")] == ["in_doubt"]
    assert len([entry for entry in server.ledger(line) if " begin " in entry]) == 1
    await settled(server, tab)


@pytest.mark.parametrize("given_up", [False, True], ids=["at work", "given up"])
async def test_a_tool_that_swallows_its_end_keeps_no_process(launch: Launch, story: Story, given_up: bool) -> None:
    """FAULTS 72, 98, 99: the process ends without an async tool that ignores every cancellation: exit 0 in time."""
    server = await launch(HOLDFAST_DRAIN_SECONDS="1")
    tab, line = await server.open(), fresh("line")
    story.then(use(Use("stubborn", {"line": line, "gate": line}, id="k1")), say("It is in doubt."))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    if given_up:
        await tab.do("cancel")
        await tab.ended()
    began = time.monotonic()
    assert await server.terminate() == 0
    assert time.monotonic() - began < 8
    await server.start()
    tab = await server.again(tab)
    await tab.ended()
    assert [e["error"]["kind"] for e in tab.all("tool.failed", call="k1")] == ["in_doubt"]
    await settled(server, tab)


async def test_drains_are_no_crashes(launch: Launch, story: Story) -> None:
    """§1: three deploys in the middle of one model call do not fail the run."""
    server = await launch(HOLDFAST_DRAIN_SECONDS="1")
    tab = await server.open()
    await tab.do("prompt", text=story.says("Patience"))
    for _ in range(3):
        await story.call()
        assert await server.terminate() == 0
        await server.start()
    call = await story.call()
    await call.text("Finally.")
    await call.end()
    tab = await server.again(tab)
    assert (await tab.ended())["type"] == "run.completed"
    await settled(server, tab)


async def test_an_idle_server_ends_at_once(launch: Launch) -> None:
    """FAULTS 98: nothing to wait for; a reader that stays attached holds nothing up."""
    server = await launch(HOLDFAST_DRAIN_SECONDS="20")
    tab = await server.open()
    await server.watch()
    began = time.monotonic()
    assert await server.terminate() == 0
    assert time.monotonic() - began < 5
    assert await tab.closed() not in range(4500, 5000)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_a_second_signal_is_immediate(launch: Launch, story: Story, second: signal.Signals) -> None:
    """FAULTS 100, 101: still consistent: the next life goes on as after a crash, also where the platform lost patience.

    A second signal ends on purpose, and says so in the log; a kill says nothing any more.
    """
    server = await launch(HOLDFAST_DRAIN_SECONDS="30")
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("once", {"line": line, "gate": line}, id="k1")))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    os.kill(server.pid, signal.SIGTERM)
    await tab.frame("draining")
    os.kill(server.pid, second)
    assert await server.exited(8) == (-signal.SIGKILL if second is signal.SIGKILL else 0)
    await server.kill()
    server.let(line)
    story.brain = lambda _: say("Went on.")
    await server.start()
    tab = await server.again(tab)
    await tab.ended()
    assert len([entry for entry in server.ledger(line) if " begin " in entry]) == 1
    assert [event["error"]["kind"] for event in tab.all("tool.failed", call="k1")] == ["in_doubt"]
    assert len(tab.all("actor.drained")) == (0 if second is signal.SIGKILL else 1)
    await settled(server, tab)


async def test_sigint_is_a_drain_too(launch: Launch) -> None:
    """FAULTS 100: Ctrl-C in a terminal."""
    server = await launch()
    tab = await server.open()
    os.kill(server.pid, signal.SIGINT)
    await tab.frame("draining")
    assert await server.exited(8) in (0, 130, -signal.SIGINT)
    await server.kill()


# --- two at a time, and wrong starts


def twin_of(server: Server) -> Server:
    """Another process on the same data directory, on a port of its own."""
    twin = Server(server.home, server.settings["OPENAI_BASE_URL"], server.settings, server.agents)
    twin.output = Path(f"{server.output}.twin")
    return twin


async def test_two_processes_on_one_data_directory(launch: Launch) -> None:
    """FAULTS 13, 103: the second waits as long as a drain may take, then refuses; the first is untouched."""
    server = await launch(HOLDFAST_DRAIN_SECONDS="1")
    tab = await server.open()
    twin = twin_of(server)
    try:
        await twin.start(ready=False)
        await eventually(lambda: _has_open(twin, server.data / "lock"), "it has come to the lock", 30)
        began = time.monotonic()
        assert await twin.exited(12) != 0
        assert time.monotonic() - began > 3.5, "a drain and five seconds, not a drain alone"
        assert str(server.data.name) in twin.said() and "Traceback" not in twin.said()
    finally:
        await twin.close()
    await tab.do("rename", title="Untouched")


async def test_an_agent_that_is_not_served_any_more(launch: Launch, story: Story) -> None:
    """Nobody else answers for it, nothing is lost: the step is tried again, and goes on when the agent is back."""
    server = await launch(agents=("tests.acceptance.agents:plain",))
    tab = await server.open(agent="plain")
    await server.terminate()
    server.agents = ("tests.acceptance.agents:desk",)
    await server.start()
    tab = await server.again(tab)
    await tab.do("prompt", text=story.says("Are you there?"))
    failed = await tab.event("model.failed")
    assert failed["error"]["kind"] == "unknown_agent" and "plain" in failed["error"]["message"]
    assert failed["retry_at"] > failed["at"] and not story.calls
    await server.terminate()
    server.agents = ("tests.acceptance.agents:plain",)
    story.then(say("I am."))
    await server.start()
    assert (await server.outcome(tab.run))["result"] == "I am."


async def test_old_and_new_process_overlap(launch: Launch, story: Story) -> None:
    """FAULTS 103: the new one waits for the lock and takes over, the run and all."""
    server = await launch(HOLDFAST_DRAIN_SECONDS="5")
    tab = await server.open()
    await tab.do("prompt", text=story.says("Work"))
    await (await story.call()).text("Half")
    twin = twin_of(server)
    try:
        await twin.start(ready=False)
        await eventually(lambda: _has_open(twin, server.data / "lock"), "it has come to the lock", 30)
        await server.kill()
        await eventually(twin.is_ready, "the new process has taken over", 20)
        call = await story.call()
        await call.text("Whole.")
        await call.end()
        assert (await twin.outcome(tab.run))["result"] == "Whole."
    finally:
        await twin.close()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"HOLDFAST_STEPS_MAX": "many-5f1d"}, "HOLDFAST_STEPS_MAX"),
        ({"HOLDFAST_HEARTBEAT_SECONDS": "-5"}, "HOLDFAST_HEARTBEAT_SECONDS"),
        ({"WEB_CONCURRENCY": "4"}, "WEB_CONCURRENCY"),
        ({"OPENAI_BASE_URL": "nonsense-5f1d"}, "OPENAI_BASE_URL"),
    ],
)
async def test_wrong_settings_are_refused(launch: Launch, settings: dict[str, str], name: str) -> None:
    """FAULTS 104, 105: exit ≠ 0 before the port is bound, with the setting's name and never its value."""
    server = await launch(ready=False, **settings)
    assert await server.exited(15) != 0
    assert name in server.said() and "5f1d" not in server.said().replace("5f1d0c7e9b", "")
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=0.2).close()


async def test_what_is_wrong_is_said_before_the_port_is_taken(tmp_path: Path, stub: Stub) -> None:
    """FAULTS 104: somebody else has the port, and yet it is the setting that is complained about."""
    server = Server(tmp_path / "server", stub.url, agents=("nonsense",))
    try:
        with socket.create_server(("127.0.0.1", server.port)):
            await server.start(ready=False)
            assert await server.exited(15) != 0
        assert "HOLDFAST_AGENT" in server.said() and "cannot listen" not in server.said()
    finally:
        await server.close()


@pytest.mark.parametrize("agent", ["no.such.module:agent", "tests.acceptance.agents:nobody", "nonsense"])
async def test_agents_that_do_not_exist_are_refused(launch: Launch, agent: str) -> None:
    """FAULTS 104, DESIGN §8: with the name of the setting, never its value, without a traceback."""
    server = await launch(ready=False, agents=(agent,))
    assert await server.exited(15) != 0
    assert "HOLDFAST_AGENT" in server.said() and agent not in server.said()


async def test_other_addresses_need_a_word(tmp_path: Path, stub: Stub) -> None:
    """FAULTS security-exposure: anything but loopback is refused unless HOLDFAST_OPEN=1."""
    for allowed in (False, True):
        settings = {"HOLDFAST_HOST": "0.0.0.0", "HOLDFAST_OPEN": "1"} if allowed else {"HOLDFAST_HOST": "0.0.0.0"}
        server = Server(tmp_path / str(allowed), stub.url, settings, host=None)
        try:
            await server.start(ready=False)
            if allowed:
                await eventually(server.is_ready, "it serves", DEADLINE)
            else:
                assert await server.exited(15) != 0
                assert "HOLDFAST_OPEN" in server.said()
        finally:
            await server.close()


# --- streams that another process has started (source 0)


async def test_000_10_after_a_restart_it_is_found_and_resumed(launch: Launch, story: Story) -> None:
    """000-10: the next process lists what is active, and a reader from the beginning gets the complete log."""
    server = await launch()
    tab = await server.open()
    story.then(use(Use("tick", {"number": 1}), text="First."))
    await tab.do("prompt", text=story.says("Survive"))
    call = await story.call()
    await call.text("Half")
    await tab.shows("Half")
    before = list(tab.records)
    await server.restart()
    [found] = (await server.get("/api/runs", status="active"))["runs"]
    assert (found["run"], found["conversation"]) == (tab.run, tab.attached["conversation"])
    assert found["status"] == "running"
    late = await server.attach(found["conversation"])
    await late.frame("live")
    assert late.attached["after"] == 0 and late.events[0]["seq"] == 1
    lasting = [record.text for record in before if record.type != "text.streamed"]
    assert [record.text for record in late.records][: len(lasting)] == lasting
    call = await story.call()
    await call.text("Whole.")
    await call.end()
    assert (await late.ended())["type"] == "run.completed"
    await settled(server, late)
    assert (await server.get("/api/runs", status="active"))["runs"] == []


def _has_open(server: Server, path: Path) -> bool:
    """Whether this process has the file open."""
    assert server.alive, server.said()
    try:
        return any(os.readlink(link) == str(path.resolve()) for link in Path(f"/proc/{server.pid}/fd").iterdir())
    except FileNotFoundError:  # one of them was closed just now
        return False


async def test_000_11_another_process_picks_up_what_this_one_started(launch: Launch, story: Story) -> None:
    """000-11: while the first owns the data, the second answers nobody; then it has the same events and goes on.

    Never two owners: no request of the model overlaps another one, and epochs only grow.
    """
    server = await launch(HOLDFAST_DRAIN_SECONDS="30")
    tab = await server.open()
    await tab.do("prompt", text=story.says("Work"))
    call = await story.call()
    await call.text("Half")
    await tab.shows("Half")
    twin = twin_of(server)
    try:
        await twin.start(ready=False)
        await eventually(lambda: _has_open(twin, server.data / "lock"), "it has come to the lock", 30)
        assert twin.alive and not await twin.is_ready() and len(story.calls) == 1
        await tab.do("rename", title="Still mine")
        before = list(tab.records)
        await server.kill()
        await eventually(twin.is_ready, "the new process has taken over", 30)
        late = await twin.attach(tab.attached["conversation"])
        await late.frame("live")
        lasting = [record.text for record in before if record.type != "text.streamed"]
        assert [record.text for record in late.records][: len(lasting)] == lasting
        call = await story.call()
        await call.text("Whole.")
        await call.end()
        assert (await late.ended())["type"] == "run.completed"
        assert [event["epoch"] for event in late.all("actor.activated")] == [2]
        assert len(story.calls) == 2 and story.most_open == 1
        await settled(twin, late)
    finally:
        await twin.close()
