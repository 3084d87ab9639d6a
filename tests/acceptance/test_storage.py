"""SEMANTICS.md §11, FAULTS B1: the disk is full, locked, failing, damaged, put back: through a real server process.

What goes wrong is the system's own: a file system of a few megabytes (or, where none may be mounted, a limit on the
size of files), another program's lock, pages overwritten. Nothing of the server is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from websockets.exceptions import InvalidHandshake

from .conftest import Launch
from .harness import Client, Server, eventually, fresh, settled
from .stub import Story, Stub, Use, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

DB = "holdfast.db"


@pytest_asyncio.fixture(loop_scope="module")
async def home(stub: Stub, tmp_path: Path) -> AsyncIterator[Server]:
    """A server that is not started, and may say what it likes."""
    server = Server(tmp_path / "server", stub.url)
    yield server
    await server.close()


# --- nothing can be written for a while


class Full:
    """A disk that is full: every byte of a small file system is taken."""

    def __init__(self, server: Server) -> None:
        self.place = server.data
        self.place.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", self.place], check=True, capture_output=True)

    def begin(self, server: Server) -> None:
        with contextlib.suppress(OSError), (self.place / "filler").open("ab", buffering=0) as filler:
            while filler.write(b"x" * 4096):
                pass

    def end(self, server: Server) -> None:
        (self.place / "filler").unlink()

    def close(self) -> None:
        subprocess.run(["umount", "-l", self.place], check=True)


class Limited:
    """Writing fails with an error (EFBIG), wherever in the file."""

    def begin(self, server: Server) -> None:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def end(self, server: Server) -> None:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def close(self) -> None:
        pass


class Locked:
    """Another program, a backup tool, has the database for itself."""

    def __init__(self) -> None:
        self._holds: sqlite3.Connection | None = None

    def begin(self, server: Server) -> None:
        if self._holds is None:
            self._holds = sqlite3.connect(server.data / DB, isolation_level=None, timeout=20)
            self._holds.execute("BEGIN IMMEDIATE")

    def end(self, server: Server) -> None:
        self.close()

    def close(self) -> None:
        if self._holds is not None:
            self._holds.close()
            self._holds = None


@contextlib.contextmanager
def misfortune(kind: str, server: Server) -> Iterator[Full | Limited | Locked]:
    trouble: Full | Limited | Locked = Locked() if kind == "locked" else Limited()
    if kind == "full":
        with contextlib.suppress(subprocess.CalledProcessError, FileNotFoundError):  # may not mount: the next best
            trouble = Full(server)
    try:
        yield trouble
    finally:
        trouble.close()


async def status(server: Server) -> int:
    return (await server.http.get("/readyz")).status_code


@pytest.mark.parametrize("kind", ["full", "failing", "locked"])
async def test_while_nothing_can_be_written_nothing_is_told_and_then_it_goes_on(
    home: Server, story: Story, kind: str
) -> None:
    """FAULTS 14, 15, 16: `storage_unavailable`, not ready, reading goes on; afterwards nothing is lost or doubled."""
    server = home
    with misfortune(kind, server) as trouble:
        await server.start()
        tab, bystander = await server.open(), await server.open()
        await tab.do("prompt", text=story.says("Speak"))
        call = await story.call()
        await call.text("Before. ")
        await tab.shows("Before. ")

        async def is_out() -> bool:
            trouble.begin(server)  # a disk is full again as soon as a checkpoint has made room
            return await status(server) == 503

        await eventually(is_out, "the server says that it cannot write", 60)
        await tab.post({"type": "rename", "id": "doubtful", "title": "In doubt"})
        head, seen = tab.cursor, len(tab.records)

        async def is_refused() -> bool:
            trouble.begin(server)
            answer = await server.command(tab.attached["conversation"], "rename", fresh(), title="Refused")
            return answer.status_code == 503 and answer.json()["error"]["code"] == "storage_unavailable"

        await call.text("Meanwhile. ")
        await eventually(is_refused, "commands are refused", 60)
        elsewhere = await server.command(bystander.attached["conversation"], "rename", fresh(), title="Refused")
        assert elsewhere.status_code == 503, "a conversation that has not tried yet knows it at once, too"
        trouble.begin(server)
        began = time.monotonic()
        while time.monotonic() - began < (10 if kind == "locked" else 2):  # longer than a commit waits for a lock
            assert await status(server) == 503
            await asyncio.sleep(0.2)
        figures = (await server.http.get("/metrics")).text
        assert "holdfast_store_writable 0\n" in figures and "holdfast_store_failures_total 0\n" not in figures
        assert "holdfast_store_waiting_actors 1\n" in figures
        assert len(tab.records) == seen and not [f for f in tab.frames if f.get("id") == "doubtful" and "seq" in f]
        assert [record.seq for record in await server.replay(tab.attached["conversation"])][-1] <= head
        trouble.end(server)
        await eventually(server.is_ready, "it is ready by itself", 30)
        await tab.shows("Before. Meanwhile. ")
        answer = await tab.send("rename", "doubtful", title="In doubt")
        assert answer["type"] == "accepted"
        await call.text("After.")
        await call.end()
        assert (await tab.ended())["type"] == "run.completed"
        log = await settled(server, tab)
        assert [r.event["title"] for r in log if r.type == "conversation.renamed"].count("In doubt") == 1
        assert "Refused" not in [r.event["title"] for r in log if r.type == "conversation.renamed"]
        await server.restart()
        assert [r.text for r in await server.replay(tab.attached["conversation"])][: len(log)] == [r.text for r in log]
        await server.close()


async def test_the_log_of_writes_stays_small_beside_a_long_reader(launch: Launch, story: Story) -> None:
    """FAULTS 19, 20: another program's reader holds it back while it lasts; then it shrinks by itself."""
    server = await launch()
    tab = await server.open()
    story.then(say("Yes."))
    await tab.do("prompt", text=story.says("There?"))
    await tab.ended()
    call = asyncio.create_task(story.call())
    await tab.do("prompt", text=story.says("Wait."))
    await call
    wal = server.data / f"{DB}-wal"

    async def write(megabytes: int) -> None:
        for _ in range(megabytes * 16):
            id = fresh("long")
            await tab.do("prompt", id, text="x" * 60_000)
            await tab.do("withdraw", target=id)

    reader = sqlite3.connect(f"file:{server.data / DB}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM log").fetchall()
    await write(16)
    grown = wal.stat().st_size
    reader.close()
    await write(8)
    assert wal.stat().st_size < grown and wal.stat().st_size <= 3 * 4_194_304, "checkpoints go on by themselves"
    await tab.do("cancel")
    await settled(server, tab)


