"""Errors of the pure floor: the type says who is to blame.

    HoldfastError
    ├── Rejected      you asked wrongly: nothing changed, ask differently
    ├── Conflict      you are not the owner: stop, fold the log again
    └── Corrupt       the log contradicts itself: quarantine, never guess

Failures of tools and models are not here: past the runner they are facts in the log.
"""

from __future__ import annotations

from typing import Any


class HoldfastError(Exception):
    """Root of everything that Holdfast raises on purpose."""


class Rejected(HoldfastError):
    """A command or a request was refused and nothing changed.

    `code` is one of PROTOCOL.md §1.2, `message` a sentence for people (never a secret, never a
    traceback), `details` further fields of the `rejected` frame.
    """

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class Conflict(HoldfastError):
    """Somebody else owns this conversation now, or the log went on without us."""


class Corrupt(HoldfastError):
    """The stored log contradicts itself."""
