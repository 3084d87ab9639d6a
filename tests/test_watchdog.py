"""A blocked loop says so, and what blocks it; it is reported once, and goes on."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.watchdog import watching


def block_until(event: threading.Event) -> None:
    event.wait(5)


async def test_a_blocked_loop_is_reported_with_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS 25."""
    reported = threading.Event()
    caplog.handler.addFilter(lambda record: reported.set() or True)  # type: ignore[func-returns-value]
    with watching(asyncio.get_running_loop(), blocked_seconds=0.05) as stalls:
        block_until(reported)
        await asyncio.sleep(0)
    said = [record.getMessage() for record in caplog.records if record.name == "app.watchdog"]
    assert len(said) == 1 and "block_until" in said[0] and stalls.count == 1


async def test_a_loop_that_goes_on_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    beats = asyncio.Event()
    with watching(asyncio.get_running_loop(), blocked_seconds=30):
        asyncio.get_running_loop().call_later(0.05, beats.set)
        await beats.wait()
    assert not [record for record in caplog.records if record.name == "app.watchdog"]
