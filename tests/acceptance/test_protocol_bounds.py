"""PROTOCOL.md §4 and P8: every bound, one below it and one above it, and the visible result."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import pytest
from websockets.exceptions import ConnectionClosed

from .conftest import Launch
from .harness import Server, eventually, fresh, settled
from .history import Json
from .stub import Answer, Call, Story, Use, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]


async def test_the_text_of_a_prompt_and_a_hint(server: Server, story: Story) -> None:
    """64 KiB of text are taken, one byte more is `too_large`."""
    tab = await server.open()
    story.then(say("Read."))
    mark = story.says("")
    await tab.refused("too_large", "prompt", text="x" * 65_537)
    await tab.refused("too_large", "hint", text="x" * 65_537)
    await tab.refused("too_large", "prompt", text="é" * 40_000)
    await tab.do("prompt", text="x" * (65_536 - len(mark)) + mark)
    await tab.ended()
    assert len(story.calls[0].words[0]) == 65_536


async def test_the_title(server: Server) -> None:
    """200 characters (not bytes) are taken, one more is refused; 1 MB of title harms nothing."""
    tab = await server.open()
    await tab.do("rename", title="é" * 200)
    for title in ("x" * 201, "x" * 200_000):
        answer = await tab.send("rename", title=title)
        assert answer["type"] == "rejected" and answer["code"] in ("too_large", "bad_command")
    assert [len(event["title"]) for event in tab.all("conversation.renamed")] == [200]


async def test_the_frame_from_the_client(server: Server) -> None:
    """FAULTS 39, security-limits: 256 KiB are read; above it the socket is closed with 1009, and the server lives."""
    tab = await server.open()
    frame = {"type": "rename", "id": "big", "title": "t", "padding": ""}
    frame["padding"] = "x" * (262_144 - len(json.dumps(frame)))
    assert len(json.dumps(frame)) == 262_144
    await tab.post(frame)
    await tab.frame("accepted", id="big")
    await tab.post({**frame, "padding": frame["padding"] + "x"})
    assert await tab.closed() == 1009
    again = await server.again(tab)
    await again.do("rename", title="Still here")
    body = json.dumps({**frame, "id": "http", "padding": "x" * 300_000})
    path = f"/api/conversations/{tab.attached['conversation']}/commands"
    assert (await server.http.post(path, content=body)).status_code == 413


async def test_queued_hints_and_prompts(server: Server, story: Story) -> None:
    """FAULTS 66: ten hints and ten prompts wait in order, the eleventh of each is `queue_full`."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("once", {"line": line, "gate": line})))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    for number in range(10):
        await tab.do("hint", text=f"Hint {number}")
        await tab.do("prompt", f"p-{number}", text=f"Prompt {number}")
    await tab.refused("queue_full", "hint", text="One too many")
    await tab.refused("queue_full", "prompt", text="One too many")
    answer = await server.command(tab.attached["conversation"], "hint", text="One too many")
    assert answer.status_code == 429
    story.brain = lambda _: say("Next.")
    server.let(line)
    await tab.ended(11)
    assert story.calls[1].words[1:] == [f"Hint {number}" for number in range(10)]
    assert [event["message"] for event in tab.all("run.started")][1:] == [f"p-{number}" for number in range(10)]
    await settled(server, tab)


async def test_a_hundred_commands_at_once_then_twenty_a_second(launch: Launch) -> None:
    """FAULTS 48, security-limits: over the burst: `rate_limited`, the socket stays; twice that in 10 s: 4429."""
    server = await launch(HOLDFAST_RATE="20")
    tab = await server.open()

    def answers(kind: str) -> list[Json]:
        return [frame for frame in tab.frames if frame["type"] == kind]

    for number in range(150):
        await tab.post({"type": "rename", "id": f"r-{number}", "title": f"{number}"})
    await tab.until(lambda _: len(answers("accepted")) + len(answers("rejected")) == 150, "150 answers")
    assert {frame["code"] for frame in answers("rejected")} == {"rate_limited"}
    assert 100 <= len(answers("accepted")) <= 140
    assert tab.code is None
    await asyncio.sleep(1)  # not a wait for a condition: time is what is measured
    assert (await tab.send("rename", title="After a second"))["type"] == "accepted"
    try:
        for number in range(400):
            await tab.post({"type": "rename", "id": f"s-{number}", "title": f"{number}"})
    except Exception:  # the socket may be closed while we are still sending
        pass
    assert await tab.closed() == 4429
    other = await server.again(tab)
    await other.frame("live")
    assert (await server.http.get("/readyz")).status_code == 200


@pytest.mark.parametrize("say", ["frames", "pings"])
async def test_bytes_per_second(launch: Launch, say: str) -> None:
    """FAULTS 48, security-limits: over a hundred of the largest frames at once, and the rate after that: 1008."""
    server = await launch(HOLDFAST_RATE_BYTES="1024", HOLDFAST_FRAME_BYTES_MAX="1024")
    tab = await server.open()
    limits = tab.attached["limits"]
    assert (limits["frame_bytes"], limits["rate_bytes"], limits["burst_bytes"]) == (1_024, 1_024, 100 * 1_152)
    assert tab.socket is not None
    for number in range(50):
        await tab.do("rename", f"r-{number}", title="t", padding="x" * 900)
    with contextlib.suppress(ConnectionClosed):
        for number in range(1_000):
            if say == "pings":
                await tab.socket.ping(f"{number}")
            else:
                await tab.post({"type": "rename", "id": f"s-{number}", "title": "t", "padding": "x" * 900})
    assert await tab.closed() == 1008
    other = await server.again(tab)
    await other.post({"type": "rename", "id": "large", "title": "t", "padding": "x" * 1_024})
    assert await other.closed() == 1009, "the setting bounds what a client sends"


