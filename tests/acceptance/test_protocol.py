"""PROTOCOL.md §1.1 and §1.3: what a reader is sent, where it stands, how a connection ends.

§1.2 is in test_protocol_commands, §2 in test_protocol_http, §3 in test_protocol_events, §4 in test_protocol_bounds.
Every frame that any test receives is checked against §1.1 by history.Follower. A heartbeat of 1 s stands for 20 s.
"""

from __future__ import annotations

import asyncio
import time

import pytest
from websockets.exceptions import InvalidStatus

from .conftest import Launch
from .harness import Server, fresh, settled
from .history import records_in
from .stub import Story, Use, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

SETTINGS = {"HOLDFAST_HEARTBEAT_SECONDS": "1", "HOLDFAST_ORIGINS": "https://chat.example"}

ATTACHED = {
    *["type", "protocol", "conversation", "log", "after", "head", "reset", "status", "run", "agent", "title"],
    *["approvals", "queued", "viewer", "limits", "now"],
}


# --- attached


async def test_attached_says_where_the_reader_stands(server: Server) -> None:
    """§1.1: every field, for a conversation at rest."""
    made = await server.create(title="Standing", agent="plain")
    tab = await server.attach(made["conversation"])
    await tab.frame("live")
    attached = tab.attached
    assert attached.keys() >= ATTACHED
    assert (attached["protocol"], attached["conversation"]) == (1, made["conversation"])
    assert (attached["after"], attached["reset"], attached["status"], attached["run"]) == (0, False, "idle", None)
    assert (attached["agent"], attached["title"]) == ("plain", "Standing")
    assert (attached["approvals"], attached["queued"]) == ([], [])
    assert {"id", "role"} <= attached["viewer"].keys()
    assert abs(attached["now"] - time.time() * 1000) < 10_000
    assert attached["head"] >= 1 and attached["log"]
    created = tab.events[0]
    assert (created["seq"], created["type"], created["agent"], created["title"]) == (
        1,
        "conversation.created",
        "plain",
        "Standing",
    )
    assert created["owner"]


async def test_limits_state_every_bound(server: Server) -> None:
    """§4: all bounds are in `attached.limits`, with the defaults where nothing is configured."""
    tab = await server.open()
    limits = tab.attached["limits"]
    figures = {value for value in limits.values() if isinstance(value, int | float)}
    for bound in (262144, 65536, 200, 32, 10, 1_000_000):
        assert bound in figures, (bound, limits)


async def test_attached_says_what_goes_on(server: Server, story: Story) -> None:
    """§1.1: `run`, `status`, `approvals`, `queued` describe the conversation at its head."""
    tab = await server.open()
    conversation = tab.attached["conversation"]
    story.then(use(Use("reserve", {"place": fresh("place"), "people": 2}, id="book")))
    await tab.do("prompt", text=story.says("Book"))
    requested = await tab.event("approval.requested")
    await tab.event("run.suspended")
    await tab.do("hint", "h-1", text="Near the window")
    await tab.do("prompt", "p-2", text="And then this")
    await tab.event("prompt.queued")
    other = await server.attach(conversation)
    await other.frame("live")
    attached = other.attached
    assert attached["status"] == "waiting"
    assert attached["run"]["run"] == tab.run and attached["run"]["step"] == 1
    assert attached["run"]["status"] == "waiting" and attached["run"]["started_at"] > 0
    assert attached["approvals"] == [requested]
    queued = {(q["kind"], q["target"], q["message"], q["text"]) for q in attached["queued"]}
    assert {(kind, message, text) for kind, _, message, text in queued} == {
        ("hint", "h-1", "Near the window"),
        ("prompt", "p-2", "And then this"),
    }
    assert all(q["author"] for q in attached["queued"])
    await tab.do("cancel")
    await tab.ended()


# --- cursors