# --- the file is damaged


async def spoken(server: Server, story: Story, *words: str) -> Client:
    """A conversation with some runs that are over and archived."""
    tab = await server.open()
    for number, word in enumerate(words, 1):
        story.then(say(f"{word}!"))
        await tab.do("prompt", text=story.says(word))
        await tab.ended(number)
    await tab.count("archive.flushed", len(words))
    return tab


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))


async def test_a_damaged_file_without_a_backup_refuses_to_start(home: Server, story: Story) -> None:
    """FAULTS 17: exit ≠ 0, one sentence that says what to do, no traceback; the file is as it was."""
    home.settings["HOLDFAST_BACKUPS"] = "0"
    await home.start()
    await spoken(home, story, "One")
    assert await home.terminate() == 0
    damage(home.data / DB)
    before = (home.data / DB).read_bytes()
    said = len(home.said())
    await home.start(ready=False)
    assert await home.exited() != 0
    words = home.said()[said:]
    assert "damaged" in words and "backup" in words and "Traceback" not in words
    assert (home.data / DB).read_bytes() == before


async def test_a_damaged_file_is_replaced_by_the_newest_good_backup(home: Server, story: Story, stub: Stub) -> None:
    """FAULTS 17, 22: readers start over with `reset`; what was at work in the copy is stopped, not done again."""
    home.settings["HOLDFAST_DRAIN_SECONDS"] = "1"
    await home.start()
    tab = await spoken(home, story, "One")
    other = stub.story()
    working = await home.create(prompt=other.says("Work"))
    await (await other.call()).text("Half")
    assert await home.terminate() == 0
    asked = len(other.calls)
    await home.start()
    await eventually(lambda: list((home.data / "backups").glob("*.db")), "a backup is made beside the work")
    await other.called(asked + 1)
    tab = await home.again(tab)
    story.then(say("Two!"))
    await tab.do("prompt", text=story.says("Two"))
    await tab.ended(2)
    await home.kill()
    damage(home.data / DB)
    asked = len(other.calls)
    await home.start()
    [aside] = (home.data / "damaged").iterdir()
    assert (aside / DB).exists() and "backup" in home.said() and "Traceback" not in home.said()
    again = await home.again(tab)
    assert again.attached["reset"] and again.attached["log"] != tab.attached["log"]
    await again.frame("live")
    assert [e["text"] for e in again.all("model.replied")] == ["One!"], "what the copy holds"
    assert (await home.get(f"/api/runs/{working['run']}"))["status"] == "cancelled" and len(other.calls) == asked
    story.then(say("Three!"))
    await again.do("prompt", text=story.says("Three"))
    assert (await again.ended(2))["type"] == "run.completed"


