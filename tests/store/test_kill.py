"""`kill -9` in the middle of appends: what was acknowledged is there, and the log goes on (P1)."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from tests.store.builders import opened, text

ROOT = Path(__file__).parents[2]


def append_until_killed(directory: Path, lines: int) -> list[tuple[str, int, bool]]:
    """Starts the process, kills it after so many acknowledgements, and returns every one that it gave."""
    command = [sys.executable, "-m", "tests.store.appender", str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        acknowledged += process.stdout.read().splitlines(keepends=True)
    whole_lines = [line.split() for line in acknowledged if line.endswith("\n")]
    return [(name, int(seq), lasting == "1") for name, seq, lasting in whole_lines]


async def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """FAULTS 1, 2, 3."""
    lasting: dict[str, set[int]] = {}
    heads: dict[str, int] = {}
    chance = random.Random(11)
    for _ in range(4):
        for name, seq, is_lasting in append_until_killed(tmp_path, chance.randrange(50, 400)):
            heads[name] = seq
            if is_lasting:
                lasting.setdefault(name, set()).add(seq)
        async with opened(tmp_path) as log:
            assert not log._database.restored
            for name, seqs in lasting.items():
                page = await log.read(name, 0, 10**9)
                assert page.texts == [text(seq) for seq in page.seqs]
                assert seqs <= set(page.seqs)
                assert page.head == page.through == (await log.head(name)).head >= heads[name]