async def test_every_integer_up_to_the_head_is_a_cursor(server: Server, story: Story) -> None:
    """§1: also one between events that were sent together, or of events that no longer exist; −1 is 0."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Speak"))
    call = await story.call()
    for number in range(4):
        await call.text(f"{number} ")
        await tab.shows_at_last(f"{number} ")
    await call.end()
    await tab.ended()
    log = await settled(server, tab)
    existing = {record.seq for record in log}
    assert set(range(1, log[-1].seq)) - existing, "nothing was superseded"
    for after in range(-1, log[-1].seq + 1):
        other = await server.attach(tab.attached["conversation"], after=after)
        await other.frame("live")
        assert other.attached["reset"] is False
        assert [r.text for r in other.records if r.seq <= log[-1].seq] == [r.text for r in log if r.seq > after]
        await other.close()


@pytest.mark.parametrize("after", ["abc", "NaN", "Infinity", "1.0", "0x10", "1;2", "%00", "true"])
async def test_what_is_no_integer_is_refused(server: Server, after: str) -> None:
    """§1, FAULTS 38: HTTP 400 before the handshake."""
    conversation = (await server.create())["conversation"]
    with pytest.raises(InvalidStatus) as refused:
        await server.attach(conversation, after=after)
    assert refused.value.response.status_code == 400


@pytest.mark.parametrize("after", [2**31, 2**63, 2**64 + 1, 10**30])
async def test_a_cursor_beyond_the_head_is_reset(server: Server, after: int) -> None:
    """§1.1, FAULTS 22, 38: drop local state, events follow from 0; huge numbers crash nothing."""
    conversation = (await server.create())["conversation"]
    tab = await server.attach(conversation, after=after)
    await tab.frame("live")
    assert (tab.attached["reset"], tab.attached["after"]) == (True, 0)
    assert tab.events[0]["seq"] == 1


async def test_a_cursor_of_another_log_is_reset(server: Server) -> None:
    """§3.4, FAULTS 38: another conversation's log id, or none that ever was; the own one is no reset."""
    one, two = await server.open(), await server.open()
    conversation = one.attached["conversation"]
    for log in (two.attached["log"], "nonsense"):
        tab = await server.attach(conversation, after=one.cursor, log=log)
        await tab.frame("live")
        assert (tab.attached["reset"], tab.attached["log"]) == (True, one.attached["log"])
        assert tab.events[0]["seq"] == 1
    tab = await server.attach(conversation, after=one.cursor, log=one.attached["log"])
    await tab.frame("live")
    assert tab.attached["reset"] is False and tab.events == []


async def test_a_cursor_among_pieces_gets_what_superseded_them(server: Server, story: Story) -> None:
    """§3.3: a reader that left in mid-text gets the end of the attempt and replaces what it had."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Speak"))
    call = await story.call()
    await call.text("Half ")
    await tab.shows("Half ")
    await tab.vanish()
    await call.text("and whole.")
    await call.end()
    await server.outcome(tab.run)
    tab = await server.again(tab)
    await tab.ended()
    since = [r for r in tab.records if r.type in ("text.streamed", "model.replied")]
    assert [r.event["text"] for r in since] == ["Half ", "Half and whole."]
    await settled(server, tab)


async def test_events_during_a_replay_follow_it_in_order(server: Server, story: Story) -> None:
    """FAULTS 36, 37: 20 readers join while the model streams; none misses, doubles or reorders anything."""
    tab = await server.open()
    conversation = tab.attached["conversation"]
    story.then(say(*(f"{n} " for n in range(60)), pace=0.01))
    await tab.do("prompt", text=story.says("Count"))
    tabs = [await server.attach(conversation) for _ in range(20)]
    for reader in tabs:
        await reader.ended()
    for reader in (tab, *tabs[:3]):
        await settled(server, reader)
    texts = [[r.text for r in reader.records if r.type == "model.replied"] for reader in tabs]
    assert all(text == texts[0] and len(text) == 1 for text in texts)


# --- live, heartbeat, receipts


async def test_live_comes_once_also_for_a_reader_at_the_head(server: Server) -> None:
    """§1.1: exactly one `live`, at once where there is nothing to catch up with."""
    tab = await server.open()
    other = await server.attach(tab.attached["conversation"], after=tab.cursor)
    await other.frame("live")
    for number in range(3):
        await tab.do("rename", title=f"Title {number}")
    await other.event("conversation.renamed", title="Title 2")
    await other.ping()
    assert [frame["type"] for frame in other.frames].count("live") == 1


async def test_heartbeats(server: Server) -> None:
    """§1.1, §1.2: unasked after a second of silence, and at once as the answer to `ping`, which has no id."""
    tab = await server.open()
    began = time.monotonic()
    beat = await tab.ping()
    assert time.monotonic() - began < 0.9
    assert beat["head"] == tab.cursor and abs(beat["at"] - time.time() * 1000) < 10_000
    since = len(tab.frames)
    beat = await tab.frame("heartbeat", since=since, within=3)
    assert beat["head"] == tab.cursor
    assert not [frame for frame in tab.frames if frame["type"] in ("accepted", "rejected")]


async def test_a_receipt_is_the_same_for_ever_also_over_a_restart(launch: Launch, story: Story) -> None:
    """§1.1, P3, FAULTS 2, 34: `accepted` tells the seq of the command's first event; again: the same, `duplicate`."""
    server = await launch()
    tab = await server.open()
    story.brain = lambda _: say("Yes.")
    sent = {
        "a.1": ("prompt", {"text": story.says("Hello")}),
        "b:2": ("rename", {"title": "Named"}),
        "c_3-": ("cancel", {}),
    }
    receipts = {}
    for id, (kind, fields) in sent.items():
        receipts[id] = await tab.do(kind, id, **fields)
        assert receipts[id]["duplicate"] is False
        if kind == "prompt":
            await tab.ended()
    await server.restart()
    tab = await server.again(tab)
    for id, (kind, fields) in sent.items():
        for _ in range(2):
            assert await tab.do(kind, id, **fields) == {**receipts[id], "duplicate": True}
    answer = await server.command(tab.attached["conversation"], "rename", "b:2", title="Otherwise")
    assert (answer.status_code, answer.json()) == (202, {"id": "b:2", "seq": receipts["b:2"]["seq"], "duplicate": True})
    log = await settled(server, tab)
    caused = {record.event["cause"]: record.seq for record in log if "cause" in record.event}
    assert caused == {**caused, **{id: receipt["seq"] for id, receipt in receipts.items()}}
    assert len([record for record in log if record.type == "run.started"]) == 1


