"""Tools: schemas, deadlines, whatever they raise and return, progress, and what becomes of a call cut by a kill.

SEMANTICS.md §2, §5, §9. Deadlines of 0.4 s stand for 120 s.
"""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from .conftest import Launch
from .harness import Client, Server, eventually, fresh, settled
from .history import Json
from .stub import Story, Stub, Use, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]


async def used(server: Server, story: Story, *uses: Use) -> Client:
    """A whole run in which the model makes these calls at once and then ends."""
    tab = await server.open()
    story.then(use(*uses), say("Done."))
    await tab.do("prompt", text=story.says("Do it"))
    assert (await tab.ended())["type"] == "run.completed"
    await settled(server, tab)
    return tab


# --- what the model is told of a tool, and what the tool gets


async def test_the_schema_comes_from_the_function(server: Server, story: Story) -> None:
    """Annotations, defaults and docstring; the context is none of the model's business."""
    await used(server, story, Use("tick", {"number": 1}))
    schemas = {tool["function"]["name"]: tool["function"] for tool in story.calls[0].body["tools"]}
    typed = schemas["typed"]["parameters"]
    assert schemas["typed"]["description"] == "Take every kind of argument."
    kinds = {name: typed["properties"][name].get("type") for name in ("count", "ratio", "tags", "mode", "deep")}
    assert kinds == {**kinds, "count": "integer", "ratio": "number", "tags": "array", "deep": "object"}
    assert typed["properties"]["tags"]["items"]["type"] == "string"
    assert typed["properties"]["mode"]["enum"] == ["fast", "slow"]
    assert set(typed["required"]) == {"count", "ratio", "tags", "mode", "deep"}
    assert "ctx" not in schemas["once"]["parameters"]["properties"]
    assert schemas["once"]["parameters"]["required"] == ["line"]


async def test_typed_arguments(server: Server, story: Story) -> None:
    right = {"count": 3, "ratio": 0.5, "tags": ["a"], "mode": "fast", "deep": {"x": 1}}
    tab = await used(server, story, Use("typed", right, id="k1"))
    assert json.loads(tab.all("tool.returned", call="k1")[0]["result"]) == [3, 0.5, ["a"], "fast", {"x": 1}, None]


@pytest.mark.parametrize(
    "wrong", [{"count": "three"}, {"mode": "sideways"}, {"tags": "a"}, {"deep": {"x": "y"}}, {"count": None}]
)
async def test_arguments_are_validated_before_the_tool_runs(server: Server, story: Story, wrong: Json) -> None:
    arguments = {"count": 3, "ratio": 0.5, "tags": ["a"], "mode": "fast", "deep": {}, **wrong}
    tab = await used(server, story, Use("typed", arguments, id="k1"))
    assert tab.all("tool.failed", call="k1")[0]["error"]["kind"] == "bad_arguments"
    [name] = wrong
    assert name in story.calls[1].results["k1"], "the model is told which one"


async def test_the_context(server: Server, story: Story) -> None:
    """`call_id`, `conversation_id`, `run_id` are those of the log."""
    tab = await used(server, story, Use("identity", {}, id="k1"))
    told = json.loads(tab.all("tool.returned", call="k1")[0]["result"])
    assert told == {"call": "k1", "conversation": tab.attached["conversation"], "run": tab.run}


# --- several at once


async def test_calls_of_a_batch_run_in_parallel(server: Server, story: Story) -> None:
    """Each has begun before any has ended; results go back in the order of the calls."""
    lines = [fresh("line") for _ in range(4)]
    tab = await server.open()
    story.then(use(*(Use("once", {"line": line, "gate": line}, id=line) for line in lines)))
    await tab.do("prompt", text=story.says("All"))
    for line in lines:
        await server.wrote(line)
    for line in reversed(lines):
        server.let(line)
        await server.wrote(line, "end")
    call = await story.call()
    assert [m["tool_call_id"] for m in call.messages if m["role"] == "tool"] == lines
    await call.end()
    await tab.ended()
    await settled(server, tab)


