"""Stores that outlive a process and misbehave while it lives: late, full, in doubt, and cut off by a kill.

What is committed is committed for ever (`Disk`); what a killed process still tries to do reaches nothing (`Power`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from app.store.archive import Flush
from app.store.archive_memory import MemoryArchive
from app.store.event_log import Append, Snapshot, Unavailable
from app.store.log_memory import MemoryLog


@dataclass
class Disk:
    """What is durable."""

    log: MemoryLog = field(default_factory=MemoryLog)
    archive: MemoryArchive = field(default_factory=MemoryArchive)

    def head(self, conversation: str) -> int:
        """The last committed seq."""
        return self.log._conversations[conversation].head

    def copy(self) -> Disk:
        """A copy as somebody makes one who means well: whole, and soon old."""
        return deepcopy(self)

    def snapshot(self, conversation: str) -> Snapshot | None:
        return self.log._conversations[conversation].snapshot

    def put_back(self, mark: str, conversation: str, left: Snapshot | None) -> None:
        """An older disk was put back: the real store notices that and gives every log a new id (boot.py).

        `left`: the snapshot that lies beside the conversation now.
        """
        for known in self.log._conversations.values():
            known.log = f"{known.log}-{mark}"
        self.log._conversations[conversation].snapshot = left


@dataclass
class Faults:
    """Probabilities per store call. `kill` is asked for at commit boundaries."""

    unavailable: float = 0.0
    in_doubt: float = 0.0
    late: float = 0.0
    kill: float = 0.0


class Power:
    """Whether a process lives; `cut` is set when a fault decides that it dies here.

    `boundary` hears of every commit boundary, before and after, and may cut.
    """

    def __init__(self, boundary: Callable[[], None] = lambda: None) -> None:
        self.on = True
        self.cut = asyncio.Event()
        self.boundary = boundary
        self._dead: list[asyncio.Task[Any] | None] = []

    def fail(self) -> None:
        """Nothing of this process reaches the disk from here on."""
        self.on = False
        self.cut.set()

    async def die(self) -> None:
        """The process is gone: what was being done is never finished."""
        self.fail()
        self._dead.append(asyncio.current_task())  # kept from the garbage collector, which would complain
        await asyncio.get_running_loop().create_future()


class FaultyStore:
    """A process's view of a store of the disk: the same contract, with the world's faults in between."""

    def __init__(
        self,
        store: Any,
        power: Power,
        faults: Faults,
        chance: random.Random,
        committed: Callable[[Iterable[str]], None] = lambda texts: None,
        archived: Callable[[Flush], None] = lambda flush: None,
    ) -> None:
        self._store = store
        self._committed = committed
        self._archived = archived
        self._power = power
        self._faults = faults
        self._chance = chance

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._store, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            if not self._power.on:
                await self._power.die()
            if self._chance.random() < self._faults.late:
                await asyncio.sleep(self._chance.random() * 0.5)
                if not self._power.on:
                    await self._power.die()
            if name in ("append", "create", "flush", "save_snapshot"):
                return await self._write(method, arguments)
            return await method(*arguments, **named)

        return call

    async def _write(self, method: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...]) -> Any:
        self._power.boundary()
        if self._chance.random() < self._faults.kill or not self._power.on:
            await self._power.die()
        if self._chance.random() < self._faults.unavailable:
            raise Unavailable("the disk is full")
        result = await method(*arguments)
        match arguments[0]:
            case Append(rows=rows):
                self._committed(text for row in rows for text in row.texts)
            case Flush() as flush:
                self._archived(flush)
        self._power.boundary()
        if not self._power.on:
            await self._power.die()
        if self._chance.random() < self._faults.kill:
            await self._power.die()
        if self._chance.random() < self._faults.in_doubt:
            raise Unavailable("no answer came")
        return result
