"""A real server that goes and comes: killed, restarted, not there yet. The page says so and recovers by itself."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import expect

from tests.acceptance.harness import Server
from tests.acceptance.stub import Story, Use, say, use

from .conftest import OpenTab

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]


async def test_kill_and_restart_in_the_middle(server: Server, story: Story, open_tab: OpenTab) -> None:
    """kill -9 while text streams: the page says so, keeps what is written, and recovers by itself without a reload."""
    tab = await open_tab(server.url)
    tab.server_may_go = True
    await tab.evaluate("globalThis.sameDocument = true")
    await tab.say(story.says("Tell me a story"))
    call = await story.call()
    await call.text("Once upon a")
    await tab.shows(".reply", "Once upon a")
    await server.kill()
    await tab.connection("offline")
    await tab.shows("#connection", re.compile(r"Offline, (retry in \d+ s|retrying…)"))
    await tab.shows("#composer-note", "will be sent")
    await tab.say("Make it short")
    await tab.shows(".words.unsent", "Will be sent when the connection is back")
    await server.start()
    await tab.connection("live")
    await tab.shows(".words.unsent", times=0)
    await tab.shows(".words[data-kind=hint]", "Make it short", times=1)
    call = await story.call()
    await call.text("It was night.")
    await call.end()
    story.then(say("The end."))
    await tab.ended()
    await tab.shows(".reply", "Once upon a", times=0)
    assert await tab.evaluate("globalThis.sameDocument")
    later = await open_tab(tab.page.url)
    await later.ended()
    assert await tab.transcript() == await later.transcript()


async def test_nobody_knows_whether_it_happened(server: Server, story: Story, open_tab: OpenTab) -> None:
    """A call that may not be repeated blindly was running when the process died: a person says what to do."""
    story.then(use(Use("ask", {"line": "a", "gate": "never"})))
    tab = await open_tab(server.url)
    tab.server_may_go = True
    await tab.say(story.says("Call them"))
    await tab.shows(".call[data-phase=running]")
    await server.restart()
    await tab.shows(".decision h2", "Did ask happen?")
    await tab.page.fill(".decision input", "They said yes")
    story.then(say("Good."))
    await tab.click(".decision button", "It was done")
    await tab.ended()
    await expect(tab.find("#words")).to_be_focused()
    await tab.shows(".call .state", "it was done")
    assert list(story.calls[-1].results.values()) == ["They said yes"]


async def test_a_restart_on_purpose_is_called_one(server: Server, story: Story, open_tab: OpenTab) -> None:
    tab = await open_tab(server.url)
    tab.server_may_go = True
    story.then(say("Here."))
    await tab.say(story.says("Are you there?"))
    await tab.ended()
    going = asyncio.create_task(server.terminate())  # the page says so for a second or two: look while it goes
    await tab.connection("restarting")
    await going
    await server.start()
    await tab.connection("live")
    story.then(say("Still here."))
    await tab.say(story.says("And now?"))
    await tab.ended(times=2)


async def test_a_first_prompt_waits_for_the_server(server: Server, story: Story, open_tab: OpenTab) -> None:
    """Written while the server is away, even over a reload of the page: one conversation, one run."""
    tab = await open_tab(server.url)
    tab.server_may_go = True
    await server.kill()
    story.then(say("Good evening."))
    await tab.say(story.says("Good evening"))
    await tab.shows(".words.unsent", "Will be sent")
    await server.start()
    await tab.ended()
    await tab.shows("#list .name", story.key, times=1)
    assert len(story.calls) == 1
