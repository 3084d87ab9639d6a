"""`python -m app` on a machine whose wall clock somebody sets: it is as many seconds off as the file TEST_CLOCK says.

The product has no hook for this: the clock of the process is patched here, the steady ones are left alone.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from app import __main__ as product

FILE = Path(os.environ["TEST_CLOCK"])


def off() -> float:
    return float(FILE.read_text() or 0) if FILE.exists() else 0.0


if __name__ == "__main__":
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + off()
    time.time_ns = lambda: right_ns() + int(off() * 1e9)
    product.main()
