"""FAULTS B1, B2, B5 and the security rules: tools that block, disturb or tell secrets, and peers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.benchmarks.long_log import CONVERSATION, Writing, write
from tests.store.builders import opened

from .conftest import Launch
from .harness import API_KEY, ROOT, Server, eventually, fresh, settled
from .stub import Story, Stub, Use, refuse, say, use
from .test_misfortune import descriptors, megabytes, socket

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

SERVED = ("tests.acceptance.rude:rude", "tests.acceptance.agents:plain")
PASSWORD = "correct-horse-5f1d-canary"
SIGNING = "signing-canary-77c1-secret"
TOKEN = "ghp_" + "C4nary" * 6


@pytest_asyncio.fixture(loop_scope="module")
async def rude(stub: Stub, tmp_path: Path) -> AsyncIterator[Server]:
    settings = {"DINNER_PASSWORD": PASSWORD, "HOLDFAST_SECRET": SIGNING, "HOLDFAST_HEARTBEAT_SECONDS": "1"}
    settings["DINNER_NOTE"] = TOKEN  # known by its looks alone
    server = Server(tmp_path / "server", stub.url, settings, SERVED)
    yield await server.start()
    await server.close()


async def test_a_blocked_loop_says_what_blocks_it_and_drops_nobody(rude: Server, story: Story, stub: Stub) -> None:
    """FAULTS 25: the watchdog names the line; when it is over heartbeats and the other conversation go on."""
    tab = await rude.open()
    other = stub.story()
    bystander = await rude.open(agent="plain", prompt=other.says("Talk"))
    talking = await other.call()
    await talking.text("Before. ")
    story.then(use(Use("freeze", {"seconds": 7})), say("Awake."))
    await tab.do("prompt", text=story.says("Freeze"))
    assert (await tab.ended(within=40))["type"] == "run.completed"
    since = len(bystander.frames)
    await bystander.frame("heartbeat", since=since)
    await talking.text("After.")
    await talking.end()
    assert (await bystander.ended())["type"] == "run.completed" and not tab.over and not bystander.over
    said = rude.said()
    assert "event loop has been blocked" in said and "freeze" in said and "rude.py" in said
    await settled(rude, tab)


async def test_what_belongs_to_the_process_is_not_relied_on(
    rude: Server, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 94: a tool that changes directory, environment and umask changes nothing for the server, nor for its end.

    Its data directory was given relative to where it was started. Forks, signal handlers and what else runs inside the
    process are the tool's own, unless it is isolated (README).
    """
    assert await rude.terminate() == 0
    monkeypatch.chdir(ROOT)
    rude.data = Path(os.path.relpath(rude.data))
    await rude.start()
    tab = await rude.open()
    story.then(use(Use("disturb")), say("Done."))
    await tab.do("prompt", text=story.says("Disturb"))
    assert (await tab.ended())["type"] == "run.completed"
    created = set(rude.data.iterdir())
    assert (await rude.http.get("/")).status_code == 200 and await rude.is_ready()
    counted = (rude.data / "boot").read_text()
    assert await rude.terminate() == 0
    assert (rude.data / "boot").read_text() != counted, "the count at the end found its directory"
    assert not {path for path in set(rude.data.iterdir()) - created if path.stat().st_mode & 0o077}
    await rude.start()
    await settled(rude, await rude.again(tab))


