"""How HTTP answers: JSON out, one shape of error, one table from rejection codes to statuses."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.core.bounds import CLIENT_FRAME_BYTES_MAX, JSON_DEPTH_MAX
from app.core.codec import clean, to_json
from app.core.decide import DRAINING
from app.core.errors import Rejected
from app.core.events import Json
from app.wire.inbound import parse_object

STATUS = {
    "bad_json": 400,
    "bad_command": 400,
    "bad_arguments": 400,
    "text_empty": 400,
    "unknown_type": 400,
    "forbidden": 403,
    "not_found": 404,
    "no_such_approval": 404,
    "not_running": 409,
    "already_decided": 409,
    "already_closed": 409,
    "already_delivered": 409,
    "digest_mismatch": 409,
    "too_large": 413,
    "queue_full": 429,
    "rate_limited": 429,
    "draining": 503,
    "storage_unavailable": 503,
    "internal": 500,
}
_INTEGER = re.compile(r"[+-]?[0-9]{1,1000}", re.ASCII)
_LARGEST = 2**62


def answer(value: Any, status: int = 200) -> Response:
    """JSON out."""
    return answer_text(to_json(value), status)


def answer_text(text: str, status: int = 200) -> Response:
    """JSON that is text already."""
    return Response(text, status, media_type="application/json")


def refused(refusal: Rejected, **fields: Any) -> Response:
    """A rejection over HTTP: `error{code,message}` and its details."""
    error = {"code": refusal.code, "message": refusal.message, **refusal.details}
    return answer({"error": error, **fields}, STATUS.get(refusal.code, 400))


async def read_object(
    request: Request, bytes_max: int = CLIENT_FRAME_BYTES_MAX, depth_max: int = JSON_DEPTH_MAX
) -> Json:
    """The JSON object of a body, bounded. No body is an empty object. Raises Rejected."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > bytes_max:
                raise Rejected("too_large", f"The body is longer than {bytes_max} bytes.")
    except ClientDisconnect:
        raise Rejected("bad_json", "The body did not arrive whole.") from None
    if len(body) <= CLIENT_FRAME_BYTES_MAX:
        return parse_object(bytes(body), depth_max) if body.strip() else {}
    return await asyncio.to_thread(parse_object, bytes(body), depth_max)  # seconds, for what is large on purpose


def parse_integer(name: str, text: str) -> int:
    """An integer of a query string. Raises Rejected. One beyond every seq and time is as good as any other such."""
    if not _INTEGER.fullmatch(text):
        raise Rejected("bad_command", f"`{name}` is not an integer.")
    return max(-_LARGEST, min(int(text), _LARGEST))


def bounded_integer(request: Request, name: str, default: int, most: int) -> int:
    """An integer of the query string between 1 and `most`; more than that is that."""
    value = parse_integer(name, request.query_params.get(name, str(default)))
    if value < 1:
        raise Rejected("bad_command", f"`{name}` is a positive number.")
    return min(value, most)


def plain(value: Any) -> Any:
    """A struct as plain JSON values."""
    return msgspec.to_builtins(value)


def optional_text(body: Json, name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise Rejected("bad_command", f"`{name}` is a text.")
    return None if value is None else clean(value)


def unavailable(leaving: bool) -> Rejected:
    """Why nothing came of a request: the process goes, or the storage cannot answer."""
    if leaving:
        return Rejected("draining", DRAINING)
    return Rejected("storage_unavailable", "The storage cannot answer right now; try again in a moment.")