async def test_the_first_frame_is_attached_even_for_many_at_once(server: Server) -> None:
    """§1.1: exactly one `attached`, first, for 50 readers at the same time (the Follower refuses anything else)."""
    tab = await server.open()
    tabs = await asyncio.gather(*(server.attach(tab.attached["conversation"]) for _ in range(50)))
    for reader in tabs:
        await reader.frame("live")
        assert reader.frames[0]["type"] == "attached"


async def test_no_compression(server: Server) -> None:
    """FAULTS 41, security-compression: offered, not taken."""
    tab = await server.attach((await server.create())["conversation"], compression="deflate")
    assert tab.socket is not None and tab.socket.protocol.extensions == []
    await tab.frame("live")


async def test_control_pings_are_answered(server: Server) -> None:
    """RFC 6455 pings from a client are answered as usual."""
    tab = await server.open()
    assert tab.socket is not None
    async with asyncio.timeout(5):
        await (await tab.socket.ping())


# --- the live list


async def test_the_live_list(server: Server, story: Story) -> None:
    """§1.1: the newest conversations, `live` without `through`, then one frame per change, and deletions."""
    first = await server.create(title="Listed")
    watch = await server.watch()
    live = await watch.frame("live")
    assert "through" not in live
    before = watch.frames[: watch.frames.index(live)]
    assert {frame["type"] for frame in before} == {"conversation"} and len(before) <= 100
    [item] = [f["item"] for f in before if f["item"]["conversation"] == first["conversation"]]
    assert (item["title"], item["status"]) == ("Listed", "idle")
    listed = (await server.get("/api/conversations"))["conversations"]
    assert next(one for one in listed if one["conversation"] == first["conversation"]).keys() == item.keys()

    def of(conversation: str, **fields: object) -> bool:
        items = [f["item"] for f in watch.frames if f["type"] == "conversation"]
        return any(i["conversation"] == conversation and fields.items() <= i.items() for i in items)

    made = await server.create(title="New", prompt=story.says("Work"))
    call = await story.call()
    await watch.until(lambda _: of(made["conversation"], status="running", title="New"), "the new one is running")
    await call.end()
    await watch.until(lambda _: of(made["conversation"], status="idle"), "the new one is idle")
    await server.command(made["conversation"], "rename", title="Renamed")
    await watch.until(lambda _: of(made["conversation"], title="Renamed"), "the new title")
    assert (await server.http.delete(f"/api/conversations/{made['conversation']}")).status_code == 204
    await watch.frame("conversation_deleted", conversation=made["conversation"])