async def test_canary_secrets_are_found_nowhere(rude: Server, story: Story, stub: Stub) -> None:
    """FAULTS 93, security-secrets: planted in the environment, told by tools in every way, repeated by the provider.

    Looked for in frames, answers, the database with its log of writes, backups, and all that the process said.
    """
    tab = await rude.open()
    uses = [
        Use("leak", {"name": name, "how": how})
        for name in ("DINNER_PASSWORD", "OPENAI_API_KEY", "HOLDFAST_SECRET", "DINNER_NOTE")
        for how in ("print", "log", "progress", "raise", "trace", "return")
    ]
    story.then(use(*uses, Use("leak_long", {"name": "DINNER_PASSWORD"}, id="long")))
    story.then(refuse(500, f"the key {API_KEY} is broken"), refuse(401, f"the key {API_KEY} is wrong"))
    await tab.do("prompt", text=story.says("Tell"))
    assert (await tab.ended(within=60))["type"] == "run.failed"
    conversation = tab.attached["conversation"]
    await rude.archived(conversation, tab.run)
    found = [json.dumps(frame) for frame in tab.frames]
    for path in ("", "/events", "/messages", f"/kept/{tab.run}/long"):
        answer = await rude.http.get(f"/api/conversations/{conversation}{path}")
        assert answer.status_code == 200, (path, answer.text)
        found.append(answer.text)
    found += [call_text for call in story.calls for call_text in call.results.values()]
    assert await rude.terminate() == 0
    found += [path.read_bytes().decode("latin-1") for path in rude.data.rglob("*") if path.is_file()]
    found.append(rude.said())
    assert sum("[redacted]" in text for text in found) >= 5 and "the secret is [redacted]" in rude.said()
    assert "the secret is [redacted: GitHub token]" in rude.said()
    for canary in (PASSWORD, API_KEY, SIGNING, TOKEN):
        assert not [text[max(0, text.find(canary) - 200) :][:400] for text in found if canary in text]


# --- peers


