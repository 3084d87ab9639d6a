"""Holdfast inside a program: runs and continuations without a server and without HTTP, on real stores.

Rows 004-3, 004-5, 004-6, 004-12, 004-22 and 004-25 of ACCEPTANCE.md through Python; over HTTP they are in acceptance/.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.agent import Agent, ToolContext, tool
from app.agent.agents import ConfigError
from app.agent.model import Delta, Finished, Request, TextDelta
from app.core.commands import Hint
from app.core.errors import Rejected
from app.core.events import Call, Usage
from app.embedded import Continuation, Holdfast, Started
from tests.actor.home import ScriptedModel, calls
from tests.agent import apart
from tests.processes import lives

SETTINGS = {"HOLDFAST_SECRET": "the same in both houses", "HOLDFAST_DRAIN_SECONDS": "1"}
DONE: list[str] = []
"""What the tools of a test did, in order."""


@pytest.fixture(autouse=True)
def _nothing_done_yet() -> None:
    DONE.clear()


@tool
async def send_email(name: str) -> str:
    """Send a welcome e-mail."""
    DONE.append(f"mail {name}")
    return "sent"


@tool(approval=True)
async def authorize(name: str, ctx: ToolContext) -> str:
    """Give an account its rights."""
    DONE.append(f"authorize {name} {ctx.call_id}")
    return "authorized"


account = Agent("account", "You are account.", tools=[authorize])
hr = Agent("hr", "You are hr.", tools=[send_email, account.as_tool("Authorises accounts")])


class Acted:
    """A model that knows whose part it plays by the instructions, and where it is by what it has said already."""

    name = "acted"

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        self.requests.append(request)
        agent = request.messages[0]["content"]
        spoken = sum(message["role"] == "assistant" for message in request.messages)
        parts: dict[str, list[Call | str]] = {
            "You are hr.": [
                Call(call="k1", tool="send_email", arguments='{"name": "Ann"}'),
                Call(call="k2", tool="account", arguments='{"prompt": "Authorise Ann"}'),
                "Ann is onboard.",
            ],
            "You are account.": [
                Call(call="k1", tool="authorize", arguments='{"name": "Ann"}'),
                "The account is ready.",
            ],
        }
        part = parts[agent][spoken]
        if isinstance(part, str):
            yield TextDelta(part)
        said = [part] if isinstance(part, Call) else []
        yield Finished("tool_calls" if said else "stop", said, Usage(input=10, output=5))

    async def close(self) -> None:
        pass


def house(data: Path, model: Any = None, *agents: Agent, **settings: str) -> Holdfast:
    return Holdfast(agents or [hr], model=model or Acted(), data=data, settings={**SETTINGS, **settings})


async def onboarding(at: Holdfast) -> Started:
    """The HR run, waiting for the approval one level down."""
    started = await at.start("Onboard Ann")
    outcome = await at.wait(started.run, 30)
    assert (outcome.status, outcome.reason) == ("waiting", "approval")
    return started


async def test_004_3_inspected_decided_and_resumed_in_python(tmp_path: Path) -> None:
    """004-3, 004-5, 004-12, 004-25: no HTTP anywhere; nothing is repeated; the same value again changes nothing."""
    model = Acted()
    async with house(tmp_path, model) as at:
        started = await onboarding(at)
        continuation = await at.continuation(started.conversation)
        [approval] = continuation.pending
        assert (approval.paths, approval.path_ids) == (("account", "authorize"), ("k2", "k1"))
        assert (approval.tool, approval.arguments) == ("authorize", {"name": "Ann"})
        assert DONE == ["mail Ann"] and len(model.requests) == 3
        continuation.approve(approval.path_ids)
        assert not (await at.resume(continuation)).duplicate
        outcome = await at.wait(started.run, 30)
        assert (outcome.status, outcome.result, outcome.error) == ("completed", "Ann is onboard.", None)
        assert DONE == ["mail Ann", "authorize Ann k1"] and len(model.requests) == 5
        again = await at.resume(continuation)
        assert again == Started(started.conversation, started.run, duplicate=True)
        assert (await at.wait(started.run)).status == "completed" and len(DONE) == 2


async def test_004_14_denied_in_python(tmp_path: Path) -> None:
    """004-14: the tool is not run, its agent is told, the run goes on."""
    async with house(tmp_path, model := Acted()) as at:
        started = await onboarding(at)
        continuation = await at.continuation(started.conversation)
        continuation.deny(["k2", "k1"])
        await at.resume(continuation)
        assert (await at.wait(started.run, 30)).status == "completed"
        assert DONE == ["mail Ann"]
        assert "denied" in model.requests[3].messages[-1]["content"]


async def test_004_22_from_one_house_to_another(tmp_path: Path) -> None:
    """004-22, 004-21: as text; the other house goes on where the first stopped; the first refuses."""
    async with house(tmp_path / "a") as a, house(tmp_path / "b") as b:
        started = await onboarding(a)
        copied = await a.continuation(started.conversation)
        copied.approve(["k2", "k1"])
        with pytest.raises(Rejected, match="was not taken"):
            await b.resume(copied)
        taken = await a.take(started.conversation)
        assert taken.taken and (await a.wait(started.run)).status == "moved"
        returned = Continuation.from_json(taken.to_json())
        returned.approve(["k2", "k1"])
        for refused in (copied, returned):
            with pytest.raises(Rejected, match="was taken"):
                await a.resume(refused)
        there = await b.resume(returned)
        assert there.run == started.run and there.conversation != started.conversation
        assert (await b.wait(started.run, 30)).result == "Ann is onboard."
        assert (await b.resume(returned)).duplicate
        assert DONE == ["mail Ann", "authorize Ann k1"]


async def test_004_6_a_program_may_end_while_a_run_waits(tmp_path: Path) -> None:
    """004-6: nothing needs to run; the next process decides what the last one exported."""
    async with house(tmp_path) as at:
        started = await onboarding(at)
        text = (await at.continuation(started.conversation)).to_json()
    async with house(tmp_path, model := Acted()) as at:
        assert (await at.wait(started.run)).status == "waiting" and not model.requests
        continuation = Continuation.from_json(text)
        continuation.approve(["k2", "k1"])
        await at.resume(continuation)
        assert (await at.wait(started.run, 30)).status == "completed"
    assert DONE == ["mail Ann", "authorize Ann k1"]


async def test_waiting_ends_in_time_and_the_run_does_not_notice(tmp_path: Path) -> None:
    model = ScriptedModel()
    gate = asyncio.Event()
    model.lines.append(["Half, ", gate, "whole."])
    async with house(tmp_path, model) as at:
        started = await at.start("Go on", id="once", title="A talk")
        assert await at.start("Go on", id="once") == Started(started.conversation, started.run, duplicate=True)
        with pytest.raises(TimeoutError):
            await at.wait(started.run, 0.05)
        await at.send(started.conversation, Hint(id="h1", text="Quick!"))
        gate.set()
        model.lines.append(["Quick."])
        assert (await at.wait(started.run, 30)).result == "Quick."
        assert model.requests[1].messages[-1] == {"role": "user", "content": "Quick!"}


async def test_what_fails_is_said(tmp_path: Path) -> None:
    at = house(tmp_path, Acted())
    with pytest.raises(RuntimeError, match="async with"):
        await at.start("Too early")
    with pytest.raises(ConfigError, match="two agents named hr"):
        house(tmp_path, None, hr, hr)
    async with at:
        started = await onboarding(at)
        for asked in (
            at.wait("unknown"),
            at.continuation("unknown"),
            at.take("unknown"),
            at.start("x", agent="unknown"),
        ):
            with pytest.raises(Rejected) as refused:
                await asked
            assert refused.value.code == "not_found"
        with pytest.raises(Rejected, match="no text"):
            await at.start("  ")
        changed = (await at.continuation(started.conversation)).to_object()
        changed["approval_info"][0]["tool_call"]["function"]["arguments"] = '{"name": "Eve"}'
        changed["approval_info"][0]["approved"] = True
        with pytest.raises(Rejected, match="changed"):
            await at.resume(Continuation(changed))
    assert DONE == ["mail Ann"]


async def test_a_stuck_tool_does_not_keep_a_program(tmp_path: Path) -> None:
    """The tool is left as by a crash: the next process says that it is in doubt, and does not repeat it."""
    gate = threading.Event()
    began = threading.Event()

    @tool
    def stuck() -> str:
        """Never ends by itself."""
        DONE.append("stuck")
        began.set()
        gate.wait(60)
        return "at last"

    agent = Agent("a", tools=[stuck])
    model = ScriptedModel()
    model.lines.append(calls("stuck"))
    try:
        async with asyncio.timeout(30):
            async with house(tmp_path, model, agent) as at:
                started = await at.start("Go")
                await asyncio.to_thread(began.wait)
        async with house(tmp_path, model, agent) as at:
            assert (await at.wait(started.run, 30)).status == "completed"
        assert "in_doubt" in model.requests[-1].messages[-1]["content"] and DONE == ["stuck"]
    finally:
        gate.set()


async def test_an_isolated_tool_goes_with_the_house(tmp_path: Path) -> None:
    """FAULTS 96: left as by a crash, and nothing of it is left behind, though the program goes on."""
    who = tmp_path / "who"
    model = ScriptedModel()
    model.lines.append(calls("works", arguments=json.dumps({"file": str(who), "how": "ignores"})))
    agent = Agent("a", tools=[apart.works])
    async with asyncio.timeout(60):
        async with house(tmp_path, model, agent) as at:
            started = await at.start("Go")
            while not who.exists():
                await asyncio.sleep(0.01)
        while any(lives(int(pid)) for pid in who.read_text().split()):
            await asyncio.sleep(0.01)
    async with house(tmp_path, model, agent) as at:
        assert (await at.wait(started.run, 30)).status == "completed"
    assert "in_doubt" in model.requests[-1].messages[-1]["content"]


async def test_the_demo_needs_nothing(tmp_path: Path) -> None:
    """Without agents and model it is what `python -m app` serves."""
    async with Holdfast(data=tmp_path, settings={"HOLDFAST_DEMO_PACE": "0"}) as at:
        started = await at.start("Hello")
        assert (await at.wait(started.run, 30)).status == "completed"
