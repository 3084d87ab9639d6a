"""The contract of the archive, against every variant: flushing (again, overlapping, late), history, search."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.core.events import Call, Failure, Path, Usage
from app.store.archive import (
    Archive,
    ArchivedCall,
    ArchivedConversation,
    ArchivedLevel,
    ArchivedMessage,
    ArchivedRun,
    Flush,
)
from app.store.archive_memory import MemoryArchive
from app.store.archive_sqlite import SqliteArchive

CALLS = "SELECT * FROM tool_calls ORDER BY run, path, call"


def conversation(name: str = "c", **changes: Any) -> ArchivedConversation:
    plain = ArchivedConversation(
        conversation=name, owner="ann", agent="hr", title="Dinner", status="idle", created_at=1, updated_at=2
    )
    return msgspec.structs.replace(plain, **changes)


def run(name: str = "r", of: str = "c", **changes: Any) -> ArchivedRun:
    plain = ArchivedRun(
        run=name,
        conversation=of,
        agent="hr",
        status="running",
        started_at=10,
        step=1,
        usage=Usage(input=5, output=6),
    )
    return msgspec.structs.replace(plain, **changes)


def message(seq: int, text: str = "hello", **changes: Any) -> ArchivedMessage:
    plain = ArchivedMessage(seq=seq, at=seq * 10, run="r", role="user", text=text)
    return msgspec.structs.replace(plain, **changes)


def flush(through: int, *parts: ArchivedRun | ArchivedMessage | ArchivedCall, of: str = "c", **changes: Any) -> Flush:
    return Flush(
        conversation=conversation(of, **changes),
        through=through,
        runs=[part for part in parts if isinstance(part, ArchivedRun)],
        messages=[part for part in parts if isinstance(part, ArchivedMessage)],
        calls=[part for part in parts if isinstance(part, ArchivedCall)],
    )


async def calls_in(archive: Archive) -> list[ArchivedCall]:
    """`tool_calls` is for people, so the contract has no way to read it."""
    if isinstance(archive, MemoryArchive):
        return [call for _, call in sorted(archive.calls.items())]
    assert isinstance(archive, SqliteArchive)
    rows = await archive._rows(CALLS)
    found = []
    for name, path, call, _, *told in rows:
        split: Path = tuple(path.split("/")) if path else ()
        names = ("tool", "arguments", "status", "result", "error", "settled", "started_at", "finished_at", "ms")
        found.append(ArchivedCall(run=name, path=split, call=call, **dict(zip(names, told, strict=True))))
    return found


WHOLE = (
    run(
        status="failed",
        finished_at=90,
        step=3,
        usage=Usage(input=5, output=6, cached=2, estimated=True, cost=17, unpriced=True),
        error=Failure(kind="upstream", message="It's gone."),
        result="partial",
        levels=[
            ArchivedLevel(agent="hr", steps=2, usage=Usage(input=4, output=5, cost=17)),
            ArchivedLevel(path=("k1", "k9"), agent="pay", steps=1, usage=Usage(input=1, output=1, unpriced=True)),
        ],
    ),
    message(1, "Can you order dinner?", author="ann"),
    message(4, "", role="assistant", calls=[Call(call="k1", tool="find", arguments='{"q": 1}')]),
    message(5, "found", role="tool", call="k1", path=("k0", "k9")),
    message(7, "line\u2028one\n\u00e9\U0001f600", role="assistant", run=None),
    ArchivedCall(run="r", call="k1", tool="find", arguments='{"q": 1}', status="asked"),
    ArchivedCall(run="r", call="k1", status="returned", result="found", started_at=40, finished_at=50, ms=10),
    ArchivedCall(run="r", call="k2", path=("k1", "k9"), tool="pay", arguments="{broken", status="asked"),
)


async def state(archive: Archive) -> tuple[object, ...]:
    return await archive.messages("c"), await archive.runs("c"), await calls_in(archive)


async def test_what_is_flushed_is_read_back(archive: Archive) -> None:
    await archive.flush(flush(7, *WHOLE))
    assert await archive.messages("c") == [part for part in WHOLE if isinstance(part, ArchivedMessage)]
    assert await archive.runs("c") == [WHOLE[0]]
    assert await archive.run("r") == WHOLE[0]
    assert await calls_in(archive) == [
        ArchivedCall(
            run="r",
            call="k1",
            tool="find",
            arguments='{"q": 1}',
            status="returned",
            result="found",
            started_at=40,
            finished_at=50,
            ms=10,
        ),
        ArchivedCall(run="r", call="k2", path=("k1", "k9"), tool="pay", arguments="{broken", status="asked"),
    ]


async def test_nothing_is_known_of_what_was_never_flushed(archive: Archive) -> None:
    assert await archive.messages("nobody") == []
    assert await archive.runs("nobody") == []
    assert await archive.run("nobody") is None
    await archive.remove("nobody")


async def test_the_same_flush_twice_leaves_the_same_rows(archive: Archive) -> None:
    """FAULTS 9: a crash between flush and `archive.flushed` repeats it."""
    await archive.flush(flush(7, *WHOLE))
    before = await state(archive)
    await archive.flush(flush(7, *WHOLE))
    assert await state(archive) == before
    assert await archive.search("ann", "dinner", 9) == ["c"]


async def test_an_overlapping_flush_adds_what_is_new(archive: Archive) -> None:
    await archive.flush(flush(4, run(), message(1), message(4, "old")))
    await archive.flush(flush(9, run(status="completed", finished_at=99), message(4, "new"), message(9), title="Lunch"))
    assert [(one.seq, one.text) for one in await archive.messages("c")] == [(1, "hello"), (4, "new"), (9, "hello")]
    assert [one.status for one in await archive.runs("c")] == ["completed"]
    assert await archive.search("ann", "old", 9) == []
    assert await archive.search("ann", "new", 9) == ["c"]


async def test_a_late_flush_of_an_old_owner_takes_nothing_back(archive: Archive) -> None:
    done = ArchivedCall(run="r", call="k", status="returned", result="yes")
    await archive.flush(flush(9, run(status="completed", finished_at=99), message(4, "new"), done))
    late = ArchivedCall(run="r", call="k", status="started", tool="find")
    await archive.flush(flush(5, run(), run("earlier"), message(3), message(4, "old"), late))
    assert [one.status for one in await archive.runs("c")] == ["running", "completed"]
    assert [(one.seq, one.text) for one in await archive.messages("c")] == [(3, "hello"), (4, "new")]
    assert await calls_in(archive) == [done]


async def test_a_call_keeps_what_a_later_flush_does_not_say(archive: Archive) -> None:
    await archive.flush(flush(3, ArchivedCall(run="r", call="k", tool="pay", arguments="{}", status="in_doubt")))
    await archive.flush(flush(8, ArchivedCall(run="r", call="k", settled="It had been paid.")))
    [call] = await calls_in(archive)
    assert (call.tool, call.status, call.settled) == ("pay", "in_doubt", "It had been paid.")


async def test_runs_are_listed_in_the_order_they_started(archive: Archive) -> None:
    await archive.flush(flush(3, run("b", started_at=20), run("a", started_at=20), run("z", started_at=10)))
    assert [one.run for one in await archive.runs("c")] == ["z", "a", "b"]


async def test_finished_runs_newest_first_by_owner_agent_and_status(archive: Archive) -> None:
    await archive.flush(
        flush(
            3,
            run("done", status="completed", finished_at=50),
            run("lost", status="failed", finished_at=70, agent="other"),
            run("stopped", status="cancelled", finished_at=60),
            run("moved", status="moved", started_at=65),
            run("busy"),
            run("asking", status="waiting"),
        )
    )
    await archive.flush(flush(3, run("bobs", "d", status="completed", finished_at=80), of="d", owner="bob"))

    async def listed(
        owner: str = "ann",
        agent: str | None = None,
        status: str | None = None,
        limit: int = 9,
        without: tuple[str, ...] = (),
    ) -> str:
        found = await archive.finished(owner, agent=agent, status=status, limit=limit, without=without)
        return " ".join(one.run for one in found)

    assert await listed() == "lost moved stopped done"
    assert await listed(limit=2) == "lost moved"
    assert await listed(limit=0) == ""
    assert await listed(agent="other") == "lost"
    assert await listed(status="completed") == "done"
    assert await listed(status="running") == ""
    assert await listed("bob") == "bobs"
    assert await listed("bob", without=("c", "x")) == "bobs" and await listed("bob", without=("d",)) == ""


async def test_removal_leaves_nothing(archive: Archive) -> None:
    await archive.flush(flush(7, *WHOLE))
    await archive.flush(flush(7, run("q", "d"), message(1, "dinner", run="q"), of="d"))
    await archive.remove("c")
    assert await state(archive) == ([], [], [])
    assert await archive.run("r") is None
    assert await archive.search("ann", "dinner", 9) == ["d"]


# --- search


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("dinner", {"c", "d"}),
        ("DINNER", {"c", "d"}),
        ("din", {"c", "d"}),
        ("dinner table", {"c"}),
        ("din table", set()),
        ("table din", {"c"}),
        ("cafe", {"d"}),
        ("CAFÉ", {"d"}),
        ("foo-bar", {"e"}),
        ('"foo', {"e"}),
        ("dinner OR nothing", set()),
        ("NOT dinner", set()),
        ("text:dinner", set()),
        ("dinner*", {"c", "d"}),
        ("din* table", set()),
        ("' OR 1=1 --", set()),
        ("100%", {"e"}),
        ("%", set()),
        ("_", set()),
        ("", set()),
        ("()", set()),
        ("naïve", {"e"}),
        ("日本", {"e"}),
        ("が", {"e"}),
        ("한국어", {"e"}),
        ("हिन्दी", {"e"}),
        ("\u0301", set()),
        ("dinner near table", set()),
        ("^dinner", {"c", "d"}),
        ("{dinner} + (table)", {"c"}),
    ],
)
async def test_search_takes_any_input_literally(archive: Archive, words: str, found: set[str]) -> None:
    await archive.flush(flush(2, message(1, "Dinner at eight"), message(2, "a table for the dinner, please"), of="c"))
    await archive.flush(flush(1, message(1, "After the Café: dinner!"), of="d"))
    await archive.flush(flush(1, message(1, "foo-bar 100% naive 日本語 がぎぐ 한국어로 हिन्दी"), of="e"))
    await archive.flush(flush(1, message(1, "dinner table foo bar 100 cafe"), of="f", owner="bob"))
    assert set(await archive.search("ann", words, 9)) == found


async def test_search_is_bounded(archive: Archive) -> None:
    for number in range(5):
        await archive.flush(flush(1, message(1, "dinner"), of=f"c{number}"))
    assert len(await archive.search("ann", "dinner", 3)) == 3
    assert await archive.search("ann", "dinner", 0) == []
