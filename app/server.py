"""The process on the network: uvicorn with the manners that a long-running agent needs.

Readers are told before the process goes, runs park, then sockets close, and the exit code is 0. A second signal cuts
that short, still consistent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from functools import partial
from types import FrameType

import uvicorn

from app.settings import Settings, hosts
from app.web.context import House
from app.web.protocols import AbortableHttp, AbortableWebSocket
from app.web.routes import application
from app.wire import close_codes

KEEP_ALIVE_SECONDS = 75
"""An idle HTTP connection is kept so long: longer than proxies and clients keep theirs (60 s and less), or else a
request meets a connection that is just being closed."""


class Quiet(logging.Filter):
    """What a peer did wrong is no error of ours: uvicorn's traceback of it and its word on refused handshakes go.

    So does its traceback of requests that never ended: the end of the process cuts them off, and uvicorn says so.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError):
            return False
        return not any(said in str(record.msg) for said in ("Invalid UTF-8", "without completing handshake"))


class Server(uvicorn.Server):
    """uvicorn that drains before it closes sockets; a second signal cuts the drain short, still consistent."""

    def __init__(self, settings: Settings, house: House) -> None:
        self._house = house
        self._drain_seconds = settings.drain_seconds
        self._cut = asyncio.Event()
        house.figures["connections"] = lambda: len(self.server_state.connections)
        logging.getLogger("uvicorn.error").addFilter(Quiet())
        super().__init__(
            uvicorn.Config(
                application(house, hosts(settings), settings.origins),
                http=AbortableHttp,
                ws=partial(AbortableWebSocket, house.limits),  # type: ignore[arg-type]
                ws_max_size=house.limits.frame_bytes,
                ws_per_message_deflate=False,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(settings.proxies),
                forwarded_allow_ips=list(settings.proxies),
                timeout_graceful_shutdown=2,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                lifespan="off",
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self._cut.set()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            _say(f"Holdfast is listening on http://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        directory = self._house.directory
        self._house.leaving.set()
        drain = asyncio.create_task(directory.drain(self._drain_seconds))
        cut = asyncio.create_task(self._cut.wait())
        await asyncio.wait({drain, cut}, return_when=asyncio.FIRST_COMPLETED)
        cut.cancel()
        if not drain.done():
            drain.cancel()
            await asyncio.wait({drain})
            await directory.drain(0)
        directory.listing.close(close_codes.SERVICE_RESTART)
        await super().shutdown(sockets)


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def bind(settings: Settings) -> socket.socket:
    """The listening socket, before anything else is opened. Raises OSError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((settings.host, settings.port))
    return bound
