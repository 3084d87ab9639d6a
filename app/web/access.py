"""Who may do what, and from where: the one function that every route asks, and the gate in front of all of them.

There is one identity for now, the person at this machine. Every route, command and socket goes through `authorize`
all the same, so that more identities are a change of this file and of nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors import Rejected
from app.web.protocols import CROWDED
from app.wire.close_codes import TRY_AGAIN_LATER

Action = Literal["create", "list", "read", "command", "delete", "restore"]

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types holdfast"
)
HEADERS = [
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
    (b"x-dns-prefetch-control", b"off"),
]
UNGUARDED = ("/healthz", "/readyz")
"""Asked by load balancers under any name; they tell nothing and change nothing."""


RETRY_AFTER_SECONDS = 5
"""What a request hears for which there is no descriptor."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `role` is owner; `id` is what events carry as `by` and `author`."""

    id: str
    role: str = "owner"


LOCAL = Principal("owner")

Identify = Callable[[Scope], Principal | None]
"""Who sends a request; None = nobody we know."""

_PRINCIPAL = "holdfast.principal"


def whoever_is_here(scope: Scope) -> Principal | None:
    """The one identity of a server that is bound to loopback or declared open."""
    return LOCAL


def principal_of(scope: Scope) -> Principal:
    """Who sends this request, as the gate has found out. Raises Rejected where nobody has signed in."""
    principal: Principal | None = scope["state"].get(_PRINCIPAL)
    if principal is None:
        raise Rejected("forbidden", "Nobody is signed in here.")
    return principal


def authorize(principal: Principal, action: Action, owner: str | None) -> None:
    """Raises Rejected unless the principal may do this to what `owner` owns (None: to what is yet to be made).

    What somebody may not see is not there: a foreign conversation is `not_found`, never `forbidden`.
    """
    if principal.role != "owner":
        raise Rejected("forbidden", f"You may not {action} here.")
    if owner is not None and owner != principal.id:
        raise Rejected("not_found", "There is no such conversation.")


class Gate:
    """Refuses a foreign Host or Origin before anything else sees the request, finds out who asks, and puts safe headers
    on every answer.

    `hosts`: names this server answers to, None = any. `origins`: further pages that may talk to it. `refused`: how many
    were refused, by reason.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str] | None,
        origins: frozenset[str],
        identify: Identify,
        refused: Counter[str],
    ) -> None:
        self._app = app
        self._refused = refused
        self._identify = identify
        self._hosts = hosts
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in UNGUARDED:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self._host_is_ours(headers.get("host", "")) or not self._origin_is_ours(scope, headers):
            refusal = {"error": {"code": "forbidden", "message": "This Host or Origin may not talk to this server."}}
            self._refused["origin"] += 1
            await JSONResponse(refusal, 403)(scope, receive, send)
            return
        if scope.get("state", {}).get(CROWDED):
            self._refused["descriptors"] += 1
            await _come_back(scope, receive, send)
            return
        scope.setdefault("state", {})[_PRINCIPAL] = self._identify(scope)

        async def send_safely(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                found = message.setdefault("headers", [])
                assert isinstance(found, list)
                found.extend(HEADERS)
                if scope["path"].startswith("/api/"):
                    found.append((b"cache-control", b"no-store"))
            await send(message)

        await self._app(scope, receive, send_safely)  # type: ignore[arg-type]

    def _host_is_ours(self, host: str) -> bool:
        return self._hosts is None or _name(f"//{host}") in self._hosts

    def _origin_is_ours(self, scope: Scope, headers: Headers) -> bool:
        """Pages say where they come from; programs need not. Reading over HTTP is guarded by the browser itself."""
        origin = headers.get("origin")
        if origin is None or (scope["type"] == "http" and scope["method"] in ("GET", "HEAD")):
            return True
        return origin in self._origins or _place(origin) == headers.get("host", "").lower()


async def _come_back(scope: Scope, receive: Receive, send: Send) -> None:
    """There is no descriptor for it (FAULTS.md 27). A page sees no status of a handshake, so a socket is accepted."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
        return
    refusal = {"error": {"code": "overloaded", "message": "Too many connections; come back in a moment."}}
    await JSONResponse(refusal, 503, {"retry-after": str(RETRY_AFTER_SECONDS)})(scope, receive, send)


def _place(url: str) -> str | None:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return None


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
