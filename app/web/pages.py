"""The browser client: its page, its files, and Markdown made safe for it. Nothing of a conversation is here."""

from __future__ import annotations

import asyncio
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.core.errors import Rejected
from app.web.answers import answer, read_object
from app.web.render import render as render_markdown

STATIC = Path(__file__).resolve().parents[2] / "static"


class Files(StaticFiles):
    """Static files that the browser asks about each time: a new version is never half loaded."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


async def page(request: Request) -> Response:
    """`GET /` and `GET /c/{conversation}`"""
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})


async def render(request: Request) -> Response:
    """`POST /api/render`: `{text}` → `{html}`, off the event loop."""
    text = (await read_object(request)).get("text")
    if not isinstance(text, str):
        raise Rejected("bad_command", "`text` is a text.")
    try:
        return answer({"html": await asyncio.to_thread(render_markdown, text)})
    except ValueError as error:
        raise Rejected("too_large", str(error)) from None
