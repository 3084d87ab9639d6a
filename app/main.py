"""The roof: the only place that names concrete variants and puts the house together.

`serve` is the life of a process; `Server` is uvicorn with the manners that a long-running agent needs: readers are
told before the process goes, runs park, then sockets close, and the exit code is 0.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import uvicorn

from app.actor.directory import Directory
from app.actor.listing import Listing
from app.actor.moving import Moving
from app.actor.patience import until_stored
from app.actor.surroundings import Surroundings
from app.agent.agents import Agent, load
from app.agent.demo import demo_agent
from app.agent.model import Model
from app.agent.model_demo import DemoModel
from app.agent.threads import tool_threads
from app.core.catalogue import Rules
from app.settings import Settings, hosts
from app.store.archive import Archive
from app.store.archive_sqlite import SqliteArchive
from app.store.event_log import EventLog
from app.store.lock import acquire
from app.store.log_sqlite import SqliteLog
from app.store.sqlite import Database
from app.watchdog import watching
from app.web.context import House
from app.web.protocols import AbortableHttp, AbortableWebSocket
from app.web.routes import application
from app.wire import close_codes
from app.wire.frames import Limits

logger = logging.getLogger(__name__)

LOCK_MARGIN_SECONDS = 5
"""How much longer than a drain a new process waits for the data directory."""


def now_ms() -> int:
    """Wall clock, ms since the Unix epoch."""
    return time.time_ns() // 1_000_000


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
        steps_max=settings.steps_max,
        tokens_max=settings.tokens_max,
        seconds_max=settings.seconds_max,
        turns=settings.turns,
        slice_ms=None if settings.slice_seconds is None else int(settings.slice_seconds * 1000),
        queue_max=settings.queue_max,
        grace_ms=int(settings.cancel_grace_seconds * 1000),
        retry_ms=int(settings.retry_seconds * 1000),
    )


def limits_of(settings: Settings) -> Limits:
    return Limits(
        queued=settings.queue_max,
        rate=settings.rate,
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


def redactor(secrets: tuple[str, ...]) -> Callable[[str], str]:
    """Takes the secrets that this process knows out of a text."""

    def redact(text: str) -> str:
        for secret in secrets:
            if secret in text:
                text = text.replace(secret, "[redacted]")
        return text

    return redact


class Redacting:
    """A standard stream that takes secrets out of what is written to it, print by print."""

    def __init__(self, stream: TextIO, redact: Callable[[str], str]) -> None:
        self._stream = stream
        self._redact = redact

    def write(self, text: str) -> int:
        self._stream.write(self._redact(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def house_of(settings: Settings, agents: Mapping[str, Agent], model: Model, log: EventLog, archive: Archive) -> House:
    """Everything between the stores and the routes."""
    listing = Listing()
    rules = rules_of(settings, agents, model.name)
    runs = asyncio.Semaphore(settings.runs_max)
    secret = settings.secret.encode() if settings.secret else file_secret(settings.data / "secret")
    around = Surroundings(
        log=log,
        archive=archive,
        agents=agents,
        model=model,
        rules=lambda: replace(rules, admit=not runs.locked(), draining=directory.draining),
        clock=now_ms,
        fresh=lambda: secrets.token_urlsafe(16),
        chance=random.random,
        runs=runs,
        tools=asyncio.Semaphore(settings.tools_max),
        on_item=listing.changed,
        tools_parallel=settings.tools_parallel,
        tool_seconds=settings.tool_seconds,
        model_idle_seconds=settings.model_idle_seconds,
        grace_seconds=settings.cancel_grace_seconds,
        frame_bytes_max=settings.frame_bytes_max,
        redact=redactor((*settings.secrets, secret.decode())),
    )
    directory = Directory(around, listing)
    return House(
        directory=directory,
        log=log,
        archive=archive,
        agents=agents,
        limits=limits_of(settings),
        clock=now_ms,
        send_seconds=settings.send_seconds,
        page_bytes=settings.frame_bytes_max,
        moving=Moving(directory, log, rules, secret),
    )


async def serve(settings: Settings, agents: Mapping[str, Agent], model: Model, listening: socket.socket) -> None:
    """Serves until a signal: takes the data directory, picks up every unfinished run, and only then answers.

    Raises Locked, Corrupt or Unavailable when the data directory cannot be had.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    lock = await acquire(settings.data / "lock", settings.drain_seconds + LOCK_MARGIN_SECONDS)
    try:
        database = await Database.open(settings.data, backups=settings.backups)
        try:
            log = SqliteLog(database)
            await log.start()
            house = house_of(settings, agents, model, log, SqliteArchive(database))
            await house.directory.start(older=database.stale)
            if database.stale:
                await until_stored(database.settle)
            with watching(asyncio.get_running_loop()):
                await Server(settings, house).serve(sockets=[listening])
        finally:
            tool_threads.close()
            await database.close()
    finally:
        await model.close()
        lock.release()


class Quiet(logging.Filter):
    """What a peer did wrong is no error of ours: uvicorn's traceback of it and its word on refused handshakes go."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(said in str(record.msg) for said in ("Invalid UTF-8", "without completing handshake"))


class Server(uvicorn.Server):
    """uvicorn that drains before it closes sockets; a second signal cuts the drain short, still consistent."""

    def __init__(self, settings: Settings, house: House) -> None:
        self._house = house
        self._drain_seconds = settings.drain_seconds
        self._cut = asyncio.Event()
        logging.getLogger("uvicorn.error").addFilter(Quiet())
        super().__init__(
            uvicorn.Config(
                application(house, hosts(settings), settings.origins),
                http=AbortableHttp,
                ws=AbortableWebSocket,
                ws_max_size=house.limits.frame_bytes,
                ws_per_message_deflate=False,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=2,
                lifespan="off",
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self._cut.set()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            _say(f"Holdfast is listening on http://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        directory = self._house.directory
        self._house.leaving.set()
        drain = asyncio.create_task(directory.drain(self._drain_seconds))
        cut = asyncio.create_task(self._cut.wait())
        await asyncio.wait({drain, cut}, return_when=asyncio.FIRST_COMPLETED)
        cut.cancel()
        if not drain.done():
            drain.cancel()
            await asyncio.wait({drain})
            await directory.drain(0)
        directory.listing.close(close_codes.SERVICE_RESTART)
        await super().shutdown(sockets)


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def bind(settings: Settings) -> socket.socket:
    """The listening socket, before anything else is opened. Raises OSError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((settings.host, settings.port))
    return bound
