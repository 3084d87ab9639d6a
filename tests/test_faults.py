"""Every fault has a number and a test that can fail: this one knows the numbers and looks who names them.

A test names its cases in its docstring as `FAULTS 31` or `FAULTS 59, 60, security-origin`: each for itself, never as a
range, since a range promises what nobody looked at. The rules of the security chapter have no numbers; their names are
here. What does not concern what is built stands in a table, with the reason, and leaves it when it does.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
NUMBERS = {str(number) for number in range(1, 106)}
RULES = {
    "security-origin": "exact match of Origin and Host, before the handshake",
    "security-compression": "off",
    "security-authorize": "one function, asked by every route and every command, for everybody",
    "security-limits": "size and rate of messages, number of connections",
    "security-exposure": "nothing but loopback without a word of the owner",
    "security-headers": "CSP with Trusted Types, frame-ancestors, nosniff, no-store",
    "security-xss": "no words become code: page, Markdown, arguments",
    "security-exfiltration": "remote images never load, links say where they lead",
    "security-approve": "not focused, armed late, exact arguments",
    "security-paths": "ids are never paths",
    "security-secrets": "canaries are found nowhere",
}
NOT_BUILT: dict[str, str] = {}
"""Also not built, and without a number: accounts and with them session expiry, tickets, share links, HSTS; attachments;
SSRF checks (no tool of ours fetches anything; an MCP server's address is its developer's); PostgreSQL."""

_case = r"(?:[1-9][0-9]{0,2}\b(?!-)|security-[a-z]+)"
_named = re.compile(rf"FAULTS ({_case}(?:, {_case})*)")
_range = re.compile(r"FAULTS[^.:;\n]*\b[1-9][0-9]{0,2}(?: ?[-–] ?| to | and )[1-9]")


@cache
def documented() -> tuple[tuple[str, str], ...]:
    """Where each test is, and its docstring."""
    return tuple(_documented())


def _documented() -> Iterator[tuple[str, str]]:
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield f"{path.relative_to(TESTS)}::{node.name}", ast.get_docstring(node) or ""


@cache
def named() -> dict[str, list[str]]:
    """Case → the tests that name it."""
    found: dict[str, list[str]] = {}
    for test, docstring in documented():
        for cases in _named.findall(docstring):
            for case in cases.split(", "):
                found.setdefault(case, []).append(test)
    return found


def test_every_fault_is_named_by_a_test() -> None:
    missing = (NUMBERS | RULES.keys()) - named().keys() - NOT_BUILT.keys()
    assert not missing, f"no test names {sorted(missing)}"


def test_nothing_is_named_that_there_is_not() -> None:
    assert not named().keys() - NUMBERS - RULES.keys()


def test_what_has_a_test_is_no_exception_any_more() -> None:
    assert not NOT_BUILT.keys() & named().keys()


def test_cases_are_named_one_by_one() -> None:
    for path in sorted(TESTS.rglob("*.py")):
        found = _range.search(path.read_text())
        assert found is None, f"{path}: {found[0]}"