async def test_no_more_than_the_limit_in_parallel(launch: Launch, story: Story) -> None:
    """HOLDFAST_TOOLS_PARALLEL; `tool.started` is written when a call has its slot."""
    server = await launch(HOLDFAST_TOOLS_PARALLEL="2")
    lines = [fresh("line") for _ in range(5)]
    tab = await server.open()
    story.then(use(*(Use("once", {"line": line, "gate": line}) for line in lines)), say("Done."))
    await tab.do("prompt", text=story.says("All"))

    def begun() -> list[str]:
        return [line for line in lines if server.ledger(line)]

    for number in range(5):
        wanted = min(number + 2, 5)
        await eventually(lambda n=wanted: len(begun()) >= n, f"{wanted} begun")  # type: ignore[misc]
        await tab.count("tool.started", wanted)
        assert len(begun()) == wanted == len(tab.all("tool.started"))
        server.let(next(line for line in begun() if not (server.gates / line).exists()))
    await tab.ended()
    await settled(server, tab)


async def test_sync_tools_do_not_hold_the_loop(server: Server, story: Story) -> None:
    """§9, FAULTS 26: eight of them block; the server answers at once."""
    lines = [fresh("line") for _ in range(8)]
    tab = await server.open()
    story.then(use(*(Use("blocking", {"line": line, "gate": lines[0]}) for line in lines)), say("Done."))
    await tab.do("prompt", text=story.says("Block"))
    await server.wrote(lines[0])
    began = time.monotonic()
    await tab.ping()
    assert (await server.http.get("/readyz")).status_code == 200
    assert time.monotonic() - began < 1
    server.let(lines[0])
    await tab.ended()


# --- deadlines


@pytest.mark.parametrize("tool", ["endless", "endless_safe"])
async def test_a_tool_that_stops_at_its_deadline(server: Server, story: Story, tool: str) -> None:
    """FAULTS 90: `timeout`; the model is told; the run goes on."""
    line = fresh("line")
    tab = await used(server, story, Use(tool, {"line": line}, id="k1"))
    [failed] = tab.all("tool.failed", call="k1")
    assert failed["error"]["kind"] == "timeout" and 300 <= failed["ms"] <= 3000
    assert [entry.split()[1] for entry in server.ledger(line)] == ["begin"]


