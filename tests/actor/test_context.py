"""SEMANTICS.md §7 through the wheel: summaries as effects, and reading back what is kept. FAULTS 85, FAULTS 92."""

from __future__ import annotations

import asyncio
import json

from app.agent import Agent, tool
from app.agent.model import ModelError
from app.core import commands as c
from app.core.events import Call
from tests.actor.home import Home, Json, Line, calls, virtual
from tests.actor.test_tool_effect import one


def long(size: int) -> str:
    line = "0123456789 line {}\n"
    return "".join(line.format(number) for number in range(size // 12))[:size]


@tool(rerun="safe")
async def read(size: int = 2_000) -> str:
    """Reads a lot."""
    return long(size)


AGENT = Agent("a", instructions="Read.", tools=[read])
WINDOW = 2_000


def reading(times: int) -> list[Line]:
    return [["thinking aloud " * 60, *calls("read", first=number)] for number in range(1, times + 1)]


def written(events: list[Json]) -> Json:
    """The one summary in a log; references have a `kind`."""
    (found,) = [event for event in events if event["type"] == "context.compacted" and "kind" not in event]
    return found


async def compacting(*lines: Line) -> tuple[Home, str]:
    """A run whose summary is asked for by the next request that these lines answer."""
    home = Home(AGENT, context_tokens=WINDOW)
    home.model.lines.extend([*reading(3), *lines])
    conversation = await home.create()
    await home.until(conversation, "compaction.started")
    types = await home.types(conversation)
    assert types[: types.index("compaction.started")].count("step.started") == 3, "what comes next is the summary"
    return home, conversation


def asked_back(reference: str, **fields: int) -> Line:
    return [Call(call="back", tool="read_result", arguments=json.dumps({"reference": reference, **fields}))]


async def result_of(home: Home, conversation: str, call: str) -> Json:
    events = await home.events(conversation)
    return next(e for e in events if e["type"] in ("tool.returned", "tool.failed") and e["call"] == call)


@virtual
async def test_a_summary_is_a_model_call_without_tools_or_readers() -> None:
    """§7: through the same model; nothing of it is streamed; the next request has it instead of what it stands for."""
    home, conversation = await compacting(["It was read, again and again."], ["done"])
    await home.until(conversation, "run.completed")
    *_, summary, last = home.model.requests
    assert summary.tools == [] and summary.model == last.model and "thinking aloud" in summary.messages[1]["content"]
    assert "It was read, again and again." in str(last.messages) and last.messages[1]["content"] == "go"
    assert written(await home.events(conversation))["usage"] == {"input": 10, "output": 5}
    assert "again and again" not in str([e for e in await home.events(conversation) if e["type"] == "text.streamed"])


@virtual
async def test_a_summariser_that_says_nothing() -> None:
    """§9: the idle limit is the same; it is tried again."""
    home, conversation = await compacting([asyncio.Event()], ["Short."], ["done"])
    await home.until(conversation, "run.completed")
    assert one(await home.events(conversation), "compaction.failed")["error"]["kind"] == "stall"


@virtual
async def test_a_failure_of_our_own_ends_the_run() -> None:
    """Every effect ends in one report."""
    home, conversation = await compacting([RuntimeError("a bug")])
    failed = await home.until(conversation, "run.failed")
    assert failed["error"]["kind"] == "internal"


@virtual
async def test_a_stop_closes_its_connection() -> None:
    """§10."""
    home, conversation = await compacting([asyncio.Event()])
    asked, closed = len(home.model.requests), home.model.closed
    await home.say(conversation, c.Cancel(id="stop"))
    await asyncio.sleep(1)
    assert (await home.types(conversation))[-2] == "run.cancelled" and home.model.closed == closed + 1
    await asyncio.sleep(600)
    assert len(home.model.requests) == asked


@virtual
async def test_a_crash_and_a_new_owner() -> None:
    """§7: the activation wants it again, from the same request; no event is doubled."""
    home, conversation = await compacting([asyncio.Event()], ["Short."], ["done"])
    first = home.model.requests[-1]
    home.crash()
    home.boot()
    await home.directory.start()
    await home.until(conversation, "run.completed")
    assert home.model.requests[-2] == first
    assert (await home.types(conversation)).count("compaction.started") == 1
    assert written(await home.events(conversation))["summary"] == "Short."


@virtual
async def test_a_drain_lets_it_end_and_parks_there() -> None:
    """§11: at the next boundary; no step is begun."""
    told = asyncio.Event()
    home, conversation = await compacting([told, "Short."], ["done"])
    draining = asyncio.create_task(home.directory.drain(20))
    await asyncio.sleep(1)
    told.set()
    await draining
    assert (await home.types(conversation))[-2:] == ["context.compacted", "actor.drained"]
    home.boot()
    await home.directory.start()
    await home.until(conversation, "run.completed")


@virtual
async def test_reading_back_what_the_log_holds() -> None:
    """003-5, FAULTS 92: the original, from an offset on; nothing beyond what one reading may give."""
    home = Home(AGENT, context_tokens=WINDOW)
    home.model.lines.extend(reading(2))
    home.model.lines.append([Call(call="lost", tool="read_result", arguments='{"reference": "r/none"}')])
    conversation = await home.create()
    run = (await home.until(conversation, "run.started"))["run"]
    home.model.lines.append(asked_back(f"{run}/k1", offset=100, length=50))
    await home.until(conversation, "run.completed")
    assert (await result_of(home, conversation, "lost"))["error"]["kind"] == "error"
    back = await result_of(home, conversation, "back")
    assert back["result"] == f"[characters 100 to 150 of 2000; go on with offset 150]\n{long(2_000)[100:150]}"


@virtual
async def test_reading_back_what_was_kept() -> None:
    """003-5, FAULTS 92: beyond what its event holds; a log that cannot answer is asked again."""
    home = Home(AGENT)
    home.model.lines.append([Call(call="k1", tool="read", arguments='{"size": 200000}')])
    conversation = await home.create()
    run = (await home.until(conversation, "run.started"))["run"]
    home.model.lines.append(asked_back(f"{run}/k1", offset=150_000))
    await home.until(conversation, "run.completed")
    header, _, body = (await result_of(home, conversation, "back"))["result"].partition("\n")
    assert header == "[characters 150000 to 182000 of 200000; go on with offset 182000]"
    assert body == long(200_000)[150_000:182_000]
    assert [t["function"]["name"] for t in home.model.requests[0].tools] == ["read"]


@virtual
async def test_too_long_is_suspended_and_resumed() -> None:
    """FAULTS 85: nothing can be compacted: one request, then `context`; `resume` asks once more."""
    home = Home(AGENT)
    home.model.lines.extend([[ModelError("context", "too long", retryable=False)], ["done"]])
    conversation = await home.create()
    assert (await home.until(conversation, "run.suspended"))["reason"] == "context"
    await asyncio.sleep(3_600)
    assert len(home.model.requests) == 1
    await home.say(conversation, c.Resume(id="again"))
    await home.until(conversation, "run.completed")
