"""The page by keyboard (UX.md row 22): a list of keys, from message to message, and a decision with one letter."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.acceptance.harness import Server
from tests.acceptance.stub import Story, Use, say, use

from .conftest import OpenTab
from .tab import Tab

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

RESERVE = Use("reserve", {"place": "Da Enzo", "people": 4})
LONG = "It goes on. " * 400


async def leave_the_composer(tab: Tab) -> None:
    await tab.page.focus("#scroll")


async def test_a_question_mark_lists_the_keys(server: Server, open_tab: OpenTab) -> None:
    """And Escape, or the button, leads back to where one was; a question that is written is a question."""
    tab = await open_tab(server.url)
    await tab.page.focus("#words")
    await tab.page.keyboard.type("jk?")
    assert await tab.page.input_value("#words") == "jk?"
    await expect(tab.find("#keys")).to_be_hidden()
    await tab.page.fill("#words", "")
    await leave_the_composer(tab)
    await tab.page.keyboard.press("?")
    await tab.shows("#keys dt", "Esc")
    await tab.page.keyboard.press("Escape")
    await expect(tab.find("#keys")).to_be_hidden()
    await expect(tab.find("#scroll")).to_be_focused()
    await tab.click("#keys-open")
    await tab.click("#keys button", "Close")
    await expect(tab.find("#keys")).to_be_hidden()


async def test_from_message_to_message(server: Server, story: Story, open_tab: OpenTab) -> None:
    story.then(say(f"First. {LONG}"), say(f"Second. {LONG}"))
    tab = await open_tab(server.url)
    for times in (1, 2):
        await tab.say(story.says(f"Question {times}"))
        await tab.ended(times=times)
    await tab.transcript()
    await leave_the_composer(tab)
    for key, text in [
        ("k", "Done"),
        ("k", "Second."),
        ("k", "Question 2"),
        ("k", "Done"),
        ("k", "First."),
        ("j", "Done"),
    ]:
        await tab.page.keyboard.press(key)
        await expect(tab.find("#transcript > :focus")).to_contain_text(text.removeprefix("back to: "))
        await expect(tab.find("#transcript > :focus")).to_be_in_viewport()


async def test_one_letter_decides_where_the_focus_is(server: Server, story: Story, open_tab: OpenTab) -> None:
    """`a` approves and `r` denies the approval that has the focus; nowhere else, and not in what one writes."""
    story.then(use(RESERVE), use(Use("reserve", {"place": "Nowhere", "people": 4})), say("As you wish."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Reserve"))
    await tab.shows(".decision button:enabled", "Approve")
    await leave_the_composer(tab)
    await tab.page.keyboard.press("a")
    await tab.page.keyboard.press("r")
    await tab.click(".decision button", "Edit arguments")
    await tab.page.keyboard.type("ar")
    await tab.click(".decision button", "Back")
    await tab.page.keyboard.press("Control+a")
    await tab.shows(".decision button:enabled", "Approve")
    await tab.click("#look")
    await tab.shows(".decision button:enabled", "Approve")
    await tab.page.keyboard.press("a")
    await tab.shows(".call[data-look=returned]", "Approved by you")
    await tab.shows(".decision button:enabled", "Approve")
    await tab.click("#look")
    await tab.shows(".decision button:enabled", "Deny")
    await tab.page.keyboard.press("r")
    await expect(tab.find(".decision input[type=text]")).to_be_focused()
    await tab.page.keyboard.type("a far reach")
    await tab.page.keyboard.press("Enter")
    await tab.ended()
    assert "a far reach" in list(story.calls[-1].results.values())[-1]
    assert "Nowhere" not in server.ledger_file.read_text()


async def test_the_keys_lead_to_a_decision(server: Server, story: Story, open_tab: OpenTab) -> None:
    story.then(use(RESERVE), say("Done."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Reserve"))
    await tab.shows(".decision button:enabled", "Approve")
    await leave_the_composer(tab)
    await tab.page.keyboard.press("k")
    await expect(tab.find(".decision")).to_be_focused()
    await tab.page.keyboard.press("a")
    await tab.ended()
