"""Every row of the five sources has a test that names it: this one knows the rows and looks who names them.

A test names its rows in its name (`test_000_1_…`) or its docstring (`000-1`): each for itself, never as a range, since
a range promises what nobody looked at. Whether the test checks its row is a reader's judgement, not this file's.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
SOURCES = {"000": 21, "001": 16, "002": 14, "003": 20, "004": 28}
ROWS = {f"{source}-{number}" for source, last in SOURCES.items() for number in range(1, last + 1)}

_in_name = re.compile(r"(?<=_)(00[0-4])_([0-9]+)(?=_)")
_in_words = re.compile(r"(?<![\w-])(00[0-4])-([0-9]+)(?!\w)")
_range = re.compile(r"(?<![\w-])00[0-4]-[0-9]+ ?(?:…|\.\.|[-–] ?[0-9]|to (?:00[0-4]-)?[0-9])|-[0-9]+ to -[0-9]")


def named() -> dict[str, list[str]]:
    """Row → the tests that name it."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                rows = _in_name.findall(node.name) + _in_words.findall(ast.get_docstring(node) or "")
                for source, number in rows:
                    found.setdefault(f"{source}-{number}", []).append(f"{path.relative_to(TESTS)}::{node.name}")
    return found


def test_every_row_is_named_by_a_test() -> None:
    missing = ROWS - named().keys()
    assert not missing, f"no test names {sorted(missing)}"


def test_no_row_is_named_that_there_is_not() -> None:
    unknown = {row: tests for row, tests in named().items() if row not in ROWS}
    assert not unknown


def test_rows_are_named_one_by_one() -> None:
    for path in sorted(TESTS.rglob("*.py")):
        found = _range.search(path.read_text())
        assert found is None, f"{path}: {found[0]}"
