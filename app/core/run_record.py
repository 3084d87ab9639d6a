"""What is known of a run, going on or ended: what the archive and `GET /api/runs/{run}` tell of it.

A part of the state (state.py) that outlives the run. Only values; apply.py and apply_level.py fill them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from app.core.events import Failure, Path, RunMoved, Usage


@dataclass(frozen=True, slots=True)
class DeniedCall:
    """A call that no person let run. `asked` is what the model wrote."""

    path: Path
    call: str
    tool: str
    asked: str


@dataclass(slots=True)
class LevelRecord:
    """What one level of a run has used, going on or closed."""

    agent: str
    steps: int = 0
    usage: Usage = field(default_factory=lambda: Usage(input=0, output=0))


@dataclass(slots=True)
class RunRecord:
    """What is known of a run, going on or ended: the row of the archive and the answer of `GET /api/runs/{run}`."""

    run: str
    agent: str
    status: str
    started_at: int
    changed: int  # seq of the last change
    step: int = 0
    usage: Usage = field(default_factory=lambda: Usage(input=0, output=0))
    finished_at: int | None = None
    error: Failure | None = None
    result: str | None = None
    denied: DeniedCall | None = None  # what ended it, where a denial did
    moved: RunMoved | None = None
    levels: dict[Path, LevelRecord] = field(default_factory=dict)

    def level(self, path: Path) -> LevelRecord:
        """Where a level's usage is counted: with itself, or, where too many are listed, with who called it."""
        while path not in self.levels:
            path = path[:-1]
        return self.levels[path]
