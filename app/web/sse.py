"""The socket's frames as server-sent events, for clients that cannot hold a socket.

One reader as any other; only the carrier differs. `id` on `events` frames is the cursor, which the browser sends back
by itself as `Last-Event-ID`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.store.event_log import Head
from app.web.access import Principal
from app.web.answers import parse_integer
from app.web.context import House
from app.web.follow import bounded
from app.web.protocols import ABORT
from app.wire.frames import draining_frame

COMMENT_SECONDS = 15
"""A comment line this often keeps proxies from cutting a silent stream."""


class _Type(msgspec.Struct):
    type: str
    through: int | None = None
    log: str | None = None


_type = msgspec.json.Decoder(_Type)


def cursor_of(request: Request, head: Head) -> tuple[int, str | None]:
    """Where an event stream begins: `Last-Event-ID` (`<log>:<through>`) before the query string."""
    last = request.headers.get("last-event-id", "")
    log, _, through = last.rpartition(":")
    if log:
        return parse_integer("Last-Event-ID", through), log
    return parse_integer("after", request.query_params.get("after", "0")), request.query_params.get("log")


class EventStream(Response):
    """One reader over HTTP. Ends when the conversation does, when the peer goes, or when it does not read."""

    def __init__(self, house: House, conversation: str, viewer: Principal, after: int, log: str | None) -> None:
        self._house = house
        self._conversation = conversation
        self._viewer = viewer
        self._after = after
        self._log = log
        self._named = log or ""
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        abort: Callable[[], None] = scope["state"].get(ABORT, lambda: None)
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def write(text: str) -> None:
            body = {"type": "http.response.body", "body": text.encode(), "more_body": True}
            await bounded(send(body), self._house.send_seconds, abort)

        follower, sockets, viewer = self._house.follower(), self._house.sockets, self._viewer.id
        sockets[viewer] = sockets.get(viewer, 0) + 1
        works = [
            asyncio.ensure_future(
                follower.run(
                    self._conversation, self._viewer, self._after, self._log, lambda frame: write(self._event(frame))
                )
            ),
            asyncio.ensure_future(_gone(receive)),
            asyncio.ensure_future(_comments(write)),
            asyncio.ensure_future(self._draining(write, follower.attached)),
        ]
        try:
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sockets[viewer] -= 1
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
        if not works[1].done() or works[1].cancelled():
            await bounded(send({"type": "http.response.body", "body": b""}), self._house.send_seconds, abort)

    def _event(self, frame: str) -> str:
        head = _type.decode(frame)
        self._named = head.log or self._named
        id = f"id: {self._named}:{head.through}\n" if head.type == "events" else ""
        return f"event: {head.type}\n{id}data: {frame}\n\n"

    async def _draining(self, write: Callable[[str], object], attached: asyncio.Event) -> None:
        await self._house.leaving.wait()
        await attached.wait()
        frame = draining_frame(1_000)
        await write(f"event: draining\ndata: {frame}\n\n")  # type: ignore[misc]
        await asyncio.get_running_loop().create_future()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _comments(write: Callable[[str], object]) -> None:
    while True:
        await asyncio.sleep(COMMENT_SECONDS)
        await write(": still here\n\n")  # type: ignore[misc]
