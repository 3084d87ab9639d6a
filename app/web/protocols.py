"""What uvicorn lacks: the application may abort a peer, what a socket sends is counted, and descriptors are kept back.

A plain close waits for the unsent bytes for ever, and the ASGI scope does not reach the transport. uvicorn joins the
fragments of a message before anybody hears of them, so bytes are counted here, as they arrive (FAULTS.md 40, 48). A
process without a descriptor cannot say that it has none, so connections are refused before that (FAULTS.md 27).
Guarded by tests against the installed uvicorn.
"""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.wire.close_codes import TOO_MANY_BYTES
from app.wire.frames import FRAME_COST_BYTES, Limits
from app.wire.inbound import Tokens

ABORT = "holdfast.abort"
"""The key in `scope["state"]` of a function that ends the connection at once, unsent bytes and all."""

CROWDED = "holdfast.crowded"
"""The key in `scope["state"]` of whether the connection took one of the last descriptors and is to be refused."""

DESCRIPTORS_RESERVED = 64
"""So many descriptors no connection keeps: they are the store's, the models', the tools', and for a word of refusal.
A quarter of all where there are fewer than 256."""

REFUSED_SECONDS = 2.0
"""So long a refused connection may take to hear of it."""

LAST_WORD_SECONDS = 3.0
"""So long a peer has to read why it is cut off; a reset at once would overtake the word."""


class AbortableWebSocket(WebSocketsSansIOProtocol):
    """A socket that is closed with 1008 once it has sent more than `rate_bytes` a second beyond `burst_bytes`."""

    def __init__(self, limits: Limits, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._tokens = Tokens(limits.rate_bytes, limits.burst_bytes, time.monotonic())
        self._arrived = 0
        self._over = False

    async def run_asgi(self) -> None:
        self.scope["state"][ABORT] = self.transport.abort
        self.scope["state"][CROWDED] = _beyond(self.transport) > 0
        await super().run_asgi()

    def data_received(self, data: bytes) -> None:
        if not self._over:
            self._arrived = len(data)
            super().data_received(data)

    def handle_events(self) -> None:
        cost = self._arrived + FRAME_COST_BYTES * len(self.conn.events)
        if not self.handshake_complete or self._tokens.take(time.monotonic(), cost):
            super().handle_events()
        elif self.close_sent:
            self.transport.abort()
        else:
            self._end()

    def _end(self) -> None:
        self._over = self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": TOO_MANY_BYTES})
        self.conn.fail(TOO_MANY_BYTES, "too many bytes")
        self.transport.write(b"".join(self.conn.data_to_send()))
        if not self.read_paused:
            self.transport.pause_reading()
        self.read_paused = False  # or else the next receive would read on
        self.close_timer = self.loop.call_later(LAST_WORD_SECONDS, self.transport.abort)


class AbortableHttp(HttpToolsProtocol):
    """A connection; one that takes one of the reserved descriptors gives it back soon, whatever its peer does."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        beyond = _beyond(transport)
        self._crowded = beyond > 0
        if beyond > 0.5:
            transport.abort()
        elif self._crowded:
            self.loop.call_later(REFUSED_SECONDS, transport.abort)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][ABORT] = self.transport.abort
        self.scope["state"][CROWDED] = self._crowded

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._crowded and self.cycle is not None:
            self.cycle.keep_alive = False


def _beyond(transport: asyncio.Transport) -> float:
    """How far into the reserve a new connection reaches: 0 = not at all, 1 = it took the very last descriptor.

    The system gives out the lowest number that is free, so a connection's own number says how many are in use.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 0
    reserve = min(DESCRIPTORS_RESERVED, soft // 4)
    number: int = transport.get_extra_info("socket").fileno()
    return max(0, number + 1 - (soft - reserve)) / reserve
