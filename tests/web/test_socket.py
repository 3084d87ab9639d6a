"""What a reader's connection says first, how many there may be, and who may open one: PROTOCOL.md §1 and §4."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from starlette.types import Message

from app.web.protocols import ABORT
from tests.web.test_access import Asked, Site, site  # noqa: F401


async def stream(site: Site, path: str, until: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Asked:  # noqa: F811
    """An event stream, read until it has sent an event of this type."""
    asked = Asked()
    enough = asyncio.Event()

    async def receive() -> Message:
        await enough.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            asked.status = message["status"]
            return
        asked.body += message.get("body", b"")
        if f"event: {until}".encode() in asked.body or asked.status != 200:
            enough.set()

    accept = (b"accept", b"text/event-stream")
    head = [(b"host", b"127.0.0.1"), accept, *headers]
    async with asyncio.timeout(5):
        await site.app(site._scope("http", path, method="GET", headers=head), receive, send)
    return asked


async def heard(site: Site, said: list[str], until: set[str]) -> list[str]:  # noqa: F811
    """The types of frames that come, up to all of `until`, when all of `said` is said before anything is heard."""
    waiting: list[Message] = [{"type": "websocket.connect"}]
    waiting += [{"type": "websocket.receive", "text": text} for text in said]
    types: list[str] = []
    enough = asyncio.Event()

    async def receive() -> Message:
        if not waiting:
            await enough.wait()
        return waiting.pop(0) if waiting else {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        if message["type"] == "websocket.send":
            types.append(json.loads(message["text"])["type"])
        if until <= set(types):
            enough.set()

    async with asyncio.timeout(5):
        await site.app(site._scope("websocket", f"/ws/{site.conversation}"), receive, send)
    return types


@pytest.mark.parametrize("said", ['{"type":"ping"}', "garbage", '{"type":"nonsense","id":"x1"}', '{"type":"rename"}'])
async def test_attached_is_first_whatever_the_client_says_meanwhile(site: Site, said: str) -> None:  # noqa: F811
    """PROTOCOL §1.1: exactly one `attached`, first."""
    types = await heard(site, [said, '{"type":"cancel","id":"c1"}'], {"live", "accepted"})
    assert types[0] == "attached" and types.count("attached") == 1


async def test_attached_is_first_also_while_the_server_goes_down(site: Site) -> None:  # noqa: F811
    """PROTOCOL §1.1."""
    site.house.leaving.set()
    assert (await heard(site, [], {"live", "draining"}))[0] == "attached"
    streamed = await stream(site, f"/api/conversations/{site.conversation}/events", "draining")
    assert streamed.body.startswith(b"event: attached")


async def test_who_does_not_read_is_cut_off(site: Site) -> None:  # noqa: F811
    """FAULTS 31, 54: one frame is on its way and no more piles up; after so long the connection is aborted."""
    site.house.send_seconds = 0.05
    waiting: list[Message] = [{"type": "websocket.connect"}]
    sent: list[Message] = []
    cut = asyncio.Event()

    async def receive() -> Message:
        if not waiting:
            await cut.wait()
        return waiting.pop() if waiting else {"type": "websocket.disconnect", "code": 1006}

    async def send(message: Message) -> None:
        if message["type"] == "websocket.send":
            sent.append(message)
            await cut.wait()  # the peer's buffer is full

    scope = site._scope("websocket", f"/ws/{site.conversation}")
    scope.setdefault("state", {})[ABORT] = cut.set
    async with asyncio.timeout(5):
        await site.app(scope, receive, send)
    assert cut.is_set() and len(sent) == 1 and site.house.sockets == {"ann": 0}


async def test_event_streams_count_as_connections(site: Site) -> None:  # noqa: F811
    """PROTOCOL §4, P8: so many of a viewer, whatever carries them."""
    site.house.limits = replace(site.house.limits, sockets=1)
    path = f"/api/conversations/{site.conversation}/events"
    assert (await stream(site, path, "live")).status == 200
    assert site.house.sockets == {"ann": 0}, "one that has ended does not count"
    site.house.sockets["ann"] = 1
    refused = await stream(site, path, "live")
    assert refused.status == 429 and b"rate_limited" in refused.body


async def test_an_event_stream_goes_on_from_its_last_id(site: Site) -> None:  # noqa: F811
    """PROTOCOL §2: `id: <log>:<through>`, which `Last-Event-ID` takes back; before the query string."""
    path = f"/api/conversations/{site.conversation}/events"
    first = (await stream(site, path, "live")).body.decode()
    last = [line for line in first.splitlines() if line.startswith("id: ")][-1].removeprefix("id: ")
    log, _, through = last.rpartition(":")
    again = (await stream(site, path, "live", ((b"last-event-id", last.encode()),))).body.decode()
    attached = json.loads(again.splitlines()[1].removeprefix("data: "))
    assert (attached["after"], attached["log"], attached["reset"]) == (int(through), log, False)
    other = (await stream(site, path, "live", ((b"last-event-id", b"other:2"),))).body.decode()
    assert json.loads(other.splitlines()[1].removeprefix("data: "))["reset"] is True


@pytest.mark.parametrize("origin", [b"http://[", b"null", b"https://evil.example", b"http://127.0.0.1.evil.example"])
async def test_a_foreign_or_broken_origin_is_refused(site: Site, origin: bytes) -> None:  # noqa: F811
    """PROTOCOL §1.3: HTTP 403 before the handshake and on every changing request; never an error of ours."""
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        if "status" in message:
            statuses.append(message["status"])

    headers = [(b"host", b"127.0.0.1"), (b"origin", origin)]
    scope = site._scope("http", "/api/conversations", method="POST", headers=headers)
    await site.app(scope, receive, send)
    scope = site._scope("websocket", f"/ws/{site.conversation}", headers=headers)
    await site.app({**scope, "extensions": {"websocket.http.response": {}}}, receive, send)
    assert statuses == [403, 403]


async def test_runs_of_one_agent_are_found_among_those_of_others(site: Site) -> None:  # noqa: F811
    """000-9: the filtered list has exactly the matching ones, however many newer ones do not match."""
    site.house.agents = {**site.house.agents, "b": next(iter(site.house.agents.values()))}
    items = site.house.log._conversations  # type: ignore[attr-defined]
    wanted = items[site.conversation]
    for number in range(120):
        name = f"other{number}"
        item = replace(
            wanted.item, conversation=name, agent="b", created_at=wanted.item.created_at + 1, status="running"
        )
        items[name] = type(wanted)(log=name, epoch=1, item=item, creation=None)
    wanted.item = replace(wanted.item, status="running")
    scope = site._scope("http", "/api/runs", method="GET", query_string=b"status=active&agent=a")
    body = bytearray()

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        body.extend(message.get("body", b""))

    await site.app(scope, receive, send)
    assert [run["conversation"] for run in json.loads(bytes(body))["runs"]] == [site.conversation]
