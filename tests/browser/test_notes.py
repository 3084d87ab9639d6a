"""Notes and compaction on the page: a quiet panel, live, by kind, safe; a line that unfolds. SEMANTICS.md §7, §8."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import expect

from tests.acceptance.harness import Server, fresh
from tests.acceptance.stub import Story, say

from .conftest import OpenTab, Scripted
from .test_manners import CONTRAST
from .wire import Json, Line, prompt

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

AT = 1_763_683_200_000
HOSTILE = "<img src=x onerror=alert(1)> **not bold** \u202eturned"


def saved(seq: int, kind: str, text: str, **fields: Any) -> Json:
    return {"seq": seq, "at": AT, "type": "note.saved", "note": f"n{seq}", "kind": kind, "text": text, **fields}


def story_of_notes(line: Line) -> None:
    """A conversation with a note of every kind, a checkpoint, and a compaction."""
    done = {"task": "Find places", "result": "Three found", "next": "Compare them", "run": "r", "call": "k1"}
    compacted = {"from": 1, "to": 2, "before": 41_000, "after": 9_000, "summary": "They want <b>dinner</b>."}
    events: list[Json] = [
        prompt(1, "Order dinner"),
        saved(2, "progress", "Done: Find places\nResult: Three found\nNext: Compare them", **done),
        saved(3, "knowledge", HOSTILE, run="r", call="k2"),
        saved(4, "environment", "out.txt was written"),
        saved(5, "decision", "Da Enzo, because it is near " + "x" * 300, by="bea"),
        {"seq": 6, "at": AT, "type": "context.compacted", **compacted},
        {"seq": 7, "at": AT, "type": "context.compacted", **{**compacted, "summary": ""}},
    ]
    line.attach(head=7)
    line.events(0, 7, *events)
    line.say("live", through=7)


async def test_a_note_appears_in_every_tab_at_once(server: Server, story: Story, open_tab: OpenTab) -> None:
    """No button before there is a note; then it counts, and an open panel grows."""
    story.then(say("Here."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Hello"))
    await tab.ended()
    other = await open_tab(tab.page.url)
    await other.ended()
    await expect(tab.find("#notes-open")).to_be_hidden()
    conversation = tab.page.url.rpartition("/")[2]
    text = fresh("because")
    assert (await server.command(conversation, "note", kind="decision", text=text)).status_code == 202
    await tab.shows(".line", f"Note (decision): {text}")
    for one in (tab, other):
        await expect(one.find("#notes-open")).to_have_text("1 note")
        await one.click("#notes-open")
        await one.shows("#notes li", text)
    await server.command(conversation, "note", kind="knowledge", text="8080 is taken")
    for one in (tab, other):
        await one.shows("#notes section h3", "Knowledge")
        await expect(one.find("#notes-open")).to_have_text("2 notes")
    assert await tab.find("#notes").inner_text() == await other.find("#notes").inner_text()
    await tab.page.keyboard.press("Escape")
    await expect(tab.find("#notes")).to_be_hidden()
    await tab.click("#new")
    await expect(tab.find("#notes-open")).to_be_hidden()


async def test_every_kind_in_its_place_and_as_text(scripted: Scripted) -> None:
    """003-12, 003-13, 003-14, 003-15 on the page: done, now, learned, changed, decided; nothing in a note is markup."""
    tab, wire = await scripted()
    story_of_notes(await wire.line())
    await tab.click("#notes-open", "4 notes")
    assert await tab.find("#notes h3").all_inner_texts() == ["Progress", "Knowledge", "Environment", "Decisions"]
    await tab.shows("#notes .now", "Now: Compare them")
    await tab.shows("#notes li", "✓ Find places\nThree found")
    await tab.shows("#notes li", "<img src=x onerror=alert(1)> **not bold** ⟦U+202E⟧turned")
    await tab.shows("#notes li .meta", "bea")
    assert await tab.find("#notes img, #notes strong, .line img").count() == 0
    lines = await tab.find(".line").all_inner_texts()
    assert max(len(line) for line in lines) < 200, "a long note is told in brief; the panel has all of it"
    assert "\u202e" not in "".join(lines)


async def test_a_compaction_is_a_quiet_line_that_unfolds(scripted: Scripted) -> None:
    tab, wire = await scripted()
    story_of_notes(await wire.line())
    await tab.shows(".line", "Context compacted: 41,000 → 9,000 tokens", times=2)
    await expect(tab.find(".line details .plain")).to_be_hidden()
    await tab.click(".line details summary")
    await tab.shows(".line details .plain", "They want <b>dinner</b>.", times=1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
async def test_the_panel_fits_and_can_be_read(scripted: Scripted, scheme: Any, width: int) -> None:
    """WCAG AA contrast in both themes; nothing beyond the edge, and the panel scrolls by keyboard."""
    tab, wire = await scripted()
    await tab.page.emulate_media(color_scheme=scheme)
    await tab.page.set_viewport_size({"width": width, "height": 480})
    story_of_notes(await wire.line())
    await tab.click(".line details summary")
    await tab.click("#notes-open")
    await tab.shows("#notes li", "Da Enzo")
    assert await tab.evaluate(CONTRAST) == []
    box = await tab.find("#notes").bounding_box()
    assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= 480
    assert await tab.evaluate("document.documentElement.scrollWidth") <= width
    sideways = "({ scrollWidth, clientWidth }) => scrollWidth - clientWidth"
    assert await tab.find("#notes").evaluate(sideways) == 0
    await tab.page.focus("#notes")
    await tab.page.keyboard.press("End")
    await expect(tab.find("#notes li", "Da Enzo")).to_be_in_viewport()
