"""PROTOCOL.md §2: every call over HTTP, with its statuses, its pages and its idempotency."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from .conftest import Launch
from .harness import Server, eventually, fresh, settled
from .stub import Story, Use, refuse, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

ITEM = {"conversation", "title", "agent", "status", "head", "created_at", "updated_at"}


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def comments(server: Server) -> AsyncIterator[list[str]]:
    """The comments of an event stream that is open from the module's first test to its last."""
    stream, comments, _ = await server.stream((await server.create())["conversation"])
    server.clients.remove(stream)
    yield comments
    await stream.close()


def is_error(body: dict[str, object]) -> bool:
    error = body.get("error")
    return isinstance(error, dict) and {"code", "message"} <= error.keys() and "Traceback" not in str(error)


# --- creation


async def test_create_and_read(server: Server) -> None:
    """201 with the id, URL-safe and of 128 bits; then it can be read."""
    made = await server.create(title="Made", agent="plain")
    assert "run" not in made or made["run"] is None
    assert len(made["conversation"]) >= 22 and made["conversation"].replace("-", "").replace("_", "").isalnum()
    item = await server.get(f"/api/conversations/{made['conversation']}")
    assert item.keys() >= ITEM
    assert {"approvals", "queued", "usage", "notes"} <= item.keys()
    assert (item["title"], item["agent"], item["status"], item["approvals"], item["queued"]) == (
        "Made",
        "plain",
        "idle",
        [],
        [],
    )


async def test_creation_is_idempotent_by_its_id(server: Server, story: Story) -> None:
    """The first answer again with 200 and `duplicate`; the id is the prompt's command id too."""
    story.brain = lambda _: say("Yes.")
    id = fresh("made")
    first = await server.create(id=id, title="First", prompt=story.says("Hello"))
    again = await server.post("/api/conversations", {"id": id, "title": "Second", "prompt": "Other"}, 200)
    assert again == {**first, "duplicate": True}
    tab = await server.attach(first["conversation"])
    await tab.ended()
    given = tab.all("prompt.given")
    assert [event["message"] for event in given] == [id]
    assert len([event for event in tab.events if event.get("cause") == id]) == 1
    assert (await tab.do("prompt", id, text="Again"))["duplicate"] is True


