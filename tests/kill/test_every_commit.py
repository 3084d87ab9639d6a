"""A real server is killed at every commit of the reference run, before and after it, and at every await of it.

Commits and the statements of migrations are enumerated, not sampled. Of the awaits the first and the middle passing of
each place in app/ are candidates, of which a fixed subset is tried; each passing of each place with
`--kills-everywhere` (a quarter of an hour).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.harness import Server
from tests.acceptance.stub import Stub

from .reference import AT_ONCE, die_at, die_at_each

COMMITS_MAX = 200
"""A reference run has fewer; the count ends when one life reaches the end of the run."""

PLACES = 12
"""How many awaits are tried without `--kills-everywhere`."""


async def every_commit(home: Path, when: str) -> int:
    """How many commits there were to die at."""
    stub = await Stub().start()
    try:
        for number in range(1, COMMITS_MAX):
            if not await die_at(home / str(number), stub, str(number), when):
                return number - 1
    finally:
        await stub.close()
    raise AssertionError("the reference run never ends")


async def awaits(home: Path) -> Counter[str]:
    """The places in app/ where the reference run goes on after an await, and how often it does."""
    passed = home / "awaits"
    assert await die_at_each(home / "unharmed", [(str(passed), "awaits")]) == 0
    return Counter(passed.read_text().splitlines())


async def every_await(home: Path, everywhere: bool) -> tuple[int, int, int]:
    """Deaths, tries, and how many times there are in all. Which of them a run comes to differs a little."""
    passed = await awaits(home)
    every = [(place, str(time)) for place in sorted(passed) for time in range(1, passed[place] + 1)]
    # The first and the middle time at each place, then evenly: the same choice as long as the code is the same.
    chosen = [(place, str(time)) for place, n in sorted(passed.items()) for time in sorted({1, (n + 1) // 2})]
    places = every if everywhere else [chosen[len(chosen) * number // PLACES] for number in range(PLACES)]
    return await die_at_each(home, places), len(places), len(every)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_at_every_commit(tmp_path: Path, when: str) -> None:
    """P1-P6, FAULTS 1, 2, 3, 4, 5, 7, 8, 9, 10: nothing seen is lost, the `never` tool began once, the run completes.

    `before` is inside the transaction, that of the flush too.
    """
    commits = await every_commit(tmp_path, when)
    print(f"killed {when} each of {commits} commits of the reference run")
    assert commits > 10, "the reference run has many commits"


@pytest.mark.timeout(3_600)
async def test_killed_at_awaits(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """P1-P6, FAULTS 1, 2, 3, 4, 5, 7, 8, 9: the process is gone in the very moment in which a task would go on."""
    deaths, tries, times = await every_await(tmp_path, request.config.getoption("--kills-everywhere"))
    print(f"killed at {deaths} of {tries} awaits; the reference run has {times}")
    assert tries >= PLACES and deaths >= 0.8 * tries


@pytest.mark.timeout(300)
async def test_killed_at_every_statement_of_the_migrations(tmp_path: Path) -> None:
    """FAULTS 11: a first start that dies there leaves a step whole or not at all; the next start completes it."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def die_before(statement: int) -> bool:
        server = Server(tmp_path / str(statement), "http://127.0.0.1:9/v1")
        server.program = ("-m", "tests.kill.dies_at", str(statement), "migrating")
        async with gate:
            try:
                await server.start(ready=False)
                died = await server.exited() == -9
                [(version,)], tables = server.sql("PRAGMA user_version"), server.sql("SELECT name FROM sqlite_schema")
                made = [name for (name,) in tables if "migrations" not in name]
                assert bool(made) == (version > 0), (version, made)
                server.program = ("-m", "app")
                await server.start()
                assert (await server.create())["conversation"]
            finally:
                await server.close()
        return died

    assert all(await asyncio.gather(*(die_before(number) for number in range(1, 27))))
