"""`python -m tests.kill.report --kills 100 [--everywhere] [--seed N]`: kill a real server and print what readers lost.

`--everywhere`: first also at every commit, before and after it, and at every await of the reference run.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
from pathlib import Path

from .campaign import campaign
from .test_every_commit import every_await, every_commit


async def enumerate_all(home: Path) -> None:
    """Print how many places there were; raises what did not hold."""
    began = time.monotonic()
    commits = [await every_commit(home / when, when) for when in ("before", "after")]
    deaths, tries, _ = await every_await(home / "awaits", everywhere=True)
    print(f"killed right before each of {commits[0]} commits, right after each of {commits[1]}: all held")
    print(f"killed at {deaths} of {tries} awaits (the others were not reached): all held")
    print(f"seconds for these {time.monotonic() - began:.0f}\n", flush=True)


def main() -> int:
    """Print the report; 0 when it is clean."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--everywhere", action="store_true", help="enumerate commits and awaits, too")
    parser.add_argument("--seed", type=int, default=None, help="the same moments again, roughly")
    options = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # who reaps a killed child first is of no interest
    seed = random.randrange(2**32) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory() as home:
        if options.everywhere:
            asyncio.run(enumerate_all(Path(home)))
        report = asyncio.run(campaign(Path(home) / "campaign", options.kills, seed))
    print(report.table())
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
