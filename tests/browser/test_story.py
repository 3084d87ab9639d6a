"""The main job in a browser: start, watch, leave, come back, decide."""

from __future__ import annotations

import pytest

from tests.acceptance.harness import Server
from tests.acceptance.stub import Story, Use, say, use

from .conftest import OpenTab

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types holdfast"
)


async def test_dinner_from_the_first_word_to_the_reservation(demo: Server, open_tab: OpenTab) -> None:
    """The embedded model, as a new user meets it: one click, three tools at once, one approval, done."""
    tab = await open_tab(demo.url)
    assert (await demo.http.get("/")).headers["content-security-policy"] == CSP
    await tab.click("#example")
    await tab.shows(".decision h2", "reserve")
    await tab.shows("#strip[data-status=waiting]", "Waiting for you")
    await tab.shows("#list a[data-status=waiting]", "Needs you")
    assert (await tab.page.title()).startswith("(1) Can you order dinner?")
    await tab.click(".decision button", "Approve")
    await tab.ended()
    await tab.shows(".call[data-look=returned]", times=5)
    await tab.shows(".call", "Approved by you", times=1)
    await tab.shows(".rendered strong", "Kissaten Moon")
    await tab.shows("#list a[data-status=idle]")
    await tab.shows("#strip", times=1)
    assert await tab.find("#strip").is_hidden()


async def test_a_reload_in_the_middle_loses_nothing(server: Server, story: Story, open_tab: OpenTab) -> None:
    """FAULTS 56: the tab that saw it all, the one that was reloaded, and one that comes later show the very same."""
    witness = await open_tab(server.url)
    await witness.say(story.says("Tell me about the sea"))
    call = await story.call()
    await call.reasoning("The sea, then.")
    await call.text("# The sea\n\nIt is *cal")
    await witness.shows(".reply", "It is *cal")
    reloaded = await open_tab(witness.page.url)
    await reloaded.shows(".reply", "It is *cal")
    await call.text("m*.")
    await reloaded.shows(".reply", "It is *calm*.")
    await reloaded.reload()
    await reloaded.shows(".reply", "It is *calm*.")
    await call.use(Use("tick", {"number": 1}))
    await call.end("tool_calls")
    call = await story.call()
    await reloaded.reload()
    await call.text("And that is all.\n\n- one\n- two")
    await call.end()
    for tab in (witness, reloaded):
        await tab.ended()
    later = await open_tab(witness.page.url)
    await later.ended()
    seen = [await tab.transcript() for tab in (witness, reloaded, later)]
    assert seen[0] == seen[1] == seen[2]
    await later.shows(".rendered em", "calm")
    await later.shows(".rendered li", "two")


async def test_two_tabs_are_one_conversation(server: Server, story: Story, open_tab: OpenTab) -> None:
    """FAULTS 33: what one says or decides, the other shows; nobody decides twice."""
    story.then(use(Use("reserve", {"place": "Da Enzo", "people": 4}), text="May I?"), say("Reserved."))
    first = await open_tab(server.url)
    await first.say(story.says("Reserve"))
    await first.shows(".decision")
    second = await open_tab(first.page.url)
    await second.shows(".decision")
    await second.say("By the window")
    await first.shows(".words[data-kind=hint] .bubble", "By the window")
    await second.click(".decision button", "Approve")
    for tab in (first, second):
        await tab.ended()
        await tab.shows(".decision", times=0)
        await tab.shows(".words[data-kind=hint]", "given at step 2")
    assert await first.transcript() == await second.transcript()


async def test_close_the_tab_and_come_back_to_the_end(server: Server, story: Story, open_tab: OpenTab) -> None:
    """Nobody watches; the work goes on; the list leads back to it."""
    tab = await open_tab(server.url)
    await tab.say(story.says("Work"))
    call = await story.call()
    await call.text("Wor")
    await tab.shows(".reply", "Wor")
    await tab.page.goto("about:blank")
    await call.text("king on my own.")
    await call.end()
    await tab.page.goto(server.url)
    await tab.click("#list a", "Work")
    await tab.ended()
    await tab.shows(".rendered p", "Working on my own.")
