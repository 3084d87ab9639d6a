"""Continuations over HTTP (PROTOCOL.md §2): look at one, take one, put one back."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from app.core.bounds import CONTINUATION_BYTES_MAX
from app.core.errors import Rejected
from app.web import api
from app.web.access import authorize, principal_of
from app.web.answers import answer, read_object
from app.web.context import House

BODY_BYTES_MAX = 4 * CONTINUATION_BYTES_MAX
"""What left as UTF-8 may come back with every letter escaped, and indented."""

DEPTH_MAX = 96
"""Nesting of JSON: sub-agents stand inside each other."""

OF_A_RUN = {"continuation", "holdfast", "approval_info", "end_reason", "suspend_list", "rejected_tool_calls"}
"""What stands in an object that a run has left with, and not in the body of a creation."""


async def show(request: Request) -> Response:
    """`GET /api/conversations/{c}/continuation`: a copy, to inspect and to decide here."""
    house, conversation, *_ = await api.find_item(request, "read")
    return answer(await house.moving.export(conversation))


async def output(request: Request) -> Response:
    """`GET /api/runs/{run}/output`: what came of a run, in the shape that its messages and calls have in the field."""
    house: House = request.app.state.house
    run = request.path_params["run"]
    if (conversation := await house.log.find_run(run)) is None:
        raise Rejected("not_found", "There is no such run.")
    item, _ = await house.log.item(conversation)
    authorize(principal_of(request.scope), "read", item.owner)
    return answer(await house.moving.output(conversation, run))


async def take(request: Request) -> Response:
    """`POST /api/conversations/{c}/continuation/take?run=`: the run ends here and goes on where this is put back."""
    house, conversation, *_ = await api.find_item(request, "command")
    run = request.query_params.get("run")
    return answer(await house.moving.take(conversation, principal_of(request.scope).id, run))


async def put_back(request: Request) -> Response:
    """`POST /api/continuations`: a continuation, or the body of `POST /api/conversations`."""
    house: House = request.app.state.house
    principal = principal_of(request.scope)
    authorize(principal, "create", None)
    body = await read_object(request, BODY_BYTES_MAX, DEPTH_MAX)
    if not OF_A_RUN.intersection(body):
        return await api.create_from(request, body)
    force = request.query_params.get("force") == "1"
    put = await house.moving.put_back(body, principal.id, force=force)
    shown = {"conversation": put.conversation, "run": put.run}
    if not put.duplicate:
        return answer(shown, 201)
    outcome = await api.run_json(house, put.conversation, put.run or "")
    return answer({**(outcome or {}), **shown, "duplicate": True})
