"""How long the page waits, and for what it does not wait (UX.md §3): hung handshakes, silence, sleep, back-off."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from .conftest import Scripted
from .tab import Tab

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]


async def test_a_page_that_is_put_aside_hangs_up(scripted: Scripted) -> None:
    """FAULTS 55: an open socket keeps a page out of the back/forward cache; coming back out of it connects at once."""
    tab, wire = await scripted()
    line = await wire.line()
    line.attach()
    line.words(0, 1, "before")
    await tab.shows(".bubble", "before")
    await tab.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    await line.hung_up()
    await tab.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    assert (await wire.line(2)).query == {"after": "1", "log": "L"}


async def test_a_handshake_that_hangs_is_given_up(scripted: Scripted) -> None:
    tab, wire = await scripted(clock=True)
    line = await wire.line()
    await tab.page.clock.run_for(8_100)
    await line.hung_up()
    await tab.page.clock.run_for(1_000)
    await wire.line(2)


async def test_silence_is_not_life(scripted: Scripted) -> None:
    """FAULTS 30: 45 s without a frame: a dead socket, whatever the browser thinks of it."""
    tab, wire = await scripted(clock=True)
    line = await wire.line()
    line.attach()
    line.say("live", through=0)
    await line_is_read(tab)
    await tab.page.clock.run_for(40_000)
    line.say("heartbeat", head=0, at=1)
    await line_is_read(tab)
    await tab.page.clock.run_for(40_000)
    assert not line.closed.is_set()
    await tab.page.clock.run_for(11_000)
    await line.hung_up()
    await wire.line(2)


async def test_waking_up_does_not_wait_for_the_backoff(scripted: Scripted) -> None:
    """FAULTS 53: in a time that stands still no back-off ever ends."""
    tab, wire = await scripted(clock=True)
    await wire.line()
    await time_stands_still(tab, chance=0.9)
    for number in range(1, 5):
        line = await wire.line(number)
        await line.route.close(code=1013)
        await line_is_read(tab)
        if number % 2:
            await tab.evaluate("dispatchEvent(new Event('online'))")
        else:
            await tab.click("#connection button", "Retry now")
    await wire.line(5)


@pytest.mark.parametrize(
    ("chance", "code", "not_within", "within"),
    [(0.9, 1012, 4_800, 5_000), (0.1, 1012, 400, 600), (0.9, 4000, 350, 500)],
)
async def test_after_a_deploy_not_all_come_back_at_once(
    scripted: Scripted, chance: float, code: int, not_within: int, within: int
) -> None:
    """FAULTS 32: when a page comes back is left to chance, over some seconds where a whole server has gone."""
    tab, wire = await scripted(clock=True)
    line = await wire.line()
    line.attach()
    await time_stands_still(tab, chance)
    await line.route.close(code=code)
    await line_is_read(tab)
    await tab.page.clock.run_for(not_within)
    assert len(wire.lines) == 1
    await tab.page.clock.run_for(within - not_within)
    await wire.line(2)


async def time_stands_still(tab: Tab, chance: float) -> None:
    """From now on only `run_for` moves the page's time, and `Math.random()` is this."""
    now = await tab.evaluate(f"Math.random = () => {chance}; Date.now()")
    await tab.page.clock.pause_at(datetime.fromtimestamp(now / 1_000 + 1, UTC))


async def line_is_read(tab: Tab) -> None:
    """Lets the page handle what has been said to it, in a time that stands still."""
    await tab.evaluate(
        "new Promise((done) => { const c = new MessageChannel(); c.port1.onmessage = done; c.port2.postMessage(0); })"
    )
    await tab.page.clock.run_for(50)
