"""Broken rules of FAULTS.md, process and storage: cases 1 to 29."""

from __future__ import annotations

from tests.broken.rule import Break

PROCESS: tuple[Break, ...] = ()
