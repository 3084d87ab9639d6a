"""Worlds of trouble warn all the time: nobody wants to read that here, and whoever comes after may not be silenced."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Warnings are off for the worlds, and on again after them."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)