async def test_one_damaged_conversation_harms_no_other(home: Server, story: Story, stub: Stub) -> None:
    """FAULTS 18: it is refused, also after a restart; the server is ready, all others are whole."""
    await home.start()
    bad = await spoken(home, story, "One", "Two")
    good = await spoken(home, stub.story(), "Three")
    assert await home.terminate() == 0
    conversation = bad.attached["conversation"]
    with contextlib.closing(sqlite3.connect(home.data / DB)) as database, database:
        row = "SELECT after FROM log WHERE conversation = ? ORDER BY after LIMIT 1 OFFSET 2"
        database.execute(f"DELETE FROM log WHERE conversation = ?1 AND after = ({row})", (conversation, conversation))
    await home.start()
    assert (await home.http.get(f"/api/conversations/{conversation}/events")).status_code == 500
    client = await home.attach(conversation)
    assert await client.closed() == 4511 and not client.frames, "for ever: to come back would change nothing"
    again = await home.again(good)
    story.then(say("Four!"))
    await again.do("prompt", text=story.says("Four"))
    await again.ended(2)
    await settled(home, again)
    assert await home.is_ready()
    assert (await home.http.delete(f"/api/conversations/{conversation}")).status_code == 204, "but it may go"
    listed = (await home.get("/api/conversations"))["conversations"]
    assert [item["conversation"] for item in listed] == [good.attached["conversation"]]


async def test_an_older_file_put_back_resets_every_reader(home: Server, story: Story) -> None:
    """FAULTS 21, 22: whoever saw the lost future, also beyond the new head, starts over and diverges never."""
    await home.start()
    tab = await spoken(home, story, "One")
    assert await home.terminate() == 0
    shutil.copy(home.data / DB, home.home / "copy.db")
    await home.start()
    tab = await home.again(tab)
    for number in (2, 3):
        story.then(say("Future!"))
        await tab.do("prompt", text=story.says("Two"))
        await tab.ended(number)
    await home.kill()
    for name in (f"{DB}-wal", f"{DB}-shm"):
        (home.data / name).unlink(missing_ok=True)
    shutil.copy(home.home / "copy.db", home.data / DB)
    await home.start()
    assert tab.cursor > (await home.replay(tab.attached["conversation"]))[-1].seq
    again = await home.again(tab)
    assert again.attached["reset"] and again.attached["after"] == 0
    await again.frame("live")
    assert [event["text"] for event in again.all("model.replied")] == ["One!"]
    story.then(say("Otherwise!"))
    await again.do("prompt", text=story.says("Two"))
    await again.ended(2)
    await settled(home, again)


# --- a deletion that is cut off


