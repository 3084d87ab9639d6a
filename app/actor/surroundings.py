"""What every actor of a process shares: stores, models, rules, limits, clock and chance.

Handed in, never looked up, so that the same wheel runs on a virtual clock with failing stores. Settings become values
here; nothing reads the environment below the roof.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from app.actor.mailbox import Mailbox
from app.agent.agents import Agent
from app.agent.model import Model
from app.core.catalogue import Rules
from app.store.archive import Archive
from app.store.event_log import EventLog, Item


@dataclass(slots=True)
class Surroundings:
    """`clock`: ms since the Unix epoch. `fresh`: 128 random bits, URL-safe. `chance`: in [0, 1). Durations in seconds.

    `runs` and `tools` are the process's places; `tools_parallel` bounds one run. `on_item` hears of every committed
    change of a list item and the log's head. `redact` takes known secrets out of what tools say. `begun` counts the
    effects that were started, by kind. `trouble`: whose appends are being tried again, since the store cannot answer.
    """

    log: EventLog
    archive: Archive
    agents: Mapping[str, Agent]
    model: Model
    rules: Callable[[], Rules]
    clock: Callable[[], int]
    fresh: Callable[[], str]
    chance: Callable[[], float]
    runs: asyncio.Semaphore
    tools: asyncio.Semaphore
    on_item: Callable[[Item, int], None]
    tools_parallel: int = 8
    tool_seconds: float = 120
    model_idle_seconds: float = 60
    grace_seconds: float = 1
    pieces_per_second: float = 20
    progress_per_second: float = 10
    frame_bytes_max: int = 262_144
    redact: Callable[[str], str] = str
    begun: Counter[str] = field(default_factory=Counter)
    trouble: set[Mailbox] = field(default_factory=set)