# --- closing


async def test_no_such_conversation_is_4504(server: Server) -> None:
    """§1.3: accepted, closed with 4504, no frame before."""
    for conversation in (fresh("none"), "x", "A" * 300):
        tab = await server.attach(conversation)
        assert await tab.closed() == 4504
        assert tab.frames == []


@pytest.mark.parametrize("conversation", ["..", "%2e%2e%2fetc", "..%2F..%2Fx", "%00", "a%20b", "%F0%9F%98%80"])
async def test_path_like_ids_reach_nothing(server: Server, conversation: str) -> None:
    """FAULTS security-paths: `../` and friends are just conversations that do not exist."""
    try:
        tab = await server.attach(conversation)
    except InvalidStatus as refused:
        assert refused.response.status_code in (400, 403, 404)
    else:
        assert await tab.closed() in (4504, None, 1000) or "conversation" not in tab.attached
    answer = await server.http.get(f"/api/conversations/{conversation}")
    assert answer.status_code in (400, 404, 405, 307) and "Traceback" not in answer.text


async def test_an_id_is_no_path_and_a_path_leads_nowhere_else(server: Server) -> None:
    """FAULTS security-paths: an id is the very text; files of the page are those in its directory.

    Asked for by hand, since libraries tidy paths up.
    """
    id = (await server.create())["conversation"]
    for near in (f"./{id}", f".{id}", f"{id}.", f"..%5C{id}", f"x%2F..%2F{id}", f"{id}%20", f"{id}%00"):
        assert b" 404 " in await _status(server, f"GET /api/conversations/{near}", f"127.0.0.1:{server.port}"), near
    assert b" 200 " in await _status(server, f"GET /api/conversations/{id}", f"127.0.0.1:{server.port}")
    for up in ("..", "%2e%2e", "..%2F.", "%2e%2e%2fstatic%2f..", "js/../..", "/.."):
        for file in ("app/settings.py", "pyproject.toml"):
            status = await _status(server, f"GET /static/{up}/{file}", f"127.0.0.1:{server.port}")
            assert b" 404 " in status or b" 400 " in status, (up, file)
    assert b" 200 " in await _status(server, "GET /static/main.js", f"127.0.0.1:{server.port}")


async def test_deleted_closes_readers_with_4510(server: Server, story: Story) -> None:
    """§1.3, §2, FAULTS 74: the run is cancelled, every reader gets 4510, so does who comes later, HTTP says 404."""
    tab = await server.open()
    conversation = tab.attached["conversation"]
    other = await server.attach(conversation)
    await other.frame("live")
    story.then(say("Done before."))
    await tab.do("prompt", text=story.says("Work"))
    done = (await tab.ended())["run"]
    await tab.do("prompt", text=story.says("Work on"))
    call = await story.call()
    await server.archived(conversation, done)
    assert done in [run["run"] for run in (await server.get("/api/runs"))["runs"]]
    assert (await server.http.delete(f"/api/conversations/{conversation}")).status_code == 204
    assert done not in [run["run"] for run in (await server.get("/api/runs"))["runs"]]
    await server.get(f"/api/runs/{done}", 404)
    assert [await tab.closed(), await other.closed()] == [4510, 4510]
    await call.aborted(3)
    late = await server.attach(conversation)
    assert await late.closed() in (4510, 4504)
    await server.get(f"/api/conversations/{conversation}", 404)
    assert (await server.command(conversation, "prompt", text="Still there?")).status_code == 404
    assert (await server.http.delete(f"/api/conversations/{conversation}")).status_code == 404


async def test_three_frames_that_are_no_object_close_with_4400(server: Server) -> None:
    """§1.3, FAULTS 43: two are refused with `bad_json` and a null id, the third closes."""
    tab = await server.open()
    for text in ("{", "nonsense"):
        since = len(tab.frames)
        await tab.post(text)
        refusal = await tab.frame("rejected", since=since)
        assert (refusal["id"], refusal["code"]) == (None, "bad_json")
    await tab.do("rename", title="The connection still works")
    await tab.post("[1, 2]")
    assert await tab.closed() == 4400


