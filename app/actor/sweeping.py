"""The housekeeping of all conversations: what is idle leaves memory, what is due comes back, what was deleted goes.

One at a time, what has grown long gets a snapshot: the log is folded beside the actor, which notices nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from app.actor.actor import Actor
from app.actor.load import SNAPSHOT_EVENTS, refresh
from app.actor.surroundings import Surroundings
from app.core.errors import Corrupt
from app.core.snapshot import forget
from app.store.event_log import Unavailable

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 5.0
"""How often idle actors are let go and due ones looked for."""

IDLE_SWEEPS = 2
"""An actor that was idle at so many sweeps in a row leaves memory."""

RESTORE_MS = 600_000
"""A deleted conversation can be restored for ten minutes; then everything is removed."""

Doing = Callable[[str], Awaitable[None]]


class Sweeping:
    """`actors`: those in memory, as they come and go; `let_go` ends one, `pick_up` brings one back if it is gone."""

    def __init__(self, around: Surroundings, actors: Mapping[str, Actor], let_go: Doing, pick_up: Doing) -> None:
        self._around = around
        self._actors = actors
        self._let_go = let_go
        self._pick_up = pick_up
        self._idle: dict[str, int] = {}

    async def run(self) -> None:
        """Sweeps for ever; what a store cannot do now is done at another time."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self._passivate()
            try:
                now = self._around.clock()
                for conversation in await self._around.log.unfinished(now):
                    await self._pick_up(conversation)
                await self._purge(now - RESTORE_MS)
            except (Unavailable, Corrupt) as error:
                logger.warning("the store is not available: %s", error)

    async def _passivate(self) -> None:
        for conversation, actor in list(self._actors.items()):
            if actor.grown >= SNAPSHOT_EVENTS:
                actor.grown = 0
                await refresh(self._around.log, conversation)
                actor.ask(forget)
            sweeps = self._idle.get(conversation, 0) + 1 if actor.idle else 0
            self._idle[conversation] = sweeps
            if sweeps >= IDLE_SWEEPS:
                await self._let_go(conversation)
        self._idle = {conversation: n for conversation, n in self._idle.items() if conversation in self._actors}

    async def _purge(self, until: int) -> None:
        for conversation in await self._around.log.deleted(until):
            await self._around.archive.remove(conversation)
        await self._around.log.purge(until)  # last: until then a crash leaves it all to be repeated
