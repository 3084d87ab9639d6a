"""Isolated tools: a process for one call, what its end says about the function, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent import Agent, NoteRefused, Tool, tool
from app.agent.context import MESSAGE_CHARS_MAX
from app.agent.isolated import PRINTED_BYTES_MAX
from app.agent.pipe import FRAME_BYTES_MAX, Frames, Noted, Progress, framed, from_tool
from app.agent.result import RESULT_CHARS_MAX
from app.agent.tools import ConfigError, ToolError
from app.core.commands import Draft
from tests.processes import lives

from . import apart
from .calls import Watched

DEADLINE = 15.0


async def until(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of the condition."""
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"still not: {what}"
        await asyncio.sleep(0.01)
    return value


async def begun(how: str, path: Path) -> tuple[asyncio.Task[str], Watched, list[int]]:
    """A call of `works` under way, and the processes that it consists of: the tool, its child, its keeper."""
    watched = Watched()
    task = asyncio.create_task(apart.works.run({"file": str(path / "who"), "how": how}, watched.context))
    await until((path / "who").exists, "it has begun")
    return task, watched, [int(pid) for pid in (path / "who").read_text().split()]


async def gone(pids: list[int]) -> None:
    await until(lambda: not [pid for pid in pids if lives(pid)], "all processes are gone")


# --- what can be isolated


async def nothing() -> None: ...


def elsewhere() -> None: ...


elsewhere.__module__ = "__main__"


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (lambda: None, "at the top of its module"),
        (nothing, "a sync function"),
        (functools.partial(print), "not partial"),
        (apart.Box().method, "not method"),
        (elsewhere, "a module of its own"),
        (eval(compile("lambda: 1", "x", "eval"), {"__name__": "unknown"}), "at the top"),
    ],
    ids=["lambda", "async", "partial", "method", "main", "eval"],
)
def test_what_another_process_cannot_find_is_refused(function: Callable[..., Any], word: str) -> None:
    """FAULTS 104: at its declaration, by the tool's name."""
    with pytest.raises(ConfigError, match=f"Tool odd cannot be isolated: .*{word}"):
        tool(isolated=True, name="odd")(function)


def test_a_function_of_a_module_that_cannot_be_imported_is_refused() -> None:
    made: dict[str, Any] = {"__name__": "only_here"}
    exec("def function(): pass", made)
    with pytest.raises(ConfigError, match="its module only_here cannot be imported"):
        tool(isolated=True)(made["function"])


def test_an_agent_refuses_a_tool_whose_place_is_taken() -> None:
    """Another process would call the function without its decorator."""
    with pytest.raises(ConfigError, match=r"Tool bare cannot .* tests\.agent\.apart\.bare is not the function"):
        Agent("a", tools=[apart.shadowed])
    agent = Agent("a", tools=[apart.tell, apart.Box.inner, apart.decorated, apart.renamed])
    assert set(agent.tools) == {"tell", "inner", "decorated", "another"}


