"""How a conversation comes back into memory: the fold of all that its log holds.

What comes out is committed, every bit of it, so it may be told. A log that cannot be folded is damaged, or was written
by a version that means something else by the same words: it is left alone, never guessed at.
"""

from __future__ import annotations

from app.core.apply import fold
from app.core.codec import decode
from app.core.errors import Corrupt
from app.core.state import State
from app.store.event_log import EventLog

LOAD_BYTES = 1_048_576


async def load(log: EventLog, conversation: str) -> tuple[str, State]:
    """The log id and the state. Raises KeyError for what is not there or deleted, Corrupt, Unavailable."""
    head = await log.head(conversation)
    if head.deleted:
        raise KeyError(conversation)
    state = State()
    cursor = 0
    while cursor < head.head:
        page = await log.read(conversation, cursor, LOAD_BYTES)
        try:
            fold((decode(text) for text in page.texts), state)
        except (LookupError, AssertionError, StopIteration) as error:
            raise Corrupt(f"{conversation}: the log contradicts itself after {cursor}: {error!r}") from error
        if page.through <= cursor:
            raise Corrupt(f"{conversation}: the log ends at {cursor} and should end at {head.head}")
        cursor = page.through
    state.seq, state.epoch = cursor, head.epoch
    return head.log, state