async def shaken(server: Server, conversation: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A socket whose handshake is done, for bytes that no library sends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = (
        f"GET /ws/{conversation} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    writer.write(head.encode())
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_peers_that_are_gone_without_a_word(launch: Launch, story: Story) -> None:
    """FAULTS 30, 49: one whose cable is pulled, one that says and reads nothing: both are let go within 45 s.

    They answer no ping. Nobody else notices, and their descriptors are given back.
    """
    server = await launch(agents=SERVED)
    tab = await server.open()
    held = descriptors(server)
    pulled = await socket(server, tab.attached["conversation"], deaf=True)
    reader, silent = await shaken(server, tab.attached["conversation"])
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    await eventually(lambda: descriptors(server) >= held + 2, "both are connected")
    began = time.monotonic()
    await eventually(lambda: descriptors(server) <= held, "both have been let go", 60)
    assert time.monotonic() - began <= 45
    await tab.ping()
    pulled.transport.abort()
    silent.transport.abort()


async def everything(reader: asyncio.StreamReader) -> bytes:
    """What comes up to the end of the connection, however it ends."""
    found = bytearray()
    with contextlib.suppress(ConnectionError):
        while some := await reader.read(65_536):
            found += some
    return bytes(found)


async def test_a_hundred_thousand_fragments(launch: Launch) -> None:
    """FAULTS 40: one frame in tiny pieces is joined; what goes on like that gets 1008; others do not notice."""
    server = await launch(agents=SERVED)
    tab = await server.open()
    before = megabytes(server)

    def pieces(padding: int) -> bytes:
        command = json.dumps({"type": "rename", "id": "pieces", "title": "In pieces", "more": "x" * padding}).encode()
        heads = [b"\x01", *[b"\x00"] * (len(command) - 2), b"\x80"]  # text, continuations, the last one; mask 0
        return b"".join(b"%b\x81\0\0\0\0%c" % (kind, letter) for kind, letter in zip(heads, command, strict=True))

    reader, writer = await shaken(server, tab.attached["conversation"])
    writer.write(pieces(100_000) + pieces(200_000))
    took = []
    ended = asyncio.create_task(everything(reader))
    async with asyncio.timeout(60):
        while not ended.done():
            began = time.monotonic()
            assert (await server.http.get("/healthz")).status_code == 200
            took.append(time.monotonic() - began)
    await tab.event("conversation.renamed", title="In pieces")
    await tab.ping()
    assert b"\x88\x10\x03\xf0too many bytes" in await ended
    print(f"\n300,000 fragments: worst answer to others {max(took):.2f} s")
    assert max(took) < 5 and megabytes(server) - before < 100
    assert len(tab.all("conversation.renamed")) == 1, "the first hundred thousand, and no more"
    writer.transport.abort()


async def test_commands_in_another_order_than_they_were_meant(launch: Launch, story: Story) -> None:
    """FAULTS 35: an outbox that comes late: each is judged by itself; what names another run harms none."""
    server = await launch(agents=SERVED)
    tab = await server.open(agent="plain")
    await tab.refused("not_found", "withdraw", target="later")
    story.then(say("One."))
    await tab.do("prompt", "early", text=story.says("One"))
    await tab.ended()
    old = tab.run
    await tab.do("prompt", text=story.says("Two"))
    call = await story.call()
    await tab.do("prompt", "later", text="Three")
    await tab.refused("not_running", "cancel", run=old)
    await tab.refused("no_such_approval", "approve", run=old, call=["k"], digest="d")
    assert (await tab.do("prompt", "early", text=story.says("One")))["duplicate"]
    await tab.do("withdraw", target="later")
    await call.end()
    await tab.ended(2)
    assert len(tab.all("run.started")) == 2
    await settled(server, tab)


# --- many, and long


CONVERSATIONS = 1_000


async def test_idle_conversations_leave_memory(launch: Launch) -> None:
    """FAULTS 28: a thousand that nobody reads give their room to the next thousand; any is back in an instant."""
    server = await launch(agents=SERVED, HOLDFAST_RATE="100000")
    gate = asyncio.Semaphore(20)

    async def make(number: int) -> str:
        async with gate:
            conversation: str = (await server.create(agent="plain", title=f"number {number}"))["conversation"]
            return conversation

    async def crowd(count: int) -> list[str]:
        return await asyncio.gather(*(make(number) for number in range(count)))

    async def have_left() -> None:
        probes = iter(await crowd(60))

        async def came_back() -> bool:
            probe = next(probes)
            await server.command(probe, "rename", fresh(), title="probe")
            return any(record.type == "actor.activated" for record in await server.replay(probe))

        while not await came_back():
            await asyncio.sleep(1)

    await crowd(100)
    before = megabytes(server)
    made = await crowd(CONVERSATIONS)
    full = megabytes(server)
    await have_left()
    await crowd(CONVERSATIONS)
    after = megabytes(server)
    took = []
    for conversation in made[:20]:
        began = time.monotonic()
        tab = await server.attach(conversation)
        await tab.frame("live")
        took.append(time.monotonic() - began)
        await tab.close()
    print(f"\n{CONVERSATIONS} conversations: {before:.0f} to {full:.0f} MB, as many again: {after:.0f} MB")
    assert after - full <= 0.5 * (full - before) + 10
    assert min(took) < 0.05, "the best of them: the machine is shared"


async def test_a_very_long_conversation(launch: Launch, story: Story, request: pytest.FixtureRequest) -> None:
    """FAULTS 29: after a kill it is opened from a snapshot, for a small part of the work and the memory that folding it
    takes; the next one has as little to do, though a run has gone on in between.

    Work is the server's own CPU time, since others share the machine; what it folds is counted in tests/actor.
    """
    events = int(request.config.getoption("--events"))
    server = await launch(agents=SERVED, HOLDFAST_BACKUPS="0")
    await server.kill()
    async with opened(server.data) as log:
        written = await write(log, events, Writing("plain"))
    head = written.state.seq
    folding = await come_back(server, head)
    await server.kill()
    first = await come_back(server, head)
    tab = await server.attach(CONVERSATION, after=head)
    story.then(say("Last."))
    await tab.do("prompt", text=story.says("And now"))
    await tab.ended(within=60)
    await server.kill()
    second = await come_back(server, head)
    print(f"\n{head} events, folded: {folding}; from a snapshot: {first}, {second}")
    assert max(first.cpu, second.cpu) < folding.cpu / 3 + 0.1
    assert max(first.grown, second.grown) < folding.grown / 2 + 10


@dataclass(frozen=True)
class Opening:
    """Seconds until a reader near the head is attached; CPU seconds and MB that the server has taken for that."""

    seconds: float
    cpu: float
    grown: float

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s, {self.cpu:.2f} s CPU, {self.grown:.0f} MB"


async def come_back(server: Server, head: int) -> Opening:
    """Starts the server; a reader comes back who has seen all but the last page, and stays for no longer."""
    await server.start()
    began, cpu, before = time.monotonic(), cpu_seconds(server), megabytes(server)
    tab = await server.attach(CONVERSATION, after=head - 50)
    await tab.until(lambda c: c.follower.attached, "attached", 120)
    seconds = time.monotonic() - began
    assert tab.attached["head"] >= head and not tab.attached["reset"]
    await tab.frame("live")
    taken = Opening(seconds, cpu_seconds(server) - cpu, megabytes(server) - before)
    await tab.close()
    return taken


def cpu_seconds(server: Server) -> float:
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