@pytest.mark.parametrize("commit", [1, 2])
async def test_killed_while_a_deleted_conversation_is_removed(home: Server, story: Story, commit: int) -> None:
    """PROTOCOL §2 DELETE: also between archive and log, the next life removes the rest: no row of it is left."""
    await home.start()
    tab = await spoken(home, story, "One")
    conversation = tab.attached["conversation"]
    assert (await home.http.delete(f"/api/conversations/{conversation}")).status_code == 204
    assert await home.terminate() == 0
    with contextlib.closing(sqlite3.connect(home.data / DB)) as database, database:
        database.execute("UPDATE log_conversations SET deleted_at = 1")  # ten minutes ago, and more
    home.program = ("-m", "tests.kill.dies_at", str(commit), "after")
    await home.start(ready=False)
    assert await home.exited(40) == -signal.SIGKILL

    def left(*tables: str) -> int:
        queries = (f"SELECT count(*) FROM {table} WHERE conversation = ?" for table in tables)
        return sum(home.sql(query, conversation)[0][0] for query in queries)

    archive, log = ("conversations", "runs", "messages", "tool_calls"), ("log", "log_conversations", "log_runs")
    assert left(*archive) == 0 and bool(left(*log)) == (commit == 1), "the archive goes first"
    home.program = ("-m", "app")
    await home.start()
    await eventually(lambda: not left(*archive, *log), "the next life removes the rest", 40)


# --- files and sockets


async def connected(server: Server, said: bytes = b"GET /ws/none HTTP/1.1\r\n") -> asyncio.StreamWriter | None:
    """A connection of a peer that never says the rest."""
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(said)
        return writer
    return None


async def verdict(server: Server, conversation: str) -> str:
    """What becomes of a new socket and a new request: served, told to come back, or cut off."""
    try:
        tab = await server.attach(conversation)
        await tab.until(lambda c: c.over or c.frames, "an answer")
        async with httpx2.AsyncClient(base_url=server.url) as http:
            answer, health = await http.get("/api/conversations"), await http.get("/healthz")
    except (OSError, httpx2.TransportError, InvalidHandshake):
        return "cut off"
    if answer.status_code == 200:
        return "served"
    assert await tab.closed() == 1013
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"]["code"] == "overloaded"
    assert health.status_code == 200 and health.headers["connection"] == "close", "alive, and keeps nothing"
    return "told"


async def test_few_file_descriptors_are_left(launch: Launch, story: Story) -> None:
    """FAULTS 27: new sockets get 1013 and requests 503 while some are kept back; the rest goes on, and it recovers."""
    server = await launch()
    tab = await server.open()
    conversation = tab.attached["conversation"]
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (128, hard))  # a quarter of it is kept back
    crowd = [await connected(server) for _ in range(140)]

    def kept() -> int:
        return len(os.listdir(f"/proc/{server.pid}/fd"))

    async def is_said(word: str) -> bool:
        return await verdict(server, conversation) == word

    try:
        await eventually(lambda: is_said("told"), "it is crowded")
        await eventually(lambda: kept() <= 96, "what it has refused does not stay")
        story.then(use(Use("safe", {"line": fresh("line")})), say("Still here."))
        await tab.do("prompt", text=story.says("There?"))
        assert (await tab.ended())["type"] == "run.completed", "the store, the model and the tools have theirs"
        assert kept() >= 90 and await is_said("told")
    finally:
        for writer in crowd:
            if writer is not None:
                writer.transport.abort()
    await eventually(lambda: is_said("served"), "it serves again", 30)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
    await settled(server, tab)


async def test_no_file_descriptor_is_left(launch: Launch, story: Story) -> None:
    """FAULTS 27: not even one to refuse with: connections wait or are cut off; afterwards it answers as before."""
    server = await launch()
    tab = await server.open()
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{server.pid}/fd"))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used, hard))
    crowd = [await connected(server, b"GET /ws/none HTTP/1.1\r\nHost: 127.0.0.1\r\n") for _ in range(60)]
    await tab.ping()
    assert server.alive and len(os.listdir(f"/proc/{server.pid}/fd")) <= used
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
    for writer in crowd:
        if writer is not None:
            writer.transport.abort()

    async def answers() -> bool:
        with contextlib.suppress(OSError, httpx2.TransportError):
            async with httpx2.AsyncClient(base_url=server.url) as http:
                return bool((await http.get("/healthz")).status_code == 200)
        return False

    await eventually(answers, "it answers again", 30)
    story.then(say("Still here."))
    await tab.do("prompt", text=story.says("There?"))
    assert (await tab.ended())["type"] == "run.completed"
    await settled(server, tab)
