"""The wheel: one conversation, one owner, one thing at a time.

    take → decide → append (durable here) → publish → settle

Nothing derived from the state leaves before the append of the same pass has returned. A conflict, or a contradiction in
the log, ends the actor: its memory is worthless, the next activation folds the log again. A store that cannot answer
does not end it: the identical batch is tried again until it can, and nothing more is taken meanwhile.

What may happen is core's, what runs is the runner's, who reads is the feed's. Never anything of theirs in here.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from app.actor.feed import Feed
from app.actor.mailbox import Letter, Mailbox, Question
from app.actor.pages import READ_FRAMES, Pages
from app.actor.patience import until_stored
from app.actor.records import Batch, pack
from app.actor.runner import Runner
from app.actor.summary import item_of
from app.actor.surroundings import Surroundings
from app.core.catalogue import Rules
from app.core.commands import Activate, Command, Drain, Progressed, Stamp, Streamed, Wake
from app.core.decide import Decision, decide
from app.core.effects import Effect
from app.core.errors import Rejected
from app.core.events import Event, RunStarted
from app.core.plan import plan
from app.core.state import State
from app.store.event_log import Append, Item

TIMER_SECONDS_MAX = 60
"""A timer is set no further ahead: the wall clock may jump."""


class Actor:
    """Owns a conversation from activation to passivation.

    `epoch` is the newest one in the log; unless it is this actor's own (`claimed`), the first command claims the next.
    """

    def __init__(
        self, conversation: str, log: str, epoch: int, state: State, around: Surroundings, *, claimed: bool = False
    ) -> None:
        self.conversation = conversation
        bytes_max = around.frame_bytes_max
        pages = Pages(lambda after: around.log.read(conversation, after, bytes_max * READ_FRAMES), bytes_max)
        self.feed = Feed(log, state.seq, bytes_max, pages)
        self._epoch = epoch
        self._claimed = claimed
        self._state = state
        self._around = around
        self._runner = Runner(conversation, self.submit, around)
        self._mailbox = Mailbox(around.trouble)
        self._timer: asyncio.TimerHandle | None = None
        self._plan = plan(state, self._rules())
        self._item: Item | None = None
        self._leaving = False
        self.grown = 0  # lasting events since somebody last looked whether a snapshot is due
        set_back = self._plan.wake_at is not None and around.clock() < state.at
        if (self._plan.effects or state.unfinished or set_back) and not self._rules().draining:
            self.nudge()

    # --- the door

    def submit(self, command: Command, by: str = "", *, ours: bool = False) -> asyncio.Future[Decision | Rejected]:
        """Posts a command; the future holds its decision or refusal once that is durable. `ours`: not a client's."""
        return self._mailbox.submit(command, by, ours=ours)

    def ask(self, question: Question) -> asyncio.Future[Any]:
        """Posts a question, answered from the committed state; cancelled while an append is in doubt."""
        return self._mailbox.ask(question)

    def nudge(self) -> None:
        """A time has come: what is due is decided."""
        self.submit(Wake())

    def park(self) -> None:
        """The rules say that this process drains: leaves as soon as nothing is under way."""
        self._mailbox.wake()

    def leave(self) -> None:
        """Ends the wheel after the pass that is under way."""
        self._leaving = True
        self._mailbox.wake()

    @property
    def stuck(self) -> bool:
        """Whether an append is being tried again and again."""
        return self._mailbox.stuck

    @property
    def idle(self) -> bool:
        """Nothing runs, nothing falls due soon, nobody reads: it may leave memory."""
        due = self._plan.wake_at is not None and self._plan.wake_at - self._around.clock() < TIMER_SECONDS_MAX * 1000
        return not (self._mailbox or self.at_work or self._runner.busy or self.feed.watched or due)

    @property
    def at_work(self) -> bool:
        """Whether something is to be done without anybody asking."""
        return bool(self._mailbox or self._plan.effects or self._state.stopping)

    @property
    def item(self) -> Item:
        """The list item as of the last pass."""
        return item_of(self.conversation, self._state, self._plan)

    @property
    def status(self) -> str:
        """The conversation's, as it was last committed."""
        return (self._item or self.item).status

    @property
    def under_way(self) -> list[Effect]:
        """The effects that run right now."""
        return self._runner.under_way

    @property
    def unfinished(self) -> bool:
        return self._state.unfinished

    async def over(self, seconds: float) -> bool:
        """Waits until the run has ended, for so long at most; whether it has."""
        changed = asyncio.Event()
        self.feed.join(changed.set)
        try:
            async with asyncio.timeout(seconds):
                while self.unfinished and self.feed.closed is None:
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            return False
        finally:
            self.feed.leave(changed.set)
        return True

    # --- the wheel

    async def run(self) -> None:
        """Turns until `leave`; raises what made the memory worthless (Conflict, Corrupt)."""
        try:
            self._set_timer()
            while not self._leaving:
                await self._pass(await self._mailbox.take())
                if self._rules().draining and not self.at_work:
                    self._drain()
        finally:
            self._end()

    async def _pass(self, letters: list[Letter]) -> None:
        events = self._claim() if any(not callable(letter.content) for letter in letters) else []
        outcomes = [self._decide(letter) for letter in letters]
        for outcome in outcomes:
            if isinstance(outcome, Decision):
                events += outcome.events
        pieces = bool(letters) and all(isinstance(letter.content, Streamed | Progressed) for letter in letters)
        if not pieces:
            self._plan = plan(self._state, self._rules())
        if events:
            await self._append(events)
        for letter, outcome in zip(letters, outcomes, strict=True):
            if not letter.answer.done():
                letter.answer.set_result(letter.content(self._state) if callable(letter.content) else outcome)
        self._mailbox.done()
        if self._claimed and not pieces:
            self._runner.settle(self._plan, self._state)
            self._set_timer()

    def _claim(self) -> list[Event]:
        """A new owner's first events; none where the epoch is ours already."""
        if self._claimed:
            return []
        self._claimed = True
        self._epoch += 1
        return decide(self._state, Activate(self._epoch), self._stamp(""), self._rules()).events

    def _decide(self, letter: Letter) -> Decision | Rejected | None:
        """What comes of a letter; a question is answered later, from the committed state."""
        if callable(letter.content):
            return None
        try:
            return decide(self._state, letter.content, self._stamp(letter.by), self._rules())
        except Rejected as refusal:
            return refusal

    def _drain(self) -> None:
        """Says that what follows is no crash, then leaves."""
        if self.unfinished and not self._state.drained:
            self.submit(Drain())
        else:
            self.leave()

    async def _append(self, events: list[Event]) -> None:
        batch = pack(events)
        item = self.item if batch.lasting else None
        changed = item is not None and item != self._item
        append = Append(
            conversation=self.conversation,
            after=events[0].seq - 1,
            epoch=self._epoch,
            rows=batch.rows,
            superseded=tuple(batch.superseded),
            item=item if changed else None,
            runs=tuple(event.run or "" for event in events if isinstance(event, RunStarted)),
        )
        await until_stored(lambda: self._around.log.append(append), self._mailbox.get_stuck)
        self._publish(batch, item if changed else None)

    def _publish(self, batch: Batch, item: Item | None) -> None:
        self.feed.publish(batch.records, batch.superseded, self._state.seq)
        self.grown += sum(record.owner is None for record in batch.records)
        if item is not None:
            self._item = item
            self._around.on_item(item, self._state.seq)

    # --- around it

    def _rules(self) -> Rules:
        rules = self._around.rules()
        return replace(rules, admit=True) if self._runner.has_place else rules

    def _stamp(self, by: str) -> Stamp:
        return Stamp(self._around.clock(), by, self._around.fresh(), self._around.chance())

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._plan.wake_at is not None:
            seconds = max(0.0, (self._plan.wake_at - self._around.clock()) / 1000)
            self._timer = asyncio.get_running_loop().call_later(min(seconds, TIMER_SECONDS_MAX), self._timed)

    def _timed(self) -> None:
        if self._plan.wake_at is not None and self._around.clock() >= self._plan.wake_at:
            self.nudge()
        else:
            self._set_timer()

    def _end(self) -> None:
        self._leaving = True
        if self._timer is not None:
            self._timer.cancel()
        self._runner.close()
        self._mailbox.close()