@pytest.mark.parametrize(
    ("made", "result"),
    [
        (apart.Box.inner, "[1,2]"),
        (apart.decorated, "guarded call"),
        (apart.renamed, "guarded name"),
        (apart.returns, "done"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_it_is_found(made: Tool, result: str) -> None:
    """In a class, under a decorator, under another name."""
    arguments = {"what": "nothing"} if made is apart.returns else {}
    assert await made.run(arguments, Watched().context) == result


# --- the call


async def test_a_call_in_a_process_of_its_own() -> None:
    """Ids, progress and notes as anywhere; a group of its own, and the main thread, where signals can be had."""
    watched = Watched()
    told = json.loads(await apart.tell.run({"place": "the café", "many": "3"}, watched.context))
    pid, group, keeper, main = told.pop("process")
    assert main and pid == group and pid != os.getpid() and keeper not in (pid, os.getpid())
    ids = ["run_1/call_1", "call_1", "conversation_1", "run_1"]
    assert told == {"ids": ids, "cancelled": False, "place": "the café", "many": 3}
    assert watched.reports == [("Looking at the café", 0.5)]
    noted = Draft("knowledge", "the café is known"), Draft("progress", task="looked", result="the café", next="go")
    assert tuple(watched.drafts) == noted
    await gone([pid, keeper])


async def test_arguments_are_checked_before_a_process_is_started() -> None:
    with pytest.raises(ToolError, match="place is missing") as caught:
        await apart.tell.run({}, Watched().context)
    assert caught.value.kind == "bad_arguments"


async def test_a_note_that_is_refused() -> None:
    class Refusing(Watched):
        def save_and_wait(self, draft: Draft) -> None:
            raise NoteRefused(f"no {draft.kind} here")

    assert await apart.refused.run({}, Refusing().context) == "refused: no knowledge here"


async def test_a_flood_of_progress_is_merged_where_it_arises() -> None:
    """FAULTS 95: the latest wins."""
    watched = Watched()
    assert await apart.flood.run({"times": 100_000}, watched.context) == "reported 100000"
    assert watched.reports[-1][0] == "part 99999" and len(watched.reports) < 200


@pytest.mark.parametrize(
    "how",
    [
        *("ValueError", "SystemExit", "KeyboardInterrupt", "Cancelled"),
        *("exit status 3", "exit status 1", "SIGSEGV", "SIGKILL", "SIGTERM", "no message"),
    ],
)
async def test_whatever_ends_the_function_or_its_process_is_an_error(how: str) -> None:
    """FAULTS 91, 94: raised, left, crashed, or its pipes destroyed: by name, and only this call."""
    with pytest.raises(ToolError, match=how) as caught:
        await apart.fails.run({"how": how}, Watched().context)
    assert caught.value.kind == "error" and len(caught.value.message) < MESSAGE_CHARS_MAX + 50


@pytest.mark.parametrize(
    ("what", "shown"),
    [("lock", "lock"), ("function", "<lambda>"), ("generator", "[0,1,2]"), ("binary", "[2 bytes, base64] AP8=")],
)
async def test_what_cannot_be_sent_is_text_before_it_is_sent(what: str, shown: str) -> None:
    """FAULTS 92: what is unpicklable is as little trouble as in a thread."""
    assert shown in await apart.returns.run({"what": what}, Watched().context)


async def test_an_awaitable_is_no_result() -> None:
    with pytest.raises(ToolError, match="TypeError: an isolated tool is a sync function"):
        await apart.returns.run({"what": "awaitable"}, Watched().context)


@pytest.mark.parametrize("what", ["huge", "four bytes a character"])
async def test_a_huge_result_is_cut_on_the_other_side(what: str) -> None:
    """FAULTS 92: the longest text that there is passes, whatever it is made of."""
    result = await apart.returns.run({"what": what}, Watched().context)
    assert len(result) == RESULT_CHARS_MAX and ("100,000,000 characters" in result[-100:]) == (what == "huge")


async def test_prints_are_captured_and_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    """FAULTS 93: in one piece, from both streams and from children."""
    assert await apart.prints.run({"size": 2 * PRINTED_BYTES_MAX}, Watched().context) == "printed"
    said = capsys.readouterr()
    assert said.out == "" and len(said.err) < PRINTED_BYTES_MAX + 100
    for line in ("on stdout hunter2-hunter2\n", "by a child\n", "on its stderr\n", "more bytes were printed]\n"):
        assert line in said.err


async def test_what_belongs_to_the_process_is_its_own(tmp_path: Path) -> None:
    """FAULTS 94: directory, environment, umask, signal handlers, a fork: the next call and this process see nothing."""
    umask = os.umask(0o027)
    try:
        for number in range(2):
            file = tmp_path / str(number)
            told = json.loads(await apart.disturb.run({"file": str(file)}, Watched().context))
            assert told == [os.getcwd(), None, 0o027, False]
            assert file.read_text() == "the fork was here"
    finally:
        assert os.umask(umask) == 0o027
    assert "DISTURBED" not in os.environ and signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL


async def test_what_it_leaves_behind_ends_with_the_call(tmp_path: Path) -> None:
    """FAULTS 96: the whole group."""
    left = await apart.leaves.run({"file": str(tmp_path / "who")}, Watched().context)
    await gone([int(pid) for pid in left.split()])


# --- how it is stopped


@pytest.mark.parametrize("how", ["works", "hears", "confirms", "fails"])
async def test_asked_to_stop_it_says_itself_how_it_ended(how: str, tmp_path: Path) -> None:
    """As in a thread: what it did is the truth, `Cancelled` the only confirmation. Its own children get SIGTERM."""
    task, watched, pids = await begun(how, tmp_path)
    task.cancel()
    await asyncio.wait([task], timeout=DEADLINE)
    assert watched.cancelled.is_set()
    match how:
        case "confirms":
            assert task.cancelled()
        case "fails":
            assert isinstance(error := task.exception(), ToolError) and error.kind == "error"
        case "hears":
            assert task.result() == f"heard [{int(signal.SIGTERM)}] after all"
        case _:
            assert task.result() == "done after all"
    await gone(pids)


async def test_asked_twice_it_is_killed(tmp_path: Path) -> None:
    """FAULTS 72: with all its group; nobody knows what it has done."""
    task, _, pids = await begun("ignores", tmp_path)
    task.cancel()
    await until(lambda: not lives(pids[1]), "its child has got the signal")
    assert lives(pids[0]) and not task.done()
    task.cancel()
    with pytest.raises(ToolError, match="killed") as caught:
        await task
    assert caught.value.kind == "in_doubt"
    await gone(pids)


async def test_dying_of_the_question_confirms_nothing(tmp_path: Path) -> None:
    """It was cut off somewhere: `in_doubt`."""
    task, _, pids = await begun("dies", tmp_path)
    task.cancel()
    with pytest.raises(ToolError) as caught:
        await task
    assert caught.value.kind == "in_doubt"
    await gone(pids)


@pytest.mark.parametrize("times", [1, 2])
async def test_stopped_before_it_began(times: int, tmp_path: Path) -> None:
    """While its process starts: the function is not called."""
    task = asyncio.create_task(apart.begins.run({"file": str(tmp_path / "trace")}, Watched().context))
    await asyncio.sleep(0)
    for _ in range(times):
        task.cancel()
    await asyncio.wait([task], timeout=DEADLINE)
    assert task.cancelled() and not (tmp_path / "trace").exists()


async def test_a_tool_without_its_keeper_ends_too(tmp_path: Path) -> None:
    """FAULTS 96: whatever kills the keeper."""
    task, _, pids = await begun("orphans", tmp_path)
    with pytest.raises(ToolError, match="SIGKILL"):
        await task
    await gone(pids)


async def test_a_system_without_room_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 27: the call fails, and only the call."""
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(ToolError, match="could not be started") as caught:
        await apart.tell.run({"place": "there"}, Watched().context)
    assert caught.value.kind == "error"


# --- frames


@given(st.lists(st.builds(Progress, st.text(max_size=50), st.floats(0, 1))), st.integers(1, 40))
def test_frames_are_the_same_however_they_are_cut(messages: list[Progress], size: int) -> None:
    whole = b"".join(framed(message) for message in messages)
    frames = Frames()
    found = [body for at in range(0, len(whole), size) for body in frames.feed(whole[at : at + size])]
    assert [from_tool.decode(body) for body in found] == messages


def test_a_frame_that_is_too_long_is_refused_by_its_length() -> None:
    """FAULTS 92: nobody waits for the rest of it."""
    with pytest.raises(ValueError, match="longer"):
        list(Frames().feed((FRAME_BYTES_MAX + 1).to_bytes(4, "big")))
    with pytest.raises(ValueError, match="does not fit"):
        framed(Noted("x" * (FRAME_BYTES_MAX + 1)))
