"""How a conversation comes back into memory: the fold of all that its log holds.

What comes out is committed, every bit of it, so it may be told. A log that cannot be folded is damaged, or was written
by a version that means something else by the same words: it is left alone, never guessed at.

Whoever has folded many events leaves a snapshot, and the next one folds only what came after it. It is believed where
it is of this incarnation of the log, not ahead of it, made by this very code and undamaged; else the log is folded
whole. What was folded is committed and nobody else's, so nobody waits for a snapshot but who wants the state.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from importlib import resources

import msgspec

from app.core.apply import fold
from app.core.codec import decode
from app.core.errors import Corrupt
from app.core.rebuild import CONTRADICTIONS
from app.core.snapshot import forget, joined, parts
from app.core.state import State
from app.store.event_log import EventLog, Head, Snapshot, Unavailable, walk

logger = logging.getLogger(__name__)

LOAD_BYTES = 1_048_576

SNAPSHOT_EVENTS = 20_000
"""Whoever folds so many events leaves a snapshot: about 0.1 s. Shorter logs have none."""

SNAPSHOT_BYTES_MAX = 134_217_728
"""A state that is larger than that, compressed, has no snapshot."""


def _stamp() -> str:
    """A digest of the code that folds, taken when this process began with it: the files may be newer later."""
    files = sorted(resources.files("app.core").iterdir(), key=lambda file: file.name)
    source = (part for file in files if file.name.endswith(".py") for part in (file.name.encode(), file.read_bytes()))
    return hashlib.sha256(b"\0".join(source)).hexdigest()


STAMP = _stamp()


async def load(log: EventLog, conversation: str, *, whole: bool = False) -> tuple[str, State]:
    """The log id and the state. `whole`: with the history that snapshots forget.

    Raises KeyError for what is not there or deleted, Corrupt, Unavailable.
    """
    head = await log.head(conversation)
    if head.deleted:
        raise KeyError(conversation)
    state = None
    if head.head >= SNAPSHOT_EVENTS and not whole:
        state = await _recalled(log, conversation, head)
    if state is not None:
        try:
            folded = await _fold(log, conversation, head, state, whole)
        except Corrupt as doubt:
            logger.warning("the snapshot of %s is not believed: %s", conversation, doubt)
            state = None
    if state is None:
        folded = await _fold(log, conversation, head, state := State(), whole)
    if folded >= SNAPSHOT_EVENTS and not whole:
        await _remember(log, conversation, head.log, state)
    return head.log, state


async def refresh(log: EventLog, conversation: str) -> None:
    """Leaves a newer snapshot, where there is enough to fold; what is damaged is for others to say."""
    try:
        await load(log, conversation)
    except (KeyError, Corrupt, Unavailable) as error:
        logger.warning("no snapshot of %s: %s", conversation, error)


async def _fold(log: EventLog, conversation: str, head: Head, state: State, whole: bool) -> int:
    """Folds on from where the state stands, forgetting on the way what a snapshot would; how many events."""
    folded = 0
    async for page in walk(log, conversation, state.seq, head.head, LOAD_BYTES):
        texts = page.texts
        try:
            fold((decode(text) for text in texts), state)
        except CONTRADICTIONS as error:
            raise Corrupt(f"{conversation}: the log contradicts itself after {page.after}: {error!r}") from error
        state.seq = page.through
        before, folded = folded, folded + len(texts)
        if not whole and folded // SNAPSHOT_EVENTS > before // SNAPSHOT_EVENTS:
            forget(state)
    state.epoch = head.epoch
    return folded


async def _recalled(log: EventLog, conversation: str, head: Head) -> State | None:
    """The state of the snapshot, where there is one that can be believed."""
    snapshot = await log.snapshot(conversation)
    if snapshot is None or not believed(snapshot, head):
        return None
    state = None
    try:
        for part in msgspec.msgpack.decode(snapshot.state, type=list[bytes]):
            state = joined(state, part)
            await asyncio.sleep(0)
    except (Corrupt, msgspec.MsgspecError) as error:
        logger.warning("the snapshot of %s is damaged, its log is folded whole: %s", conversation, error)
        return None
    return state if state is not None and state.seq == snapshot.through else None


def believed(snapshot: Snapshot, head: Head) -> bool:
    """Whether a snapshot is of this log as it stands, and made by this code."""
    return (snapshot.log, snapshot.stamp) == (head.log, STAMP) and snapshot.through <= head.head


async def _remember(log: EventLog, conversation: str, id: str, state: State) -> None:
    """Leaves a snapshot; without one the next activation takes longer, and that is all."""
    forget(state)
    made = list[bytes]()
    try:
        for part in parts(state):
            made.append(part)
            await asyncio.sleep(0)
        packed = msgspec.msgpack.encode(made)
        if len(packed) <= SNAPSHOT_BYTES_MAX:
            await log.save_snapshot(conversation, Snapshot(id, state.seq, STAMP, packed))
    except (KeyError, OverflowError, Unavailable) as error:
        logger.warning("no snapshot of %s: %s", conversation, error)