async def test_who_keeps_to_the_rate_of_frames_does_not_meet_that_of_bytes(server: Server) -> None:
    """FAULTS 48: a hundred long frames at once, which is what the rate of frames allows."""
    tab = await server.open()
    for number in range(100):
        await tab.post({"type": "rename", "id": f"r-{number}", "title": "t", "padding": "x" * 8_000})
    await tab.frame("accepted", id="r-99")
    assert tab.code is None


async def test_commands_over_http_are_limited_too(launch: Launch) -> None:
    """FAULTS security-limits: 100 in a burst per client address, whatever it says of itself, then 429."""
    server = await launch(HOLDFAST_RATE="20")
    conversation = (await server.create())["conversation"]
    began = time.monotonic()
    url = f"/api/conversations/{conversation}/commands"
    answers = [
        await server.http.post(
            url, json={"type": "rename", "id": fresh(), "title": f"{n}"}, headers={"X-Forwarded-For": f"10.0.0.{n}"}
        )
        for n in range(180)
    ]
    allowed = 100 + 20 * (time.monotonic() - began) + 5
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {202, 429} and 95 <= statuses.count(202) <= allowed, statuses.count(202)
    assert "rate_limited" in answers[statuses.index(429)].text


async def test_sockets_of_one_viewer(launch: Launch) -> None:
    """FAULTS 50, security-limits: one more than HOLDFAST_SOCKETS_MAX: 4429; when one leaves there is room again."""
    server = await launch(HOLDFAST_SOCKETS_MAX="5")
    tab = await server.open()
    conversation = tab.attached["conversation"]
    tabs = [tab] + [await server.attach(conversation) for _ in range(4)]
    for one in tabs:
        await one.frame("live")
    over = await server.attach(conversation)
    assert await over.closed() == 4429
    await tabs[2].close()

    async def let_in() -> bool:
        late = await server.attach(conversation)
        await late.until(lambda c: c.over or c.frames, "an answer")
        return not late.over

    await eventually(let_in, "room for another socket")
    await tabs[0].do("rename", title="Not disturbed")


async def test_a_reader_that_does_not_read_is_let_go(launch: Launch, story: Story) -> None:
    """FAULTS 54, 31, §1.3: after HOLDFAST_SEND_SECONDS its connection is ended; nobody else notices; it comes back."""
    whole = {"HOLDFAST_STEPS_MAX": "200", "HOLDFAST_CONTEXT_TOKENS": "100000000"}  # a summary would be no flood
    server = await launch(HOLDFAST_SEND_SECONDS="1", HOLDFAST_HEARTBEAT_SECONDS="1", **whole)
    tab = await server.open()
    slow = await server.attach(tab.attached["conversation"], max_queue=1, max_size=4_000_000)
    await slow.frame("live")
    assert slow.socket is not None
    slow.socket.transport.pause_reading()
    done = 0

    def model(_: Call) -> Answer:
        nonlocal done
        done += 1
        return use(Use("big", {"size": 60_000}), text="x" * 100_000) if done < 60 else say("Done.")

    story.brain = model
    await tab.do("prompt", text=story.says("Flood"))
    await tab.ended(within=40)
    slow.socket.transport.resume_reading()
    assert await slow.closed() in (4000, 1006, None)
    back = await server.again(slow)
    await back.ended()
    await settled(server, tab)


@pytest.mark.timeout(90)
async def test_the_text_of_an_attempt(server: Server, story: Story) -> None:
    """256 Ki characters, then it ends with `finish:"limit"`; no event and no frame is too large."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Talk"))
    call = await story.call()
    try:
        for _ in range(80):
            await call.text("é" * 4096)
    except ConnectionError:
        pass
    assert (await tab.ended(within=40))["type"] in ("run.completed", "run.failed")
    [replied] = tab.all("model.replied")
    assert (len(replied["text"]), replied["finish"]) == (262_144, "limit")
    await settled(server, tab)


async def test_results_over_64_kib(server: Server, story: Story) -> None:
    """They are cut in the event, which says so."""
    tab = await server.open()
    story.then(use(Use("big", {"size": 200_000}, id="k1")), say("Done."))
    await tab.do("prompt", text=story.says("Large"))
    await tab.ended()
    [returned] = tab.all("tool.returned", call="k1")
    assert returned["truncated"] is True and len(returned["result"]) < 70_000
    assert returned["result"].startswith("0123456789abcdef")
    await settled(server, tab)


async def test_arguments_over_64_kib(server: Server, story: Story) -> None:
    """They are cut in the event, which says so, and reach the tool whole."""
    tab = await server.open()
    line = "x" * 100_000
    story.then(use(Use("once", {"line": line}, id="k1")), say("Done."))
    await tab.do("prompt", text=story.says("Large"))
    await tab.ended()
    assert len(server.ledger(line)) == 2, "the tool got its arguments whole"
    assert all(len(record.text) < 80_000 for record in tab.records)
    await settled(server, tab)


async def test_steps_are_bounded(launch: Launch, story: Story) -> None:
    """P8: at HOLDFAST_STEPS_MAX a run ends or is parked visibly, not silently."""
    server = await launch(HOLDFAST_STEPS_MAX="3")
    story.brain = lambda _: use(Use("tick", {"number": 1}))
    tab = await server.open()
    await tab.do("prompt", text=story.says("For ever"))
    end = await tab.until(lambda c: c.all("run.failed") or c.all("run.suspended") or c.all("run.completed"), "a bound")
    assert (end[0]["type"] == "run.failed" and end[0]["error"]["message"]) or end[0].get("reason") == "budget", end
    assert len(story.calls) == 3
