"""Every broken rule, in the order of FAULTS.md."""

from __future__ import annotations

from tests.broken.network import NETWORK
from tests.broken.process import PROCESS
from tests.broken.rule import Break
from tests.broken.runs import RUNS
from tests.broken.security import SECURITY

RULES: tuple[Break, ...] = (*PROCESS, *NETWORK, *RUNS, *SECURITY)