async def test_a_binary_frame_closes_with_4400(server: Server) -> None:
    """§1.3: text frames only."""
    tab = await server.open()
    await tab.post(b'{"type":"ping"}')
    assert await tab.closed() == 4400


async def test_invalid_utf8_harms_nobody(server: Server) -> None:
    """FAULTS 42: the connection is closed with 1007, the server lives."""
    tab = await server.open()
    assert tab.socket is not None
    await tab.socket.send(b'{"type":"rename","id":"u","title":"\xff\xfe"}', text=True)
    assert await tab.closed() in (1007, 4400)
    assert (await server.http.get("/readyz")).status_code == 200


async def test_draining_is_told(launch: Launch) -> None:
    """§1.1, FAULTS 98: on SIGTERM every reader gets `draining` with a time, and then may come back."""
    server = await launch()
    tab = await server.open()
    ending = asyncio.create_task(server.terminate())
    frame = await tab.frame("draining")
    assert frame["retry_after_ms"] >= 0
    code = await tab.closed()
    assert code is None or not 4500 <= code <= 4999
    assert await ending == 0


# --- who may come


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://127.0.0.1:1"]
)
async def test_a_foreign_origin_is_refused(server: Server, origin: str) -> None:
    """FAULTS security-origin: 403 before the handshake and on every changing request; reading is the browser's work."""
    conversation = (await server.create())["conversation"]
    for path in (f"/ws/{conversation}", "/ws"):
        assert await server.handshake(path, origin) == 403
    headers = {"Origin": origin}
    paths = [("POST", "/api/conversations"), ("POST", f"/api/conversations/{conversation}/commands")]
    for method, path in (*paths, ("DELETE", f"/api/conversations/{conversation}")):
        answer = await server.http.request(method, path, headers=headers, json={"type": "cancel", "id": fresh()})
        assert answer.status_code == 403, (method, path)
    await server.get(f"/api/conversations/{conversation}")


async def test_own_configured_and_missing_origins_are_let_in(server: Server) -> None:
    """§1.3: this server's own, a configured one, and programs that send none."""
    conversation = (await server.create())["conversation"]
    for origin in (server.url, "https://chat.example", None):
        tab = await server.attach(conversation, origin=origin)
        await tab.frame("live")
        headers = {"Origin": origin} if origin else {}
        assert (await server.http.post("/api/conversations", json={}, headers=headers)).status_code == 201, origin


async def test_a_foreign_host_is_refused(server: Server) -> None:
    """FAULTS security-origin: DNS rebinding: 403 before the handshake and on every changing request."""
    conversation = (await server.create())["conversation"]
    for host in ("evil.example", f"evil.example:{server.port}"):
        answer = await server.http.post("/api/conversations", json={}, headers={"Host": host})
        assert answer.status_code == 403, host
        answer = await server.http.delete(f"/api/conversations/{conversation}", headers={"Host": host})
        assert answer.status_code == 403, host
        assert b" 403 " in await _handshake(server, conversation, host)
    assert b" 101 " in await _handshake(server, conversation, f"localhost:{server.port}")


async def _handshake(server: Server, conversation: str, host: str) -> bytes:
    """The status line of a handshake written by hand, since the library insists on the true Host."""
    key = ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
    return await _status(server, f"GET /ws/{conversation}", host, "Upgrade: websocket", "Connection: Upgrade", *key)


async def _status(server: Server, request: str, host: str, *headers: str) -> bytes:
    """The status line that answers a request written by hand."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write("\r\n".join([f"{request} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode())
    status = await reader.readline()
    writer.transport.abort()
    return status


async def test_frames_of_two_readers_are_equal_to_the_byte(server: Server, story: Story) -> None:
    """DESIGN §1.5: what is stored is what is sent: live frame, replayed frame and HTTP give the same text per event."""
    tab = await server.open()
    story.then(use(Use("tick", {"number": 1}), text="Grüße, 🌍 \u2028 <b>"), say("Ende."))
    await tab.do("prompt", text=story.says("Zähle ☃"))
    await tab.ended()
    log = await settled(server, tab)
    conversation = tab.attached["conversation"]
    stream, _, _ = await server.stream(conversation)
    await stream.frame("live")
    raw = (await server.http.get(f"/api/conversations/{conversation}/events")).text
    for records in (stream.records, records_in(raw)):
        assert [r.text for r in records][: len(log)] == [r.text for r in log]
