"""Options of the whole suite. Fixtures live beside the tests that use them."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=100, help="how many kill -9 of a real server the kill test deals out")
    parser.addoption("--worlds", type=int, default=2_000, help="how many seeded worlds the simulation plays")
    parser.addoption("--world", type=int, default=None, help="the one seeded world to play again")
    parser.addoption(
        "--kills-everywhere", action="store_true", help="kill the reference world at every await, not every so many"
    )
    parser.addoption("--fuzz", type=int, default=3_000, help="how many inputs the fuzz tests make up, in all")
    parser.addoption("--events", type=int, default=60_000, help="how long the very long conversation is")
    parser.addoption("--readers", type=int, default=300, help="how many readers come back at once under misfortune")


def pytest_configure(config: pytest.Config) -> None:
    """Files go out in their order: by the number of tests, as xdist would have it, the few and long ones are last."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False
