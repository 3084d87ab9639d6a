"""The mailbox: who gets an answer, when, and what it is where none can be given. SEMANTICS.md §11; P8."""

from __future__ import annotations

import asyncio

from app.actor.mailbox import TAKE_MAX, WAITING_MAX, Letter, Mailbox
from app.core import commands as c
from app.core.errors import Rejected
from tests.actor.home import virtual


def rename(number: int = 0) -> c.Rename:
    return c.Rename(id=f"r{number}", title="t")


def answer(letters: list[Letter]) -> None:
    for letter in letters:
        letter.answer.set_result(letter.content)


@virtual
async def test_letters_are_taken_in_order_up_to_a_limit() -> None:
    """DESIGN §2 take: all that is waiting is taken together, up to a limit."""
    box = Mailbox(set())
    for number in range(TAKE_MAX + 3):
        box.submit(rename(number), "ann")
    first = await box.take()
    assert [letter.content for letter in first] == [rename(number) for number in range(TAKE_MAX)]
    assert len(box) == TAKE_MAX + 3, "what is in hand is still ours to answer"
    box.done()
    assert len(await box.take()) == 3


@virtual
async def test_taking_waits_for_a_letter_or_a_wake_up() -> None:
    box = Mailbox(set())
    taking = asyncio.create_task(box.take())
    await asyncio.sleep(1)
    assert not taking.done()
    box.wake()
    assert await taking == []
    taking = asyncio.create_task(box.take())
    await asyncio.sleep(1)
    assert not taking.done(), "one wake-up, one turn"
    box.submit(rename(), "ann")
    assert [letter.by for letter in await taking] == ["ann"]


@virtual
async def test_too_many_waiting_commands_are_refused_and_the_house_own_are_not() -> None:
    """P8, FAULTS 24: memory is bounded by caps; what effects report must not be lost."""
    box = Mailbox(set())
    for number in range(WAITING_MAX):
        box.submit(rename(number), "ann")
    refused = await box.submit(rename(-1), "ann")
    assert isinstance(refused, Rejected) and refused.code == "rate_limited"
    assert not box.submit(c.Wake(), "").done()


@virtual
async def test_while_an_append_is_in_doubt() -> None:
    """§11: new commands get `storage_unavailable`, questions none; those in doubt, and reports, wait on."""
    box = Mailbox(set())
    in_doubt = box.submit(rename(0), "ann")
    letters = await box.take()
    waiting, question, report = box.submit(rename(1), "ann"), box.ask(len), box.submit(c.Wake(), "")  # type: ignore[arg-type]
    box.get_stuck()
    assert box.stuck
    new, asked, told = box.submit(rename(2), "ann"), box.ask(len), box.submit(c.Wake(), "")  # type: ignore[arg-type]
    for refused in (waiting, new):
        outcome = refused.result()
        assert isinstance(outcome, Rejected) and outcome.code == "storage_unavailable"
    assert question.cancelled() and asked.cancelled()
    assert not (in_doubt.done() or report.done() or told.done())
    answer(letters)
    box.done()
    assert not box.stuck and in_doubt.done()
    assert [letter.answer for letter in await box.take()] == [report, told]


@virtual
async def test_the_trouble_of_one_is_the_trouble_of_all() -> None:
    """§11, FAULTS 14: they share the store: new commands are refused at once, everywhere; the house's own are not."""
    trouble: set[Mailbox] = set()
    box, other = Mailbox(trouble), Mailbox(trouble)
    box.submit(rename(0), "ann")
    letters = await box.take()
    on_its_way = other.submit(rename(0), "ann")
    [letter] = await other.take()
    box.get_stuck()
    refused = other.submit(rename(1), "ann").result()
    assert isinstance(refused, Rejected) and refused.code == "storage_unavailable"
    again, stop = other.submit(rename(0), "ann"), other.submit(c.Cancel(id="s"), "restore", ours=True)
    assert not (other.stuck or on_its_way.done() or again.done() or stop.done())
    answer([letter])
    other.done()
    assert box.stuck, "that is the other's"
    answer(letters)
    box.done()
    assert not trouble and not other.submit(rename(2), "ann").done()


@virtual
async def test_what_is_in_doubt_and_comes_again_waits_with_it() -> None:
    """§11, P3: to refuse it would be to say that nothing happens, and then it does."""
    box = Mailbox(set())
    box.submit(rename(0), "ann")
    letters = await box.take()
    before = box.submit(rename(0), "ann")
    box.get_stuck()
    after = box.submit(rename(0), "ann")
    assert not before.done() and not after.done()
    answer(letters)
    box.done()
    assert [letter.answer for letter in await box.take()] == [before, after]


@virtual
async def test_the_end_of_who_is_in_trouble_ends_it() -> None:
    trouble: set[Mailbox] = set()
    box = Mailbox(trouble)
    box.submit(rename(), "ann")
    await box.take()
    box.get_stuck()
    box.close()
    assert not trouble


@virtual
async def test_getting_stuck_again_harms_nobody_who_has_gone() -> None:
    """A question whose asker has gone is cancelled already."""
    box = Mailbox(set())
    box.submit(rename(), "ann")
    await box.take()
    box.ask(len).cancel()  # type: ignore[arg-type]
    report = box.submit(c.Wake(), "")
    report.cancel()
    box.get_stuck()
    box.get_stuck()
    box.done()
    box.close()


@virtual
async def test_after_the_end_everybody_is_told() -> None:
    """A future that is cancelled is one that nobody here will answer: send it again."""
    box = Mailbox(set())
    in_hand = box.submit(rename(0), "ann")
    await box.take()
    waiting, question = box.submit(rename(1), "ann"), box.ask(len)  # type: ignore[arg-type]
    box.close()
    late = box.submit(rename(2), "ann")
    assert all(future.cancelled() for future in (in_hand, waiting, question, late))
    assert [letter.answer for letter in await box.take()] == [waiting, question], "taking never hangs after the end"
