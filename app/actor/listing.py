"""The live list: who watches hears of every change of a list item; nothing is kept for whoever comes later.

A watcher that is slow finds the newest item of each conversation, never a queue of old ones.
"""

from __future__ import annotations

import asyncio

from app.core.events import Json
from app.store.event_log import Item


def item_json(item: Item, head: int) -> Json:
    """A list item as PROTOCOL.md §2 words it."""
    shown: Json = {
        "conversation": item.conversation,
        "title": item.title,
        "agent": item.agent,
        "status": item.status,
        "head": head,
        "created_at": item.created_at,
        "updated_at": item.updated_at,
    }
    if item.run is not None:
        shown["run"] = item.run
    if item.waiting_for is not None:
        shown["waiting_for"] = item.waiting_for
    return shown


class Watcher:
    """One follower of the list: what has changed since it last took."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.changed = asyncio.Event()
        self.closed: int | None = None
        self._items: dict[str, Json | None] = {}

    def take(self) -> dict[str, Json | None]:
        """The newest item of every conversation that has changed; None = it is gone."""
        taken, self._items = self._items, {}
        self.changed.clear()
        return taken

    def put(self, conversation: str, item: Json | None) -> None:
        self._items[conversation] = item
        self.changed.set()


class Listing:
    """Everybody who follows the list."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()

    def join(self, watcher: Watcher) -> None:
        self._watchers.add(watcher)

    def leave(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    def changed(self, item: Item, head: int) -> None:
        for watcher in self._watchers:
            if watcher.owner == item.owner:
                watcher.put(item.conversation, item_json(item, head))

    def removed(self, conversation: str, owner: str) -> None:
        for watcher in self._watchers:
            if watcher.owner == owner:
                watcher.put(conversation, None)

    def close(self, code: int) -> None:
        """Ends every watcher."""
        for watcher in self._watchers:
            watcher.closed = code
            watcher.changed.set()
