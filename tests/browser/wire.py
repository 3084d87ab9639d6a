"""A socket that says exactly what a test wants, in place of the server's: for what a right server never does."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.async_api import WebSocketRoute

from tests.acceptance.harness import eventually

from .tab import Tab

Json = dict[str, Any]
CONVERSATION = "scripted"


class Line:
    """One connection that the page has made."""

    def __init__(self, route: WebSocketRoute) -> None:
        self.route = route
        self.query = {name: values[0] for name, values in parse_qs(urlsplit(route.url).query).items()}
        self.heard: list[Json] = []
        self.closed = asyncio.Event()
        route.on_message(lambda text: self.heard.append(json.loads(text)))
        route.on_close(lambda code, reason: self.closed.set())

    def say(self, kind: str, **fields: Any) -> None:
        self.route.send(json.dumps({"type": kind, **fields}))

    def attach(self, after: int = 0, head: int = 0, log: str = "L", reset: bool = False) -> None:
        self.say(
            "attached",
            **{"protocol": 1, "conversation": CONVERSATION, "log": log, "after": after, "head": head, "reset": reset},
            **{"status": "idle", "run": None, "agent": "a", "title": "", "approvals": [], "queued": []},
            **{"viewer": {"id": "you", "role": "owner"}, "limits": {}, "now": 1_763_683_200_000},
        )

    def events(self, after: int, through: int, *events: Json) -> None:
        self.say("events", after=after, through=through, events=events)

    def words(self, after: int, seq: int, text: str) -> None:
        """One frame with one prompt in it."""
        self.events(after, seq, prompt(seq, text))

    async def sent(self, kind: str, times: int = 1) -> Json:
        """The n-th frame of this type that the page has sent."""

        def found() -> list[Json]:
            return [frame for frame in self.heard if frame["type"] == kind][times - 1 :]

        frames: list[Json] = await eventually(found, f"{times} frames {kind} from the page")
        return frames[0]

    async def hung_up(self) -> None:
        """Waits until the page has given this connection up."""
        async with asyncio.timeout(15):
            await self.closed.wait()


class Wire:
    """Takes the page's connections to one conversation."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    async def hold(self, tab: Tab) -> None:
        """From now on the tab's connections to the scripted conversation come here; its list is empty."""
        await tab.page.route_web_socket("**/ws", lambda route: route.send('{"type":"live"}'))
        await tab.page.route_web_socket(f"**/ws/{CONVERSATION}*", lambda route: self.lines.append(Line(route)))

    async def line(self, number: int = 1) -> Line:
        """The n-th connection."""
        await eventually(lambda: len(self.lines) >= number, f"{number} connections", within=15)
        return self.lines[number - 1]


def prompt(seq: int, text: str) -> Json:
    return {
        "seq": seq,
        "at": 1_763_683_200_000,
        "type": "prompt.given",
        "message": f"m{seq}",
        "text": text,
        "author": "you",
    }
