"""The contract of the archive: the conversation in SQL, for people who write SQL and for viewing later.

Four tables (`conversations, runs, messages, tool_calls`), filled by `flush`, which is idempotent: the same flush twice,
or one that overlaps an earlier one, leaves the same rows. The archive is derived from the log and is never read by the
actor; it answers history and search when nobody has the conversation in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from app.core.events import Call, Failure, Path, Usage

ENDED = ("completed", "failed", "cancelled", "moved")
"""The statuses of a run that has ended."""


class ArchivedConversation(msgspec.Struct, kw_only=True, omit_defaults=True):
    conversation: str
    owner: str
    agent: str
    title: str
    status: str
    created_at: int
    updated_at: int


class ArchivedLevel(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one level of a run has used; `path` () is the run's agent, the others are sub-agents."""

    path: Path = ()
    agent: str
    steps: int
    usage: Usage


class ArchivedRun(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A run as `GET /api/runs/{run}` shows it.

    `status`: running, waiting, suspended, or one of `ENDED`. Times in ms since the Unix epoch.
    """

    run: str
    conversation: str
    agent: str
    status: str
    started_at: int
    step: int
    usage: Usage
    finished_at: int | None = None
    error: Failure | None = None
    result: str | None = None
    levels: list[ArchivedLevel] = []


class ArchivedMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message; `role`: user, assistant, tool. `call` = which call a tool message answers."""

    seq: int
    at: int
    run: str | None
    role: str
    text: str
    path: Path = ()
    author: str | None = None
    calls: list[Call] | None = None
    call: str | None = None


class ArchivedCall(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One tool call. A field left None does not overwrite what an earlier flush wrote.

    `status`: asked, started, returned, or the kind of its failure (PROTOCOL.md §3.1). `settled` = what a given-up call
    turned out to have done. Times in ms.
    """

    run: str
    call: str
    path: Path = ()
    tool: str | None = None
    arguments: str | None = None
    status: str | None = None
    result: str | None = None
    error: str | None = None
    settled: str | None = None
    started_at: int | None = None
    finished_at: int | None = None
    ms: int | None = None


class Flush(msgspec.Struct, kw_only=True):
    """Everything that one flush writes, in one transaction. `through` = the last seq that it covers."""

    conversation: ArchivedConversation
    through: int
    runs: list[ArchivedRun]
    messages: list[ArchivedMessage]
    calls: list[ArchivedCall]


class Archive(Protocol):
    """Every method may raise `event_log.Unavailable`."""

    async def flush(self, flush: Flush) -> None:
        """Writes all of it or nothing; runs, messages (by conversation, seq) and calls (by run, path, call) upserted.

        One that covers less than what was flushed before only adds what is missing.
        """

    async def messages(self, conversation: str) -> list[ArchivedMessage]:
        """All messages by seq."""

    async def runs(self, conversation: str) -> list[ArchivedRun]:
        """All runs of a conversation by `started_at`."""

    async def run(self, run: str) -> ArchivedRun | None:
        """One run, as of its last flush."""

    async def finished(
        self, owner: str, *, agent: str | None, status: str | None, limit: int, without: Sequence[str] = ()
    ) -> list[ArchivedRun]:
        """Runs that have ended, the newest end first; `status` = one of `ENDED`, or None for all. `without`: not of
        these conversations."""

    async def search(self, owner: str, words: str, limit: int) -> list[str]:
        """Ids of an owner's conversations with messages that hold all of these words (full text, prefix match on the
        last word, any input is taken literally), best first."""

    async def remove(self, conversation: str) -> None:
        """Forgets a conversation."""
