"""Tools in processes of their own: what they do to themselves, how they are stopped, and what is left of them: nothing.

SEMANTICS.md §2, §9. A deadline of 5 s stands for 120 s: a process takes a moment to start.
"""

from __future__ import annotations

import json
import time

import pytest

from tests.processes import lives

from .conftest import Launch
from .harness import Client, Server, eventually, fresh, settled
from .stub import Story, Stub, Use, say, use
from .test_misfortune import megabytes

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

SERVED = ("tests.acceptance.apart:family",)
PASSWORD = "correct-horse-96-canary"
SETTINGS = {"DINNER_PASSWORD": PASSWORD}


async def used(server: Server, story: Story, *uses: Use) -> Client:
    """A whole run in which the model makes these calls at once and then ends."""
    tab = await server.open()
    story.then(use(*uses), say("Done."))
    await tab.do("prompt", text=story.says("Do it"))
    assert (await tab.ended())["type"] == "run.completed"
    await settled(server, tab)
    return tab


async def begun(server: Server, story: Story, tool: str) -> tuple[Client, str]:
    """A run whose tool has begun and waits at a gate: its reader, and the tool's line, which names the gate too."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use(tool, {"line": line} if tool in ("deaf", "frozen") else {"line": line, "gate": line}, id="k1")))
    await tab.do("prompt", text=story.says("Do it"))
    await server.wrote(line)
    return tab, line


def family(server: Server, line: str) -> list[int]:
    """All processes that a line has had: tools, children, keepers, forks."""
    who = ("begin", "child", "keeper", "fork")
    found = [int(entry.split()[3]) for entry in server.ledger(line) if entry.split()[1] in who]
    assert len(found) >= 3
    return found


async def gone(server: Server, line: str) -> None:
    await eventually(lambda: not [pid for pid in family(server, line) if lives(pid)], f"nothing is left of {line}")


# --- what they do


async def test_what_belongs_to_the_process_is_its_own(server: Server, story: Story) -> None:
    """FAULTS 94: directory, environment, umask, signals and a fork: neither the next call nor the server sees it."""
    lines = [fresh("line"), fresh("line")]
    story.then(use(Use("wreck", {"line": lines[0]}, id="k1")), use(Use("wreck", {"line": lines[1]}, id="k2")))
    tab = await used(server, story)
    first, second = (json.loads(tab.all("tool.returned", call=call)[0]["result"]) for call in ("k1", "k2"))
    assert first == second and first[1] is None and first[2] != 0
    for line in lines:
        await gone(server, line)
    assert len(family(server, lines[0])) == 4 and await server.is_ready()


async def test_what_a_tool_leaves_behind_ends_with_its_call(server: Server, story: Story) -> None:
    """FAULTS 96: its child is gone when the call has its result, not when the run has ended."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("apart", {"line": line}, id="k1")))
    await tab.do("prompt", text=story.says("Do it"))
    call = await story.call()
    assert call.results["k1"] == f"{line} is done by {tab.run}/k1"
    await gone(server, line)
    await call.end()
    await tab.ended()
    await settled(server, tab)


@pytest.mark.parametrize("how", ["exit status 3", "SIGSEGV", "SystemExit"])
async def test_a_tool_that_ends_its_process(server: Server, story: Story, how: str) -> None:
    """FAULTS 91, 94: an error that says how; the run and the server go on."""
    tab = await used(server, story, Use("quits", {"how": how}, id="k1"), Use("tick", {"number": 1}, id="k2"))
    error = tab.all("tool.failed", call="k1")[0]["error"]
    assert error["kind"] == "error" and how in error["message"] and how in story.calls[1].results["k1"]
    assert tab.all("tool.returned", call="k2") and server.alive


async def test_progress_notes_and_ids(server: Server, story: Story) -> None:
    """FAULTS 95: the context works across the pipe."""
    gate = fresh("gate")
    tab = await server.open()
    story.then(use(Use("tells", {"gate": gate}, id="k1")), say("Done."))
    await tab.do("prompt", text=story.says("Report"))
    began = time.monotonic()
    await tab.event("tool.progressed", call="k1", text="part 49999")
    took = time.monotonic() - began
    noted = await tab.event("note.saved", text="The sea is salt")
    assert (noted["run"], noted["call"], noted["kind"]) == (tab.run, "k1", "knowledge")
    server.let(gate)
    await tab.ended()
    assert len(tab.all("tool.progressed")) <= 10 * took + 5
    told = json.loads(tab.all("tool.returned", call="k1")[0]["result"])
    assert told == [f"{tab.run}/k1", "k1", tab.attached["conversation"], tab.run]
    await settled(server, tab)


async def test_a_result_of_100_mb(server: Server, story: Story) -> None:
    """FAULTS 92: cut before it comes; the server's memory holds no more of it than of any result."""
    await used(server, story, Use("giant", {"size": 9_000_000}))
    before = megabytes(server)
    tab = await used(server, story, Use("giant", {"size": 100_000_000}, id="k1"))
    [returned] = tab.all("tool.returned", call="k1")
    assert returned["truncated"] is True and len(returned["result"]) < 100_000
    assert megabytes(server) - before < 80


async def test_prints_and_failures_are_redacted(server: Server, story: Story) -> None:
    """FAULTS 93, security-secrets: also what its children print, and what does not go through Python."""
    tab = await used(server, story, Use("tattles", {"name": "DINNER_PASSWORD"}, id="k1"))
    assert tab.all("tool.failed", call="k1")[0]["error"]["message"] == "ValueError: cannot sign in with [redacted]"
    said = server.said()
    for line in ("the secret is [redacted]", "a child knows [redacted]", "past python: [redacted]"):
        assert line in said
    assert PASSWORD not in said