async def test_a_race_of_equal_creations_makes_one(server: Server) -> None:
    """Ten at once: one 201, nine 200, one conversation."""
    body = {"id": fresh("race"), "title": "Raced"}
    answers = await asyncio.gather(*(server.http.post("/api/conversations", json=body) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
    assert len({answer.json()["conversation"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"agent": "nobody"}, (400, 404)),
        ({"title": 5}, (400,)),
        ({"title": "x" * 201}, (400, 413)),
        ({"prompt": ""}, (400,)),
        ({"prompt": 7}, (400,)),
        ({"prompt": "x" * 65_537}, (413,)),
        ({"id": "not an id"}, (400,)),
        ([], (400,)),
        ("text", (400,)),
    ],
)
async def test_creations_that_are_refused(server: Server, body: object, status: tuple[int, ...]) -> None:
    answer = await server.http.post("/api/conversations", json=body)
    assert answer.status_code in status and is_error(answer.json()), answer.text


async def test_bodies_that_are_no_json(server: Server) -> None:
    for content in (b"{", b"\xff\xfe", b"[" * 100_000, b"nonsense"):
        answer = await server.http.post("/api/conversations", content=content)
        assert answer.status_code in (400, 413) and is_error(answer.json()), answer.text
    answer = await server.http.post("/api/conversations", content=b'{"title": "' + b"x" * 2_000_000 + b'"}')
    assert answer.status_code == 413


# --- listing


async def test_the_list_in_pages_newest_first(server: Server) -> None:
    """`limit`, `before` = `next`, every conversation exactly once, newest first."""
    made = [(await server.create(title=f"Page {number}"))["conversation"] for number in range(7)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 3}
    for _ in range(100):
        page = await server.get("/api/conversations", **query)
        assert len(page["conversations"]) <= 3
        assert all(item.keys() >= ITEM for item in page["conversations"])
        seen += [item["conversation"] for item in page["conversations"]]
        if not page.get("next"):
            break
        query["before"] = page["next"]
    assert len(seen) == len(set(seen))
    assert [conversation for conversation in seen if conversation in made] == made[::-1]


async def test_the_list_by_status_and_words(server: Server, story: Story) -> None:
    """`status=` and `q=` (titles, and what was said, once archived)."""
    word = fresh("needle").replace("-", "")
    story.then(say(f"I found {word}b here."))
    by_title = (await server.create(title=f"About {word}a"))["conversation"]
    by_words = (await server.create(prompt=story.says("Search")))["conversation"]
    busy = (await server.create(prompt=story.says("Busy")))["conversation"]
    call = await story.call()

    async def found(**query: str) -> list[str]:
        return [item["conversation"] for item in (await server.get("/api/conversations", **query))["conversations"]]

    async def both() -> bool:
        return await found(q=f"{word}a") == [by_title] and await found(q=f"{word}b") == [by_words]

    await eventually(both, "the search finds both")
    running = await found(status="running")
    assert busy in running and by_title not in running
    assert by_title in await found(status="idle")
    await call.end()
    for odd in ('"', "*", "a OR b", "'; drop table runs; --", "(", "NEAR(", "%", "\\", "-"):
        assert (await server.http.get("/api/conversations", params={"q": odd})).status_code == 200, odd


@pytest.mark.parametrize(
    "query",
    [{"limit": "-1"}, {"limit": "x"}, {"limit": "999999999999"}, {"before": "../x"}, {"status": "odd"}, {"limit": "0"}],
)
async def test_odd_pages(server: Server, query: dict[str, str]) -> None:
    """FAULTS, bonus abuse: negative and huge pagination is refused or bounded, never an error of ours."""
    answer = await server.http.get("/api/conversations", params=query)
    assert answer.status_code in (200, 400)
    assert answer.status_code == 400 or len(answer.json()["conversations"]) <= 1000


async def test_waiting_for_is_in_the_list(server: Server, story: Story) -> None:
    """`waiting_for` tells what a person must decide."""
    story.then(use(Use("reserve", {"place": fresh("place"), "people": 1}, id="book")))
    made = await server.create(prompt=story.says("Book"))
    tab = await server.attach(made["conversation"])
    await tab.event("run.suspended", reason="approval")
    items = (await server.get("/api/conversations", status="waiting"))["conversations"]
    [item] = [one for one in items if one["conversation"] == made["conversation"]]
    assert item["waiting_for"] and item["run"]
    await tab.do("cancel")
    await tab.ended()


# --- one conversation


async def test_what_does_not_exist_is_404(server: Server) -> None:
    none = fresh("none")
    for path in ("", "/events", "/messages"):
        answer = await server.http.get(f"/api/conversations/{none}{path}")
        assert answer.status_code == 404 and is_error(answer.json()), path
    assert (await server.http.get(f"/api/runs/{none}")).status_code == 404
    assert (await server.http.delete(f"/api/conversations/{none}")).status_code == 404
    assert (await server.http.get("/api/nothing")).status_code == 404
    assert (await server.http.put("/api/conversations", json={})).status_code == 405


async def test_usage_is_summed(server: Server, story: Story) -> None:
    story.then(use(Use("tick", {"number": 1})), say("Done."))
    made = await server.create(prompt=story.says("Count"))
    await server.outcome(made["run"])
    item = await server.get(f"/api/conversations/{made['conversation']}")
    assert (item["usage"]["input"], item["usage"]["output"]) == (22, 14)


async def test_delete_and_restore(server: Server, story: Story) -> None:
    """Deleted is 404 everywhere and not listed; restored within ten minutes it is all there (issue 3)."""
    story.then(say("Kept."))
    made = await server.create(prompt=story.says("Delete me"))
    conversation = made["conversation"]
    await server.outcome(made["run"])
    before = [record.text for record in await server.replay(conversation)]
    assert (await server.http.delete(f"/api/conversations/{conversation}")).status_code == 204
    await server.get(f"/api/conversations/{conversation}", 404)
    await server.get(f"/api/conversations/{conversation}/messages", 404)
    listed = (await server.get("/api/conversations", limit=100))["conversations"]
    assert conversation not in [item["conversation"] for item in listed]
    item = await server.post(f"/api/conversations/{conversation}/restore", {}, 200)
    assert item["conversation"] == conversation
    assert [record.text for record in await server.replay(conversation)][: len(before)] == before


# --- events


async def test_events_in_pages(server: Server, story: Story) -> None:
    """`after`, `limit`, `through`, `head`: the pages put together are the log, each event once."""
    tab = await server.open()
    story.then(*(use(Use("tick", {"number": n})) for n in range(6)), say("Done."))
    await tab.do("prompt", text=story.says("Count"))
    await tab.ended()
    log = await settled(server, tab)
    conversation, after, seen = tab.attached["conversation"], 0, []
    for _ in range(200):
        page = await server.get(f"/api/conversations/{conversation}/events", after=after, limit=3)
        assert (page["after"], page["log"], page["reset"]) == (after, tab.attached["log"], False)
        assert len(page["events"]) <= 3 and page["through"] <= page["head"]
        assert all(after < event["seq"] <= page["through"] for event in page["events"])
        seen += page["events"]
        after = page["through"]
        if after == page["head"]:
            break
    assert [event for event in seen if event["seq"] <= log[-1].seq] == [record.event for record in log]
    path = f"/api/conversations/{conversation}/events"
    beyond = await server.get(path, after=10**9)
    assert (beyond["reset"], beyond["after"], beyond["events"][0]["seq"]) == (True, 0, 1)
    foreign = await server.get(path, after=2, log="foreign")
    assert (foreign["reset"], foreign["after"]) == (True, 0)
    for query in ({"after": "x"}, {"after": "1.5"}, {"limit": "x"}):
        assert (await server.http.get(path, params=query)).status_code == 400, query


async def test_the_event_stream(server: Server, story: Story) -> None:
    """FAULTS 52: the socket's frames as SSE: attached first, live once, ids `<log>:<through>`, live events."""
    tab = await server.open()
    conversation = tab.attached["conversation"]
    stream, _, ids = await server.stream(conversation)
    await stream.frame("live")
    assert stream.frames[0]["type"] == "attached"
    await tab.do("prompt", text=story.says("Speak"))
    call = await story.call()
    await call.text("Over ")
    await stream.shows("Over ")
    await call.text("SSE")
    await stream.shows("Over SSE")
    assert ids[-1] == f"{tab.attached['log']}:{stream.cursor}"
    last = ids[-1]
    await stream.close()
    await call.end()
    await tab.ended()
    resumed, _, _ = await server.stream(conversation, last)
    await resumed.frame("live")
    assert resumed.attached["reset"] is False and resumed.attached["after"] == int(last.rpartition(":")[2])
    assert [event["text"] for event in resumed.all("model.replied")] == ["Over SSE"]
    whole, _, _ = await server.stream(conversation)
    await whole.frame("live")
    log = await settled(server, tab)
    assert [r.text for r in whole.records][: len(log)] == [r.text for r in log][: len(whole.records)]


async def test_the_event_stream_of_another_log_is_reset(server: Server) -> None:
    tab = await server.open()
    stream, _, _ = await server.stream(tab.attached["conversation"], "foreign:1")
    await stream.frame("live")
    assert stream.attached["reset"] is True and stream.events[0]["seq"] == 1


async def test_the_event_stream_ends_with_its_conversation(server: Server) -> None:
    tab = await server.open()
    conversation = tab.attached["conversation"]
    stream, _, _ = await server.stream(conversation)
    await stream.frame("live")
    await server.http.delete(f"/api/conversations/{conversation}")
    await stream.closed()


# --- messages and runs


async def test_messages_are_the_archive(server: Server, story: Story) -> None:
    """{seq, at, run, role, author, text, calls, call}, in order, and the runs as GET /api/runs/{run} gives them."""
    story.then(use(Use("tick", {"number": 3}, id="k3"), text="Counting."), say("Three."))
    made = await server.create(prompt=story.says("Count"))
    run = await server.outcome(made["run"])
    kept = await server.archived(made["conversation"], made["run"])
    messages = kept["messages"]
    assert all({"seq", "at", "run", "role", "text"} <= message.keys() for message in messages)
    assert [message["seq"] for message in messages] == sorted(message["seq"] for message in messages)
    said = [(message["role"], message["text"]) for message in messages]
    assert said == [
        ("user", story.says("Count")),
        ("assistant", "Counting."),
        ("tool", "tick 3"),
        ("assistant", "Three."),
    ]
    assert messages[0]["author"] and messages[2]["call"] == "k3"
    [call] = messages[1]["calls"]
    assert (call["call"], call["tool"]) == ("k3", "tick")
    assert kept["runs"] == [run]


async def test_runs_are_listed_and_read(server: Server, story: Story) -> None:
    """`status=active` is running, waiting or suspended; a run that has ended has its result."""
    fields = {"run", "conversation", "agent", "status", "started_at", "step", "usage"}
    story.then(use(Use("reserve", {"place": fresh("place"), "people": 1}, id="book")))
    waiting = await server.create(prompt=story.says("Book"))
    tab = await server.attach(waiting["conversation"])
    await tab.event("run.suspended", reason="approval")
    running = await server.create(agent="plain", prompt=story.says("Work"))
    call = await story.call()
    active = {run["run"]: run for run in (await server.get("/api/runs", status="active"))["runs"]}
    assert active[waiting["run"]]["status"] == "waiting" and active[running["run"]]["status"] == "running"
    assert all(fields <= run.keys() for run in active.values())
    plain = (await server.get("/api/runs", status="active", agent="plain"))["runs"]
    assert {run["agent"] for run in plain} == {"plain"}
    await call.text("The result")
    await call.end()
    ended = await server.outcome(running["run"])
    assert ended["result"] == "The result" and ended["finished_at"] >= ended["started_at"]
    await tab.do("cancel")
    await tab.ended()

    async def gone() -> bool:
        left = {run["run"] for run in (await server.get("/api/runs", status="active"))["runs"]}
        return not left & {running["run"], waiting["run"]}

    await eventually(gone, "ended runs are not active")


async def test_all_active_runs_are_listed_or_the_list_says_more(launch: Launch, story: Story) -> None:
    """000-9: exactly the matching ones, though they are many and no longer in memory; P8: what is cut says so."""
    server = await launch()
    story.brain = lambda _: use(Use("reserve", {"place": "here", "people": 1}))
    made = [await server.create(prompt=story.says("Book")) for _ in range(120)]

    async def waiting() -> bool:
        listed = await server.get("/api/runs", status="waiting")
        return len(listed["runs"]) == len(made) and "more" not in listed

    await eventually(waiting, "all of them wait")
    await server.restart()
    active = await server.get("/api/runs", status="active")
    assert {run["run"] for run in active["runs"]} == {one["run"] for one in made} and "more" not in active
    assert all(run["status"] == "waiting" for run in active["runs"])
    few = await server.get("/api/runs", status="active", limit=7)
    assert [run["run"] for run in few["runs"]] == [run["run"] for run in active["runs"]][:7] and few["more"]


async def test_a_failed_run_says_why(server: Server, story: Story) -> None:
    story.then(refuse(400, "the model says no"))
    item = await server.outcome((await server.create(prompt=story.says("Fail")))["run"])
    assert item["status"] == "failed" and item["error"]["kind"] and item["error"]["message"]


# --- the process and the page


async def test_health_and_readiness(server: Server) -> None:
    for path in ("/healthz", "/readyz"):
        assert (await server.http.get(path)).status_code == 200


async def test_the_page_and_its_headers(server: Server) -> None:
    """FAULTS security-headers, security-exfiltration: `GET /` is HTML under a strict policy; nobody stores answers.

    The policy word by word, since each of its words keeps something out.
    """
    page = await server.http.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    policy = dict(rule.strip().partition(" ")[::2] for rule in page.headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'", "base-uri": "'none'", "frame-ancestors": "'none'", "form-action": "'self'",
        "script-src": "'self'", "style-src": "'self'", "connect-src": "'self'", "font-src": "'self'",
        "img-src": "'self' blob:", "require-trusted-types-for": "'script'", "trusted-types": "holdfast",
    }  # fmt: skip
    api = await server.http.get("/api/conversations")
    for answer in (page, api, await server.http.get("/static/main.js"), await server.http.get("/nowhere")):
        assert answer.headers["content-security-policy"] == page.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == answer.headers["cross-origin-resource-policy"]
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["x-dns-prefetch-control"] == "off"
        assert "camera=()" in answer.headers["permissions-policy"]
    assert "no-store" in api.headers["cache-control"]
    assert (await server.http.get("/static/../app/settings.py")).status_code in (400, 404)
    assert (await server.http.get("/static/%2e%2e/app/settings.py")).status_code in (400, 404)


async def test_reading_is_quick_while_a_run_works(server: Server, story: Story) -> None:
    """Reading never waits for the run."""
    made = await server.create(prompt=story.says("Work"))
    call = await story.call()
    began = time.monotonic()
    for path in ("", "/events", "/messages"):
        await server.get(f"/api/conversations/{made['conversation']}{path}")
    assert time.monotonic() - began < 2
    await call.end()


async def test_the_event_stream_is_never_silent_for_long(comments: list[str]) -> None:
    """§2, FAULTS 51: a comment line every 15 s.

    No setting shortens it, so the stream was opened by the module's first test.
    """
    await eventually(lambda: comments, "a comment line", within=17)
