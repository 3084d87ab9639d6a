"""One tool call from slot to result: SEMANTICS.md §2, §9, §10. Virtual time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.actor.runner import Runner
from app.agent import Agent, ToolContext, tool
from app.core import commands as c
from app.core.bounds import RESULT_CHARS_MAX
from app.core.events import Call
from app.core.redaction import redactor
from tests.actor.home import Home, Json, Line, calls, virtual

done: list[str] = []


@pytest.fixture(autouse=True)
def nothing_done_yet() -> None:
    done.clear()


@tool(timeout=30)
async def sleeper(seconds: float = 10) -> str:
    """Sleeps; stops when it is told to."""
    await asyncio.sleep(seconds)
    done.append("slept")
    return "slept"


@tool(timeout=30)
async def stubborn(seconds: float = 100) -> str:
    """Does not stop when it is told to."""
    until = asyncio.get_running_loop().time() + seconds
    while (left := until - asyncio.get_running_loop().time()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue
    done.append("done after all")
    return "done after all"


@tool(timeout=30, rerun="safe")
async def harmless() -> str:
    """Does not stop either, but may be repeated."""
    return str(await stubborn())


@tool
async def teller(ctx: ToolContext, times: int = 100) -> str:
    """Tells how far it is."""
    for number in range(times):
        ctx.progress(f"step {number}", number / times)
        await asyncio.sleep(0.01)
    return f"{ctx.call_id} of {ctx.run_id} in {ctx.conversation_id}, {ctx.key}"


AGENT = Agent("a", tools=[sleeper, stubborn, harmless, teller])


async def run(home: Home, *lines: Any) -> tuple[str, list[Json]]:
    """A whole run, and its events."""
    home.model.lines.extend(lines)
    conversation = await home.create()
    await home.until(conversation, "run.completed")
    return conversation, await home.events(conversation)


def one(events: list[Json], type: str) -> Json:
    (found,) = [event for event in events if event["type"] == type]
    return found


# --- start and result


async def starting(home: Home, tool: str) -> str:
    """A conversation whose `tool.started` is decided and waits for its append."""
    told = asyncio.Event()
    home.model.lines.append([told, *calls(tool, arguments='{"seconds": 0}')])
    conversation = await home.create()
    await home.until(conversation, "step.started")
    home.log.gate.clear()
    told.set()
    await asyncio.sleep(1)
    home.log.gate.set()
    home.log.gate.clear()  # lets the reply through, and nothing else
    await asyncio.sleep(60)
    assert (await home.types(conversation))[-1] == "model.replied"
    return conversation


@virtual
async def test_the_start_is_durable_before_the_tool_runs() -> None:
    """§2, FAULTS 5: every effect outside the process is preceded by its committed record."""
    home = Home(AGENT)
    conversation = await starting(home, "sleeper")
    assert done == []
    home.log.gate.set()
    await home.until(conversation, "run.completed")
    assert done == ["slept"]


@virtual
async def test_a_tool_knows_where_it_belongs() -> None:
    """DESIGN §7 ctx; FAULTS 7: `key`, the idempotency key, differs where another run has the same call id."""
    home = Home(AGENT)
    conversation, events = await run(home, calls("teller", arguments='{"times": 1}'))
    first = one(events, "run.started")["run"]
    assert one(events, "tool.returned")["result"] == f"k1 of {first} in {conversation}, {first}/k1"
    home.model.lines.append(calls("teller", arguments='{"times": 1}'))
    await home.say(conversation, c.Prompt(id="again", text="again"))
    await home.until(conversation, "run.completed", times=2)
    second = (await home.until(conversation, "run.started", times=2))["run"]
    again = await home.until(conversation, "tool.returned", times=2)
    assert again["result"] == f"k1 of {second} in {conversation}, {second}/k1" and second != first


@virtual
async def test_calls_of_a_batch_run_in_parallel_up_to_a_limit() -> None:
    """§5, DESIGN HOLDFAST_TOOLS_PARALLEL: `tool.started` when the call has its slot."""
    home = Home(AGENT)
    home.boot(tools_parallel=2)
    _, events = await run(home, calls(*["sleeper"] * 5))
    starts = [round((event["at"] - events[0]["at"]) / 10_000) for event in events if event["type"] == "tool.started"]
    assert starts == [0, 0, 1, 1, 2]


@virtual
async def test_the_tools_of_all_runs_share_their_places() -> None:
    """§2 limits per run and process."""
    home = Home(AGENT)
    home.boot(tools=asyncio.Semaphore(1))
    home.model.lines.extend([calls("sleeper"), calls("sleeper")])
    both = [await home.create(), await home.create()]
    ends = [await home.until(conversation, "tool.returned") for conversation in both]
    assert abs(ends[1]["at"] - ends[0]["at"]) >= 10_000


@virtual
async def test_a_tool_that_is_not_here_any_more() -> None:
    """FAULTS 82: after an upgrade; the model is told, the run goes on."""
    home = Home(AGENT)
    home.model.lines.append(calls("sleeper"))
    home.log.gate.clear()
    creating = asyncio.create_task(home.create())
    home.log.gate.set()
    conversation = await creating
    await home.until(conversation, "tool.started")
    home.crash()
    home.agents.clear()
    home.agents["a"] = Agent("a")
    home.boot()
    await home.directory.start()
    await home.until(conversation, "run.completed")
    assert one(await home.events(conversation), "tool.failed")["error"]["kind"] == "in_doubt"


@virtual
async def test_a_tool_that_went_before_its_call_began() -> None:
    """FAULTS 82: asked for in one version, approved in the next, which does not have it: told, and nothing fails."""

    @tool(approval=True)
    async def guarded() -> str:
        """Needs approval."""
        return "allowed"

    home = Home(Agent("a", tools=[guarded]))
    home.model.lines.append(calls("guarded"))
    conversation = await home.create()
    asked = await home.until(conversation, "approval.requested")
    await home.until(conversation, "run.suspended")
    home.crash()
    home.agents["a"] = Agent("a")
    home.boot()
    await home.directory.start()
    await home.say(conversation, c.Approve(id="yes", run=asked["run"], call=["k1"], digest=asked["digest"]))
    await home.until(conversation, "run.completed")
    assert one(await home.events(conversation), "tool.failed")["error"]["kind"] == "unknown_tool"
    assert "guarded" in home.model.requests[-1].messages[-1]["content"]


# --- deadlines


@virtual
async def test_a_deadline_stops_the_tool() -> None:
    """§9, FAULTS 90: it confirmed within the grace time: `timeout`."""
    _, events = await run(Home(AGENT), calls("sleeper", arguments='{"seconds": 60}'))
    failed = one(events, "tool.failed")
    assert failed["error"]["kind"] == "timeout" and "30 s" in failed["error"]["message"]
    assert failed["at"] - one(events, "tool.started")["at"] in range(30_000, 31_100)
    assert done == []


@virtual
@pytest.mark.parametrize(("timeout", "outcome"), [(135, "slept"), (60, "timeout")])
async def test_000_18_ninety_seconds_of_work(timeout: int, outcome: str) -> None:
    """000-18: with 135 s it succeeds; with 60 s a typed timeout, and a history with one result for its one call."""

    @tool(timeout=timeout)
    async def ninety() -> str:
        """Takes its time."""
        return str(await sleeper.function(90))

    home = Home(Agent("a", tools=[ninety]))
    _, events = await run(home, calls("ninety"))
    ended = one(events, "tool.returned" if outcome == "slept" else "tool.failed")
    assert (ended.get("result") or ended["error"]["kind"]) == outcome
    assert ended["at"] - one(events, "tool.started")["at"] in range(
        min(timeout, 90) * 1000, min(timeout, 90) * 1000 + 1100
    )
    replied, result = home.model.requests[-1].messages[-2:]
    assert [call["id"] for call in replied["tool_calls"]] == [result["tool_call_id"]]
    assert ("slept" if outcome == "slept" else f"{timeout} s") in result["content"]


@virtual
async def test_a_tool_that_ignores_its_deadline_is_given_up() -> None:
    """§2, FAULTS 72: in doubt after the grace time; what it turns out to have done is kept, not told."""
    home = Home(AGENT)
    conversation, events = await run(home, calls("stubborn"))
    failed = one(events, "tool.failed")
    assert failed["error"]["kind"] == "in_doubt"
    assert failed["at"] - one(events, "tool.started")["at"] in range(31_000, 31_100)
    settled = await home.until(conversation, "tool.settled")
    assert (settled["result"], settled["of"], "run" in settled) == ("done after all", failed["run"], False)
    assert "done after all" not in str(home.model.requests[-1].messages)


@virtual
async def test_a_safe_tool_that_ignores_its_deadline_has_timed_out() -> None:
    """§2: for a started call that is not `safe` it is in doubt."""
    _, events = await run(Home(AGENT), calls("harmless"))
    assert one(events, "tool.failed")["error"]["kind"] == "timeout"


@virtual
async def test_a_tool_without_a_deadline_of_its_own_has_the_settings() -> None:
    """§9, FAULTS 90: every tool has a deadline."""

    @tool
    async def forever() -> str:
        """Never returns."""
        await asyncio.get_running_loop().create_future()
        return ""

    home = Home(Agent("a", tools=[forever]))
    home.boot(tool_seconds=7)
    _, events = await run(home, calls("forever"))
    assert "7 s" in one(events, "tool.failed")["error"]["message"]


# --- stops


@virtual
async def test_a_stop_that_is_confirmed() -> None:
    """§10: `cancelled`; the closing append waits for it, and no longer."""
    home = Home(AGENT)
    home.model.lines.append(calls("sleeper"))
    conversation = await home.create()
    await home.until(conversation, "tool.started")
    await home.say(conversation, c.Cancel(id="c"))
    await home.until(conversation, "run.cancelled")
    events = await home.events(conversation)
    assert one(events, "tool.failed")["error"]["kind"] == "cancelled"
    assert one(events, "run.cancelled")["at"] - one(events, "cancel.requested")["at"] < 100


@virtual
async def test_a_stop_that_is_not_confirmed() -> None:
    """§2: given up after the grace time; the place of the call is free again."""
    home = Home(AGENT)
    home.boot(tools=asyncio.Semaphore(1))
    home.model.lines.extend([calls("stubborn"), calls("sleeper")])
    conversation = await home.create()
    await home.until(conversation, "tool.started")
    await home.say(conversation, c.Cancel(id="c"))
    ended = await home.until(conversation, "run.cancelled")
    events = await home.events(conversation)
    assert one(events, "tool.failed")["error"]["kind"] == "in_doubt"
    assert ended["at"] - one(events, "cancel.requested")["at"] in range(1_000, 1_100)
    other = await home.create()
    await home.until(other, "tool.returned", seconds=30)


@virtual
async def test_a_call_that_is_stopped_in_the_moment_of_its_start_never_begins() -> None:
    """§2: it is known not to have begun, so it is not in doubt, and nobody has to wait for the grace time."""
    home = Home(AGENT)
    conversation = await starting(home, "sleeper")
    cancelling = asyncio.create_task(home.say(conversation, c.Cancel(id="c")))
    await asyncio.sleep(1)
    home.log.gate.set()
    await cancelling
    ended = await home.until(conversation, "run.cancelled")
    events = await home.events(conversation)
    assert one(events, "tool.failed")["error"]["kind"] == "cancelled" and done == []
    assert ended["at"] - one(events, "cancel.requested")["at"] < 500


@virtual
async def test_a_stop_in_the_pass_of_the_start() -> None:
    """As above, where both were decided in one pass of the wheel."""
    home = Home(AGENT)
    home.model.lines.append(calls("sleeper", arguments='{"seconds": 0}'))
    conversation = await home.create()
    submit = home.directory._actors[conversation].submit

    def both(command: Any, by: str = "") -> Any:
        future = submit(command, by)
        if isinstance(command, c.ToolStarting):
            submit(c.Cancel(id="c"), "ann")
        return future

    runner: Runner = home.directory._actors[conversation]._runner
    runner._submit = both
    await home.until(conversation, "run.cancelled", seconds=30)
    events = await home.events(conversation)
    assert one(events, "tool.started") and done == []
    assert one(events, "tool.failed")["error"]["kind"] == "cancelled"
    assert one(events, "run.cancelled")["at"] - one(events, "cancel.requested")["at"] < 500, "nobody has to wait"


@virtual
async def test_an_interrupting_hint_stops_the_tool_and_is_given() -> None:
    """§3, FAULTS 65."""
    home = Home(AGENT)
    home.model.lines.append(calls("sleeper"))
    conversation = await home.create()
    await home.until(conversation, "tool.started")
    await home.say(conversation, c.Hint(id="h", text="Stop that.", interrupt=True))
    await home.until(conversation, "run.completed")
    events = await home.events(conversation)
    assert one(events, "tool.failed")["error"]["kind"] == "cancelled"
    assert home.model.requests[-1].messages[-1] == {"role": "user", "content": "Stop that."}


@virtual
async def test_an_effect_that_is_cut_off_leaves_nothing_pending() -> None:
    """SEMANTICS §11: the process goes while a tool works; every task of the conversation ends with its actor."""
    home = Home(AGENT)
    home.model.lines.append(calls("sleeper", arguments='{"seconds": 20}'))
    conversation = await home.create()
    await home.until(conversation, "tool.started")
    await home.directory.drain(0)
    await asyncio.sleep(1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- what tools come up with


def raising(error: Callable[[], BaseException]) -> Any:
    @tool
    async def bad() -> str:
        """Fails."""
        raise error()

    return bad


@pytest.mark.parametrize(
    "error",
    [
        lambda: ValueError("no such table"),
        SystemExit,
        KeyboardInterrupt,
        RecursionError,
        MemoryError,
        asyncio.CancelledError,
        lambda: BaseExceptionGroup("both", [SystemExit(), ValueError()]),
    ],
    ids=lambda error: getattr(error, "__name__", "error"),
)
@virtual
async def test_whatever_a_tool_raises_is_told_and_the_run_goes_on(error: Callable[[], BaseException]) -> None:
    """FAULTS 91: type and safe message only; no traceback."""
    home = Home(Agent("a", tools=[raising(error)]))
    _, events = await run(home, calls("bad"))
    failed = one(events, "tool.failed")
    assert failed["error"]["kind"] == "error" and type(error()).__name__ in failed["error"]["message"]
    assert "Traceback" not in failed["error"]["message"] and "test_tool_effect" not in failed["error"]["message"]


@virtual
async def test_a_large_result_is_cut_with_a_note_and_kept_whole() -> None:
    """FAULTS 92, PROTOCOL §4."""

    @tool
    async def wordy() -> str:
        """Says a lot."""
        return "word " * 50_000

    home = Home(Agent("a", tools=[wordy]))
    conversation, events = await run(home, calls("wordy"))
    returned = one(events, "tool.returned")
    assert returned["truncated"] is True and len(returned["result"]) == RESULT_CHARS_MAX
    ref = f"{returned['run']}/k1"
    assert returned["result"].endswith(f"[cut: 250,000 characters in all, kept as {ref}]")
    assert await home.log.kept(conversation, ref) == "word " * 50_000
    assert home.model.requests[-1].messages[-1]["content"] == returned["result"]


@virtual
async def test_an_empty_result_has_words() -> None:
    """Strict providers take no empty message."""

    @tool
    async def quiet() -> str:
        """Says nothing."""
        return ""

    home = Home(Agent("a", tools=[quiet]))
    _, events = await run(home, calls("quiet"))
    assert home.model.requests[-1].messages[-1]["content"] == one(events, "tool.returned")["result"] != ""


@virtual
async def test_arguments_too_long_for_an_event_reach_the_tool_whole() -> None:
    """PROTOCOL §4: cut in the event, kept whole."""

    @tool
    async def counted(text: str) -> str:
        """Counts."""
        return str(len(text))

    home = Home(Agent("a", tools=[counted]))
    long = Call(call="k1", tool="counted", arguments='{"text": "' + "x" * 200_000 + '"}')
    _, events = await run(home, [long])
    assert one(events, "tool.returned")["result"] == "200000"
    assert one(events, "tool.started")["truncated"] is True


@virtual
async def test_known_secrets_do_not_reach_the_log() -> None:
    """FAULTS 93: neither in a result, nor in a failure, nor in progress."""

    @tool
    async def leak(ctx: ToolContext, fail: bool) -> str:
        """Leaks."""
        ctx.progress("found hunter2-hunter2", 0.5)
        await asyncio.sleep(1)
        if fail:
            raise ValueError("cannot use hunter2-hunter2")
        return "it is hunter2-hunter2"

    home = Home(Agent("a", tools=[leak]))
    home.boot(redact=lambda text: text.replace("hunter2-hunter2", "[redacted]"))
    home.model.lines.append(calls("leak", arguments='{"fail": false}'))
    home.model.lines.append(calls("leak", arguments='{"fail": true}', first=2))
    conversation = await home.create()
    for call in ("k1", "k2"):  # progress does not outlive its call
        assert (await home.until(conversation, "tool.progressed"))["text"] == "found [redacted]"
        await home.until(conversation, "tool.returned" if call == "k1" else "tool.failed")
    await home.until(conversation, "run.completed")
    events = await home.events(conversation)
    assert "hunter2" not in str(events) and "[redacted]" in str(events)
    assert "hunter2" not in str(home.model.requests)


@virtual
async def test_no_half_of_a_secret_is_left_by_a_cut() -> None:
    """FAULTS 93: progress, failures and large results are cut after secrets have been taken out, never before."""
    token = "ghp_" + "7tok3n" * 6

    @tool
    async def leak(ctx: ToolContext, at: int, how: str) -> str:
        """Leaks across a bound."""
        text = "x" * (at - 20) + " " + token + " " + "x" * 100
        match how:
            case "progress":
                ctx.progress(text)
                await asyncio.sleep(1)
            case "raise":
                raise ValueError(text)
        return text

    home = Home(Agent("a", tools=[leak]))
    home.boot(redact=redactor(()))
    for number, (at, how) in enumerate([(500, "progress"), (500, "raise"), (RESULT_CHARS_MAX, "return")], 1):
        home.model.lines.append(calls("leak", arguments=f'{{"at": {at}, "how": "{how}"}}', first=number))
    conversation = await home.create()
    told = [await home.until(conversation, "tool.progressed")]
    run = (await home.until(conversation, "run.completed"))["run"]
    told += [event for event in await home.events(conversation) if event["type"] in ("tool.failed", "tool.returned")]
    kept = await home.log.log.kept(conversation, f"{run}/k3")
    assert len(told) == 4 and kept is not None and "[redacted: GitHub token]" in kept
    assert token[:6] not in str(told) + str(home.model.requests) + kept
    assert sum("[redacted: Git" in str(event) for event in told) == 3, "the last one is cut before it"


# --- progress


@virtual
async def test_progress_is_merged_and_the_latest_wins() -> None:
    """FAULTS 95: at most ten a second, none after the end; superseded by the result."""
    home = Home(AGENT)
    home.model.lines.append(calls("teller"))
    conversation = await home.create()
    seen: dict[int, Json] = {}
    while "tool.returned" not in (types := await home.types(conversation)):
        seen |= {e["seq"]: e for e in await home.events(conversation) if e["type"] == "tool.progressed"}
        await asyncio.sleep(0.02)
    assert 9 <= len(seen) <= 12, "a second of work, a hundred reports"
    fractions = [event["fraction"] for _, event in sorted(seen.items())]
    assert fractions == sorted(fractions)
    await home.until(conversation, "run.completed")
    assert "tool.progressed" not in await home.types(conversation) and types.count("tool.returned") == 1


async def test_a_sync_tool_runs_in_a_thread_and_reports_from_there() -> None:
    """§9: sync tools run in threads, never on the loop. Real time: threads know no virtual one."""
    where: list[int] = []

    @tool
    def blocking(ctx: ToolContext) -> str:
        """Blocks its thread."""
        where.append(threading.get_ident())
        ctx.progress("half", 0.5)
        threading.Event().wait(0.05)
        return "done"

    home = Home(Agent("a", tools=[blocking]))
    home.model.lines.append(calls("blocking"))
    conversation = await home.create()
    await home.until(conversation, "run.completed", seconds=5)
    assert where and where != [threading.get_ident()]
    await home.directory.drain(1)


@virtual
async def test_a_run_has_one_place_however_many_of_its_agents_ask_for_it_at_once() -> None:
    """DESIGN §8 HOLDFAST_RUNS_MAX: a place that is taken twice and given back once is lost for ever."""

    @tool(approval=True)
    async def guarded() -> str:
        """Needs approval."""
        return "allowed"

    inner = Agent("inner", tools=[guarded])
    home = Home(Agent("a", tools=[inner.as_tool("Helps.")]))
    home.boot(runs=1)
    asked: Line = [Call(call=f"k{n}", tool="inner", arguments='{"prompt": "do it"}') for n in (1, 2)]
    told = asyncio.Event()
    home.model.lines.extend([asked, calls("guarded"), calls("guarded"), [told, "done"]])
    conversation = await home.create()
    await home.until(conversation, "run.suspended")
    requests = [event for event in await home.events(conversation) if event["type"] == "approval.requested"]
    assert len(requests) == 2
    other = await home.create()
    await home.until(other, "step.started")
    await asyncio.gather(
        *(
            home.say(conversation, c.Deny(id=f"d{n}", run=r["run"], call=[*r["path"], r["call"]], digest=r["digest"]))
            for n, r in enumerate(requests)
        )
    )
    await asyncio.sleep(1)
    told.set()
    await home.until(conversation, "run.completed")
    await asyncio.sleep(1)
    assert home.around.runs._value == 1
