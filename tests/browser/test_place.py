"""Where the person is: at the end of what is written, or at what has the focus. The page keeps both where they were."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.acceptance.harness import Server, eventually
from tests.acceptance.stub import Story, Use, say, use

from .conftest import OpenTab
from .tab import Tab

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

ROW = f"| {' | '.join(['a cell of words'] * 15)} |\n"
TABLE = ROW + "|---" * 15 + "|\n" + ROW * 5
RESERVE = Use("reserve", {"place": "Da Enzo", "people": 4})
RESERVE_AGAIN = Use("reserve", {"place": "Da Enzo", "people": 5})
FROM_END = "({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight"


async def stands_at_the_end(tab: Tab) -> None:
    """Once everything is laid out and every scroll event is through."""
    await tab.transcript()
    await tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert await tab.find("#scroll").evaluate(FROM_END) < 2
    await expect(tab.find("#latest")).to_be_hidden()


async def test_the_end_is_kept_when_a_block_grows_late(server: Server, story: Story, open_tab: OpenTab) -> None:
    """A table is rendered after its text came, and taller; so is one in the middle of an answer."""
    tab = await open_tab(server.url, viewport={"width": 1280, "height": 600})
    for text in (TABLE, f"{TABLE}\n\n{TABLE}\n\nAnd so on."):
        story.then(say(text))
        await tab.say(story.says("A table"))
        await tab.ended(times=1 if text == TABLE else 2)
        await stands_at_the_end(tab)


async def test_the_end_is_kept_when_the_composer_grows(server: Server, story: Story, open_tab: OpenTab) -> None:
    """A stop gives the words back, in their order: the composer takes room from the transcript's end."""
    tab = await open_tab(server.url, viewport={"width": 1280, "height": 500})
    await tab.say(story.says("Sing"))
    call = await story.call()
    await call.text("La la la\n\n" * 12)
    await tab.shows(".reply", "La la la")
    for hint in ("In tune", "And\nin\nseveral\nlines"):
        await tab.page.fill("#words", hint)
        await tab.page.press("#words", "Enter")
    await tab.shows(".words[data-state=waiting]", times=2)
    await tab.click("#stop")
    await tab.ended("cancelled")
    await expect(tab.find("#words")).to_have_value("In tune\n\nAnd\nin\nseveral\nlines")
    await stands_at_the_end(tab)


GROW = """() => {
  const [scroll, transcript] = ['scroll', 'transcript'].map((id) => document.getElementById(id));
  const add = (height) => {
    const block = document.createElement('div');
    block.style.blockSize = `${height}px`;
    transcript.append(block);
  };
  add(700);
  scroll.scrollTop = scroll.scrollHeight;
  add(700);
}"""
"""The page has gone to the end; before its scroll event comes, there is more."""


async def test_the_end_is_kept_when_something_grows_under_way(server: Server, story: Story, open_tab: OpenTab) -> None:
    story.then(say("Hello."))
    tab = await open_tab(server.url, viewport={"width": 1280, "height": 500})
    await tab.say(story.says("Hello"))
    await tab.ended()
    await stands_at_the_end(tab)
    await tab.evaluate(GROW)
    await stands_at_the_end(tab)


async def has_focus(tab: Tab, selector: str) -> None:
    await expect(tab.find(f"{selector}:focus")).to_have_count(1)


async def test_the_focus_goes_on_to_the_next_decision(server: Server, story: Story, open_tab: OpenTab) -> None:
    """Approve, then deny: to the decision that is still open, then to the composer."""
    story.then(use(RESERVE, RESERVE_AGAIN), say("One of two."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Reserve"))
    await tab.shows(".decision button:enabled", "Approve", times=2)
    await tab.find(".decision button", "Approve").first.press("Enter")
    await tab.shows(".decision", times=1)
    await has_focus(tab, ".decision")
    await tab.shows(".decision button:enabled", "Deny")
    await tab.find(".decision button", "Deny").press("Enter")
    await has_focus(tab, ".decision input")
    await tab.page.keyboard.type("One will do")
    await tab.page.keyboard.press("Enter")
    await tab.ended()
    await has_focus(tab, "#words")
    assert "One will do" in list(story.calls[-1].results.values())[1]


async def test_the_next_decision_is_armed_anew(server: Server, story: Story, open_tab: OpenTab) -> None:
    """FAULTS security-approve: the focus brings a decision under the keys, and a key pressed twice decides once."""
    story.then(use(RESERVE, RESERVE_AGAIN))
    tab = await open_tab(server.url)
    await tab.say(story.says("Reserve"))
    await tab.shows(".decision button:enabled", "Approve", times=2)
    await tab.evaluate(
        """() => document.addEventListener('focusin', ({ target }) => {
          if (target.matches('.decision')) globalThis.armed = Boolean(target.querySelector('.primary:enabled'));
        })"""
    )
    await tab.click(".decision button", "Approve")
    await tab.shows(".decision", times=1)
    await has_focus(tab, ".decision")
    assert await tab.evaluate("globalThis.armed") is False
    await tab.shows(".decision button:enabled", "Approve")
    await tab.click("#stop")
    await tab.ended("cancelled")


async def test_the_focus_moves_nothing(server: Server, story: Story, open_tab: OpenTab) -> None:
    """The next decision is out of sight, and so it stays until somebody asks for it."""
    story.then(use(RESERVE, RESERVE_AGAIN))
    tab = await open_tab(server.url, viewport={"width": 1280, "height": 420})
    await tab.say(story.says("Reserve"))
    await tab.shows(".decision", times=2)
    await eventually(lambda: tab.find("#scroll").evaluate("(scroll) => scroll.scrollTop"), "the page at its end")
    await tab.evaluate("document.getElementById('scroll').scrollTop = 0")
    await tab.shows("#latest")
    await expect(tab.find(".decision button", "Approve").first).to_be_enabled()
    await tab.find(".decision button", "Approve").first.evaluate("(button) => button.click()")
    await tab.shows(".decision", times=1)
    await has_focus(tab, ".decision")
    assert await tab.evaluate("document.getElementById('scroll').scrollTop") == 0
    await tab.click("#look")
    await expect(tab.find(".decision")).to_be_in_viewport()
    await tab.click("#stop")
    await tab.ended("cancelled")


async def test_the_focus_goes_to_the_composer_after_stop(server: Server, story: Story, open_tab: OpenTab) -> None:
    tab = await open_tab(server.url)
    await tab.say(story.says("Sing"))
    call = await story.call()
    await call.text("La la la")
    await tab.shows(".reply", "La la la")
    await tab.page.keyboard.press("Escape")
    await has_focus(tab, "#stop")
    await tab.page.keyboard.press("Enter")
    await tab.ended("cancelled")
    await has_focus(tab, "#words")


async def test_no_keyboard_comes_up_by_itself(server: Server, story: Story, open_tab: OpenTab) -> None:
    """Where one points with a finger, a focus in the composer would cover half of the page."""
    story.then(use(RESERVE), say("Done."))
    tab = await open_tab(server.url, has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800})
    await tab.say(story.says("Reserve"))
    await tab.find(".decision button", "Approve").tap()
    await tab.ended()
    await has_focus(tab, "#scroll")


async def test_the_focus_of_who_is_elsewhere_is_left_alone(server: Server, story: Story, open_tab: OpenTab) -> None:
    """Another tab decides, while this one writes."""
    story.then(use(RESERVE), say("Done."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Reserve"))
    await tab.shows(".decision")
    other = await open_tab(tab.page.url)
    await tab.page.focus("#search")
    await other.click(".decision button", "Approve")
    await tab.ended()
    await has_focus(tab, "#search")
