"""The list of broken rules is whole and still fits the source. The rules are played by `python -m tests.broken`.

One of them is played here, as a proof that the play itself can tell a test that sees from one that does not.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.broken.play import TOP, outcome
from tests.broken.rule import Break
from tests.broken.rules import RULES
from tests.test_faults import NOT_BUILT, NUMBERS, documented, named
from tests.test_faults import RULES as SECURITY_RULES

UNBREAKABLE: dict[str, str] = {}
"""Cases whose rule is no line of ours that could be broken, each with the reason."""

NAMED = named()
TESTS = {test for test, _ in documented()}


def test_every_fault_has_a_broken_rule() -> None:
    missing = (NUMBERS | SECURITY_RULES.keys()) - {rule.case for rule in RULES} - NOT_BUILT.keys() - UNBREAKABLE.keys()
    assert not missing, f"nothing is broken for {sorted(missing)}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.case}-{rule.fault.replace(' ', '-')[:40]}")
def test_it_fits_the_source(rule: Break) -> None:
    assert (TOP / rule.file).read_text().count(rule.was) == 1, "the source has changed: break it anew, and play it"
    assert rule.was != rule.becomes
    assert rule.seen_by in NAMED[rule.case], "the docstring of that test does not name the case"
    assert rule.seen_by in TESTS


def test_the_play_tells_seen_from_unseen() -> None:
    rule = next(rule for rule in RULES if rule.seen_by.startswith("core/"))
    assert outcome(rule) == "seen"
    assert outcome(replace(rule, becomes=rule.was)).startswith("NOT SEEN")
