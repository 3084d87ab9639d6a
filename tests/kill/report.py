"""`python -m tests.kill.report --kills 100 [--seed N]`: deal out random kills and print what readers lost."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from .campaign import campaign


def main() -> int:
    """Print the report; 0 when it is clean."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="the same moments again, roughly")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory() as home:
        report = asyncio.run(campaign(Path(home), options.kills, seed))
    print(report.table())
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
