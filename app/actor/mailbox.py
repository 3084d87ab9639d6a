"""What waits for the wheel: commands and questions, in order of arrival, each with a future for its answer.

While an append is in doubt (`stuck`) nothing derived from the state may leave: people are told at once that nothing can
be written, in this conversation and in every other of the process, for they share the store; questions get no answer;
what effects report waits on, for it must not be lost. Who sends a command again that is in doubt waits with it: to
refuse it would be to say that nothing happens. A future that is cancelled is one that nobody here will answer: the
store is to be asked, or the command to be sent again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.core.commands import ClientCommand, Command
from app.core.decide import Decision
from app.core.errors import Rejected
from app.core.state import State

TAKE_MAX = 256
"""Letters of one pass of the wheel."""

WAITING_MAX = 1_000
"""Waiting commands of clients; more are refused."""

Question = Callable[[State], Any]


@dataclass(slots=True)
class Letter:
    """A command or a question, and where its answer goes once the append of its pass is durable."""

    content: Command | Question
    by: str
    answer: asyncio.Future[Any]


class Mailbox:
    """`take` what waits, `done` when it is answered; a letter in between is still ours to answer.

    `trouble` is shared by the process: the mailboxes whose append is being tried again.
    """

    def __init__(self, trouble: set[Mailbox]) -> None:
        self._trouble = trouble
        self._waiting: deque[Letter] = deque()
        self._in_hand: list[Letter] = []
        self._wake = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_hand)

    @property
    def stuck(self) -> bool:
        """Whether the append for the letters in hand is being tried again and again."""
        return self in self._trouble

    def submit(self, command: Command, by: str, *, ours: bool = False) -> asyncio.Future[Decision | Rejected]:
        """`ours`: the house itself says what a client could say, too; it is not refused."""
        answer: asyncio.Future[Decision | Rejected] = asyncio.get_running_loop().create_future()
        refusable = isinstance(command, ClientCommand) and not ours
        if refusable and self._trouble and not self._in_doubt(command):
            answer.set_result(_not_now())
        elif refusable and len(self._waiting) >= WAITING_MAX:
            answer.set_result(Rejected("rate_limited", "Too many commands wait in this conversation."))
        else:
            self._post(Letter(command, by, answer))
        return answer

    def ask(self, question: Question) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.stuck:
            answer.cancel()
        else:
            self._post(Letter(question, "", answer))
        return answer

    def wake(self) -> None:
        """Lets the wheel go round, with or without letters."""
        self._wake.set()

    async def take(self) -> list[Letter]:
        """What waits, up to a limit; nothing when the wheel was only woken."""
        if not self._waiting and not self._closed:
            await self._wake.wait()
        self._wake.clear()
        self._in_hand = [self._waiting.popleft() for _ in range(min(len(self._waiting), TAKE_MAX))]
        return self._in_hand

    def done(self) -> None:
        """The letters in hand have been answered."""
        self._in_hand = []
        self._trouble.discard(self)

    def get_stuck(self) -> None:
        self._trouble.add(self)
        waiting, self._waiting = self._waiting, deque()
        for letter in waiting:
            if callable(letter.content):
                letter.answer.cancel()
            elif isinstance(letter.content, ClientCommand) and not self._in_doubt(letter.content):
                letter.answer.set_result(_not_now())
            else:
                self._waiting.append(letter)

    def close(self) -> None:
        """Nobody will answer any more."""
        self._closed = True
        self._trouble.discard(self)
        for letter in [*self._in_hand, *self._waiting]:
            if not letter.answer.done():
                letter.answer.cancel()

    def _in_doubt(self, command: Command) -> bool:
        """Whether this very command is in hand, and nobody knows yet whether it is durable."""
        held = {letter.content.id for letter in self._in_hand if isinstance(letter.content, ClientCommand)}
        return isinstance(command, ClientCommand) and command.id in held

    def _post(self, letter: Letter) -> None:
        if self._closed:
            letter.answer.cancel()
            return
        self._waiting.append(letter)
        self._wake.set()


def _not_now() -> Rejected:
    return Rejected("storage_unavailable", "The storage cannot be written right now; try again in a moment.")
