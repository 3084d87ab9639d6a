"""The page's fold against core's: the same records give the same state, whole or cut anywhere, with or without what is
superseded. `static/fold.js` itself runs in Chromium; the logs are lives of a conversation that core decided."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route

from app.actor.summary import notes_of
from app.core.apply import apply
from app.core.codec import decode, encode
from app.core.events import Event
from app.core.state import State
from app.wire.frames import standing
from tests.acceptance.harness import ROOT
from tests.acceptance.history import Record, surviving

from .worlds import live

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

LIVES = 60
MOVES = 120


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page that can import the client's modules, with no server behind it."""

    async def from_disk(route: Route) -> None:
        path = route.request.url.removeprefix("http://holdfast.test/")
        if path.endswith(".js"):
            await route.fulfill(path=ROOT / path, content_type="text/javascript")
        else:
            await route.fulfill(body="<!doctype html>", content_type="text/html")

    context = await browser.new_context()
    tab = await context.new_page()
    await tab.route("http://holdfast.test/**", from_disk)
    await tab.goto("http://holdfast.test/")
    yield tab
    await context.close()


async def ask(page: Page, question: str, argument: Any) -> Any:
    """Calls a function of fold_probe.js."""
    probe = "async ([name, argument]) => (await import('/tests/browser/fold_probe.js'))[name](argument)"
    return await page.evaluate(probe, [question, argument])


def builtins(event: Event) -> dict[str, Any]:
    return dict(json.loads(encode(event)))


def projections(log: list[Event]) -> list[Any]:
    """What `attached` would say after each event, and the `notes{}` of the conversation."""
    state, said = State(), []
    for event in log:
        apply(state, decode(encode(event)))
        now = standing(state, "L")
        fields = ("status", "agent", "title", "run", "approvals", "queued")
        told = {**{name: getattr(now, name) for name in fields}, "notes": notes_of(state)}
        said.append(json.loads(msgspec.json.encode(told)))
    return said


def lasting(log: list[Event]) -> list[dict[str, Any]]:
    """What a fresh replay of the whole log shows."""
    records = [Record(event.seq, "", builtins(event)) for event in log]
    return [record.event for record in surviving(records)]


async def test_at_every_event_the_page_knows_what_attached_would_say(page: Page) -> None:
    logs = [live(seed, MOVES) for seed in range(LIVES)]
    seen = await ask(page, "projections", [[builtins(event) for event in log] for log in logs])
    for seed, (log, texts) in enumerate(zip(logs, seen, strict=True)):
        for event, expected, text in zip(log, projections(log), texts, strict=True):
            assert json.loads(text) == expected, f"life {seed}, after {event}"


async def test_at_every_event_the_page_knows_what_the_run_has_used(page: Page) -> None:
    """003-8: tokens and money of all attempts, interrupted ones too."""
    logs = [live(seed, MOVES) for seed in range(LIVES)]
    seen = await ask(page, "usages", [[builtins(event) for event in log] for log in logs])
    for seed, (log, figures) in enumerate(zip(logs, seen, strict=True)):
        state = State()
        for event, shown in zip(log, figures, strict=True):
            apply(state, decode(encode(event)))
            used = state.run.usage if state.run else None
            assert shown == (used and [used.input, used.output, used.cost]), f"life {seed}, after {event}"


async def test_a_reader_that_comes_back_anywhere_ends_with_what_a_new_one_sees(page: Page) -> None:
    """FAULTS 56."""
    logs = [live(seed, MOVES) for seed in range(LIVES)]
    told = [{"events": [builtins(event) for event in log], "lasting": lasting(log)} for log in logs]
    assert await ask(page, "divergences", told) == []


async def test_whatever_changes_says_so_and_no_item_is_there_twice(page: Page) -> None:
    logs = [live(seed, MOVES) for seed in range(LIVES)]
    assert await ask(page, "silentChanges", [[builtins(event) for event in log] for log in logs]) == []


async def test_an_event_of_a_newer_version_is_a_line_and_the_fold_goes_on(page: Page) -> None:
    """FAULTS 47, 57: also one that is called like what every object of JavaScript has."""
    log = [builtins(event) for event in live(1, 20)]
    log.insert(5, {"seq": 5, "at": 1, "type": "constructor"})
    log.insert(9, {"seq": 9, "at": 1, "type": "future.thing", "path": ["nobody"], "run": "r"})
    lines = await ask(page, "unknown", log)
    assert {"constructor", "future.thing"} <= set(lines)
