"""What becomes of the runs of an older database: a copy from before that was put back, by hand or at a start.

What such a run did since nobody knows, and it must not be done twice: it is stopped in the first pass of its actor,
before anything of it begins. Whether the database is older is the store's to say.
"""

from __future__ import annotations

from app.actor.actor import Actor
from app.actor.clock import SET_BACK_MS
from app.actor.patience import until_stored
from app.actor.surroundings import Surroundings
from app.core.commands import Cancel

EVER = 2**62
"""A time (ms) that no other comes after."""


class Stale:
    """The conversations whose runs are still to be stopped; none on a database that is the newest."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._left: set[str] = set()

    async def unfinished(self, *, older: bool) -> list[str]:
        """The conversations that have to be picked up at a start; of an older database all, whenever they fall due."""
        until = EVER if older else self._around.clock() + SET_BACK_MS
        unfinished = await until_stored(lambda: self._around.log.unfinished(until))
        self._left = set(unfinished) if older else set()
        return unfinished

    def stop(self, actor: Actor) -> None:
        """Stops what must not go on, in the first pass of a new actor: nothing begins."""
        if actor.conversation in self._left:
            self._left.discard(actor.conversation)
            actor.submit(Cancel(id=f"restored-{self._around.fresh()}"), "restore", ours=True)
