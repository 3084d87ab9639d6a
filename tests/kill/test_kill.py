"""P1–P6 under random `kill -9` of a real server: 100 of them, or as many as `--kills` says."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .campaign import campaign


@pytest.mark.timeout(0)
async def test_kill(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """FAULTS 1, 2, 3, 4, 5, 7, 9, 24, 101: nothing lost, doubled, reordered, unlogged.

    No `never` tool runs twice, and all runs complete.
    """
    kills: int = request.config.getoption("--kills")
    report = await campaign(tmp_path, kills, seed=random.randrange(2**32))
    print(f"\n{report.table()}")
    assert report.kills == kills
    assert report.clean, f"\n{report.table()}"
