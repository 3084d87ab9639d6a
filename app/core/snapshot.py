"""A snapshot: the state as bytes and back, a cache of `fold` for logs that have become long.

Never needed and never migrated: whoever doubts one folds the log. What has been in a snapshot forgets: of the history
that a summary stands for only what may still be told is kept, so that memory is bounded by what people said and what
fits a window, not by the log; whoever wants the rest folds the whole log.

In parts, each small enough to be made and read without holding anything up.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import msgspec

from app.core.context import tellable
from app.core.errors import Corrupt
from app.core.state import Run, State

PART_ITEMS = 500
"""Entries of one part of a snapshot, of whatever grows with the log."""

_GROWING = ("history", "receipts", "delivered", "decisions", "given_up", "runs")
"""What of a state has an entry for every so many events; all else is in the first part."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(State)


def forget(state: State) -> None:
    """Lets go of the history that a summary stands for, at every level."""
    for level in state.run.levels.values() if state.run is not None else ():
        level.history[:] = tellable(level.history, level.context)
        level.context.forgotten = level.context.through
    state.history[:] = tellable(state.history, state.context)
    state.context.forgotten = state.context.through


def parts(state: State) -> Iterator[bytes]:
    """The parts of a state that nobody changes meanwhile. Raises OverflowError where an argument is an integer of more
    than 64 bits: such a state has no snapshot."""
    yield _packed(replace(state, run=_bare(state.run), **{name: _none(state, name) for name in _GROWING}))
    for name in _GROWING:
        entries: Any = getattr(state, name)
        rest = iter(entries.items() if isinstance(entries, dict) else entries)
        while chunk := list(islice(rest, PART_ITEMS)):
            yield _packed(State(**{name: type(entries)(chunk)}))


def joined(state: State | None, part: bytes) -> State:
    """The state with its next part; None before the first. Raises Corrupt for what is no part of a state."""
    try:
        read = _decoder.decode(zlib.decompress(part))
    except (zlib.error, msgspec.MsgspecError) as error:
        raise Corrupt(f"a snapshot cannot be read: {error}") from None
    if state is None:
        if read.run is not None:
            read.run.top.history, read.run.top.context = read.history, read.context
        return read
    state.history += read.history
    for name in _GROWING[1:]:
        getattr(state, name).update(getattr(read, name))
    return state


def _packed(state: State) -> bytes:
    return zlib.compress(_encoder.encode(state), 1)


def _none(state: State, name: str) -> Any:
    return type(getattr(state, name))()


def _bare(run: Run | None) -> Run | None:
    """A run without what its owner alone knows, and without the history that its top level shares with the state."""
    if run is None:
        return None
    levels = {path: replace(level, request=None) for path, level in run.levels.items()}
    levels[()].history = []
    return replace(run, levels=levels)
