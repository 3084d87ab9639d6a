"""The first measures of the house, small enough for every run; `python -m tests.benchmarks.load` prints the whole.

Ratios of one run, with room for a busy machine: the limits of the report itself are stricter (250 ms, 1.5, 3).
"""

from __future__ import annotations

import pytest

from tests.benchmarks.load import replay, streaming


@pytest.mark.timeout(180)
async def test_a_hundred_conversations_stream_in_time() -> None:
    """100 conversations x 30 pieces/s with one reader each: from the model's emission to the reader."""
    memory, sqlite = await streaming("memory", 100, 3), await streaming("sqlite", 100, 3)
    print(f"p99 {sqlite.at(0.99):.0f} ms; durable / in memory, median: {sqlite.at(0.5) / memory.at(0.5):.2f}")
    assert len(sqlite.latencies) == 100 * 90
    assert sqlite.at(0.99) < 1_000
    assert sqlite.at(0.5) < 4 * memory.at(0.5)


@pytest.mark.timeout(180)
async def test_a_replay_costs_about_what_its_bytes_cost() -> None:
    """Reading a long conversation from the beginning against the same frames sent raw."""
    read = await replay(3_000, 7)
    print(f"replay / raw: {read.ratio:.2f}")
    assert read.ratio < 6
