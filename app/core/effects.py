"""What may be in flight: the keys of effects. `plan` names them, the runner settles them, their reports carry them.

A key holds the epoch and the try, so that a late answer of an effect that is no longer wanted is known as such. Only
values; what an effect does is the runner's business.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.core.events import Path


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One attempt of one step's model call."""

    epoch: int
    run: str
    path: Path
    step: int
    attempt: int


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One try of one tool call; `tries` counts the times that a person sent it again."""

    epoch: int
    run: str
    path: Path
    call: str
    tries: int


@dataclass(frozen=True, slots=True)
class Admission:
    """A run waits for its place among the runs at work in this process."""

    epoch: int
    run: str


@dataclass(frozen=True, slots=True)
class ArchiveFlush:
    """The archive is behind; `due` is the seq that made it so."""

    epoch: int
    due: int


@dataclass(frozen=True, slots=True)
class Summary:
    """One attempt to summarise a level's history up to the seq `to`."""

    epoch: int
    run: str
    path: Path
    to: int
    attempt: int


Effect = ModelCall | Summary | ToolCall | Admission | ArchiveFlush
