"""The roof: the only place that names concrete variants and puts the house together.

`opened` is the house on its data directory, with every unfinished run picked up; `serve` is the life of a process with
it. What the network sees of that is in server.py; the same house without a network in embedded.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from app.actor.clock import Clock
from app.actor.directory import Directory
from app.actor.listing import Listing
from app.actor.moving import Moving
from app.actor.patience import until_stored
from app.actor.surroundings import Surroundings
from app.agent.agents import Agent, load, servers_of
from app.agent.demo import demo_agent
from app.agent.mcp_link import linked
from app.agent.model import Model
from app.agent.model_demo import DemoModel
from app.agent.threads import tool_threads
from app.core.catalogue import Rules
from app.core.redaction import is_open_key, redactor
from app.server import Server
from app.settings import SECRET_CHARS_MIN, SECRET_NAMES, Settings
from app.store.archive import Archive
from app.store.archive_sqlite import SqliteArchive
from app.store.event_log import EventLog
from app.store.lock import acquire
from app.store.log_sqlite import SqliteLog
from app.store.sqlite import Database
from app.watchdog import watching
from app.web.context import House
from app.wire.frames import FRAME_COST_BYTES, FRAMES_BURST, Limits

logger = logging.getLogger(__name__)

LETS_IN = re.compile(r"authorization|cookie", re.IGNORECASE)
"""Headers that hold secrets, though they are not named like one."""

LOCK_MARGIN_SECONDS = 5
"""How much longer than a drain a new process waits for the data directory."""

HELD_CHARS_MAX = 16_384
"""So much of an unfinished line, or of a private key, waits to be printed."""


def fresh_id() -> str:
    """128 random bits, URL-safe; without a dash in front, which a command would take for an option."""
    while (id := secrets.token_urlsafe(16)).startswith("-"):
        pass
    return id


def agents_of(settings: Settings) -> Mapping[str, Agent]:
    """The agents to serve. Raises ConfigError."""
    if settings.agent is None:
        demo = demo_agent(settings.demo_pace)
        return {demo.name: demo}
    return load(settings.agent)


def model_of(settings: Settings) -> Model:
    """The configured provider, or without a key and an endpoint the embedded demo."""
    if settings.api_key is None and settings.base_url is None:
        return DemoModel(settings.demo_pace)
    from app.agent.model_openai import OpenAIModel  # half of the start-up, and the demo does not need it

    return OpenAIModel(settings.model, settings.api_key or "none", settings.base_url)


def rules_of(settings: Settings, agents: Mapping[str, Agent], model: str) -> Rules:
    return Rules(
        agents=agents,
        model=model,
        context_tokens=settings.context_tokens,
        steps_max=settings.steps_max,
        tokens_max=settings.tokens_max,
        seconds_max=settings.seconds_max,
        money_max=settings.money_max,
        calls_max=settings.calls_max,
        repeats_max=settings.repeats_max,
        prices=settings.prices,
        turns=settings.turns,
        slice_ms=None if settings.slice_seconds is None else int(settings.slice_seconds * 1000),
        queue_max=settings.queue_max,
        grace_ms=int(settings.cancel_grace_seconds * 1000),
        retry_ms=int(settings.retry_seconds * 1000),
    )


def unpriced(rules: Rules) -> list[str]:
    """The models, sub-agents' included, that have no price where others have one."""
    known, to_see = set[int](), list(rules.agents.values())
    models: set[str] = set()
    while to_see:
        agent = to_see.pop()
        if id(agent) not in known:
            known.add(id(agent))
            models.add(agent.model or rules.model)
            to_see += [tool.agent for tool in agent.tools.values() if tool.agent is not None]
    return sorted(models - rules.prices.keys()) if rules.prices else []


def limits_of(settings: Settings) -> Limits:
    return Limits(
        frame_bytes=settings.frame_bytes_max,
        queued=settings.queue_max,
        rate=settings.rate,
        rate_bytes=settings.rate_bytes,
        burst_bytes=max(settings.rate_bytes, FRAMES_BURST * (settings.frame_bytes_max + FRAME_COST_BYTES)),
        sockets=settings.sockets_max,
        heartbeat_seconds=settings.heartbeat_seconds,
    )


