"""Breaks rules in copies of the repository and looks whether their tests fail.

A copy, never the tree itself: a play that is cut off leaves nothing behind. A test that passes beside its broken rule,
and one that could not be run at all, are both failures of this check.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.broken.rule import Break

TOP = Path(__file__).parents[2]
SECONDS_MAX = 300
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "*.egg-info", "data", "build")
TESTS_FAILED = 1
"""pytest's exit code for "tests ran and some failed"; others mean that it did not come to that."""
NOT_REACHED = "ERROR at setup of"
"""pytest's heading where a fixture failed, with the same exit code: of the test itself nothing was seen."""


@contextmanager
def broken(rule: Break) -> Iterator[Path]:
    """A copy of the repository in which the rule is broken."""
    with tempfile.TemporaryDirectory(prefix="holdfast-broken-") as where:
        top = Path(where) / "main"
        shutil.copytree(TOP, top, ignore=LEFT_OUT)
        if (TOP.parent / "shared").exists():
            (Path(where) / "shared").symlink_to(TOP.parent / "shared")
        place = top / rule.file
        place.write_text(place.read_text().replace(rule.was, rule.becomes))
        yield top


def outcome(rule: Break) -> str:
    """ "seen" where the test failed; otherwise what happened instead, with the end of what pytest said."""
    with broken(rule) as top:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", rule.test]
        environ = {**os.environ, "PYTHONPATH": str(top), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            ran = subprocess.run(
                command, cwd=top, env=environ, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
            )
        except subprocess.TimeoutExpired:
            return f"did not end within {SECONDS_MAX} s"
    if ran.returncode == TESTS_FAILED and NOT_REACHED not in ran.stdout:
        return "seen"
    if ran.returncode == 0:
        return "NOT SEEN: the test passes"
    return f"could not be run: {(ran.stdout + ran.stderr)[-600:]}"
