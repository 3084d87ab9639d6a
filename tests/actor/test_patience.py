"""Waiting for a store: how long between two tries."""

from __future__ import annotations

import pytest

from app.actor.patience import PAUSES_SECONDS, pause


@pytest.mark.parametrize("tries", [0, 3, 1_000])
def test_pauses_grow_to_a_limit_and_differ(tries: int) -> None:
    """FAULTS 15: what failed together does not come back together."""
    longest = PAUSES_SECONDS[min(tries, len(PAUSES_SECONDS) - 1)]
    pauses = [pause(tries) for _ in range(200)]
    assert all(longest / 2 <= one <= longest for one in pauses)
    assert max(pauses) - min(pauses) > longest / 4
