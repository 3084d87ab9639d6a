"""Where conversations are found: at most one actor each, brought into memory by folding its log and let go when idle.

The only way to an actor is through here, so that nobody holds one that has ended. What crashed is folded again; what
crashes again and again is left alone until somebody asks for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from app.actor.actor import Actor
from app.actor.census import Census, take, word_of
from app.actor.feed import Feed
from app.actor.leaving import END_SECONDS, end_late
from app.actor.listing import Listing
from app.actor.load import load
from app.actor.mailbox import Question
from app.actor.patience import answer_of, until_stored
from app.actor.records import pack
from app.actor.stale import Stale
from app.actor.summary import item_of
from app.actor.surroundings import Surroundings
from app.actor.sweeping import RESTORE_MS, Sweeping
from app.core.commands import Cancel, Command, Create, Stamp
from app.core.decide import Decision, decide
from app.core.errors import Conflict, Corrupt, Rejected
from app.core.plan import plan
from app.core.state import State
from app.store.event_log import AlreadyCreated, Append, Row, Unavailable
from app.wire import close_codes

logger = logging.getLogger(__name__)

CRASHES_MAX = 3
"""An actor that ended by a fault is activated again by itself at most so often until a pass of it succeeds."""


@dataclass(frozen=True, slots=True)
class Created:
    """The answer of a creation, the same for ever for the same id."""

    conversation: str
    run: str | None
    duplicate: bool


class Directory:
    """All conversations of this process."""

    def __init__(self, around: Surroundings, listing: Listing) -> None:
        self._around = around
        self.listing = listing
        self.draining = False
        self.outcomes = Counter[str]()  # of clients' commands
        self._actors: dict[str, Actor] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._opening: dict[str, asyncio.Task[Actor]] = {}
        self._faults: dict[str, int] = {}
        self._deleting: set[str] = set()
        self._stale = Stale(around)
        self._reviving: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    # --- the life of the process

    async def start(self, *, older: bool = False) -> None:
        """Picks up every unfinished run; when this returns, each one runs, waits for a person, or has ended.

        `older`: the log is a copy from before, and what its runs did since must not be done twice: they are stopped.
        """
        for conversation in await self._stale.unfinished(older=older):
            await self._pick_up(conversation)
        sweeping = Sweeping(self._around, self._actors, self._let_go, self._wake)
        self._sweeper = asyncio.create_task(sweeping.run())

    async def _wake(self, conversation: str) -> None:
        """Activates what is due, unless it is here, or was left alone."""
        if conversation not in self._actors and self._faults.get(conversation, 0) <= CRASHES_MAX:
            await self._pick_up(conversation)

    async def _pick_up(self, conversation: str) -> None:
        """Activates what has work to do and waits for its first pass; what is damaged is left alone."""
        try:
            await until_stored(partial(self._settled, conversation))
        except KeyError:
            return  # deleted in the meantime
        except Corrupt:
            self._faults[conversation] = CRASHES_MAX + 1
            logger.exception("conversation %s is damaged and left alone", conversation)

    async def _settled(self, conversation: str) -> None:
        actor = await self._open(conversation)
        try:
            await answer_of(actor.ask(lambda state: None))
        except Unavailable:
            if self._faults.get(conversation, 0) > CRASHES_MAX:
                raise Corrupt("its actor fails each time that it is activated") from None
            raise

    async def drain(self, seconds: float) -> None:
        """Lets runs park at their next boundary, for so long at most, then ends every actor."""
        self.draining = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for actor in self._actors.values():
            actor.park()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=seconds)
        await end_late(list(self._actors.values()), list(self._tasks.values()))

    # --- conversations

    async def create(self, *, owner: str, agent: str, title: str, prompt: str | None, id: str | None) -> Created:
        """Starts a conversation, and its first run where there is a prompt. Raises Rejected, Unavailable."""
        around, state = self._around, State()
        stamp = Stamp(around.clock(), owner, around.fresh(), around.chance())
        decision = decide(state, Create(agent, title, owner, prompt, id), stamp, around.rules())
        return await self.found(state, pack(decision.events).rows, owner=owner, creation=id, claimed=True)

    async def found(
        self,
        state: State,
        rows: tuple[Row, ...],
        *,
        owner: str,
        creation: str | None,
        claimed: bool,
        elsewhere: tuple[str, ...] = (),
        kept: tuple[tuple[str, str], ...] = (),
    ) -> Created:
        """A conversation with this log. `claimed`: its epoch is ours; `elsewhere`: its runs that others are home to."""
        around, runs = self._around, tuple(run for run in state.runs if run not in elsewhere)
        conversation, log = around.fresh(), around.fresh()
        item = item_of(conversation, state, plan(state, around.rules()))
        append = Append(conversation, 0, state.epoch, rows, item=item, runs=runs, creation=creation, kept=kept)

        async def create() -> Actor:
            await around.log.create(append, log, owner)
            around.on_item(item, state.seq)
            return self._begin(Actor(conversation, log, state.epoch, state, around, claimed=claimed))

        try:
            await answer_of(self._bring(conversation, create()))
        except AlreadyCreated as first:
            return Created(first.conversation, first.run, duplicate=True)
        return Created(conversation, runs[-1] if runs else None, duplicate=False)

    async def submit(self, conversation: str, command: Command, by: str) -> Decision:
        """The decision of a command, once it is durable. Raises KeyError, Rejected, Unavailable."""
        if conversation in self._deleting:
            raise KeyError(conversation)
        outcome = await answer_of((await self._open(conversation)).submit(command, by))
        self.outcomes[word_of(outcome)] += 1
        if isinstance(outcome, Rejected):
            raise outcome
        return outcome

    async def ask(self, conversation: str, question: Question) -> Any:
        """An answer from the committed state. Raises KeyError, Unavailable."""
        try:
            return await answer_of((await self._open(conversation)).ask(question))
        except Unavailable:
            _, state = await load(self._around.log, conversation)
            return question(state)

    async def feed(self, conversation: str) -> Feed:
        """The live side of a conversation: join it at once, it stays in memory while joined. Raises KeyError."""
        return (await self._open(conversation)).feed

    async def delete(self, conversation: str, by: str) -> None:
        """Stops the run, ends every reader for ever and hides the conversation; `restore` undoes it for ten minutes.

        Raises KeyError, and Rejected or Unavailable where the run cannot be stopped: then nothing has been deleted.
        """
        self._deleting.add(conversation)
        try:
            actor = await self._stopped(conversation, by)
            await until_stored(lambda: self._around.log.delete(conversation, self._around.clock()))
            if actor is not None:
                actor.feed.close(close_codes.DELETED)
            await self._let_go(conversation)
        finally:
            self._deleting.discard(conversation)
        self.listing.removed(conversation, by)

    async def _stopped(self, conversation: str, by: str) -> Actor | None:
        """The actor, its run stopped for a deletion; None where the log is damaged: nothing of it runs or is read."""
        try:
            actor = await self._open(conversation)
        except Corrupt:
            return None
        stopped = await answer_of(actor.submit(Cancel(id=f"delete-{self._around.fresh()}"), by))
        if isinstance(stopped, Rejected):
            raise stopped
        if not await actor.over(self._around.grace_seconds + END_SECONDS):
            logger.warning("the run of %s did not end in time for its deletion", conversation)
        return actor

    async def restore(self, conversation: str) -> bool:
        """Undoes a deletion of the last ten minutes."""
        if not await self._around.log.restore(conversation, self._around.clock() - RESTORE_MS):
            return False
        self._around.on_item(*await self._around.log.item(conversation))
        return True

    # --- actors

    def holds(self, conversation: str) -> bool:
        """Whether it is in memory, or on its way there."""
        return conversation in self._actors or conversation in self._opening

    def census(self) -> Census:
        """What is in memory and at work right now."""
        return take(self._actors.values(), self._around.begun)

    async def _open(self, conversation: str) -> Actor:
        """The actor of a conversation, activated if need be; whoever comes meanwhile waits for the same activation.

        One that ends at once gives no answer and a closed feed; to activate it again here would never end.
        """
        if (actor := self._actors.get(conversation)) is not None:
            return actor
        if (opening := self._opening.get(conversation)) is None:
            opening = self._bring(conversation, self._activate(conversation))
        return await answer_of(opening)

    def _bring(self, conversation: str, coming: Coroutine[Any, Any, Actor]) -> asyncio.Task[Actor]:
        """Whoever asks for the conversation from now on waits for this: what is in the log is not yet in memory."""
        opening = self._opening[conversation] = asyncio.create_task(coming)
        opening.add_done_callback(lambda _: self._opening.pop(conversation, None))
        opening.add_done_callback(lambda task: task.cancelled() or task.exception())  # also if nobody waits
        return opening

    async def _activate(self, conversation: str) -> Actor:
        if (leaving := self._tasks.get(conversation)) is not None:
            await asyncio.wait({leaving})
        log, state = await load(self._around.log, conversation)
        actor = Actor(conversation, log, state.epoch, state, self._around)
        self._stale.stop(actor)
        return self._begin(actor)

    def _begin(self, actor: Actor) -> Actor:
        conversation = actor.conversation
        self._actors[conversation] = actor
        task = self._tasks[conversation] = asyncio.create_task(actor.run())
        task.add_done_callback(lambda task: self._ended(actor, task))
        return actor

    def _ended(self, actor: Actor, task: asyncio.Task[None]) -> None:
        conversation = actor.conversation
        if self._actors.get(conversation) is actor:
            del self._actors[conversation]
        if self._tasks.get(conversation) is task:
            del self._tasks[conversation]
        if actor.feed.closed is None:
            actor.feed.close(close_codes.SERVICE_RESTART)
        if task.cancelled() or (error := task.exception()) is None:
            self._faults.pop(conversation, None)
            return
        blame = "lost its log" if isinstance(error, Conflict) else "failed"
        logger.error("the actor of %s %s", conversation, blame, exc_info=error)
        faults = self._faults[conversation] = self._faults.get(conversation, 0) + 1
        if faults <= CRASHES_MAX and not self.draining:
            asyncio.get_running_loop().call_later(faults, self._reopen, conversation)

    def _reopen(self, conversation: str) -> None:
        if not self.draining:
            self._reviving.add(task := asyncio.create_task(self._pick_up(conversation)))
            task.add_done_callback(self._reviving.discard)

    async def _let_go(self, conversation: str) -> None:
        """Ends an actor and waits until it has ended."""
        actor, task = self._actors.pop(conversation, None), self._tasks.get(conversation)
        if actor is not None and task is not None:
            actor.leave()
            await asyncio.wait({task})