@pytest.mark.parametrize("tool", ["endless_stubborn", "endless_sync"])
async def test_a_tool_that_does_not_stop_at_its_deadline(server: Server, story: Story, tool: str) -> None:
    """FAULTS 72, 90: abandoned after the grace time: `in_doubt`; its late outcome is shown, not told to the model."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use(tool, {"line": line, "gate": line}, id="k1")))
    await tab.do("prompt", text=story.says("Hang"))
    call = await story.call()
    assert tab.all("tool.failed", call="k1")[0]["error"]["kind"] == "in_doubt"
    server.let(line)
    late = await tab.event("tool.settled")
    assert (late["call"], late["of"], late["result"]) == ("k1", tab.run, f"{line} is done")
    story.then(use(Use("tick", {"number": 1})), say("Done."))
    await call.end()
    await tab.ended()
    await tab.do("prompt", text=story.says("More"))
    await tab.ended(2)
    assert all(f"{line} is done" not in str(call.messages) for call in story.calls)
    await settled(server, tab)


# --- what they raise and return


@pytest.mark.parametrize(
    "kind", ["value", "exit", "interrupt", "recursion", "memory", "cancelled", "group", "stop", "base"]
)
async def test_whatever_an_async_tool_raises(server: Server, story: Story, kind: str) -> None:
    """FAULTS 91: caught; a message for the model; the run and the process go on."""
    tab = await used(server, story, Use("explode", {"kind": kind}, id="k1"), Use("tick", {"number": 1}, id="k2"))
    [failed] = tab.all("tool.failed", call="k1")
    assert failed["error"]["kind"] in ("error", "cancelled") and failed["error"]["message"]
    assert "Traceback" not in story.calls[1].results["k1"] and '.py"' not in story.calls[1].results["k1"]
    assert tab.all("tool.returned", call="k2")
    assert server.alive


@pytest.mark.parametrize("kind", ["value", "exit", "interrupt", "memory", "stop", "base"])
async def test_whatever_a_sync_tool_raises(server: Server, story: Story, kind: str) -> None:
    """FAULTS 91, on a worker."""
    tab = await used(server, story, Use("explode_sync", {"kind": kind}, id="k1"))
    assert tab.all("tool.failed", call="k1")[0]["error"]["kind"] == "error"
    assert server.alive


@pytest.mark.parametrize(
    "kind", ["bytes", "nan", "generator", "nothing", "object", "set", "ring", "surrogate", "nul", "unspeakable"]
)
async def test_whatever_a_tool_returns(server: Server, story: Story, kind: str) -> None:
    """FAULTS 92: text for the model, or an error that says so; never a dead run."""
    tab = await used(server, story, Use("odd", {"kind": kind}, id="k1"))
    [end] = tab.all("tool.returned", call="k1") or tab.all("tool.failed", call="k1")
    assert isinstance(story.calls[1].results["k1"], str)
    if kind == "object":
        assert json.loads(end["result"]) == {"places": ["Da Enzo"], "open": True}


async def test_a_result_of_10_mb(server: Server, story: Story) -> None:
    """FAULTS 92: cut, with a note to the model and `truncated` in the event; quick."""
    began = time.monotonic()
    tab = await used(server, story, Use("big", {"size": 10_000_000}, id="k1"))
    assert time.monotonic() - began < 10
    [returned] = tab.all("tool.returned", call="k1")
    assert returned["truncated"] is True and len(returned["result"]) < 100_000
    assert len(story.calls[1].results["k1"]) < 600_000


async def test_a_flood_of_progress(server: Server, story: Story) -> None:
    """FAULTS 95: 200,000 reports: the latest wins, at most ten a second and call; the last one is shown."""
    gate = fresh("gate")
    tab = await server.open()
    story.then(use(Use("busy", {"count": 200_000, "gate": gate}, id="k1")), say("Done."))
    await tab.do("prompt", text=story.says("Report"))
    began = time.monotonic()
    await tab.event("tool.progressed", call="k1", text="part 199999")
    took = time.monotonic() - began
    server.let(gate)
    await tab.ended()
    assert len(tab.all("tool.progressed")) <= 10 * took + 5
    assert tab.all("tool.returned", call="k1")[0]["result"] == "reported 200000"
    await settled(server, tab)


# --- killed in the middle of a call


async def begun(server: Server, story: Story, tool: str) -> tuple[Client, str]:
    """A run whose tool has begun and waits at a gate: its reader, and the tool's line, which names the gate too."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use(tool, {"line": line, "gate": line}, id="k1")))
    await tab.do("prompt", text=story.says("Do it"))
    await server.wrote(line)
    return tab, line


async def test_never_is_in_doubt(launch: Launch, stub: Stub) -> None:
    """FAULTS 5, 7, P6: not run again, also where nothing is declared, sync or not; the model is told neutrally."""
    server, stories = await launch(), {tool: stub.story() for tool in ("once", "unmarked", "blocking")}
    cut = {tool: await begun(server, story, tool) for tool, story in stories.items()}
    await server.restart()
    for tool, story in stories.items():
        tab, line = await server.again(cut[tool][0]), cut[tool][1]
        call = await story.call()
        assert (await tab.event("tool.failed", call="k1"))["error"]["kind"] == "in_doubt", tool
        assert call.results["k1"]
        server.let(line)
        await call.end()
        await tab.ended()
        assert [entry.split()[1] for entry in server.ledger(line)] == ["begin"], tool
        await settled(server, tab)


