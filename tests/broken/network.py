"""Broken rules of FAULTS.md, network and clients: cases 30 to 58."""

from __future__ import annotations

from tests.broken.rule import Break

NETWORK: tuple[Break, ...] = ()
