"""The authorisation table: every route and every command × owner, somebody else, a read-only guest, nobody.

A route that is not in the table fails the test, so that nobody adds a path without a check (security rules; FAULTS.md
"a missing check on *one* path"). Real application, real stores in memory, ASGI called directly.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Message, Scope

from app.agent import Agent
from app.agent.model_demo import DemoModel
from app.core.commands import FromClient
from app.main import house_of
from app.settings import read
from app.store.archive_memory import MemoryArchive
from app.store.log_memory import MemoryLog
from app.web.access import Principal
from app.web.context import House
from app.web.routes import ROUTES, application

WHO = {"owner": Principal("ann"), "other": Principal("bob"), "guest": Principal("ann", role="guest"), "nobody": None}

# route -> what a request to Ann's conversation gives the owner, another person, a guest of hers, nobody
TABLE = {
    "GET /": (200, 200, 200, 200),
    "GET /c/{conversation}": (200, 200, 200, 200),
    "GET /healthz": (200, 200, 200, 200),
    "GET /readyz": (200, 200, 200, 200),
    "GET /metrics": (200, 200, 403, 403),
    "POST /api/conversations": (201, 201, 403, 403),
    "GET /api/conversations": (200, 200, 403, 403),
    "GET /api/conversations/{conversation}": (200, 404, 403, 403),
    "DELETE /api/conversations/{conversation}": (204, 404, 403, 403),
    "POST /api/conversations/{conversation}/restore": (404, 404, 403, 403),
    "POST /api/conversations/{conversation}/commands": (202, 404, 403, 403),
    "GET /api/conversations/{conversation}/events": (200, 404, 403, 403),
    "GET /api/conversations/{conversation}/messages": (200, 404, 403, 403),
    "GET /api/conversations/{conversation}/notes": (200, 404, 403, 403),
    "GET /api/conversations/{conversation}/kept/{ref:path}": (404, 404, 403, 403),
    "GET /api/conversations/{conversation}/continuation": (409, 404, 403, 403),
    "POST /api/conversations/{conversation}/continuation/take": (409, 404, 403, 403),
    "POST /api/continuations": (201, 201, 403, 403),
    "GET /api/runs": (200, 200, 403, 403),
    "GET /api/runs/{run}": (200, 404, 403, 403),
    "GET /api/runs/{run}/output": (200, 404, 403, 403),
    "POST /api/render": (200, 200, 200, 200),
    "WS /ws": ("live", "live", 4503, 4501),
    "WS /ws/{conversation}": ("live", 4504, 4503, 4501),
}


@dataclass
class Asked:
    """What an ASGI call came to: an HTTP status and body, or the frames and close code of a socket."""

    status: int = 0
    body: bytes = b""
    frames: tuple[str, ...] = ()
    code: int | None = None


class Site:
    """The application over stores in memory; each request is made by somebody of `WHO`."""

    def __init__(self, app: Starlette, house: House) -> None:
        self.app = app
        self.house = house
        self.who = "owner"
        self.conversation = ""
        self.run = ""

    async def http(self, who: str, method: str, path: str, body: Any = None) -> Asked:
        self.who = who
        asked = Asked()
        sent = [{"type": "http.request", "body": json.dumps(body).encode() if body is not None else b""}]

        async def receive() -> Message:
            if sent:
                return sent.pop()
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                asked.status = message["status"]
            else:
                asked.body += message.get("body", b"")

        await self.app(self._scope("http", path, method=method), receive, send)
        return asked

    async def socket(self, who: str, path: str, said: tuple[str, ...] = (), frames_max: int = 50) -> Asked:
        """Connects, says things, and reads until `live` and an answer to each, or the close."""
        self.who = who
        asked = Asked()
        enough = asyncio.Event()
        heard: list[str] = []
        waiting = [{"type": "websocket.receive", "text": text} for text in reversed(said)]
        waiting.append({"type": "websocket.connect"})

        async def receive() -> Message:
            if waiting:
                return waiting.pop()
            await enough.wait()
            return {"type": "websocket.disconnect", "code": 1000}

        async def send(message: Message) -> None:
            if message["type"] == "websocket.close":
                asked.code = message["code"]
                enough.set()
            elif message["type"] == "websocket.send":
                heard.append(message["text"])
                types = [json.loads(text)["type"] for text in heard]
                if "live" in types and sum(t in ("accepted", "rejected") for t in types) >= len(said):
                    enough.set()

        await self.app(self._scope("websocket", path), receive, send)
        asked.frames = tuple(heard)
        return asked

    def _scope(self, type: str, path: str, **more: Any) -> Scope:
        return {
            "type": type,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "scheme": "http",
            "http_version": "1.1",
            "state": {},
            **more,
        }


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    settings = read({"HOLDFAST_DATA": str(tmp_path), "HOLDFAST_DEMO_PACE": "0"})
    house = house_of(settings, {"a": Agent("a")}, DemoModel(0), MemoryLog(), MemoryArchive())
    await house.directory.start()
    made = Site(Starlette(), house)
    made.app = application(house, None, frozenset(), lambda scope: WHO[made.who])
    created = json.loads((await made.http("owner", "POST", "/api/conversations", {"prompt": "Hello"})).body)
    made.conversation, made.run = created["conversation"], created["run"]
    async with asyncio.timeout(30):
        while json.loads((await made.http("owner", "GET", f"/api/runs/{made.run}")).body)["status"] == "running":
            await asyncio.sleep(0.01)
    yield made
    await house.directory.drain(1)


def named() -> set[str]:
    """Every route there is, one row per method."""
    rows: set[str] = set()
    for route in ROUTES:
        match route:
            case WebSocketRoute():
                rows.add(f"WS {route.path}")
            case Route():
                rows |= {f"{method} {route.path}" for method in (route.methods or set()) - {"HEAD"}}
            case Mount():
                assert route.path == "/static", "files of the page are everybody's; nothing else is mounted"
    return rows


def test_every_route_is_in_the_table() -> None:
    assert named() == set(TABLE)


BODIES = {
    "POST /api/conversations": {},
    "POST /api/continuations": {},
    "POST /api/conversations/{conversation}/commands": {"type": "rename", "id": "r1", "title": "t"},
    "POST /api/render": {"text": "*x*"},
}


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("route", sorted(TABLE))
async def test_every_route_asks_who_it_is(site: Site, route: str, who: str) -> None:
    """FAULTS security-authorize."""
    method, path = route.split(" ")
    path = path.replace("{conversation}", site.conversation).replace("{run}", site.run).replace("{ref:path}", "x")
    wanted = TABLE[route][list(WHO).index(who)]
    if method == "WS":
        asked = await site.socket(who, path)
        came = asked.code if asked.code is not None and asked.code >= 4000 else json.loads(asked.frames[-1])["type"]
        assert came == wanted
        if wanted != "live":
            assert not asked.frames, "nothing is said to who may not hear it"
    else:
        asked = await site.http(who, method, path, BODIES.get(route))
        assert asked.status == wanted, asked.body
        if wanted in (403, 404):
            assert site.run.encode() not in asked.body and b"Hello" not in asked.body


COMMANDING = sorted(route for route in TABLE if re.search(r"POST .*/(commands|take|continuations)$", route))


@pytest.mark.parametrize("route", COMMANDING)
async def test_whatever_commands_has_the_rate_of_its_address(site: Site, route: str) -> None:
    """PROTOCOL §4: one bucket per client address for commands, also in the shape of objects; all else goes on."""
    method, path = route.split(" ")
    while site.house.within_rate("127.0.0.1"):
        pass
    asked = await site.http("owner", method, path.replace("{conversation}", site.conversation), BODIES.get(route))
    assert asked.status == 429 and b"rate_limited" in asked.body
    assert (await site.http("owner", "GET", f"/api/conversations/{site.conversation}")).status == 200
    assert (await site.http("owner", "POST", "/api/conversations", {})).status == 201


COMMANDS: dict[str, dict[str, Any]] = {
    "prompt": {"text": "x"},
    "hint": {"text": "x"},
    "withdraw": {"target": "m"},
    "approve": {"run": "r", "call": ["c"], "digest": "d"},
    "deny": {"run": "r", "call": ["c"], "digest": "d"},
    "revoke": {"tool": "t"},
    "settle": {"run": "r", "call": ["c"], "outcome": "done"},
    "cancel": {},
    "suspend": {},
    "resume": {},
    "rename": {"title": "stolen"},
    "note": {"kind": "decision", "text": "stolen"},
}


def test_every_command_is_tried() -> None:
    assert {kind.__struct_config__.tag for kind in get_args(FromClient)} == set(COMMANDS)


@pytest.mark.parametrize("who", ["other", "guest", "nobody"])
@pytest.mark.parametrize("command", sorted(COMMANDS))
async def test_no_command_of_a_stranger_changes_anything(site: Site, command: str, who: str) -> None:
    """FAULTS security-authorize."""
    said = {"type": command, "id": "strange", **COMMANDS[command]}
    path = f"/api/conversations/{site.conversation}/commands"
    assert (await site.http(who, "POST", path, said)).status in (403, 404)
    asked = await site.socket(who, f"/ws/{site.conversation}", (json.dumps(said),))
    assert asked.code in (4501, 4503, 4504) and not asked.frames
    events = await site.http("owner", "GET", f"/api/conversations/{site.conversation}/events")
    assert b"strange" not in events.body and b"stolen" not in events.body