async def test_safe_is_run_again_with_the_same_id(launch: Launch, story: Story) -> None:
    """FAULTS 7: the call id is the idempotency key; `tool.started` is not written again."""
    server = await launch()
    tab, line = await begun(server, story, "safe")
    await server.restart()
    tab = await server.again(tab)
    await server.wrote(line, times=2)
    server.let(line)
    call = await story.call()
    assert call.results == {"k1": f"{line} is done"}
    await call.end()
    await tab.ended()
    assert {entry.split()[3] for entry in server.ledger(line)} == {"k1"}
    assert len(tab.all("tool.started", call="k1")) == 1
    await settled(server, tab)


async def test_ask_waits_for_a_person(launch: Launch, stub: Stub) -> None:
    """FAULTS 6: `doubt.raised`, the run waits; done, run again, or skip, as the person says."""
    server, stories = await launch(), {outcome: stub.story() for outcome in ("done", "rerun", "skip")}
    cut = {outcome: await begun(server, story, "ask") for outcome, story in stories.items()}
    await server.restart()
    for outcome, story in stories.items():
        tab, line = await server.again(cut[outcome][0]), cut[outcome][1]
        doubt = await tab.event("doubt.raised")
        assert (doubt["call"], doubt["tool"], doubt["arguments"]["line"]) == ("k1", "ask", line)
        await tab.event("run.suspended", reason="in_doubt")
        item = await server.get(f"/api/conversations/{tab.attached['conversation']}")
        assert (item["status"], [one["type"] for one in item["approvals"]]) == ("waiting", ["doubt.raised"])
        object = await server.get(f"/api/conversations/{tab.attached['conversation']}/continuation")
        assert (object["end_reason"], object["suspend_list"], object["approval_info"]) == (
            "suspended",
            ["in_doubt"],
            [],
        )
        same = await server.http.post("/api/continuations", json=object)
        assert (same.status_code, same.json()["status"]) == (200, "waiting"), "nothing in it can be decided"
        server.let(line)
        more = {"result": "It had worked"} if outcome == "done" else {}
        await tab.do("settle", run=tab.run, call=["k1"], outcome=outcome, **more)
        call = await story.call()
        assert len([entry for entry in server.ledger(line) if " begin " in entry]) == (2 if outcome == "rerun" else 1)
        if outcome != "skip":
            assert call.results["k1"] == ("It had worked" if outcome == "done" else f"{line} is done")
        assert tab.all("doubt.settled")[0]["outcome"] == outcome
        await call.end()
        await tab.ended()
        await settled(server, tab)


async def test_a_stored_result_is_never_fetched_again(launch: Launch, story: Story) -> None:
    """§2: killed after the result is in the log and before the next model call has ended: the tool is not repeated."""
    server = await launch()
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("once", {"line": line}, id="k1"), Use("safe", {"line": f"{line}s"}, id="k2")))
    await tab.do("prompt", text=story.says("Do it"))
    first = await story.call()
    await server.restart()
    second = await story.call()
    assert second.messages == first.messages
    await second.end()
    tab = await server.again(tab)
    await tab.ended()
    assert len(server.ledger(line)) == len(server.ledger(f"{line}s")) == 2
    await settled(server, tab)


async def test_killed_around_the_end_of_a_tool(launch: Launch, story: Story) -> None:
    """FAULTS 7: three kills at growing distances from the effect: never twice, and a stated outcome each time."""
    server = await launch()
    for number in range(3):
        line = fresh("line")
        tab = await server.open()
        story.then(use(Use("once", {"line": line}, id="k1")))
        await tab.do("prompt", text=story.says("Do it"))
        await server.wrote(line, "end")
        await asyncio.sleep(number * 0.003)
        await server.kill()
        story.brain = lambda _: say("Done.")
        await server.start()
        tab = await server.again(tab)
        await tab.ended()
        story.brain = None
        assert len(server.ledger(line)) == 2
        assert len(tab.all("tool.returned", call="k1") + tab.all("tool.failed", call="k1")) == 1
        await settled(server, tab)
