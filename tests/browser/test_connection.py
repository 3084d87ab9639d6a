"""The cursor and the outbox on a wire that says what no right server says: nothing lost, nothing twice (UX.md §3)."""

from __future__ import annotations

import re

import pytest

from .conftest import Scripted
from .wire import prompt

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]


async def test_a_frame_that_does_not_follow_is_never_applied(scripted: Scripted) -> None:
    """Lost, doubled, reordered: each time the page comes back with the cursor that it has."""
    tab, wire = await scripted()
    line = await wire.line()
    assert line.query == {"after": "0"}
    line.attach(head=3)
    line.words(0, 1, "one")
    for number, (after, seq) in enumerate([(2, 3), (0, 1), (0, 9)], start=2):
        line.words(after, seq, "astray")
        await line.hung_up()
        line = await wire.line(number)
        assert line.query == {"after": "1", "log": "L"}
        line.attach(after=1, head=3)
    line.words(1, 2, "two")
    line.say("live", through=2)
    await tab.connection("live")
    assert await tab.find(".bubble").all_text_contents() == ["one", "two"]


async def test_reset_starts_over(scripted: Scripted) -> None:
    tab, wire = await scripted()
    line = await wire.line()
    line.attach(head=1)
    line.words(0, 1, "of the old log")
    await tab.shows(".bubble", "of the old log")
    await line.route.close(code=4000)
    line = await wire.line(2)
    line.attach(after=0, head=1, log="L2", reset=True)
    line.words(0, 1, "of the new log")
    line.say("live", through=1)
    await tab.connection("live")
    assert await tab.find(".bubble").all_text_contents() == ["of the new log"]


async def test_a_newer_server_is_understood_as_far_as_it_goes(scripted: Scripted) -> None:
    """FAULTS 57: frames, fields and events that nobody knows: a neutral line, and the cursor moves."""
    tab, wire = await scripted()
    line = await wire.line()
    line.attach(head=2)
    line.say("weather", forecast="fine")
    line.events(0, 2, {"seq": 1, "at": 1, "type": "tea.served", "run": "r"}, {**prompt(2, "hello"), "mood": "good"})
    line.say("live", through=2)
    line.say("heartbeat", head=2, at=1)
    await tab.shows(".line", "tea.served")
    await tab.shows(".bubble", "hello")
    await tab.connection("live")
    assert len(wire.lines) == 1


async def test_the_way_to_live_is_shown_as_it_is(scripted: Scripted) -> None:
    """Nothing is called live before `live`."""
    tab, wire = await scripted()
    line = await wire.line()
    await tab.shows("#connection[data-phase=connecting]", "Connecting…")
    line.attach(head=1_000)
    line.words(0, 400, "so far")
    await tab.shows("#connection[data-phase=catching]", "Catching up 400 of 1,000")
    line.events(400, 1_000)
    line.say("live", through=1_000)
    await tab.shows("#connection[data-phase=live]", "Live")


async def test_a_long_conversation_is_drawn_from_its_end(scripted: Scripted) -> None:
    """The end is there at once; what is before it comes as somebody scrolls up, down to the very first word."""
    tab, wire = await scripted()
    line = await wire.line()
    line.attach(head=2_000)
    line.events(0, 1_000, *(prompt(seq, f"word {seq}") for seq in range(1, 1_001)))
    line.events(1_000, 2_000, *(prompt(seq, f"word {seq}") for seq in range(1_001, 2_001)))
    line.say("live", through=2_000)
    await tab.shows(".bubble", "word 2000")
    assert await tab.find(".bubble").count() < 500
    while not await tab.find(".bubble", re.compile("^word 1$")).count():
        await tab.evaluate("document.getElementById('scroll').scrollTop = 0")
    words = await tab.find(".bubble").all_text_contents()
    assert words == [f"word {seq}" for seq in range(1, 2_001)]


async def test_a_heartbeat_ahead_of_the_cursor_is_a_lost_frame(scripted: Scripted) -> None:
    tab, wire = await scripted()
    line = await wire.line()
    line.attach()
    line.say("live", through=0)
    await tab.connection("live")
    line.say("heartbeat", head=5, at=1)
    await line.hung_up()
    assert (await wire.line(2)).query == {"after": "0", "log": "L"}


async def test_an_answered_ping_may_be_ahead(scripted: Scripted) -> None:
    """What a wake asks for, and what comes in between."""
    tab, wire = await scripted()
    line = await wire.line()
    line.attach()
    line.say("live", through=0)
    await tab.connection("live")
    await tab.evaluate("dispatchEvent(new Event('online'))")
    await line.sent("ping")
    line.say("heartbeat", head=1, at=1)
    line.words(0, 1, "after the answer")
    await tab.shows(".bubble", "after the answer")
    assert len(wire.lines) == 1


@pytest.mark.parametrize(
    ("code", "words"), [(4504, "There is no such conversation"), (4510, "deleted"), (4777, "Closed")]
)
async def test_some_ends_are_for_good(scripted: Scripted, code: int, words: str) -> None:
    tab, wire = await scripted()
    line = await wire.line()
    await line.route.close(code=code)
    await tab.shows("#connection[data-phase=closed]", words)
    await tab.shows("#gone", words)
    await tab.evaluate("dispatchEvent(new Event('online'))")
    assert await tab.find("#composer").is_hidden()
    assert len(wire.lines) == 1


async def test_what_was_sent_is_sent_again_until_it_is_answered(scripted: Scripted) -> None:
    """The same id, over lost connections and a reload; never after the answer."""
    tab, wire = await scripted()
    line = await wire.line()
    line.attach()
    line.say("live", through=0)
    await tab.connection("live")
    await tab.say("remember me")
    first = await line.sent("prompt")
    await line.route.close(code=4000)
    line = await wire.line(2)
    line.attach()
    assert await line.sent("prompt") == first
    await tab.page.reload()
    line = await wire.line(3)
    line.attach()
    assert await line.sent("prompt") == first
    await tab.shows(".words.unsent", "remember me")
    line.say("accepted", id=first["id"], seq=1, duplicate=True)
    line.events(0, 1, {**prompt(1, "remember me"), "message": first["id"], "cause": first["id"]})
    line.say("live", through=1)
    await tab.shows(".words.unsent", times=0)
    await tab.shows(".bubble", "remember me", times=1)
    await line.route.close(code=4000)
    line = await wire.line(4)
    line.attach(after=1, head=1)
    line.say("live", through=1)
    await tab.connection("live")
    assert line.heard == []


async def test_its_own_event_is_an_answer_too(scripted: Scripted) -> None:
    tab, wire = await scripted()
    line = await wire.line()
    line.attach()
    await tab.say("hello")
    sent = await line.sent("prompt")
    line.events(0, 1, {**prompt(1, "hello"), "message": sent["id"], "cause": sent["id"]})
    await tab.shows(".words.unsent", times=0)
    assert await tab.evaluate("Object.keys(sessionStorage).length") == 0


async def test_refused_words_go_back_to_where_they_were_written(scripted: Scripted) -> None:
    tab, wire = await scripted()
    line = await wire.line()
    line.attach()
    await tab.say("one too many")
    sent = await line.sent("prompt")
    line.say("rejected", id=sent["id"], code="queue_full", message="10 prompts wait already.")
    await tab.shows(".toast", "10 prompts wait already.")
    await tab.shows(".words.unsent", times=0)
    assert await tab.page.input_value("#words") == "one too many"
