"""Broken rules of FAULTS.md, the security chapter."""

from __future__ import annotations

from tests.broken.rule import Break

SECURITY: tuple[Break, ...] = ()