async def test_no_more_processes_than_slots(launch: Launch, story: Story) -> None:
    """HOLDFAST_TOOLS_MAX bounds them like all tools."""
    server = await launch(agents=SERVED, HOLDFAST_TOOLS_MAX="2")
    lines = [fresh("line") for _ in range(4)]
    tab = await server.open()
    story.then(use(*(Use("apart", {"line": line, "gate": line}) for line in lines)), say("Done."))
    await tab.do("prompt", text=story.says("All"))

    def alive() -> list[str]:
        return [line for line in lines if server.ledger(line) and any(lives(pid) for pid in family(server, line))]

    for number in range(4):
        wanted = min(number + 2, 4)
        await eventually(lambda n=wanted: len([x for x in lines if server.ledger(x)]) >= n, f"{wanted} begun")  # type: ignore[misc]
        assert len(alive()) <= 2
        server.let(next(line for line in alive() if not (server.gates / line).exists()))
    await tab.ended()
    await settled(server, tab)


# --- how they are stopped


async def test_a_deadline(server: Server, story: Story) -> None:
    """FAULTS 72, 90: asked, then killed: what did not confirm and is not repeatable is in doubt; nothing goes on."""
    kinds = {"heeds_late": "timeout", "deaf": "in_doubt", "deaf_safe": "timeout", "frozen": "in_doubt"}
    lines = {tool: fresh("line") for tool in kinds}
    tab = await used(server, story, *(Use(tool, {"line": line}, id=tool) for tool, line in lines.items()))
    for tool, kind in kinds.items():
        [failed] = tab.all("tool.failed", call=tool)
        assert failed["error"]["kind"] == kind and failed["ms"] >= 5000, tool
        assert ("killed" in failed["error"]["message"]) == (kind == "in_doubt")
        await gone(server, lines[tool])
    assert tab.all("tool.settled") == [], "there is nothing left that could turn out"


@pytest.mark.parametrize(("tool", "kind"), [("heeds", "cancelled"), ("deaf", "in_doubt"), ("frozen", "in_doubt")])
async def test_a_cancel(server: Server, story: Story, tool: str, kind: str) -> None:
    """FAULTS 69, 72: within the grace time the run is over; soon after so are the processes."""
    tab, line = await begun(server, story, tool)
    began = time.monotonic()
    await tab.do("cancel")
    assert (await tab.ended())["type"] == "run.cancelled" and time.monotonic() - began < 3
    assert tab.all("tool.failed", call="k1")[0]["error"]["kind"] == kind
    await gone(server, line)
    if kind == "in_doubt":
        await tab.until(lambda c: "process was killed" in str(c.events), "a person is told what became of it")
    await settled(server, tab)


async def test_a_hint_that_interrupts(server: Server, story: Story) -> None:
    """SEMANTICS §3: an isolated tool that allows it is stopped like any other."""
    tab, line = await begun(server, story, "heeds")
    await tab.do("hint", text="Leave it", interrupt=True)
    call = await story.call()
    assert tab.all("tool.failed", call="k1")[0]["error"]["kind"] == "cancelled"
    await gone(server, line)
    await call.end()
    await tab.ended()
    await settled(server, tab)


# --- the server dies


async def test_killed_it_takes_them_along(launch: Launch, stub: Stub) -> None:
    """FAULTS 6, 7, 96: no orphan is left of a real `kill -9`; then `rerun` decides, as for every tool."""
    tools = ("apart", "apart_safe", "apart_ask", "deaf", "frozen")
    server, stories = await launch(agents=SERVED), {tool: stub.story() for tool in tools}
    cut = {tool: await begun(server, story, tool) for tool, story in stories.items()}
    await server.kill()
    for _, line in cut.values():
        await gone(server, line)
    for story in stories.values():
        story.brain = lambda _: say("Done.")
    await server.start()
    tabs = {tool: await server.again(tab) for tool, (tab, _) in cut.items()}
    for tool in ("apart", "deaf", "frozen"):
        assert (await tabs[tool].event("tool.failed", call="k1"))["error"]["kind"] == "in_doubt"
    safe = cut["apart_safe"][1]
    await server.wrote(safe, times=2)
    server.let(safe)
    returned = await tabs["apart_safe"].event("tool.returned", call="k1")
    assert returned["result"] == f"{safe} is done by {tabs['apart_safe'].run}/k1"
    doubt = tabs["apart_ask"]
    await doubt.event("doubt.raised")
    await doubt.do("settle", run=doubt.run, call=["k1"], outcome="skip")
    for tool, tab in tabs.items():
        await tab.ended()
        line = cut[tool][1]
        assert len([entry for entry in server.ledger(line) if " begin " in entry]) == (2 if line == safe else 1)
        await gone(server, line)
        await settled(server, tab)


async def test_going_down_it_takes_them_along(launch: Launch, story: Story) -> None:
    """FAULTS 98: what does not end within the drain is left as by a crash: it ends, and is in doubt."""
    server = await launch(agents=SERVED, HOLDFAST_DRAIN_SECONDS="1")
    tab, line = await begun(server, story, "apart")
    assert await server.terminate() == 0
    await gone(server, line)
    await server.start()
    tab = await server.again(tab)
    assert (await tab.event("tool.failed", call="k1"))["error"]["kind"] == "in_doubt"
    call = await story.call()
    await call.end()
    await tab.ended()
    await settled(server, tab)
