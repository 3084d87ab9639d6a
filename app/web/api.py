"""The HTTP API of PROTOCOL.md §2: the same commands and the same log as the socket, for programs without one."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from app.actor.listing import item_json
from app.actor.summary import archived_run, note_json, notes_of
from app.core.codec import to_json
from app.core.errors import Rejected
from app.core.events import Json
from app.core.state import State
from app.core.usage import total
from app.store.event_log import Item
from app.web.access import Action, authorize, principal_of
from app.web.answers import (
    answer,
    answer_text,
    bounded_integer,
    optional_text,
    parse_integer,
    plain,
    read_object,
    refused,
)
from app.web.context import House
from app.wire.frames import standing
from app.wire.inbound import is_id, parse_command

LIST_MAX = 100
RUNS_MAX = 2_000
EVENTS_MAX = 5_000
SEARCH_MAX = 500
STATUSES = ("idle", "running", "waiting", "suspended")
ENDED = ("completed", "failed", "cancelled", "moved")


async def find_item(request: Request, action: Action) -> tuple[House, str, Item, int]:
    """The conversation of a path, if this principal may do this to it. Raises Rejected not_found."""
    house: House = request.app.state.house
    conversation = request.path_params["conversation"]
    try:
        item, head = await house.log.item(conversation)
        deleted = action != "delete" and (await house.log.head(conversation)).deleted  # a damaged one, too, may go
    except KeyError:
        raise Rejected("not_found", "There is no such conversation.") from None
    authorize(principal_of(request.scope), action, item.owner)
    if deleted and action != "restore":
        raise Rejected("not_found", "There is no such conversation.")
    return house, conversation, item, head


# --- conversations


async def create(request: Request) -> Response:
    """`POST /api/conversations`"""
    principal = principal_of(request.scope)
    authorize(principal, "create", None)
    return await create_from(request, await read_object(request))


async def create_from(request: Request, body: Json) -> Response:
    """A conversation from the body of its creation."""
    house: House = request.app.state.house
    principal = principal_of(request.scope)
    id = optional_text(body, "id")
    if id is not None and not is_id(id):
        raise Rejected("bad_command", "`id` is 1-64 characters of A-Z a-z 0-9 . _ : -")
    created = await house.directory.create(
        owner=principal.id,
        agent=house.agent_named(optional_text(body, "agent")),
        title=optional_text(body, "title") or "",
        prompt=optional_text(body, "prompt"),
        id=id,
    )
    shown: Json = {"conversation": created.conversation}
    if created.run is not None:
        shown["run"] = created.run
    return answer({**shown, "duplicate": True} if created.duplicate else shown, 200 if created.duplicate else 201)


async def conversations(request: Request) -> Response:
    """`GET /api/conversations?status=&q=&limit=&before=`; `before` is the `next` of the page before."""
    house: House = request.app.state.house
    principal = principal_of(request.scope)
    authorize(principal, "list", None)
    limit = bounded_integer(request, "limit", 50, LIST_MAX)
    status, words = request.query_params.get("status") or None, request.query_params.get("q") or None
    if status is not None and status not in STATUSES:
        raise Rejected("bad_command", f"`status` is one of {', '.join(STATUSES)}.")
    among = await house.archive.search(principal.id, words, SEARCH_MAX) if words else []
    items = await house.log.items(
        principal.id, limit=limit + 1, status=status, before=_before(request), title=words, among=among
    )
    page: Json = {"conversations": [item_json(item, head) for item, head in items[:limit]]}
    if len(items) > limit:
        last = items[limit - 1][0]
        page["next"] = f"{last.created_at}:{last.conversation}"
    return answer(page)


def _before(request: Request) -> tuple[int, str] | None:
    before = request.query_params.get("before")
    if not before:
        return None
    created_at, _, conversation = before.partition(":")
    return parse_integer("before", created_at), conversation


async def conversation(request: Request) -> Response:
    """`GET /api/conversations/{c}`"""
    house, id, item, head = await find_item(request, "read")
    shown = item_json(item, head)

    def more(state: State) -> Json:
        now = standing(state, "")
        return {"approvals": now.approvals, "queued": now.queued, "usage": _usage(state), "notes": notes_of(state)}

    return answer({**shown, **await house.directory.ask(id, more)})


def _usage(state: State) -> Json:
    usage = total(record.usage for record in state.runs.values())
    shown: Json = {"cached": 0, **plain(usage)}
    return shown


async def notes(request: Request) -> Response:
    """`GET /api/conversations/{c}/notes`: all of them, checkpoints too, in order."""
    house, id, *_ = await find_item(request, "read")
    return answer({"notes": await house.directory.ask(id, lambda state: [note_json(note) for note in state.notes])})


async def delete(request: Request) -> Response:
    """`DELETE /api/conversations/{c}`"""
    house, id, item, _ = await find_item(request, "delete")
    await house.directory.delete(id, item.owner)
    return Response(status_code=204)


async def restore(request: Request) -> Response:
    """`POST /api/conversations/{c}/restore`"""
    house, id, *_ = await find_item(request, "restore")
    if not await house.directory.restore(id):
        raise Rejected("not_found", "There is nothing to restore.")
    return answer(item_json(*await house.log.item(id)))


async def command(request: Request) -> Response:
    """`POST /api/conversations/{c}/commands`"""
    house, id, *_ = await find_item(request, "command")
    body = await read_object(request)
    named = body.get("id") if is_id(body.get("id")) else None
    try:
        said = parse_command(body)
        decision = await house.directory.submit(id, said, principal_of(request.scope).id)
    except Rejected as refusal:
        return refused(refusal, id=named)
    return answer({"id": said.id, "seq": decision.seq, "duplicate": decision.duplicate}, 202)


# --- the log and the archive


async def events(request: Request) -> Response:
    """`GET /api/conversations/{c}/events?after=&log=&limit=`: a page of the log."""
    house, id, *_ = await find_item(request, "read")
    after = max(parse_integer("after", request.query_params.get("after", "0")), 0)
    limit = bounded_integer(request, "limit", 1_000, EVENTS_MAX)
    head = await house.log.head(id)
    reset = request.query_params.get("log", head.log) != head.log or after > head.head
    page = await house.log.read(id, 0 if reset else after, house.page_bytes)
    texts, through = page.texts[:limit], page.through
    if len(texts) < len(page.texts):
        through = page.seqs[limit - 1]
    place = to_json({"log": head.log, "reset": reset, "after": page.after, "through": through, "head": page.head})
    return answer_text(f'{place[:-1]},"events":[{",".join(texts)}]}}')


async def messages(request: Request) -> Response:
    """`GET /api/conversations/{c}/messages`: the archive, from SQL."""
    house, id, *_ = await find_item(request, "read")
    runs = await house.archive.runs(id)  # before the messages: a flush in between must not show a run without its words
    said = await house.archive.messages(id)
    return answer({"messages": [plain(message) for message in said], "runs": [plain(run) for run in runs]})


async def runs(request: Request) -> Response:
    """`GET /api/runs?status=active&agent=`; `active` = running, waiting or suspended, else one status, else all.

    The newest `limit` (at most and by default RUNS_MAX); `more`: there are others.
    """
    house: House = request.app.state.house
    principal = principal_of(request.scope)
    authorize(principal, "list", None)
    limit = bounded_integer(request, "limit", RUNS_MAX, RUNS_MAX)
    status, agent = request.query_params.get("status") or None, request.query_params.get("agent") or None
    if status not in (None, "active", *STATUSES[1:], *ENDED):
        raise Rejected("bad_command", f"`status` is active, {', '.join((*STATUSES[1:], *ENDED))}.")
    shown: list[Json] = []
    for wanted in STATUSES[1:] if status in (None, "active") else [status] if status in STATUSES else []:
        items = await _newest(house, principal.id, wanted, agent, limit + 1)
        known = [await _listed(house, item, item.run) for item in items if item.run]
        shown += [run for run in known if run is not None]
    if status is None or status in ENDED:
        gone = await house.log.deleted(house.clock() + 1)
        ended = await house.archive.finished(principal.id, agent=agent, status=status, limit=limit + 1, without=gone)
        shown += [plain(run) for run in ended]
    for run in shown:
        run.pop("levels", None)  # many, in a list of many
    shown.sort(key=lambda run: -run["started_at"])
    return answer({"runs": shown[:limit], **({"more": True} if len(shown) > limit else {})})


async def _listed(house: House, item: Item, run: str) -> Json | None:
    """A run for a list: from the archive where that is as new as the item, so that a list brings little into memory."""
    if not house.directory.holds(item.conversation):
        archived = await house.archive.run(run)
        newest = item.conversation, item.run_status, item.step
        if archived is not None and (archived.conversation, archived.status, archived.step) == newest:
            shown: Json = plain(archived)
            return shown
    return await run_json(house, item.conversation, run)


async def _newest(house: House, owner: str, status: str, agent: str | None, limit: int) -> list[Item]:
    """The newest conversations of a status, of this agent only where one is named."""
    found: list[Item] = []
    before: tuple[int, str] | None = None
    while len(found) < limit:
        page = [item for item, _ in await house.log.items(owner, limit=LIST_MAX, status=status, before=before)]
        found += [item for item in page if agent in (None, item.agent)]
        if len(page) < LIST_MAX:
            break
        before = page[-1].created_at, page[-1].conversation
    return found[:limit]


async def run(request: Request) -> Response:
    """`GET /api/runs/{run}`"""
    house: House = request.app.state.house
    id = request.path_params["run"]
    conversation = await house.log.find_run(id)
    if conversation is not None:
        item, _ = await house.log.item(conversation)
        authorize(principal_of(request.scope), "read", item.owner)
        if (shown := await run_json(house, conversation, id)) is not None:
            return answer(shown)
    raise Rejected("not_found", "There is no such run.")


async def run_json(house: House, conversation: str, run: str) -> Json | None:
    """A run as its owner's committed state knows it."""

    def record(state: State) -> Json | None:
        known = state.runs.get(run)
        return plain(archived_run(conversation, known)) if known else None

    try:
        shown: Json | None = await house.directory.ask(conversation, record)
    except KeyError:
        return None
    return shown


async def kept(request: Request) -> Response:
    """`GET /api/conversations/{c}/kept/{ref}`: a text that was too large for its event, whole."""
    house, id, *_ = await find_item(request, "read")
    text = await house.log.kept(id, request.path_params["ref"])
    if text is None:
        raise Rejected("not_found", "Nothing is kept under this name.")
    return Response(text, media_type="text/plain; charset=utf-8", headers={"content-disposition": "attachment"})


# --- the process


async def healthz(request: Request) -> Response:
    """`GET /healthz`: the process lives."""
    return answer({"status": "ok"})


async def readyz(request: Request) -> Response:
    """`GET /readyz`: the log is writable, recovery is done, nobody has asked to go."""
    house: House = request.app.state.house
    if house.leaving.is_set():
        return answer({"status": "draining"}, 503)
    if not await house.log.writable():
        return answer({"status": "storage_unavailable"}, 503)
    return answer({"status": "ready"})
