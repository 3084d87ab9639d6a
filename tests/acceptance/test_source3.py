"""Source 3, the course lesson on long-running agents: rows 003-6, 003-7, 003-16, 003-18, and 003-17, 003-19.

An idle limit of 1 s stands for 60 s, a retry budget of 3 s for 300 s.
"""

from __future__ import annotations

import json
import time

import pytest

from .conftest import Launch
from .harness import Server, settled
from .stub import Story, Use, refuse, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

SETTINGS = {"HOLDFAST_MODEL_IDLE_SECONDS": "1"}


async def test_003_6_a_model_call_that_stalls(server: Server, story: Story) -> None:
    """003-6: its deadline passes, the same step is tried again, the run survives."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Answer"))
    stalled = await story.call()
    await stalled.text("Half")
    await stalled.aborted(6)
    again = await story.call()
    assert again.messages == stalled.messages
    await again.text("Whole.")
    await again.end()
    assert (await tab.ended())["type"] == "run.completed"
    [broken] = tab.all("model.interrupted")
    assert (broken["reason"], broken["text"], broken["step"]) == ("stall", "Half", 1)
    assert [(e["step"], e["attempt"]) for e in tab.all("step.started")] == [(1, 1), (1, 2)]
    await settled(server, tab)


async def test_003_7_rate_limits_are_obeyed_and_shown(server: Server, story: Story) -> None:
    """003-7: Retry-After is obeyed, the wait is an event with its end, it costs no step."""
    tab = await server.open()
    story.then(refuse(429, "slow down", retry_after="1"), say("Now."))
    await tab.do("prompt", text=story.says("Answer"))
    failed = await tab.event("model.failed")
    assert failed["error"]["kind"] and 500 <= failed["retry_at"] - failed["at"] <= 3000, failed
    await tab.ended()
    assert story.calls[1].at - story.calls[0].at >= 1
    assert [(e["step"], e["attempt"]) for e in tab.all("step.started")] == [(1, 1), (1, 2)]
    await settled(server, tab)


async def test_003_7_after_the_budget_it_is_suspended_not_failed(launch: Launch, story: Story) -> None:
    """003-7: when retrying has used up its seconds the run is suspended with `retry`, and woken by itself."""
    server = await launch(HOLDFAST_RETRY_SECONDS="2")
    story.brain = lambda _: refuse(503)
    tab = await server.open()
    await tab.do("prompt", text=story.says("Answer"))
    parked = await tab.event("run.suspended", within=20)
    assert parked["reason"] == "retry" and parked["until"] > parked["at"]
    assert (await server.get(f"/api/runs/{tab.run}"))["status"] == "suspended"
    tried = len(story.calls)
    assert 2 <= tried <= 20
    story.brain = lambda _: say("Back again.")
    if parked["until"] - parked["at"] <= 20_000:
        assert (await tab.ended(within=30))["type"] == "run.completed"
    else:
        assert (await tab.do("cancel", run=tab.run))["duplicate"] is False
        assert (await tab.ended())["type"] == "run.cancelled"
    await settled(server, tab)


async def test_003_16_connection_failures_are_survived(server: Server, story: Story) -> None:
    """003-16 (for the server's own end: 000-8): reset before the first byte, reset in the middle, then it goes on."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Answer"))
    await (await story.call()).reset()
    call = await story.call()
    await call.text("Half ")
    await tab.shows("Half ")
    await call.reset()
    call = await story.call()
    await call.text("Whole.")
    await call.end()
    assert (await tab.ended())["type"] == "run.completed"
    assert len(tab.all("model.failed")) == 1
    assert [e["reason"] for e in tab.all("model.interrupted")] == ["upstream"]
    await settled(server, tab)


async def test_003_17_the_log_says_what_was_asked(server: Server, story: Story) -> None:
    """003-17: the model's requests can be rebuilt from the log: same words, same replies, same results, in order."""
    story.then(use(Use("tick", {"number": 1}, id="k1"), Use("tick", {"number": 2}, id="k2"), text="Two."), say("Done."))
    tab = await server.open()
    await tab.do("prompt", text=story.says("Count"))
    await tab.ended()
    rebuilt: list[tuple[str, str]] = []
    asked: list[list[tuple[str, str]]] = []
    for event in tab.events:
        match event["type"]:
            case "prompt.given":
                rebuilt.append(("user", event["text"]))
            case "step.started":
                asked.append(sorted(rebuilt))
            case "model.replied":
                rebuilt.append(("assistant", event["text"]))
            case "tool.returned":
                rebuilt.append(("tool", event["result"]))
    sent = [
        sorted((m["role"], m.get("content") or "") for m in call.messages if m["role"] not in ("system", "developer"))
        for call in story.calls
    ]
    assert json.dumps(sent) == json.dumps(asked)


async def test_003_18_several_people_continue_one_conversation(server: Server, story: Story) -> None:
    """003-18: another client opens it, sees state and history, adds a message; each message has its author."""
    story.brain = lambda _: say("Noted.")
    first = await server.open(title="Shared")
    await first.do("prompt", text=story.says("From me"))
    await first.ended()
    second = await server.attach(first.attached["conversation"])
    await second.frame("live")
    assert second.attached["title"] == "Shared" and second.attached["status"] == "idle"
    assert {"id", "role"} <= second.attached["viewer"].keys()
    assert second.all("prompt.given")[0]["text"] == story.says("From me")
    await second.do("prompt", text="And from me")
    await first.ended(2)
    assert all(isinstance(event["author"], str) and event["author"] for event in first.all("prompt.given"))
    assert [message["content"] for message in story.calls[-1].messages if message["role"] == "user"] == [
        *(story.says("From me"), "And from me"),
    ]
    kept = await server.archived(first.attached["conversation"], first.run)
    assert all(message["author"] for message in kept["messages"] if message["role"] == "user")


async def test_003_19_a_short_chat_stays_simple(server: Server, story: Story) -> None:
    """003-19: default settings, few calls: no compaction, no notes, one model call per step and not one more."""
    story.brain = lambda _: say("Yes.")
    tab = await server.open()
    for number in range(1, 6):
        began = time.monotonic()
        await tab.do("prompt", text=story.says(f"Question {number}"))
        await tab.ended(number)
        assert time.monotonic() - began < 3
    assert len(story.calls) == 5
    assert tab.all("context.compacted") == tab.all("note.saved") == []
