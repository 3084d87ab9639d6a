"""003-17: what the log says was asked is what the provider received, and `check` finds out from the log alone.

The digests are computed here from what the stub received, without the product's code; `python -m app check` runs as a
process of its own, beside the server.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
import sys
from pathlib import Path

import pytest

from .conftest import Launch
from .harness import ROOT, Client, Server, eventually, fresh
from .parts import Held, asked_at, decision, parts
from .stub import Call, Story, Use, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

SERVED = ("tests.acceptance.levels:agents",)


def digest(call: Call) -> str:
    """SHA-256 of the request as canonical JSON."""
    asked = {"messages": call.messages, "model": call.body["model"], "tools": call.body.get("tools", [])}
    return hashlib.sha256(
        json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


def said(tab: Client) -> list[str]:
    return [event["request"] for event in tab.all("step.started")]


async def check(data: Path, *arguments: str) -> tuple[int, str]:
    """The exit code of the command, and what it printed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "OPENAI_"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "check", "--data", str(data), *arguments),
        cwd=ROOT,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, printed.decode()


def change(server: Server, statement: str, *values: str) -> None:
    """What somebody does to the file who should not."""
    with sqlite3.connect(server.data / "holdfast.db") as connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


async def onboarded(server: Server, story: Story, name: str) -> Client:
    """An agent with a sub-agent, a process that dies in the middle of an answer, and a person's approval."""
    held = Held()
    story.brain = parts(
        hr=[
            use(Use("account", {"prompt": story.says(f"Set {name} up, schön")}, id="setup")),
            say(f"{name} is onboard."),
        ],
        account=[
            use(Use("create_account", {"name": name}, id="create"), text="First the account."),
            held,
            say("The account is ready."),
        ],
    )
    tab = await server.open(agent="hr")
    await tab.do("prompt", text=story.says(f"Onboard {name}"))
    await (await held.call()).text("Now the ri")
    await server.restart()
    tab = await server.again(tab)
    call = await held.call()
    await call.use(Use("authorize_account", {"name": name}, id="rights"))
    await call.end("tool_calls")
    await tab.do("approve", **decision(await asked_at(tab, "setup")))
    assert (await tab.ended())["type"] == "run.completed"
    return tab


async def test_003_17_what_was_received_is_what_the_log_says(launch: Launch, story: Story) -> None:
    """003-17: sub-agent, approval, kill -9: each received request has its digest in the log; `check` rebuilds them
    all while the server lives, after it has died, and shows one as it was received."""
    server = await launch(agents=SERVED)
    tab = await onboarded(server, story, fresh("ann"))
    assert said(tab) == [digest(call) for call in story.calls] and len(said(tab)) == 6
    conversation = tab.attached["conversation"]
    code, printed = await check(server.data)
    assert code == 0 and f"{conversation}  ok  6 requests rebuilt and equal" in printed, printed
    described = [event["described"]["agent"] for event in tab.all("step.started") if "described" in event]
    assert described == ["hr", "account"], "once per agent, not once per step or process"
    last = tab.all("step.started")[-1]
    code, shown = await check(server.data, conversation, "--show", str(last["seq"]))
    assert code == 0 and json.loads(shown)["messages"] == story.calls[-1].messages
    assert hashlib.sha256(shown.rstrip("\n").encode()).hexdigest() == last["request"]
    await server.kill()
    code, printed = await check(server.data, conversation)
    assert code == 0 and "6 requests rebuilt and equal" in printed, printed


async def test_003_17_a_tampered_log_is_found(launch: Launch, story: Story) -> None:
    """003-17: a word changed in the log, or a row taken out of it, and `check` says where and ends with 1."""
    server = await launch(agents=SERVED)
    name = fresh("bob")
    tab = await onboarded(server, story, name)
    other = await server.open(agent="hr")
    story.brain = lambda _: say("Hello.")
    await other.do("prompt", text=story.says("Hello"))
    await other.ended()
    conversation = tab.attached["conversation"]
    await server.terminate()
    change(
        server,
        "UPDATE log SET events = replace(events, 'First the account', 'First the money')"
        " WHERE conversation = ? AND events LIKE '%\"model.replied\"%First the account%'",
        conversation,
    )
    code, printed = await check(server.data)
    assert code == 1 and f"{conversation}  NOT OK" in printed, printed
    assert f"{other.attached['conversation']}  ok  1 requests" in printed
    seqs = [event["seq"] for event in tab.all("step.started") if event.get("path")]
    assert all(f"seq {seq}: " in printed for seq in seqs[1:]) and f"seq {seqs[0]}: " not in printed, printed
    row = '%{"type":"tool.returned","call":"create",%'
    change(server, "DELETE FROM log WHERE conversation = ? AND events LIKE ?", conversation, row)
    code, printed = await check(server.data, conversation)
    assert code == 1 and "does not follow" in printed, printed


async def test_003_17_a_live_run_is_checked_while_it_writes(launch: Launch, story: Story) -> None:
    """003-17: the command reads beside the server, which notices nothing."""
    server = await launch()
    tab = await server.open(agent="plain")
    await tab.do("prompt", text=story.says("Talk"))
    call = await story.call()
    await call.text("One ")
    code, printed = await check(server.data)
    assert code == 0 and "1 requests rebuilt and equal" in printed, printed
    await call.text("two.")
    await call.end()
    assert (await tab.ended())["type"] == "run.completed"
    await eventually(server.is_ready, "the server goes on")


async def test_what_check_cannot_do_is_said_in_a_sentence(launch: Launch, tmp_path: Path) -> None:
    server = await launch()
    tab = await server.open(agent="plain")
    for data, arguments, sentence in (
        (tmp_path / "nowhere", [], "there is no holdfast.db"),
        (server.data, ["unknown"], "there is no conversation unknown"),
        (server.data, [tab.attached["conversation"], "--show", "1"], "no request with a digest"),
    ):
        code, printed = await check(data, *arguments)
        assert code == 1 and sentence in printed and "Traceback" not in printed, printed
