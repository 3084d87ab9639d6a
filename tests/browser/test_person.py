"""What a person can do while an agent works: hints, the queue, stop; and words that are no code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.acceptance.harness import Server
from tests.acceptance.stub import Call, Story, Stub, Use, refuse, say, use

from .conftest import AGENT, OpenTab

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]


def open_gate(server: Server, gate: str) -> None:
    (Path(server.gates) / gate).touch()


CUT_OFF = """() => [...document.querySelectorAll('#strip > *')].filter((part) => part.checkVisibility() &&
    (part.scrollWidth > part.clientWidth || part.matches('.pulse') && part.offsetWidth !== part.offsetHeight))
    .map((part) => part.className || part.textContent)"""
"""Parts of the strip that have too little room for their words, and the dot where it is not round."""


async def test_a_hint_says_what_becomes_of_it(server: Server, story: Story, open_tab: OpenTab) -> None:
    """Given while a tool runs: waits, can be taken back into the composer, is delivered at the next step."""
    story.then(use(Use("safe", {"line": "a", "gate": "g"})), say("As you wish."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Work"))
    await tab.shows(".call[data-phase=running]")
    await tab.say("Never mind")
    await tab.shows(".words[data-state=waiting]", "waits for the next step")
    await tab.click(".words button", "Take back")
    await tab.shows(".words[data-state=withdrawn]", "Never mind")
    assert await tab.page.input_value("#words") == "Never mind"
    await tab.say("Vegetarian")
    await tab.shows(".words[data-state=waiting]", "Vegetarian")
    open_gate(server, "g")
    await tab.ended()
    await tab.shows(".words[data-state=delivered]", "given at step 2")
    assert [call.words[-1] for call in story.calls][-1] == "Vegetarian"


async def test_an_interrupting_hint_stops_the_tool(server: Server, story: Story, open_tab: OpenTab) -> None:
    story.then(use(Use("safe", {"line": "a", "gate": "never"})), say("Stopped looking."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Look"))
    await tab.shows(".call[data-phase=running]")
    await tab.page.check("#interrupt input")
    await tab.say("Stop looking")
    await tab.ended()
    await tab.shows(".call[data-phase=failed]", "Cancelled")
    await tab.shows(".words[data-kind=hint]", "given at step 2")


async def test_an_interrupting_hint_keeps_what_was_said(server: Server, story: Story, open_tab: OpenTab) -> None:
    tab = await open_tab(server.url)
    await tab.say(story.says("Sing"))
    call = await story.call()
    await call.text("La *la* la")
    await tab.shows(".reply", "La *la* la")
    story.then(say("Do re mi."))
    await tab.page.check("#interrupt input")
    await tab.say("Another song")
    await tab.ended()
    await tab.shows(".reply[data-phase=interrupted] em", "la")
    await tab.shows(".reply", "Interrupted here by a hint")
    await tab.shows(".reply[data-phase=replied]", "Do re mi.")
    words = await tab.find("#transcript > article").evaluate_all("(all) => all.map((one) => one.className)")
    assert words == ["words", "reply", "words", "reply"]


async def test_what_waits_for_after_this_run(server: Server, story: Story, open_tab: OpenTab) -> None:
    """Two prompts are queued, one is taken back, the other starts the next run."""
    tab = await open_tab(server.url)
    await tab.say(story.says("First"))
    call = await story.call()
    for text in (story.says("Second"), story.says("Third")):
        await tab.page.fill("#words", text)
        await tab.click("#later")
    await tab.shows("#queue li", times=2)
    await tab.click("#queue li button")
    await tab.shows("#queue li", "Third", times=1)
    await expect(tab.find("#words")).to_be_focused()
    story.then(say("Third it is."))
    await call.text("First it is.")
    await call.end()
    await tab.ended(times=2)
    await tab.shows(".words[data-kind=prompt][data-state=delivered]", times=2)
    await tab.shows("#queue li", times=0)


async def test_stop_keeps_what_was_said_and_gives_the_rest_back(
    server: Server, story: Story, open_tab: OpenTab
) -> None:
    tab = await open_tab(server.url)
    await tab.say(story.says("Sing"))
    call = await story.call()
    await call.text("La la la")
    await tab.shows(".reply", "La la la")
    await tab.say("In tune")
    await tab.shows(".words[data-state=waiting]")
    await tab.click("#stop")
    await tab.ended("cancelled")
    await call.aborted()
    await tab.shows(".reply[data-phase=interrupted]", "La la la")
    await tab.shows(".reply", "Stopped here")
    await tab.shows(".words[data-state=dropped]", "In tune")
    assert await tab.page.input_value("#words") == "In tune"
    await tab.shows("#send", "Send")


async def test_words_are_never_code(server: Server, story: Story, open_tab: OpenTab) -> None:
    """FAULTS 47, security-xss: the same payload as a prompt, in an answer, in arguments, in a result and as a title."""
    payload = (
        "<img src=x onerror='globalThis.hacked=1'><script>globalThis.hacked=1</script> ![x](https://evil.example/p)"
    )
    story.then(
        use(Use("once", {"line": payload + "\u202e"}), text=payload), say(f"{payload}\n\n[go](javascript:alert(1))")
    )
    tab = await open_tab(server.url)
    await tab.say(story.says(payload))
    await tab.ended()
    await tab.click(".call summary")
    await tab.shows(".call .result", "onerror")
    await tab.shows(".arguments dd", "⟦U+202E⟧")
    await tab.shows(".rendered a", "evil.example")
    assert await tab.transcript() != ""
    assert await tab.evaluate("globalThis.hacked") is None
    assert await tab.find("#transcript img, #transcript script, #list img").count() == 0
    hrefs = await tab.find("#transcript a").evaluate_all("(links) => links.map((link) => link.protocol)")
    assert set(hrefs) == {"https:"}


async def test_a_conversation_is_renamed_found_deleted_and_brought_back(
    server: Server, story: Story, open_tab: OpenTab
) -> None:
    story.then(say("A heron."))
    tab = await open_tab(server.url)
    await tab.say(story.says("What bird is it?"))
    await tab.ended()
    await tab.click("#rename")
    await tab.page.fill("#title input", "Birds")
    await tab.page.press("#title input", "Enter")
    await tab.shows("#list .name", "Birds")
    await tab.page.fill("#search", "heron")
    await tab.shows("#list .name", "Birds", times=1)
    await tab.page.fill("#search", "albatross")
    await tab.shows("#list-note", "Nothing found")
    await tab.page.fill("#search", "")
    await tab.click("#delete")
    await tab.click("#confirm button", "Delete")
    await tab.shows("#welcome")
    await tab.shows("#list .name", "Birds", times=0)
    await tab.click(".toast button", "Undo")
    await tab.ended()
    await tab.shows("#list .name", "Birds")


async def test_a_run_that_fails_says_why_and_can_be_tried_again(
    server: Server, story: Story, open_tab: OpenTab
) -> None:
    story.then(refuse(401, "bad key"), say("Now it works."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Work"))
    await tab.ended("failed")
    await tab.shows(".failure h2", "The run failed")
    await tab.click(".failure button", "Try again")
    await tab.ended()
    await tab.shows(".rendered p", "Now it works.")


async def test_a_run_that_is_out_of_steps_gets_more(
    stub: Stub, story: Story, open_tab: OpenTab, tmp_path: Path
) -> None:
    server = await Server(tmp_path, stub.url, {"HOLDFAST_STEPS_MAX": "1"}, agents=(AGENT,)).start()
    story.then(use(Use("tick", {"number": 1})), say("Done."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Count"))
    await tab.shows(".line", "the run has reached its budget (1 step)")
    await tab.shows("#strip[data-status=suspended]", "Paused")
    for width in (320, 390, 1280):
        await tab.page.set_viewport_size({"width": width, "height": 700})
        assert await tab.evaluate(CUT_OFF) == [], f"the strip says all of its words at {width} px"
    await tab.click("#strip button", "Go on, 25 more steps")
    await tab.ended()
    await expect(tab.find("#words")).to_be_focused()
    await tab.page.goto("about:blank")
    await server.close()


async def test_a_run_that_is_out_of_money_gets_more(
    stub: Stub, story: Story, open_tab: OpenTab, tmp_path: Path
) -> None:
    """003-8: the page says which ceiling it is and offers a higher one; the cost stands quietly at the end."""
    settings = {"HOLDFAST_PRICES": '{"stub-1": {"input": 2000, "output": 8000}}', "HOLDFAST_MONEY_MAX": "0.10"}
    server = await Server(tmp_path, stub.url, settings, agents=(AGENT,)).start()
    story.then(use(Use("tick", {"number": 1})), say("Done."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Count"))
    await tab.shows(".line", "the run has reached its budget (0.078 of 0.1 spent)")
    await tab.click("#strip button", "Go on, 2× money")
    await tab.ended()
    await tab.shows(".end .facts", "36 tokens · 0.156 spent")
    await tab.page.goto("about:blank")
    await server.close()


async def test_a_loop_is_shown_and_a_person_may_let_it_go_on(
    stub: Stub, story: Story, open_tab: OpenTab, tmp_path: Path
) -> None:
    """FAULTS 84."""
    server = await Server(tmp_path, stub.url, {"HOLDFAST_REPEATS_MAX": "2"}, agents=(AGENT,)).start()
    story.then(*(use(Use("tick", {"number": 1})) for _ in range(2)), say("Done."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Count"))
    await tab.shows(".line", "the agent has asked 2 times in a row for the same")
    await tab.click("#strip button", "Go on")
    await tab.ended()
    await tab.page.goto("about:blank")
    await server.close()


async def cut_short(call: Call) -> None:
    call.usage = None
    await call.text("As far as")
    await call.end("length")


async def test_what_an_answer_lacks_is_said(server: Server, story: Story, open_tab: OpenTab) -> None:
    """FAULTS 80, 89: that it was cut off, and that its tokens are an estimate."""
    story.then(cut_short, say("Whole."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Tell"))
    await tab.ended()
    await tab.shows(".reply .note", "limit for one answer was reached")
    await tab.shows(".end .facts", re.compile(r"about [\d.]+K? tokens"))
    await tab.say(story.says("Again"))
    await tab.ended(times=2)
    await tab.shows(".reply .note", times=1)
    await tab.shows(".end .facts", re.compile(r"about"), times=1)


async def test_a_wait_for_the_provider_is_shown(server: Server, story: Story, open_tab: OpenTab) -> None:
    """FAULTS 75."""
    story.then(refuse(429, "slow down", retry_after="2"), say("Here I am."))
    tab = await open_tab(server.url)
    await tab.say(story.says("Work"))
    await tab.shows(".reply .note", "Asking again in")
    await tab.ended()
    await tab.shows(".reply .note", times=0)
    await tab.shows(".rendered p", "Here I am.")
