"""What the routes share: made once by the roof, found in `request.app.state.house`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from app.actor.directory import Directory
from app.actor.moving import Moving
from app.agent.agents import Agent
from app.core.errors import Rejected
from app.store.archive import Archive
from app.store.event_log import EventLog
from app.web.follow import Follower
from app.wire.frames import Limits
from app.wire.inbound import Bucket

ADDRESSES_MAX = 10_000
"""Client addresses whose rate is remembered; the longest unseen is forgotten first."""


@dataclass
class House:
    """Everything a route may use. `send_seconds`: how long one send may take before the peer is aborted.
    `refused`: connections that were not served, by reason. `figures`: what only the roof can count (metrics.py).
    """

    directory: Directory
    log: EventLog
    archive: Archive
    agents: Mapping[str, Agent]
    limits: Limits
    clock: Callable[[], int]
    send_seconds: float
    page_bytes: int
    moving: Moving
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    sockets: dict[str, int] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    figures: dict[str, Callable[[], int]] = field(default_factory=dict)
    _rates: OrderedDict[str, Bucket] = field(default_factory=OrderedDict)

    def agent_named(self, name: str | None) -> str:
        """The agent of a new conversation: this one, else the first. Raises Rejected not_found."""
        if name is not None and name not in self.agents:
            raise Rejected("not_found", "There is no such agent.")
        return name or next(iter(self.agents))

    def follower(self) -> Follower:
        return Follower(self.directory, self.limits, self.clock)

    def within_rate(self, address: str) -> bool:
        """Whether one more command from this address is within the rate."""
        now = time.monotonic()
        bucket = self._rates.get(address) or Bucket(self.limits, now)
        self._rates[address] = bucket
        self._rates.move_to_end(address)
        if len(self._rates) > ADDRESSES_MAX:
            self._rates.popitem(last=False)
        return bucket.take(now)
