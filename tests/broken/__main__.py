"""Prints which broken rules their tests have seen: `python -m tests.broken [--case 31 …] [--jobs 2]`."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.broken.play import outcome
from tests.broken.rules import RULES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.broken", description=__doc__)
    parser.add_argument("--case", nargs="*", help="only these cases of FAULTS.md")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    options = parser.parse_args()
    rules = [rule for rule in RULES if not options.case or rule.case in options.case]
    began = time.monotonic()
    unseen = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for rule, seen in zip(rules, pool.map(outcome, rules), strict=True):
            print(f"{rule.case:>22}  {seen:<6}  {rule.fault}  ({rule.test})", flush=True)
            unseen += seen != "seen"
    print(f"{len(rules) - unseen} of {len(rules)} broken rules seen, {time.monotonic() - began:.0f} s")
    return 1 if unseen else 0


if __name__ == "__main__":
    sys.exit(main())
