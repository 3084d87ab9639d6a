"""What the tests of this room share: a call's context that remembers its progress and its notes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from app.agent import ToolContext
from app.core.commands import Draft


@dataclass
class Watched:
    """A context and what was reported through it."""

    cancelled: threading.Event = field(default_factory=threading.Event)
    reports: list[tuple[str | None, float | None]] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)

    async def save(self, draft: Draft) -> None:
        self.save_and_wait(draft)

    def save_and_wait(self, draft: Draft) -> None:
        self.drafts.append(draft)

    @property
    def context(self) -> ToolContext:
        return ToolContext(
            call_id="call_1",
            key="run_1/call_1",
            conversation_id="conversation_1",
            run_id="run_1",
            notes=self,
            on_progress=lambda text, fraction: self.reports.append((text, fraction)),
            cancelled=self.cancelled,
        )
