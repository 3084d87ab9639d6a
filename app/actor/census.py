"""What this process has in memory and at work, counted from the actors themselves: nothing here is kept up to date.

Only figures: no ids, no words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from app.actor.actor import Actor
from app.core.decide import Decision
from app.core.errors import Rejected


@dataclass(frozen=True, slots=True)
class Census:
    """`runs` by status; `stuck`: actors whose append is being repeated; `under_way` and `begun`: effects, by kind."""

    actors: int
    stuck: int
    runs: Counter[str]
    under_way: Counter[str]
    begun: Counter[str]


def take(actors: Iterable[Actor], begun: Counter[str]) -> Census:
    """Looks at each actor once."""
    found = list(actors)
    return Census(
        actors=len(found),
        stuck=sum(actor.stuck for actor in found),
        runs=Counter(status for actor in found if (status := actor.status) != "idle"),
        under_way=Counter(type(effect).__name__ for actor in found for effect in actor.under_way),
        begun=begun,
    )


def word_of(outcome: Decision | Rejected) -> str:
    """What a command's outcome is counted as: accepted, duplicate, or the code of its refusal."""
    if isinstance(outcome, Rejected):
        return outcome.code
    return "duplicate" if outcome.duplicate else "accepted"
