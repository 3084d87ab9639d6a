"""How actors end that could not park in time when the process goes, and what is left of their tools."""

from __future__ import annotations

import asyncio

from app.actor.actor import Actor
from app.core.commands import Drain

END_SECONDS = 1.0
"""How long an actor that has been told to go may take."""


async def end_late(actors: list[Actor], late: list[asyncio.Task[None]]) -> None:
    """Ends them; what they were doing is as after a crash, but is not counted as one. `late`: their tasks."""
    answers = [actor.submit(Drain()) for actor in actors if actor.unfinished and not actor.stuck]
    if answers:
        await asyncio.wait(answers, timeout=END_SECONDS)
    for actor in actors:
        actor.leave()
    if late:
        _, stuck = await asyncio.wait(late, timeout=END_SECONDS)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


async def cut_off() -> int:
    """Cancels all that the loop still holds; how many tasks have not ended in time: tools that swallow it.

    Nothing else ends such a tool than the end of its process, and a loop that closes properly would wait for it.
    """
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    return len((await asyncio.wait(others, timeout=END_SECONDS))[1]) if others else 0
