"""The archive in plain dictionaries: for tests and for the simulation. Same contract as `archive_sqlite`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.core.events import Path
from app.store.archive import ENDED, ArchivedCall, ArchivedConversation, ArchivedMessage, ArchivedRun, Flush
from app.store.words import folded, words_of


class MemoryArchive:
    """The contract `Archive` without storage: never raises Unavailable. `calls` is what `tool_calls` is in SQL."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, Path, str], ArchivedCall] = {}
        self._conversations: dict[str, ArchivedConversation] = {}
        self._through: dict[str, int] = {}
        self._runs: dict[str, ArchivedRun] = {}
        self._messages: dict[str, dict[int, ArchivedMessage]] = {}
        self._called: dict[tuple[str, Path, str], str] = {}

    async def flush(self, flush: Flush) -> None:
        conversation = flush.conversation.conversation
        newest = flush.through >= self._through.get(conversation, 0)
        if newest:
            self._conversations[conversation] = flush.conversation
            self._through[conversation] = flush.through
        for run in flush.runs:
            if newest or run.run not in self._runs:
                self._runs[run.run] = run
        messages = self._messages.setdefault(conversation, {})
        for message in flush.messages:
            if newest or message.seq not in messages:
                messages[message.seq] = message
        for call in flush.calls:
            key = call.run, call.path, call.call
            known = self.calls.get(key)
            if known is None:
                self.calls[key] = call
                self._called[key] = conversation
            elif newest:
                told = {name: value for name, value in msgspec.structs.asdict(call).items() if value is not None}
                self.calls[key] = msgspec.structs.replace(known, **told)
                self._called[key] = conversation if call.settled is None else self._called[key]

    async def messages(self, conversation: str) -> list[ArchivedMessage]:
        return [message for _, message in sorted(self._messages.get(conversation, {}).items())]

    async def runs(self, conversation: str) -> list[ArchivedRun]:
        found = [run for run in self._runs.values() if run.conversation == conversation]
        return sorted(found, key=lambda run: (run.started_at, run.run))

    async def run(self, run: str) -> ArchivedRun | None:
        return self._runs.get(run)

    async def finished(
        self, owner: str, *, agent: str | None, status: str | None, limit: int, without: Sequence[str] = ()
    ) -> list[ArchivedRun]:
        found = [
            run
            for run in self._runs.values()
            if run.status in ENDED
            and run.conversation not in without
            and self._conversations[run.conversation].owner == owner
            and (agent is None or run.agent == agent)
            and (status is None or run.status == status)
        ]
        found.sort(key=lambda run: (run.finished_at or run.started_at, run.run), reverse=True)
        return found[: max(limit, 0)]

    async def search(self, owner: str, words: str, limit: int) -> list[str]:
        wanted = [folded(word) for word in words_of(words)]
        if not wanted:
            return []
        hits: dict[str, int] = {}
        for conversation, messages in self._messages.items():
            if self._conversations[conversation].owner == owner:
                count = sum(_holds(message.text, wanted) for message in messages.values())
                if count:
                    hits[conversation] = count
        best = sorted(hits, key=lambda one: (-hits[one], -self._conversations[one].updated_at, one))
        return best[: max(limit, 0)]

    async def remove(self, conversation: str) -> None:
        self._conversations.pop(conversation, None)
        self._through.pop(conversation, None)
        self._messages.pop(conversation, None)
        self._runs = {run: one for run, one in self._runs.items() if one.conversation != conversation}
        self._called = {key: of for key, of in self._called.items() if of != conversation}
        self.calls = {key: self.calls[key] for key in self._called}


def _holds(text: str, wanted: list[str]) -> bool:
    held = [folded(word) for word in words_of(text)]
    *whole, last = wanted
    return all(word in held for word in whole) and any(word.startswith(last) for word in held)
