"""Broken rules of FAULTS.md, runs, provider, tools and deploy: cases 59 to 105."""

from __future__ import annotations

from tests.broken.rule import Break

RUNS: tuple[Break, ...] = (
    Break(
        case="70",
        fault="a second stop is a stop of its own",
        file="app/core/decide.py",
        was="    if run.stop is not None:\n        return ",
        becomes="    if False:\n        return ",
        seen_by="core/test_stop.py::test_cancel_twice_is_noted",
    ),
)
