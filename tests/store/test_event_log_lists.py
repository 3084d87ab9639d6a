"""The contract of the log, against every variant: creation, lists, what recovery asks for, deletion, kept texts."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.store.event_log import AlreadyCreated, Append, EventLog, LogTorn
from tests.store.builders import OWNER, first, item, make, row, whole

# --- creation


async def test_a_creation_key_makes_one_conversation(log: EventLog) -> None:
    await log.create(first("c", creation="key", run="r1"), "log-c", OWNER)
    with pytest.raises(AlreadyCreated) as raised:
        await log.create(first("d", creation="key", run="r2"), "log-d", OWNER)
    assert (raised.value.conversation, raised.value.run) == ("c", "r1")
    assert await log.find_run("r2") is None
    with pytest.raises(KeyError):
        await log.head("d")


async def test_a_creation_key_is_the_owners_own(log: EventLog) -> None:
    await log.create(first("c", creation="key"), "log-c", "ann")
    await log.create(first("d", creation="key"), "log-d", "bob")
    with pytest.raises(AlreadyCreated) as raised:
        await log.create(first("e", creation="key"), "log-e", "bob")
    assert (raised.value.conversation, raised.value.run) == ("d", None)


async def test_concurrent_creations_with_one_key_have_one_winner(log: EventLog) -> None:
    creations = [log.create(first(f"c{n}", creation="key", run=f"r{n}"), f"log-{n}", OWNER) for n in range(10)]
    outcomes = await asyncio.gather(*creations, return_exceptions=True)
    refusals = [outcome for outcome in outcomes if isinstance(outcome, AlreadyCreated)]
    assert len(refusals) == 9
    assert {(refusal.conversation, refusal.run) for refusal in refusals} == {("c0", "r0")}
    assert [found.conversation for found, _ in await log.items(OWNER, limit=100)] == ["c0"]


async def test_the_very_same_creation_again_succeeds(log: EventLog) -> None:
    """Its first outcome may have been unknown; the log id tells it from another one."""
    for creation in (None, "key"):
        append = first(f"c-{creation}", creation=creation)
        await log.create(append, "log", OWNER)
        await log.create(append, "log", OWNER)
        assert (await log.head(append.conversation)).head == 2


async def test_a_conversation_id_is_used_once(log: EventLog) -> None:
    await make(log, "c")
    with pytest.raises(LogTorn):
        await log.create(first("c"), "another", OWNER)
    with pytest.raises(LogTorn):
        await log.create(replace(first("c"), rows=(row([1]),)), "log-c", OWNER)
    assert (await log.head("c")).log == "log-c"


@pytest.mark.parametrize(
    "changes", [{"after": 1, "rows": (row([2]),)}, {"rows": ()}, {"item": None}, {"superseded": ("a",)}]
)
async def test_a_log_starts_at_the_beginning(log: EventLog, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="first append"):
        await log.create(replace(first("c"), **changes), "log", OWNER)  # type: ignore[arg-type]


async def test_runs_are_found_by_id(log: EventLog) -> None:
    await log.create(first("c", run="r1"), "log-c", OWNER)
    await log.append(Append("c", 2, 1, (row([3]),), runs=("r2", "r3")))
    assert [await log.find_run(run) for run in ("r1", "r2", "r3", "r4")] == ["c", "c", "c", None]


# --- lists


async def test_an_item_is_replaced_as_a_whole(log: EventLog) -> None:
    await make(log)
    full = item(
        title="Dinner",
        status="waiting",
        updated_at=2_000,
        run="r1",
        run_status="waiting",
        started_at=1_500,
        step=3,
        waiting_for="approval",
        busy=True,
        wake_at=9_000,
    )
    await log.append(Append("c", 2, 1, (row([3]),), item=full))
    assert await log.item("c") == (full, 3)
    await log.append(Append("c", 3, 1, (row([4], owner="a"),), item=item()))
    assert await log.item("c") == (item(), 4)
    assert await log.items(OWNER, limit=5) == [(item(), 4)]


async def test_items_are_listed_newest_first_and_in_pages(log: EventLog) -> None:
    for number in range(7):
        await make(log, f"c{number}", created_at=1_000 + number // 2)
    listed = [found.conversation for found, _ in await log.items(OWNER, limit=100)]
    assert listed == ["c6", "c5", "c4", "c3", "c2", "c1", "c0"]
    paged: list[str] = []
    before: tuple[int, str] | None = None
    while page := await log.items(OWNER, limit=2, before=before):
        paged += [found.conversation for found, _ in page]
        before = (page[-1][0].created_at, page[-1][0].conversation)
    assert paged == listed
    assert await log.items(OWNER, limit=0) == []
    assert len(await log.items(OWNER, limit=10**30, before=(10**30, ""))) == 7


async def test_items_are_the_owners_own_and_by_status(log: EventLog) -> None:
    await make(log, "c", status="running")
    await make(log, "d", status="idle")
    await make(log, "e", owner="bob", status="running")
    assert [found.conversation for found, _ in await log.items(OWNER, limit=9, status="running")] == ["c"]
    assert [found.conversation for found, _ in await log.items("bob", limit=9)] == ["e"]
    assert await log.items("", limit=9) == []


@pytest.mark.parametrize(
    ("title", "wanted"),
    [
        ("100%", ["percent"]),
        ("_b", ["underscore"]),
        ("%", ["percent"]),
        ("\\", ["backslash"]),
        ("' OR 1", ["quote"]),
        ("GRÜSSE", ["german"]),
        ("grüße", ["german"]),
        ("zzz", []),
        ("", ["underscore", "quote", "percent", "german", "backslash"]),
    ],
)
async def test_a_title_is_searched_literally_and_without_case(log: EventLog, title: str, wanted: list[str]) -> None:
    titles = {
        "percent": "100% sure",
        "underscore": "a_b",
        "backslash": "a\\b",
        "quote": "it' OR 1=1",
        "german": "Grüße",
    }
    for name, its_title in titles.items():
        await make(log, name, title=its_title)
    assert [found.conversation for found, _ in await log.items(OWNER, limit=9, title=title)] == wanted


async def test_a_title_search_takes_named_conversations_too(log: EventLog) -> None:
    for name in ("c", "d", "e'); DROP"):
        await make(log, name, title=f"title of {name}")
    found = await log.items(OWNER, limit=9, title="of c", among=["e'); DROP", "nobody"])
    assert [one.conversation for one, _ in found] == ["e'); DROP", "c"]
    assert len(await log.items(OWNER, limit=9, among=["c"])) == 3


# --- recovery


async def test_unfinished_are_the_busy_and_those_whose_time_has_come(log: EventLog) -> None:
    await make(log, "idle")
    await make(log, "young", busy=True, created_at=2_000)
    await make(log, "old", busy=True, created_at=1_000)
    await make(log, "due", wake_at=50)
    await make(log, "later", wake_at=51)
    assert await log.unfinished(50) == ["due", "old", "young"]
    assert await log.unfinished(51) == ["due", "later", "old", "young"]
    assert await log.next_wake() == 50
    await log.delete("due", 60)
    await log.delete("old", 60)
    assert await log.unfinished(50) == ["young"]
    assert await log.next_wake() == 51
    await log.delete("later", 60)
    assert await log.next_wake() is None


# --- deletion


async def test_a_deleted_conversation_is_hidden_but_there(log: EventLog) -> None:
    await make(log)
    await log.delete("c", 500)
    assert await log.items(OWNER, limit=9) == []
    assert (await log.head("c")).deleted
    assert await log.item("c") == (item(), 2)
    await log.append(Append("c", 2, 1, (row([3]),)))
    assert await whole(log) == [1, 2, 3]


async def test_a_deletion_is_undone_while_it_is_young(log: EventLog) -> None:
    await make(log)
    assert not await log.restore("c", 0)
    await log.delete("c", 500)
    await log.delete("c", 900)
    assert not await log.restore("c", 501)
    assert (await log.head("c")).deleted
    assert await log.restore("c", 500)
    assert not (await log.head("c")).deleted
    assert len(await log.items(OWNER, limit=9)) == 1


async def test_purging_leaves_no_trace_of_old_deletions(log: EventLog) -> None:
    for name in ("a", "b", "c"):
        await log.create(first(name, creation=f"key-{name}", run=f"run-{name}"), f"log-{name}", OWNER)
        await log.append(Append(name, 2, 1, (row([3], owner="piece"),)))
        await log.keep(name, "ref", "kept")
    await log.delete("a", 100)
    await log.delete("b", 200)
    assert (await log.deleted(100), await log.deleted(200), await log.deleted(201)) == ([], ["a"], ["a", "b"])
    assert await log.purge(100) == []
    assert await log.purge(200) == ["a"]
    assert await log.deleted(200) == []
    assert await log.find_run("run-a") is None
    for call in (log.head("a"), log.read("a", 0, 10), log.kept("a", "ref"), log.append(Append("a", 3, 1, (row([4]),)))):
        with pytest.raises(KeyError):
            await call
    assert await whole(log, "b") == [1, 2, 3]
    assert await log.restore("b", 0)
    await log.create(first("a", creation="key-a"), "log-new", OWNER)
    assert await log.kept("a", "ref") is None
    assert await whole(log, "a") == [1, 2]
    assert await log.kept("c", "ref") == "kept"


async def test_purging_beside_appends_leaves_no_orphans(log: EventLog) -> None:
    await make(log)
    await log.delete("c", 1)
    outcomes = await asyncio.gather(
        log.purge(10), log.append(Append("c", 2, 1, (row([3], owner="a"),))), return_exceptions=True
    )
    assert outcomes[0] == ["c"]
    assert isinstance(outcomes[1], KeyError)
    await make(log, last=1)
    assert await whole(log) == [1]


# --- kept texts


async def test_kept_texts_are_kept_by_reference(log: EventLog) -> None:
    await make(log, "c")
    await make(log, "d")
    await log.keep("c", "ref", "x" * 100_000)
    await log.keep("c", "ref", "y\n\u00e9\U0001f600" * 50_000)
    assert await log.kept("c", "ref") == "y\n\u00e9\U0001f600" * 50_000
    assert await log.kept("c", "other") is None
    assert await log.kept("d", "ref") is None
    await log.keep("c", "a/b", "")
    assert (await log.kept_refs("c"), await log.kept_refs("d")) == (["a/b", "ref"], [])


async def test_a_log_may_start_with_kept_texts(log: EventLog) -> None:
    """They are there as soon as the log is; the same again stores nothing twice, and a refused one nothing."""
    append = replace(first("c", creation="key"), kept=(("r/k1", "whole"), ("r/k2", "\u00e9" * 70_000)))
    await log.create(append, "log-c", OWNER)
    await log.create(append, "log-c", OWNER)
    assert await log.kept_refs("c") == ["r/k1", "r/k2"] and await log.kept("c", "r/k1") == "whole"
    with pytest.raises(AlreadyCreated):
        await log.create(replace(first("d", creation="key"), kept=(("r/k3", "x"),)), "log-d", OWNER)
    assert await log.kept_refs("c") == ["r/k1", "r/k2"]


async def test_a_log_in_order_is_writable(log: EventLog) -> None:
    assert await log.writable()
