"""The pen of `decide`: each event gets its place, its time and its cause, and is applied at once.

Later events of one decision follow from earlier ones, so they are decided against the state that these left. A
decision that is going to refuse does so before it writes anything.
"""

from __future__ import annotations

from app.core.apply import apply
from app.core.commands import Stamp
from app.core.events import Event
from app.core.state import State


class Ledger:
    """Writes events onto a state. `cause` (a command id) goes onto the first one."""

    def __init__(self, state: State, stamp: Stamp, cause: str | None = None) -> None:
        self.state = state
        self.stamp = stamp
        self.events: list[Event] = []
        self._cause = cause
        self._ids = 0

    def emit(self, event: Event) -> None:
        event.seq, event.at = self.state.seq + 1, self.stamp.at
        event.cause, self._cause = self._cause, None
        apply(self.state, event)
        self.events.append(event)

    def fresh_id(self) -> str:
        """A new unguessable id, URL-safe."""
        self._ids += 1
        return self.stamp.fresh if self._ids == 1 else f"{self.stamp.fresh}-{self._ids}"
