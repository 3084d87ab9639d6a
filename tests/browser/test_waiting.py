"""What waits for a person, on a wire that says it as the test wants: below sub-agents, too late, on a small screen."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import expect

from .conftest import Scripted
from .tab import Tab
from .wire import Json, Line, prompt

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

NOW = 1_763_683_200_000


def event(seq: int, kind: str, **fields: Any) -> Json:
    return {"seq": seq, "at": NOW, "type": kind, "run": "r", **fields}


def request(seq: int, call: str, place: str = "Da Enzo", **fields: Any) -> Json:
    arguments = {"place": place, "people": 4}
    return event(
        seq, "approval.requested", call=call, tool="reserve", arguments=arguments, digest=f"digest of {call}", **fields
    )


WAITS = event(7, "run.suspended", reason="approval")


def begin(line: Line, *events: Json, text: str = "Reserve") -> None:
    """A run that does this, live."""
    before = [prompt(1, text), event(2, "run.started", agent="a", message="m1")]
    line.attach(head=2)
    line.events(0, 2, *before)
    line.say("live", through=2)
    line.events(2, events[-1]["seq"], *events)


def below(*path: str) -> list[Json]:
    """The sub-agents on the way to these calls are at work."""
    return [
        event(
            seq, "tool.started", call=call, tool=call, agent=call, arguments={"prompt": "Reserve"}, path=path[: seq - 3]
        )
        for seq, call in enumerate(path, start=3)
    ]


async def test_what_waits_below_a_sub_agent_is_found(scripted: Scripted) -> None:
    """Show brings it into view and gives it the focus; a decision on its way is said there too."""
    tab, wire = await scripted()
    line = await wire.line()
    begin(line, *below("hr", "desk"), request(5, "k", path=["hr", "desk"]), text="word\n" * 200)
    await tab.shows(".decision")
    await tab.evaluate("document.getElementById('scroll').scrollTop = 0")
    await expect(tab.find(".decision")).not_to_be_in_viewport()
    await tab.click("#look")
    await expect(tab.find(".decision")).to_be_in_viewport()
    await expect(tab.find(".decision")).to_be_focused()
    await tab.click(".decision button", "Approve")
    await tab.shows(".decision .note", "Sending your decision")
    assert (await line.sent("approve"))["call"] == ["hr", "desk", "k"]


async def test_an_approval_says_until_when(scripted: Scripted) -> None:
    """And that it expired, where nobody decided: it was not denied by anybody."""
    tab, wire = await scripted(clock=True)
    line = await wire.line()
    begin(line, request(3, "k", expires_at=NOW + 75_000))
    await tab.shows(".decision .note", re.compile(r"^Expires in 1 min 1\d s$"))
    await tab.page.clock.run_for(20_000)
    await tab.shows(".decision .note", re.compile(r"^Expires in 5\d s$"))
    decided = event(4, "approval.decided", call="k", decision="expired", by="clock")
    error = {"kind": "denied", "message": "Nobody approved this call in time."}
    line.events(3, 5, decided, event(5, "tool.failed", call="k", error=error))
    await tab.shows(".call[data-look=expired] .state", "Expired")
    await expect(tab.find("#status")).to_have_text("reserve: Expired.")
    await tab.shows(".decision", times=0)


async def test_who_comes_second_is_told(scripted: Scripted) -> None:
    tab, wire = await scripted()
    line = await wire.line()
    begin(line, request(3, "k"))
    await tab.click(".decision button", "Approve")
    sent = await line.sent("approve")
    decided = {"decision": "approved", "by": "you", "at": NOW - 3_000}
    line.say("rejected", id=sent["id"], code="already_decided", message="you has decided.", decision=decided)
    await tab.shows(".toast", re.compile(r"^Already approved by you in another tab, \d s ago\.$"))


async def test_what_was_being_written_does_not_vanish_without_a_word(scripted: Scripted) -> None:
    """Another tab decides while the editor is open here; the focus goes to the composer."""
    tab, wire = await scripted()
    line = await wire.line()
    begin(line, request(3, "k"))
    await tab.click(".decision button", "Edit arguments")
    line.events(3, 4, event(4, "approval.decided", call="k", decision="approved", by="ben"))
    await tab.shows(".toast", "Approved by ben. What you were writing is not used.")
    await expect(tab.find("#words")).to_be_focused()


async def test_what_waits_is_not_cut_on_a_phone(scripted: Scripted) -> None:
    """At any depth: the state, the strip, rows of buttons that look meant; and Rename is there."""
    tab, wire = await scripted()
    await tab.page.set_viewport_size({"width": 390, "height": 800})
    line = await wire.line()
    begin(line, *below("hr", "desk"), request(5, "k", path=["hr", "desk"]), request(6, "k2"), WAITS)
    await tab.shows("#strip b", "Waiting for you: 2 decisions")
    await tab.shows(".decision", times=2)
    cut = """() => [...document.querySelectorAll('#strip b, .call .state')]
      .filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent)"""
    ragged = """() => [...document.querySelectorAll('.decision .row')].flatMap((row) => {
      const lines = Map.groupBy([...row.children].filter((b) => !b.hidden), (b) => b.offsetTop);
      const end = row.getBoundingClientRect().right;
      return [...lines.values()].map((line) => end - line.at(-1).getBoundingClientRect().right);
    }).filter((gap) => gap > 2)"""
    for width in (320, 360, 390):
        await tab.page.set_viewport_size({"width": width, "height": 800})
        assert await tab.evaluate(cut) == [], width
        assert await tab.evaluate(ragged) == [], width
        await expect(tab.find("#rename")).to_be_in_viewport()
        assert await tab.evaluate("document.documentElement.scrollWidth") <= width
    await tab.click("#rename")
    await tab.page.fill("#title input", "Dinner")
    await tab.page.press("#title input", "Enter")
    assert (await line.sent("rename"))["title"] == "Dinner"
    await expect(tab.find("#rename")).to_be_focused()


async def test_what_waits_can_be_read_in_a_low_window(scripted: Scripted) -> None:
    """WCAG 1.4.10: 1280 by 1024 at 400 % is 320 by 256; what is read has about half of it."""
    tab, wire = await scripted()
    await tab.page.set_viewport_size({"width": 320, "height": 256})
    line = await wire.line()
    begin(line, request(3, "k"), WAITS)
    await tab.shows("#strip[data-status=waiting]")
    await tab.click("#look")
    assert await tab.find("#scroll").evaluate("(scroll) => scroll.clientHeight") >= 120
    await tab.page.focus("#words")
    await tab.shows("#send", "Hint now")


async def labels(tab: Tab) -> list[str]:
    return list(await tab.find(".decision").evaluate_all("(all) => all.map((one) => one.ariaLabel)"))


async def test_each_decision_has_a_name_of_its_own(scripted: Scripted) -> None:
    tab, wire = await scripted()
    line = await wire.line()
    begin(line, request(3, "k"), request(4, "k2", place="Il Corvo"))
    await tab.shows(".decision", times=2)
    first, second = await labels(tab)
    assert first.startswith("Approval of reserve: ") and "Il Corvo" in second


async def test_a_pause_says_when_it_ends(scripted: Scripted) -> None:
    tab, wire = await scripted()
    line = await wire.line()
    begin(line, event(3, "run.suspended", reason="retry", until=NOW + 300_000))
    await tab.shows(".line", re.compile(r"is not answering\. It goes on by itself at \d\d:\d\d"))
    await expect(tab.find("#alert")).to_contain_text("It goes on by itself")


async def test_what_is_said_has_one_full_stop(scripted: Scripted) -> None:
    tab, wire = await scripted()
    line = await wire.line()
    error = {"kind": "upstream", "message": "The answer ended without a finish reason."}
    failed = event(4, "model.failed", step=1, attempt=1, error=error, retry_at=NOW + 30_000)
    begin(line, event(3, "step.started", step=1, attempt=1, model="m"), failed)
    said = re.compile(r"^Attempt 1 failed\. The answer ended without a finish reason\. Asking again in \d+ s$")
    await expect(tab.find(".reply .note")).to_have_text(said)


async def test_who_reads_the_beginning_is_not_moved_by_what_was_before_it(scripted: Scripted) -> None:
    """At the very top the browser does not hold the place: what is drawn above would take it, on and on."""
    tab, wire = await scripted()
    line = await wire.line()
    line.attach(head=2_000)
    line.events(0, 2_000, *(prompt(seq, f"word {seq}") for seq in range(1, 2_001)))
    line.say("live", through=2_000)
    await tab.shows(".bubble", "word 2000")
    first = await tab.find(".bubble").first.text_content()
    drawn = await tab.find(".bubble").count()
    await tab.evaluate("document.getElementById('scroll').scrollTop = 0")
    await expect(tab.find(".bubble")).not_to_have_count(drawn)
    await tab.evaluate("(async () => { for (let n = 0; n < 20; n += 1) await new Promise(requestAnimationFrame); })()")
    assert await tab.find(".bubble").count() == 2 * drawn
    await expect(tab.find(".bubble", re.compile(f"^{first}$"))).to_be_in_viewport()
