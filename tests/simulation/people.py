"""Clients: they connect with their cursor, check every frame as PROTOCOL.md lets any client, lose their socket, come
back, and send commands one to five times until they hear of them.

They know only what frames told them. What they saw is evidence for the checks afterwards.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from app.actor.directory import Directory
from app.core.codec import to_json
from app.core.commands import ClientCommand
from app.core.errors import Rejected
from app.store.event_log import Unavailable
from app.web.access import Principal
from app.web.follow import Follower
from app.wire.frames import Limits
from app.wire.inbound import Ear
from tests.simulation.screen import Screen, piece_of, superseded_by

T = TypeVar("T")
Json = dict[str, Any]


@dataclass
class Sent:
    """A command, who says it, and every answer that anybody got for it."""

    command: Json
    by: str = "owner"
    accepted: list[tuple[int, bool]] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)


class Client:
    """One client with a cursor. `seen`: every event that its cursor has passed, by seq, as the text it had.

    `before`: what it had seen beyond a cursor to which it went back (an older tab, a page reloaded from a cache).
    `slow`: how often its link keeps a frame for long. `wander`: how often it comes back at an older cursor.
    `durable` tells the head that is committed right now. `strict`: `live` is never behind `attached.head`. `exact`: the
    feed knows all that is durable, so nothing is shown that was superseded by then. `two_owners`: one of them may not
    know yet that it is none.
    """

    def __init__(
        self, name: str, chance: random.Random, durable: Callable[[], int], slow: float = 0.0, wander: float = 0.0
    ) -> None:
        self.name = name
        self.durable = durable
        self.strict = self.exact = False
        self.two_owners = False
        self.cursor = 0
        self.log: str | None = None
        self.seen: dict[int, str] = {}
        self.before: list[tuple[int, str]] = []
        self.live = False
        self.connections = 0
        self.resets = 0
        self.shut = 0
        self.chance = chance
        self.screen = Screen()
        self._slow = slow
        self._wander = wander
        self._head = 0
        self._pieces: set[str] = set()
        self._ended: set[str] = set()

    def hear(self, text: str) -> None:
        """One frame; asserts what any client may rely on."""
        frame = msgspec.json.decode(text)
        match frame["type"]:
            case "attached":
                self._attached(frame)
            case "events":
                self._events(frame)
            case "live":
                assert not self.live and frame["through"] == self.cursor, f"P4: {self.name} at {self.cursor}: {text}"
                assert frame["through"] >= self._head or not self.strict, f"{text}, but attached told of {self._head}"
                self.live = True
            case "heartbeat":
                assert frame["head"] == self.cursor

    def _attached(self, frame: Json) -> None:
        if frame["reset"]:
            lost = frame["log"] != self.log or self.two_owners
            assert lost and frame["after"] == 0, "nothing was lost, so nobody starts over"
            self.resets += 1
            self._stand_at(0)
            self.before.clear()
            self._ended.clear()
        assert frame["after"] == self.cursor and frame["head"] >= self.cursor, f"{self.name}: {frame}"
        assert self.log in (None, frame["log"]) or frame["reset"], f"P4: {self.name} goes on in another log"
        self.log, self.live = frame["log"], False
        self._head = frame["head"]
        assert self._head <= self.durable(), f"P1: {self.name} was told of what is not durable: {frame}"
        self._pieces.clear()

    def _events(self, frame: Json) -> None:
        assert frame["after"] == self.cursor, f"{self.name}: {frame['after']} after {self.cursor}"
        assert frame["through"] > self.cursor
        assert frame["through"] <= self.durable(), f"P1: {self.name} saw what is not durable: {frame}"
        last, pieces = self.cursor, set()
        for event in frame["events"]:
            assert last < event["seq"] <= frame["through"], f"P2: {self.name}: {event['seq']} after {last}"
            last = event["seq"]
            self.seen[last] = to_json(event)
            self.screen.take(event)
            if (owner := piece_of(event)) is not None:
                assert owner not in self._ended, f"§3.3: {self.name} was shown {event} again"
                pieces.add(owner)
            elif (owner := superseded_by(event)) is not None:
                self._ended.add(owner)
                old = owner in pieces or (self.exact and last <= self._head and owner in self._pieces)
                assert not old, f"§3.3: {self.name} was shown pieces that {event} had superseded"
        self._pieces |= pieces
        self.cursor = frame["through"]

    def _stand_at(self, cursor: int) -> None:
        """Goes back; what was seen beyond is kept as evidence."""
        self.before += [(seq, text) for seq, text in self.seen.items() if seq > cursor]
        self.seen = {seq: text for seq, text in self.seen.items() if seq <= cursor}
        self.cursor = cursor
        self.screen = Screen()
        for text in self.seen.values():
            self.screen.take(msgspec.json.decode(text))

    async def follow(self, follower: Follower, conversation: str) -> None:
        """One connection; it is lost after a while."""
        self.connections += 1
        self.live = False
        if self.chance.random() < self._wander:
            self._stand_at(self.chance.choice([0, self.chance.randint(0, self.cursor)]))

        async def send(text: str) -> None:
            if self.chance.random() < 0.1:
                await asyncio.sleep(self.chance.random() * 0.5)  # a slow link
            if self.chance.random() < self._slow:
                await asyncio.sleep(self.chance.random() * 9)  # a very slow one
            self.hear(text)

        try:
            async with asyncio.timeout(self.chance.choice([0.05, 0.5, 2, 20])):
                await follower.run(conversation, Principal("owner"), self.cursor, self.log, send)
        except KeyError:
            self.shut += 1
        except (TimeoutError, Unavailable):
            pass


async def send_until_heard(
    directory: Callable[[], Directory],
    conversation: str,
    sent: Sent,
    chance: random.Random,
    timeline: Callable[[], int] = lambda: 0,
) -> None:
    """Sends a command one to five times, at least until somebody hears of it; a lost answer is asked for again.

    An answer of a `timeline` that was since replaced by an older disk is worth nothing.
    """
    times = chance.choice([1, 1, 1, 2, 5])
    while times > 0 or not (sent.accepted or sent.rejected):
        times -= 1
        said = Ear(Limits(), 0.0).hear(to_json(sent.command), 0.0)
        assert isinstance(said, ClientCommand), said
        now = timeline()
        try:
            decision = await lossy(directory().submit(conversation, said, sent.by), chance)
        except (TimeoutError, ConnectionError, Unavailable, KeyError):
            await asyncio.sleep(chance.random())
            continue
        except Rejected as refusal:
            if refusal.code not in ("storage_unavailable", "internal", "draining"):
                sent.rejected.append(refusal.code)
            await asyncio.sleep(chance.random())
            continue
        if now == timeline():
            sent.accepted.append((decision.seq, decision.duplicate))


async def lossy(answer: Awaitable[T], chance: random.Random) -> T:
    """The answer, unless the socket is lost before it comes."""
    async with asyncio.timeout(chance.choice([0.05, 5, 5, 30])):
        result = await answer
    if chance.random() < 0.15:
        raise ConnectionError
    return result
