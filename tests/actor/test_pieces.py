"""Streamed text on its way to the log: the first piece at once, then at most so many a second. DESIGN.md §1.3."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from app.actor.pieces import GATHERED_CHARS_MAX, Pieces
from tests.actor.home import Home, virtual


class Log:
    """Commits what it is sent after `takes` seconds."""

    def __init__(self, takes: float = 0.0) -> None:
        self.takes = takes
        self.sent: list[tuple[float, str, str]] = []

    def send(self, text: str, reasoning: str) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        self.sent.append((round(loop.time(), 3), text, reasoning))
        done: asyncio.Future[Any] = loop.create_future()
        loop.call_later(self.takes, done.set_result, None)
        return done

    @property
    def text(self) -> str:
        return "".join(text for _, text, _ in self.sent)


@virtual
async def test_the_first_piece_leaves_at_once_then_at_most_twenty_a_second() -> None:
    """DESIGN §1.3, FAULTS 88."""
    log = Log()
    pieces = Pieces(log.send, 20)
    for number in range(1_000):
        pieces.add(f"{number} ")
        await asyncio.sleep(0.001)
    await asyncio.sleep(1)
    assert log.sent[0] == (0.0, "0 ", "")
    times = [at for at, *_ in log.sent]
    assert all(later - at >= 0.0499 for at, later in pairwise(times))
    assert 20 <= len(times) <= 22
    assert log.text == "".join(f"{number} " for number in range(1_000))


@virtual
async def test_while_a_commit_is_under_way_text_gathers_and_goes_with_the_next() -> None:
    """DESIGN §1.3: load makes pieces larger, not later ones endless; one is under way at a time."""
    log = Log(takes=0.5)
    pieces = Pieces(log.send, 20)
    for letter in "abcdefgh":
        pieces.add(letter)
        await asyncio.sleep(0.12)
    await asyncio.sleep(2)
    assert [(at, text) for at, text, _ in log.sent] == [(0.0, "a"), (0.5, "bcde"), (1.0, "fgh")]


@virtual
async def test_text_and_reasoning_travel_together_and_stay_apart() -> None:
    log = Log(takes=0.1)
    pieces = Pieces(log.send, 20)
    pieces.add("", "hm")
    pieces.add("a")
    pieces.add("", " hm")
    pieces.add("b", "")
    await asyncio.sleep(1)
    assert [(text, reasoning) for _, text, reasoning in log.sent] == [("", "hm"), ("ab", " hm")]


@virtual
async def test_nothing_is_sent_of_nothing() -> None:
    log = Log()
    pieces = Pieces(log.send, 20)
    pieces.add("")
    pieces.add("", "")
    await asyncio.sleep(1)
    assert log.sent == []


@virtual
async def test_who_produces_faster_than_the_log_takes_waits() -> None:
    """FAULTS 88: backpressure; what gathers is bounded."""
    log = Log(takes=1.0)
    pieces = Pieces(log.send, 20)
    pieces.add("x")
    assert not pieces.crowded
    pieces.add("y" * (GATHERED_CHARS_MAX + 1))
    assert pieces.crowded
    began = asyncio.get_running_loop().time()
    await pieces.room()
    assert asyncio.get_running_loop().time() - began >= 1.0
    assert not pieces.crowded


@virtual
async def test_a_log_that_takes_nothing_keeps_the_model_waiting() -> None:
    """FAULTS 88: no more is read from the provider than may gather, and the wait is not taken for its silence."""
    home, ready = Home(), asyncio.Event()
    read: list[str] = []

    def flood() -> Iterator[str | asyncio.Event]:
        yield ready
        for number in range(100):
            read.append(f"{number}".ljust(2_000))
            yield read[-1]

    home.model.lines.append(flood())  # type: ignore[arg-type]
    conversation = await home.create()
    await home.until(conversation, "step.started")
    home.log.gate.clear()
    ready.set()
    await asyncio.sleep(600)
    assert GATHERED_CHARS_MAX <= sum(map(len, read)) <= GATHERED_CHARS_MAX + 3 * 2_000
    home.log.gate.set()
    await home.until(conversation, "run.completed")
    [replied] = [event for event in await home.events(conversation) if event["type"] == "model.replied"]
    assert replied["text"] == "".join(read) and len(read) == 100


@virtual
async def test_after_the_stop_nothing_is_sent() -> None:
    """The end of the attempt says the rest: also when a commit or a pause was under way."""
    for takes in (0.0, 0.5):
        log = Log(takes)
        pieces = Pieces(log.send, 20)
        pieces.add("a")
        pieces.add("b")
        await asyncio.sleep(0.01)
        pieces.stop()
        await asyncio.wait_for(pieces.room(), 1)
        await asyncio.sleep(2)
        assert log.text == "a"


@virtual
async def test_a_log_that_has_gone_does_not_keep_it_turning() -> None:
    """The actor has ended: what it is sent comes back cancelled."""
    sent = 0

    def gone(text: str, reasoning: str) -> asyncio.Future[Any]:
        nonlocal sent
        sent += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.cancel()
        return future

    pieces = Pieces(gone, 20)
    for _ in range(3):
        pieces.add("x")
        await asyncio.sleep(1)
    assert sent == 3
