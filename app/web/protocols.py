"""The ten lines that uvicorn lacks: the application may abort the connection of a peer that does not read.

A plain close waits for the unsent bytes for ever, and the ASGI scope does not reach the transport. Guarded by a test
against the installed uvicorn.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

ABORT = "holdfast.abort"
"""The key in `scope["state"]` of a function that ends the connection at once, unsent bytes and all."""


class AbortableWebSocket(WebSocketsSansIOProtocol):
    async def run_asgi(self) -> None:
        self.scope["state"][ABORT] = self.transport.abort
        await super().run_asgi()


class AbortableHttp(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][ABORT] = self.transport.abort
