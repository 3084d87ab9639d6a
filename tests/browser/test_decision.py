"""A person's decisions: with other arguments, with a no, for always, and never by accident."""

from __future__ import annotations

import json
import re

import pytest
from playwright.async_api import expect

from tests.acceptance.harness import Server
from tests.acceptance.stub import Story, Use, say, use

from .conftest import OpenTab

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

RESERVE = Use("reserve", {"place": "Da Enzo", "people": 4})
RESERVE_AGAIN = Use("reserve", {"place": "Da Enzo", "people": 5})


def ledger(server: Server) -> str:
    return server.ledger_file.read_text()


async def test_other_arguments_are_what_runs(server: Server, story: Story, open_tab: OpenTab) -> None:
    """No JSON, no object and the wrong type are refused with words; the rest runs exactly as edited."""
    story.then(use(RESERVE), say("Done."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Reserve"))
    await tab.click(".decision button", "Edit arguments")
    for wrong in ("{", "[1]"):
        await tab.page.fill(".editor", wrong)
        await tab.click(".decision button", "Approve these")
        await tab.shows(".decision .problem", "not what the tool can take")
    await tab.page.fill(".editor", json.dumps({"place": "Il Corvo", "people": "many"}))
    await tab.click(".decision button", "Approve these")
    await tab.shows(".decision .problem", re.compile("^This is not what the tool can take.*people"))
    await expect(tab.find(".editor")).to_be_focused()
    await expect(tab.find(".editor")).to_have_value(re.compile("many"))
    await tab.shows(".toast", times=0)
    await tab.page.fill(".editor", json.dumps({"place": "Corvo", "people": 12345678901234567890}).replace(" ", ""))
    await tab.click(".decision button", "Approve these")
    await tab.ended()
    await tab.shows(".call .state", "Approved with changed arguments by you")
    await tab.click(".call summary")
    await tab.shows(".call .result", "a table at Corvo for 12345678901234567890")
    assert "reserve begin Corvo" in ledger(server)


async def test_no_is_told_with_its_reason(server: Server, story: Story, open_tab: OpenTab) -> None:
    story.then(use(Use("reserve", {"place": "Nowhere", "people": 4})), say("Understood."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Reserve"))
    await tab.click(".decision button", "Deny")
    await tab.page.fill(".decision input[type=text]", "Too far")
    await tab.click(".decision button", "Deny")
    await tab.ended()
    await tab.shows(".call[data-look=denied] .state", "Denied")
    assert "Too far" in next(iter(story.calls[-1].results.values()))
    assert "Nowhere" not in ledger(server)


async def test_always_is_shown_and_can_be_taken_back(server: Server, story: Story, open_tab: OpenTab) -> None:
    story.then(use(RESERVE), use(RESERVE_AGAIN), say("Twice."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Reserve"))
    await tab.page.check(".decision .always input")
    await tab.click(".decision button", "Approve")
    await tab.ended()
    await tab.shows(".call[data-look=returned]", times=2)
    await tab.click("#allowed button", "Revoke")
    await tab.shows(".line", "reserve needs approval again")
    await tab.shows("#allowed li", times=0)


async def test_nothing_is_decided_by_a_click_meant_for_something_else(
    server: Server, story: Story, open_tab: OpenTab
) -> None:
    """FAULTS security-approve: the buttons come disarmed, stay so for half a second, and have no focus.

    What is shown is exactly what would run, also what hides.
    """
    story.then(use(Use("reserve", {"place": "Da Enzo\u202e\u200b", "people": 4})))
    tab = await open_tab(server.url)
    await tab.evaluate(
        """() => new MutationObserver((changes) => {
          for (const { addedNodes, target } of changes) {
            for (const node of addedNodes) for (const button of node.querySelectorAll?.('.decision .primary') ?? []) {
              globalThis.armed ??= !button.disabled;
              globalThis.came ??= performance.now();
            }
            if (target.matches('.decision .primary:enabled')) globalThis.ready ??= performance.now();
          }
        }).observe(document.body, { childList: true, subtree: true, attributeFilter: ['disabled'] })"""
    )
    await tab.say(story.says("Reserve"))
    await tab.shows(".decision button:enabled", "Approve")
    assert await tab.evaluate("globalThis.armed") is False
    assert await tab.evaluate("globalThis.ready - globalThis.came") >= 490, "half a second, less the clock's grain"
    assert await tab.evaluate("document.activeElement.id") == "words"
    await tab.shows(".decision dd", "Da Enzo⟦U+202E⟧⟦U+200B⟧")
    await tab.click("#stop")
    await tab.ended("cancelled")
