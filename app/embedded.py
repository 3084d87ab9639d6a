"""Holdfast inside a program of one's own: conversations, runs and continuations without a server and without HTTP.

It is the very house that `python -m app` serves (main.py), minus the doors: the same log, the same actors, the same
rules; a server started later on the same data directory goes on with what was begun here. One process at a time per
data directory. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from app.agent.agents import Agent, ConfigError
from app.agent.model import Model
from app.agent.threads import tool_threads
from app.core.commands import FromClient
from app.core.continuation_value import Approval, Continuation
from app.core.decide import Decision
from app.core.errors import Rejected
from app.core.events import Failure, Json
from app.core.state import State
from app.main import agents_of, model_of, opened
from app.settings import read
from app.store.event_log import Unavailable
from app.web.access import LOCAL
from app.web.context import House

__all__ = ["Approval", "Continuation", "Holdfast", "Outcome", "Started"]


@dataclass(frozen=True, slots=True)
class Started:
    """Where a run goes on. `duplicate`: it did so before; nothing happened now."""

    conversation: str
    run: str
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has come to: completed, failed, cancelled, moved; or waiting or suspended, with the `reason`."""

    conversation: str
    run: str
    status: str
    reason: str | None
    result: str | None
    error: Failure | None


class Holdfast:
    """A house to enter with `async with`; what is still running at the end parks, and goes on next time.

    `agents`: the first is the default; none = those of the settings. `model`: a model, or the name of one. `data`: the
    data directory. `settings`: as in the README, by name; the environment is not read, but may be handed in here.
    Raises SettingError, ConfigError; on entering Locked, Corrupt, Unavailable. Every method may raise Unavailable.
    """

    _entered: ClassVar[int] = 0

    def __init__(
        self,
        agents: Iterable[Agent] = (),
        *,
        model: Model | str | None = None,
        data: Path | str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        environ = dict(settings or {})
        if data is not None:
            environ["HOLDFAST_DATA"] = str(data)
        if isinstance(model, str):
            environ["HOLDFAST_MODEL"] = model
        self._settings = read(environ)
        self._agents = _by_name(agents) or agents_of(self._settings)
        self._model = None if isinstance(model, str) else model
        self._stack = AsyncExitStack()
        self._house: House | None = None

    async def __aenter__(self) -> Self:
        model = self._model or model_of(self._settings)
        self._house = await self._stack.enter_async_context(opened(self._settings, self._agents, model))
        Holdfast._entered += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        house = self._open
        house.leaving.set()
        try:
            await house.directory.drain(self._settings.drain_seconds)
        finally:
            self._house = None
            Holdfast._entered -= 1
            if not Holdfast._entered:  # the threads are the process's: a stuck tool would keep it from ending
                tool_threads.close()
            await self._stack.aclose()

    @property
    def _open(self) -> House:
        if self._house is None:
            raise RuntimeError("this Holdfast is not entered: use `async with`")
        return self._house

    async def start(self, prompt: str, *, agent: str | None = None, title: str = "", id: str | None = None) -> Started:
        """A conversation and its first run. `id`: the idempotency key. Raises Rejected."""
        house = self._open
        created = await house.directory.create(
            owner=LOCAL.id, agent=house.agent_named(agent), title=title, prompt=prompt, id=id
        )
        return Started(created.conversation, created.run or "", created.duplicate)

    async def send(self, conversation: str, command: FromClient) -> Decision:
        """Any command that a client may send (core/commands.py), durable on return. Raises Rejected."""
        with _known():
            return await self._open.directory.submit(conversation, command, LOCAL.id)

    async def wait(self, run: str, timeout: float | None = None) -> Outcome:
        """Until the run has ended, or nobody but a person or a program can make it go on.

        `timeout` in seconds, then TimeoutError; the run does not notice. Raises Rejected.
        """
        house = self._open
        conversation = await _home(house, run)
        changed = asyncio.Event()
        with _known():
            feed = await house.directory.feed(conversation)
            feed.join(changed.set)
            try:
                async with asyncio.timeout(timeout):
                    while feed.closed is None:
                        changed.clear()
                        outcome = await house.directory.ask(
                            conversation, lambda state: _outcome(conversation, run, state)
                        )
                        if isinstance(outcome, Outcome) and outcome.status != "running":
                            return outcome
                        await changed.wait()
            finally:
                feed.leave(changed.set)
        raise Unavailable("the conversation was interrupted; wait for it again")

    async def continuation(self, conversation: str) -> Continuation:
        """The suspended run of a conversation as a value, to look at and to decide. Raises Rejected."""
        with _known():
            return Continuation(await self._open.moving.export(conversation))

    async def output(self, run: str) -> Json:
        """What came of a run, as `GET /api/runs/{run}/output` says it. Raises Rejected."""
        house = self._open
        with _known():
            return await house.moving.output(await _home(house, run), run)

    async def take(self, conversation: str, run: str | None = None) -> Continuation:
        """The same, and the run ends here, so that it can go on elsewhere; again: the very same. Raises Rejected.

        `run`: the one that is meant; without it the newest.
        """
        with _known():
            return Continuation(await self._open.moving.take(conversation, LOCAL.id, run))

    async def resume(self, continuation: Continuation, *, force: bool = False) -> Started:
        """Decides what the continuation answers; its run goes on, here where it is of another house.

        The same one again changes nothing. `force`: its server is gone for good. Raises Rejected.
        """
        with _known():
            put = await self._open.moving.put_back(continuation.to_object(), LOCAL.id, force=force)
        return Started(put.conversation, put.run or "", put.duplicate)


def _by_name(agents: Iterable[Agent]) -> dict[str, Agent]:
    found: dict[str, Agent] = {}
    for agent in agents:
        if agent.name in found:
            raise ConfigError(f"There are two agents named {agent.name}.")
        found[agent.name] = agent
    return found


async def _home(house: House, run: str) -> str:
    """The conversation of a run."""
    conversation = await house.log.find_run(run)
    if conversation is None:
        raise Rejected("not_found", "There is no such run.")
    return conversation


def _outcome(conversation: str, run: str, state: State) -> Outcome:
    record = state.runs[run]
    reason = state.run.reason if state.run is not None and state.run.run == run else None
    return Outcome(conversation, run, record.status, reason, record.result, record.error)


@contextmanager
def _known() -> Iterator[None]:
    """A conversation that is not there is a refusal, as it is over HTTP."""
    try:
        yield
    except KeyError:
        raise Rejected("not_found", "There is no such conversation.") from None