def file_secret(path: Path) -> bytes:
    """The key that signs continuations, made at the first start where no setting gives one."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        secret = secrets.token_hex(32).encode()
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
        return secret


def secrets_of(agents: Mapping[str, Agent]) -> tuple[str, ...]:
    """What MCP servers are given to be let in with: it is as secret as our own, whatever they say with it."""
    found: list[str] = []
    for server in servers_of(agents.values()):
        where = server.link.where
        given = {**where.env, **{name.replace("-", "_"): value for name, value in where.headers.items()}}
        secret = {name: value for name, value in given.items() if SECRET_NAMES.search(name) or LETS_IN.search(name)}
        found += [word for value in secret.values() for word in value.split()]
    return tuple(secret for secret in found if len(secret) >= SECRET_CHARS_MIN)


class Redacting:
    """A standard stream that takes secrets out of what is written to it (FAULTS.md 93).

    `print` writes in pieces: an unfinished line waits for its end, and a private key for its last line. What is flushed
    or is longer than HELD_CHARS_MAX goes as it is by then. May be written to from any thread.
    """

    def __init__(self, stream: TextIO, redact: Callable[[str], str]) -> None:
        self._stream = stream
        self._redact = redact
        self._held: list[str] = []
        self._size = 0
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        with self._lock:
            self._held.append(text)
            self._size += len(text)
            if "\n" in text or self._size > HELD_CHARS_MAX:
                self._release(all=self._size > HELD_CHARS_MAX)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._lock:
            self._release(all=True)
            self._stream.flush()

    def _release(self, *, all: bool) -> None:
        text = "".join(self._held)
        end = len(text) if all else 0 if is_open_key(text) else text.rfind("\n") + 1
        self._held, self._size = [text[end:]], len(text) - end
        self._stream.write(self._redact(text[:end]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def house_of(settings: Settings, agents: Mapping[str, Agent], model: Model, log: EventLog, archive: Archive) -> House:
    """Everything between the stores and the routes."""
    listing = Listing()
    clock = Clock()
    rules = rules_of(settings, agents, model.name)
    if models := unpriced(rules):
        logger.warning("HOLDFAST_PRICES has no price for %s: what that costs is not counted", ", ".join(models))
    runs = asyncio.Semaphore(settings.runs_max)
    tool_threads.room(settings.tools_max)
    secret = settings.secret.encode() if settings.secret else file_secret(settings.data / "secret")
    around = Surroundings(
        log=log,
        archive=archive,
        agents=agents,
        model=model,
        rules=lambda: replace(rules, admit=not runs.locked(), draining=directory.draining),
        clock=clock,
        fresh=fresh_id,
        chance=random.random,
        runs=runs,
        tools=asyncio.Semaphore(settings.tools_max),
        on_item=listing.changed,
        tools_parallel=settings.tools_parallel,
        tool_seconds=settings.tool_seconds,
        model_idle_seconds=settings.model_idle_seconds,
        grace_seconds=settings.cancel_grace_seconds,
        frame_bytes_max=settings.frame_bytes_max,
        redact=redactor((*settings.secrets, secret.decode(), *secrets_of(agents))),
    )
    directory = Directory(around, listing)
    return House(
        directory=directory,
        log=log,
        archive=archive,
        agents=agents,
        limits=limits_of(settings),
        clock=clock,
        send_seconds=settings.send_seconds,
        page_bytes=settings.frame_bytes_max,
        moving=Moving(directory, log, rules, secret, shared=settings.secret is not None),
    )


@asynccontextmanager
async def opened(settings: Settings, agents: Mapping[str, Agent], model: Model) -> AsyncIterator[House]:
    """The house on its data directory, every unfinished run picked up; whoever opens it drains it before the end.

    Raises Locked, Corrupt or Unavailable when the data directory cannot be had.
    """
    lock = await acquire(settings.data / "lock", settings.drain_seconds + LOCK_MARGIN_SECONDS)
    try:
        database = await Database.open(settings.data, backups=settings.backups)
        try:
            log = SqliteLog(database)
            await log.start()
            house = house_of(settings, agents, model, log, SqliteArchive(database))
            house.figures["store_failures"] = lambda: database.writer.failures
            house.figures["wal_bytes"] = lambda: database.writer.wal_bytes
            async with linked(server.link for server in servers_of(agents.values())):
                await house.directory.start(older=database.stale)
                if database.stale:
                    await until_stored(database.settle)
                yield house
        finally:
            await database.close()
    finally:
        await model.close()
        lock.release()


async def serve(settings: Settings, agents: Mapping[str, Agent], model: Model, listening: socket.socket) -> None:
    """Serves until a signal, and answers only once every unfinished run has been picked up. Raises as `opened`."""
    async with opened(settings, agents, model) as house:
        try:
            with watching(asyncio.get_running_loop()) as stalls:
                house.figures["stalls"] = lambda: stalls.count
                await Server(settings, house).serve(sockets=[listening])
        finally:
            tool_threads.close()
