"""How the page behaves towards the person: it does not jump, does not chatter, can be read, and fits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.acceptance.harness import Server, eventually
from tests.acceptance.stub import Story, Use, say, use

from .conftest import OpenTab
from .tab import Tab

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

CONTRAST = (Path(__file__).parent / "contrast_probe.js").read_text()
LONG = "\n\n".join(f"Paragraph {number}. " + "It goes on. " * 20 for number in range(30))
RESERVE = Use("reserve", {"place": "Da Enzo", "people": 4})


async def position(tab: Tab) -> int:
    return int(await tab.evaluate("document.getElementById('scroll').scrollTop"))


async def from_end(tab: Tab) -> int:
    left = "({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight"
    return int(await tab.find("#scroll").evaluate(left))


async def test_who_reads_is_not_moved(server: Server, story: Story, open_tab: OpenTab) -> None:
    """At the end, the page follows; anywhere else it stays, and a button says what is new."""
    tab = await open_tab(server.url)
    await tab.say(story.says("Talk"))
    call = await story.call()
    await call.text(LONG)
    await tab.shows(".reply", "Paragraph 29")
    await expect(tab.find("#latest")).to_be_hidden()
    assert await from_end(tab) < 60
    await tab.evaluate("document.getElementById('scroll').scrollTop = 300")
    await tab.shows("#latest", "Latest")
    await call.use(Use("tick", {"number": 1}), Use("tick", {"number": 2}))
    await call.end("tool_calls")
    call = await story.call()
    await call.text("And more. " * 200)
    await tab.shows("#latest", re.compile(r"\d new"))
    assert await position(tab) == 300
    await tab.click("#latest")
    await expect(tab.find("#latest")).to_be_hidden()
    await expect(tab.find("#scroll")).to_be_focused()
    await call.end()
    await tab.ended()
    assert await from_end(tab) < 60


async def test_it_speaks_at_boundaries_and_never_of_the_past(server: Server, story: Story, open_tab: OpenTab) -> None:
    story.then(use(RESERVE), say("One two three."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Reserve"))
    await expect(tab.find("#alert")).to_have_text("Your approval is needed for reserve.")
    await tab.click(".decision button", "Approve")
    await expect(tab.find("#status")).to_have_text("The answer is complete, 3 words.")
    later = await open_tab(tab.page.url)
    await later.ended()
    await later.connection("live")
    assert await later.find("#status").text_content() == await later.find("#alert").text_content() == ""
    assert await tab.find("#transcript").get_attribute("aria-live") == "off"


WATCH_NOTIFICATIONS = """
globalThis.notices = [];
globalThis.Notification = class {
  static permission = 'granted';
  constructor(title, { body }) { globalThis.notices.push(body); }
  addEventListener() {}
};
"""
COUNT_NOTICES = "navigator.locks.query().then(() => globalThis.notices.length)"
"""As late as a notification that is on its way: the page asks for the locks before it shows one."""

LOOK_AWAY = """() => {
  Object.defineProperty(document, 'hidden', { get: () => true });
  document.dispatchEvent(new Event('visibilitychange'));
}"""


async def test_who_is_away_is_called(server: Server, story: Story, open_tab: OpenTab) -> None:
    """FAULTS 53: a notification when a decision is needed and at the end; none while one looks, none of the past."""
    story.then(use(RESERVE), use(RESERVE), say("Done."))
    tab = await open_tab("about:blank")
    await tab.page.add_init_script(WATCH_NOTIFICATIONS)
    await tab.page.goto(server.url)
    await tab.say(story.says("Reserve"))
    await tab.shows("#list a[data-status=waiting]")
    await tab.shows(".decision")
    assert await tab.evaluate("globalThis.notices") == []
    await tab.evaluate(LOOK_AWAY)

    async def called(times: int) -> None:
        await eventually(lambda: tab.evaluate(f"globalThis.notices.length === {times}"), f"{times} notifications")

    await tab.click(".decision button", "Approve")
    await called(1)
    await tab.click(".decision button", "Approve")
    await called(2)
    assert await tab.evaluate("globalThis.notices") == ["Waiting for your decision", "Has ended"]
    conversation = tab.page.url.rpartition("/")[2]
    await server.command(conversation, "rename", title="Reserved since")
    await tab.shows("#list a", "Reserved since")
    assert await tab.evaluate(COUNT_NOTICES) == 2, "what changes after the end is no news"
    await tab.page.add_init_script(f"addEventListener('DOMContentLoaded', {LOOK_AWAY})")
    await tab.reload()
    await tab.shows("#list a", "Reserved since")
    await server.command(conversation, "rename", title="Reserved long since")
    await tab.shows("#list a", "Reserved long since")
    assert await tab.evaluate(COUNT_NOTICES) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everything_can_be_read(server: Server, story: Story, open_tab: OpenTab, scheme: str) -> None:
    """WCAG AA contrast in both themes, with a decision open, with things waiting, and at the end."""
    answer = "# A\n\nSome `code`, [a link](https://example.com).\n\n> quote\n\n```py\nx\n```\n\n|a|b|\n|-|-|\n|1|2|"
    story.then(use(Use("explode", {"kind": "value"}), RESERVE, text=answer), say("Done."))
    tab = await open_tab(server.url, color_scheme=scheme)
    await tab.say(story.says("Reserve"))
    await tab.shows(".decision button:enabled", "Approve")
    await tab.say("By the window")
    await tab.page.fill("#words", story.says("And then"))
    await tab.click("#later")
    await tab.shows("#queue li")
    await tab.transcript()
    assert await tab.evaluate(CONTRAST) == []
    await tab.click(".decision button", "Edit arguments")
    await tab.page.fill(".editor", "{")
    await tab.click(".decision button", "Approve these")
    assert await tab.evaluate(CONTRAST) == []
    await tab.click("#stop")
    await tab.ended("cancelled")
    await tab.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    assert await tab.evaluate(CONTRAST) == []


@pytest.mark.parametrize("width", [320, 360, 768, 1600])
async def test_it_fits(server: Server, story: Story, open_tab: OpenTab, width: int) -> None:
    """No sideways scrolling at any width, whatever is said."""
    wide = "x" * 300 + "\n\n```\n" + "y" * 300 + "\n```\n\n" + "|" + "|".join("abcdefghijkl") + "|\n" + "|-" * 12 + "|"
    story.then(use(Use("once", {"line": "z" * 300}), RESERVE, text=wide))
    tab = await open_tab(server.url, viewport={"width": width, "height": 740})
    await tab.say(story.says("w" * 300))
    await tab.shows(".decision")
    await tab.transcript()
    beyond = """() => [...document.querySelectorAll('main *')]
      .filter((e) => e.checkVisibility() && !e.closest('pre, table'))
      .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
      .map((e) => e.outerHTML.slice(0, 80))"""
    assert await tab.evaluate(beyond) == []
    assert await tab.evaluate("document.documentElement.scrollWidth") <= width
    await tab.click("#stop")
    await tab.ended("cancelled")


async def test_a_wide_table_scrolls_in_its_own_box(server: Server, story: Story, open_tab: OpenTab) -> None:
    """Its words stay whole."""
    row = f"|{'|'.join(['column'] * 15)}|\n"
    story.then(say(row + "|-" * 15 + "|\n" + row))
    tab = await open_tab(server.url, viewport={"width": 390, "height": 740})
    await tab.say(story.says("A table"))
    await tab.ended()
    await tab.shows(".rendered table")
    assert await tab.find(".rendered table").evaluate("(table) => table.scrollWidth > table.clientWidth")
    heights = await tab.find(".rendered th").evaluate_all("(cells) => cells.map((cell) => cell.clientHeight)")
    assert max(heights) < 50, "one line"
    assert await tab.evaluate("document.documentElement.scrollWidth") <= 390


async def test_a_narrow_page_by_keyboard(server: Server, story: Story, open_tab: OpenTab) -> None:
    """The side opens over the page, leads somewhere, and closes; nothing behind it can be reached meanwhile."""
    story.then(say("Here."))
    tab = await open_tab(server.url, viewport={"width": 360, "height": 740})
    await tab.say(story.says("Hello"))
    await tab.ended()
    assert await tab.find("#list a").first.is_hidden()
    await tab.page.keyboard.press("Control+k")
    await tab.shows("#list a", story.key)
    assert await tab.evaluate("document.activeElement.id") == "search"
    assert await tab.evaluate("document.querySelector('main').inert") is True
    await tab.page.keyboard.press("Escape")
    await expect(tab.find("#list a").first).to_be_hidden()
    await expect(tab.find("#menu")).to_be_focused()
    await tab.page.keyboard.press("Enter")
    await expect(tab.find("#new")).to_be_focused()
    await tab.click("#new")
    await tab.shows("#welcome")
    await expect(tab.find("#list a").first).to_be_hidden()


async def test_drafts_stay_with_their_conversation(server: Server, story: Story, open_tab: OpenTab) -> None:
    story.then(say("Here."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Hello"))
    await tab.ended()
    await tab.page.fill("#words", "not yet")
    await tab.click("#new")
    assert await tab.page.input_value("#words") == ""
    await tab.page.go_back()
    await tab.ended()
    assert await tab.page.input_value("#words") == "not yet"
    await tab.reload()
    assert await tab.page.input_value("#words") == "not yet"


async def test_an_input_method_is_let_finish(server: Server, story: Story, open_tab: OpenTab) -> None:
    """Enter that ends a composition sends nothing; Shift+Enter is a new line."""
    tab = await open_tab(server.url)
    await tab.page.fill("#words", "かんじ")
    composing = "new KeyboardEvent('keydown', { key: 'Enter', isComposing: true, bubbles: true, cancelable: true })"
    assert await tab.evaluate(f"document.getElementById('words').dispatchEvent({composing})") is True
    await tab.page.press("#words", "Shift+Enter")
    assert await tab.page.input_value("#words") == "かんじ\n"
    await tab.shows("#welcome")
