"""Where each log stands, in memory: what spares an append every SELECT.

One process owns the file, so this is true as long as it only changes after a commit, on the event loop. When the
outcome of a commit is in doubt the position is forgotten and read again. Rows of pieces have no index in the database:
a position that has some is always here (one scan at start), so that a plain read can bring back any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import count

from app.store.event_log import Append
from app.store.log_sqlite_rows import Piece, Position, read_position, read_positions
from app.store.rows import end
from app.store.sqlite import Database

POSITIONS_MAX = 10_000
"""Positions kept in memory; beyond that those without pieces are forgotten (one short read brings one back)."""


@dataclass(frozen=True, slots=True)
class Written:
    """An append as it was written, and the position that it was checked against."""

    append: Append
    position: Position
    lasting: int
    pieces: list[Piece]


class Positions:
    """The map, and the ids of rows of pieces, none of which is used twice while the process lives."""

    def __init__(self, database: Database) -> None:
        self.ids = count(1)
        self._database = database
        self._known: dict[str, Position] = {}
        self._doubtful: set[str] = set()
        self._loading = asyncio.Lock()
        self._changes = 0  # grows when a position is taken away: what is being read just then may be too old

    async def start(self) -> None:
        """Finds all rows of pieces."""
        self._known = await self._database.read(partial(read_positions, conversations=None))
        self.ids = count(1 + max((position.pieces[-1].id for position in self._known.values()), default=0))

    def peek(self, conversation: str) -> Position | None:
        """The position, if it is in memory. Safe on the writer's thread: nothing changes while a group runs."""
        return self._known.get(conversation)

    async def get(self, conversation: str) -> Position:
        """The position, read from the database if need be. Raises KeyError."""
        while (known := self._known.get(conversation)) is None:
            async with self._loading:
                if conversation not in self._known:
                    await self._load(conversation)
        return known

    async def _load(self, conversation: str) -> None:
        changes = self._changes
        doubtful = list(self._doubtful) if conversation in self._doubtful else []
        if doubtful:  # one scan settles all
            found = await self._database.read(partial(read_positions, conversations=doubtful))
        else:
            position = await self._database.read(partial(read_position, conversation=conversation))
            found = {} if position is None else {conversation: position}
        if changes != self._changes:
            return
        self._doubtful.difference_update(doubtful)
        if conversation not in found:
            raise KeyError(conversation)
        for one, position in found.items():
            self._keep(one, position)

    def _keep(self, conversation: str, position: Position) -> Position:
        """What is in memory is never older than what was just read."""
        if (known := self._known.get(conversation)) is not None:
            return known
        if len(self._known) >= POSITIONS_MAX:
            self._known = {one: known for one, known in self._known.items() if known.pieces}
        self._known[conversation] = position
        return position

    def committed(self, written: Written) -> None:
        """The append is durable: the one place where a position moves."""
        append = written.append
        position = self._keep(append.conversation, written.position)
        if append.superseded:
            position.pieces = [piece for piece in position.pieces if piece.owner not in append.superseded]
        position.pieces.extend(written.pieces)
        position.epoch, position.head, position.lasting = append.epoch, end(append), written.lasting

    def doubted(self, conversation: str) -> None:
        """Nobody knows whether the last append is stored."""
        self._doubtful.add(conversation)
        self.removed([conversation])

    def removed(self, conversations: Iterable[str]) -> None:
        """Forgets positions."""
        self._changes += 1
        for conversation in conversations:
            self._known.pop(conversation, None)

    async def head(self, conversation: str, lasting: int) -> int:
        """The head of a log whose last lasting row ends at `lasting`."""
        known = await self.get(conversation) if conversation in self._doubtful else self._known.get(conversation)
        return lasting if known is None else known.head
