"""The table of everything that can be reached, and how failures leave: as one shape, without a traceback."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute

from app.core.errors import Corrupt, Rejected
from app.store.event_log import Unavailable
from app.web import api, continuations, metrics, pages, socket
from app.web.access import Gate, Identify, principal_of, whoever_is_here
from app.web.answers import answer, refused, unavailable
from app.web.context import House
from app.web.sse import EventStream, cursor_of

logger = logging.getLogger(__name__)


async def events(request: Request) -> Response:
    """`GET /api/conversations/{c}/events`: a page, or with `Accept: text/event-stream` a stream."""
    if "text/event-stream" not in request.headers.get("accept", ""):
        return await api.events(request)
    house, conversation, *_ = await api.find_item(request, "read")
    after, log = cursor_of(request, await house.log.head(conversation))
    viewer = principal_of(request.scope)
    if house.sockets.get(viewer.id, 0) >= house.limits.sockets:
        house.refused["viewer"] += 1
        raise Rejected("rate_limited", "Too many connections; close some of them.")
    return EventStream(house, conversation, viewer, after, log)


Endpoint = Callable[[Request], Awaitable[Response]]


def commanding(endpoint: Endpoint) -> Endpoint:
    """Commands are taken at the rate of their client's address, whichever way they come (PROTOCOL.md §4).

    Creating and deleting conversations is none: a program may found thousands.
    """

    async def within_rate(request: Request) -> Response:
        house: House = request.app.state.house
        if not house.within_rate(request.client.host if request.client else ""):
            raise Rejected("rate_limited", "Too many commands; slow down.")
        return await endpoint(request)

    return within_rate


ROUTES = [
    Route("/", pages.page),
    Route("/c/{conversation}", pages.page),
    Mount("/static", pages.Files(directory=pages.STATIC)),
    Route("/healthz", api.healthz),
    Route("/readyz", api.readyz),
    Route("/metrics", metrics.show, methods=["GET"]),
    Route("/api/conversations", api.create, methods=["POST"]),
    Route("/api/conversations", api.conversations, methods=["GET"]),
    Route("/api/conversations/{conversation}", api.conversation, methods=["GET"]),
    Route("/api/conversations/{conversation}", api.delete, methods=["DELETE"]),
    Route("/api/conversations/{conversation}/restore", api.restore, methods=["POST"]),
    Route("/api/conversations/{conversation}/commands", commanding(api.command), methods=["POST"]),
    Route("/api/conversations/{conversation}/events", events, methods=["GET"]),
    Route("/api/conversations/{conversation}/messages", api.messages, methods=["GET"]),
    Route("/api/conversations/{conversation}/notes", api.notes, methods=["GET"]),
    Route("/api/conversations/{conversation}/kept/{ref:path}", api.kept, methods=["GET"]),
    Route("/api/conversations/{conversation}/continuation", continuations.show, methods=["GET"]),
    Route("/api/conversations/{conversation}/continuation/take", commanding(continuations.take), methods=["POST"]),
    Route("/api/continuations", commanding(continuations.put_back), methods=["POST"]),
    Route("/api/runs", api.runs, methods=["GET"]),
    Route("/api/runs/{run}", api.run, methods=["GET"]),
    Route("/api/runs/{run}/output", continuations.output, methods=["GET"]),
    Route("/api/render", pages.render, methods=["POST"]),
    WebSocketRoute("/ws", socket.list_socket),
    WebSocketRoute("/ws/{conversation}", socket.conversation_socket),
]


async def _rejected(request: Request, error: Exception) -> Response:
    assert isinstance(error, Rejected)
    return refused(error)


async def _unavailable(request: Request, error: Exception) -> Response:
    return refused(unavailable(request.app.state.house.leaving.is_set()))


async def _gone(request: Request, error: Exception) -> Response:
    return refused(Rejected("not_found", "There is no such conversation."))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "not_found" if error.status_code == 404 else "bad_command"
    return answer({"error": {"code": code, "message": error.detail}}, error.status_code)


async def _damaged(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return refused(Rejected("internal", "What is stored of this conversation is damaged; it is left alone."))


async def _internal(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return refused(Rejected("internal", "Something failed here; it has been logged."))


def application(
    house: House, hosts: frozenset[str] | None, origins: frozenset[str], identify: Identify = whoever_is_here
) -> Starlette:
    """The ASGI application over a house."""
    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(Gate, hosts=hosts, origins=origins, identify=identify, refused=house.refused)],
        exception_handlers={
            Rejected: _rejected,
            Unavailable: _unavailable,
            Corrupt: _damaged,
            KeyError: _gone,
            HTTPException: _http,
            Exception: _internal,
        },
    )
    app.state.house = house
    return app
