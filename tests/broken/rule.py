"""One deliberately broken rule: where the product says it, what it says instead, and the test that must notice.

The simulation's mutations (tests/simulation) ask whether the promises are checked; these ask it of every numbered fault
of FAULTS.md and every rule of its security chapter. They are changes of source text, so that they also hold in a real
server process and in the page; the product has no switch and no hook for any of this.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Break:
    """`case`: as in tests/test_faults.py. In `file` the text `was`, which stands there once, becomes `becomes`.

    `seen_by`: a test whose docstring names the case, as pytest writes it below tests/, without parameters. `only`: its
    parameters, where one of many is enough, as they stand between the brackets. `fault`: what is wrong, in a few words.
    """

    case: str
    fault: str
    file: str
    was: str
    becomes: str
    seen_by: str
    only: str | None = None

    @property
    def test(self) -> str:
        return f"tests/{self.seen_by}" + (f"[{self.only}]" if self.only else "")
