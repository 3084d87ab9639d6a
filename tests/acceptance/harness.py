"""A real server process and raw clients for black-box tests.

`Server` starts `python -m app` on a free port, kills it, brings it back on the same data. `Client` is one reader over a
websocket or an event stream, with every rule that a client can check checked (history.Follower). Everything here
waits for conditions with a deadline; nothing imports app/.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sqlite3
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from .history import RUN_ENDS, Broken, Follower, Json, Record, differences, faults, records_in, surviving

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 15.0
API_KEY = "sk-canary-5f1d0c7e9b"
AGENTS = tuple(f"tests.acceptance.agents:{name}" for name in ("desk", "plain", "dinner", "stern"))

T = TypeVar("T")


def fresh(kind: str = "c") -> str:
    """A new id for a command or a creation."""
    return f"{kind}-{uuid.uuid4()}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def eventually(condition: Callable[[], Any], what: str, within: float = DEADLINE) -> Any:
    """The first true value of the condition, asked again and again until the deadline."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {within} s still not: {what}")
        await asyncio.sleep(0.02)


def _die_with_parent() -> None:
    """In the child: no server outlives a test run that was itself killed (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Client:
    """One reader and, over a socket, one sender of commands."""

    def __init__(self, frames: AsyncIterator[str], close: Callable[[], Awaitable[None]], follower: Follower) -> None:
        self.follower = follower
        self.frames: list[Json] = []
        self.arrived: list[float] = []
        self.socket: ClientConnection | None = None
        self.over = False
        self.fault: BaseException | None = None
        self._close = close
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read(frames))

    async def _read(self, frames: AsyncIterator[str]) -> None:
        try:
            async for text in frames:
                if isinstance(text, bytes):
                    raise Broken("a binary frame")
                self.frames.append(self.follower.receive(text))
                self.arrived.append(time.monotonic())
                self._changed.set()
        except (ConnectionClosed, httpx2.TransportError, httpx2.StreamError):
            pass
        except BaseException as error:
            self.fault = error
        finally:
            self.over = True
            self._changed.set()

    # --- what it saw

    @property
    def attached(self) -> Json:
        assert self.follower.attached is not None
        return self.follower.attached

    @property
    def cursor(self) -> int:
        return self.follower.cursor

    @property
    def records(self) -> list[Record]:
        return self.follower.records

    @property
    def events(self) -> list[Json]:
        return [record.event for record in self.follower.records]

    @property
    def code(self) -> int | None:
        """The code with which the socket was closed."""
        return self.socket.close_code if self.socket else None

    def all(self, kind: str, **fields: Any) -> list[Json]:
        """The events of this type with these fields, in order."""
        return [event for event in self.events if event["type"] == kind and fields.items() <= event.items()]

    def text(self, kind: str = "text.streamed") -> str:
        """What is on the screen of the newest attempt: the streamed pieces, appended."""
        pieces = self.all(kind)
        last = [(p["run"], p["step"], p["attempt"]) for p in pieces][-1:]
        return "".join(p["text"] for p in pieces if [(p["run"], p["step"], p["attempt"])] == last)

    @property
    def run(self) -> str:
        """The newest run."""
        return str(self.all("run.started")[-1]["run"])

    # --- waiting

    async def until(self, predicate: Callable[[Client], T], what: str = "", within: float = DEADLINE) -> T:
        """The first true value of the predicate, asked after every frame."""
        deadline = time.monotonic() + within
        while True:
            self._changed.clear()
            if value := predicate(self):
                return value
            if self.fault:
                raise self.fault
            try:
                if self.over:
                    raise AssertionError(f"closed with {self.code} before: {what}; {self._tail()}")
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._changed.wait()
            except TimeoutError:
                raise AssertionError(f"after {within} s still not: {what}; {self._tail()}") from None

    def _tail(self) -> str:
        return "last frames:\n" + "\n".join(json.dumps(frame)[:400] for frame in self.frames[-8:])

    async def event(self, kind: str, within: float = DEADLINE, **fields: Any) -> Json:
        """The first event of this type with these fields."""
        return (await self.until(lambda c: c.all(kind, **fields), f"event {kind} {fields}", within))[0]

    async def count(self, kind: str, times: int, within: float = DEADLINE, **fields: Any) -> list[Json]:
        """At least so many events of this type with these fields."""
        enough = f"{times} events {kind} {fields}"
        await self.until(lambda c: len(c.all(kind, **fields)) >= times, enough, within)
        return self.all(kind, **fields)

    async def frame(self, kind: str, within: float = DEADLINE, since: int = 0, **fields: Any) -> Json:
        """The first frame of this type with these fields, from the frame numbered `since` on."""

        def found(client: Client) -> list[Json]:
            return [f for f in client.frames[since:] if f["type"] == kind and fields.items() <= f.items()]

        return (await self.until(found, f"frame {kind} {fields}", within))[0]

    async def ended(self, times: int = 1, within: float = DEADLINE) -> Json:
        """The terminal event of the n-th run."""

        def ends(client: Client) -> list[Json]:
            return [event for event in client.events if event["type"] in RUN_ENDS]

        await self.until(lambda c: len(ends(c)) >= times, f"{times} ended runs", within)
        return ends(self)[times - 1]

    async def flushed(self, within: float = DEADLINE) -> None:
        """The (first) run has ended and is in the archive: from here on the log is at rest."""
        through = (await self.ended())["seq"]
        await self.until(lambda c: [e for e in c.all("archive.flushed") if e["through"] >= through], "flushed", within)

    async def shows(self, text: str, within: float = DEADLINE) -> None:
        """The newest attempt's streamed text is exactly this."""
        await self.until(lambda c: c.text() == text, f"streamed text {text!r}", within)

    async def shows_at_last(self, text: str, within: float = DEADLINE) -> None:
        """The newest attempt's streamed text ends with this."""
        await self.until(lambda c: c.text().endswith(text), f"streamed text that ends with {text!r}", within)

    async def closed(self, within: float = DEADLINE) -> int | None:
        """Wait until the connection is over; the close code."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await asyncio.shield(self._reading)
        if self.fault:
            raise self.fault
        assert self.over, f"not closed within {within} s; {self._tail()}"
        return self.code

    # --- what it says

    async def post(self, frame: Json | str | bytes) -> None:
        """Send a frame as it is and wait for nothing."""
        assert self.socket is not None
        await self.socket.send(json.dumps(frame) if isinstance(frame, dict) else frame)

    async def send(self, kind: str, id: str | None = None, /, **fields: Any) -> Json:
        """Send a command and wait for its answer: an `accepted` or a `rejected` frame."""
        id, since = id or fresh(), len(self.frames)
        await self.post({"type": kind, "id": id, **fields})

        def answers(client: Client) -> list[Json]:
            frames = (f for f in client.frames[since:] if f["type"] in ("accepted", "rejected"))
            return [f for f in frames if f["id"] == id]

        return (await self.until(answers, f"an answer to {kind} {id}"))[0]

    async def do(self, kind: str, id: str | None = None, /, **fields: Any) -> Json:
        """Send a command that must be accepted; its receipt."""
        answer = await self.send(kind, id, **fields)
        assert answer["type"] == "accepted", answer
        return answer

    async def refused(self, code: str, kind: str, id: str | None = None, /, **fields: Any) -> Json:
        """Send a command that must be refused with this code; the refusal."""
        answer = await self.send(kind, id, **fields)
        assert answer["type"] == "rejected" and answer["code"] == code, answer
        assert isinstance(answer["message"], str) and answer["message"] and "Traceback" not in answer["message"]
        return answer

    async def ping(self) -> Json:
        """Ask for a heartbeat and wait for it."""
        since, self.follower.pings = len(self.frames), self.follower.pings + 1
        await self.post({"type": "ping"})
        return await self.frame("heartbeat", since=since)

    # --- leaving

    async def close(self) -> None:
        """Leave politely; what was seen stays readable."""
        with contextlib.suppress(ConnectionClosed, OSError):
            await self._close()
        await self._settle()

    async def vanish(self) -> None:
        """Leave as a pulled cable does: no close frame."""
        assert self.socket is not None
        self.socket.transport.abort()
        await self._settle()

    async def _settle(self) -> None:
        if not self._reading.done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await asyncio.shield(self._reading)
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


async def _lines(response: httpx2.Response) -> AsyncIterator[str]:
    """Lines that end with \\n, \\r\\n or \\r and nothing else: httpx's own take U+2028 for an end, too."""
    rest = ""
    async for text in response.aiter_text():
        *lines, rest = (rest + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in lines:
            yield line


async def _event_stream(response: httpx2.Response, comments: list[str], ids: list[str]) -> AsyncIterator[str]:
    """The frames of a `text/event-stream`, with the type and the id of each event checked against its frame."""
    fields: dict[str, str] = {}
    async for line in _lines(response):
        if line.startswith(":"):
            comments.append(line)
        elif line:
            name, _, value = line.partition(":")
            fields[name] = fields.get(name, "") + value.removeprefix(" ")
        elif fields:
            frame = json.loads(fields["data"])
            if fields.get("event") != frame["type"]:
                raise Broken(f"event {fields.get('event')} holds a frame {frame['type']}")
            if frame["type"] == "events":
                ids.append(fields["id"])
            yield fields["data"]
            fields = {}


class Server:
    """`python -m app` on a port and a data directory of its own, which survive its deaths."""

    def __init__(
        self,
        home: Path,
        model_url: str,
        settings: Mapping[str, str] | None = None,
        agents: Sequence[str] = AGENTS,
        host: str | None = "127.0.0.1",
    ) -> None:
        self.home, self.data = home, home / "data"
        self.host, self.port = host, free_port()
        self.agents = agents
        self.program: Sequence[str] = ("-m", "app")
        self.output = home / "server.log"
        self.gates, self.ledger_file = home / "gates", home / "ledger"
        self.gates.mkdir(parents=True, exist_ok=True)
        self.ledger_file.touch()
        self.settings = {
            "OPENAI_API_KEY": API_KEY,
            "OPENAI_BASE_URL": model_url,
            "HOLDFAST_MODEL": "stub-1",
            "HOLDFAST_RATE": "1000",
            "PYTHONFAULTHANDLER": "1",
            "TEST_GATES": str(self.gates),
            "TEST_LEDGER": str(self.ledger_file),
            **(settings or {}),
        }
        self.process: asyncio.subprocess.Process | None = None
        self.clients: list[Client] = []
        self._http: httpx2.AsyncClient | None = None

    # --- its life

    async def start(self, ready: bool = True, within: float = 30.0) -> Server:
        """Start the process; with `ready`, until it says that it is."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HOLDFAST_", "OPENAI_", "PORT"))}
        arguments = ["--port", str(self.port), "--data", str(self.data)] + (["--host", self.host] if self.host else [])
        with self.output.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, *self.program, *arguments, "--agent", ",".join(self.agents)),
                cwd=ROOT,
                env={**inherited, **self.settings},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        if ready:
            await eventually(self.is_ready, "the server is ready", within)
        return self

    async def is_ready(self) -> bool:
        assert self.alive, f"the server ended with {self.process and self.process.returncode}:\n{self.said()[-3000:]}"
        try:
            return (await self.http.get("/readyz")).status_code == 200
        except httpx2.TransportError:
            return False

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.returncode is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def kill(self) -> None:
        """`kill -9`."""
        await self._end(signal.SIGKILL, DEADLINE)

    async def terminate(self, within: float = 30.0) -> int:
        """SIGTERM, and the exit code."""
        return await self._end(signal.SIGTERM, within)

    async def _end(self, sign: signal.Signals, within: float) -> int:
        assert self.process is not None
        if self.alive:
            self.process.send_signal(sign)
        code = await self.exited(within)
        if self._http:
            await self._http.aclose()
            self._http = None
        return code

    async def exited(self, within: float = 30.0) -> int:
        """Wait for the end of the process; its exit code."""
        assert self.process is not None
        try:
            async with asyncio.timeout(within):
                return await self.process.wait()
        except TimeoutError:
            raise AssertionError(f"the server has not ended within {within} s:\n{await self.stacks()}") from None

    async def stacks(self) -> str:
        """Where its code stands: ends the process (SIGABRT under faulthandler), for the diagnosis of a hang."""
        assert self.process is not None
        if self.alive:
            self.process.send_signal(signal.SIGABRT)
            await self.process.wait()
        return self.said()[-6000:]

    async def restart(self, ready: bool = True) -> Server:
        """Kill it and bring it back on the same data and port."""
        await self.kill()
        return await self.start(ready)

    async def leave(self) -> None:
        """Close every client that is still open."""
        clients, self.clients = self.clients, []
        for client in clients:
            await client.close()

    async def close(self) -> None:
        await self.leave()
        if self.process is not None:
            await self.kill()

    def said(self) -> str:
        """Everything it wrote to its standard streams."""
        return self.output.read_text(errors="replace")

    # --- HTTP

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def http(self) -> httpx2.AsyncClient:
        if self._http is None:
            self._http = httpx2.AsyncClient(base_url=self.url, timeout=DEADLINE, trust_env=False)
        return self._http

    async def get(self, path: str, expected: int = 200, /, **parameters: Any) -> Json:
        response = await self.http.get(path, params=parameters)
        assert response.status_code == expected, f"{path}: {response.status_code} {response.text}"
        return dict(response.json())

    async def post(self, path: str, body: Json, status: int = 200) -> Json:
        response = await self.http.post(path, json=body)
        assert response.status_code == status, f"{path}: {response.status_code} {response.text}"
        return dict(response.json())

    async def create(self, **body: Any) -> Json:
        """`POST /api/conversations`, which must say 201."""
        return await self.post("/api/conversations", body, 201)

    async def command(self, conversation: str, kind: str, id: str | None = None, /, **fields: Any) -> httpx2.Response:
        body = {"type": kind, "id": id or fresh(), **fields}
        return await self.http.post(f"/api/conversations/{conversation}/commands", json=body)

    async def replay(self, conversation: str, after: int = 0) -> list[Record]:
        """The log, as `GET …/events` gives it, page after page."""
        records: list[Record] = []
        while True:
            response = await self.http.get(f"/api/conversations/{conversation}/events", params={"after": after})
            assert response.status_code == 200, response.text
            page = response.json()
            assert page["after"] == after, page
            records += records_in(response.text)
            if page["through"] >= page["head"]:
                return records
            assert page["through"] > after, f"a page that does not move: {response.text[:300]}"
            after = page["through"]

    async def outcome(self, run: str, within: float = DEADLINE) -> Json:
        """`GET /api/runs/{run}` once the run has ended."""

        async def ended() -> Json | None:
            item = await self.get(f"/api/runs/{run}")
            return item if item["status"] in ("completed", "failed", "cancelled") else None

        return dict(await eventually(ended, f"run {run} has ended", within))

    async def archived(self, conversation: str, run: str, within: float = DEADLINE) -> Json:
        """`GET …/messages` once the archive says that this run has ended."""

        async def there() -> Json | None:
            kept = await self.get(f"/api/conversations/{conversation}/messages")
            states = [item["status"] for item in kept["runs"] if item["run"] == run]
            return kept if states and states[0] in ("completed", "failed", "cancelled") else None

        return dict(await eventually(there, f"run {run} is in the archive", within))

    # --- sockets and event streams

    async def attach(
        self,
        conversation: str,
        after: int | str | None = 0,
        log: str | None = None,
        follower: Follower | None = None,
        port: int | None = None,
        **options: Any,
    ) -> Client:
        """A new reader; a refused handshake raises websockets' InvalidStatus."""
        query = "&".join(f"{k}={v}" for k, v in (("after", after), ("log", log)) if v is not None)
        return await self._socket(f"/ws/{conversation}?{query}", follower or _standing_at(after), port, options)

    async def watch(self, **options: Any) -> Client:
        """A reader of the live list, `GET /ws`."""
        return await self._socket("/ws", _Anything(), None, options)

    async def handshake(self, path: str, origin: str) -> int:
        """The status with which a handshake from a page of this origin is answered; 101 = let in."""
        try:
            client = await self._socket(path, _Anything(), None, {"origin": origin})
        except InvalidStatus as refused:
            return refused.response.status_code
        await client.close()
        return 101

    async def _socket(self, path: str, follower: Follower, port: int | None, options: Mapping[str, Any]) -> Client:
        settings: dict[str, Any] = {
            "compression": None,
            "max_size": 4_000_000,
            "ping_interval": None,
            "close_timeout": 1,
        }
        address = f"ws://127.0.0.1:{port or self.port}{path}"
        connection = await connect(address, proxy=None, open_timeout=DEADLINE, **{**settings, **options})

        async def frames() -> AsyncIterator[str]:
            async for message in connection:
                yield message  # type: ignore[misc]  # Client itself refuses bytes

        client = Client(frames(), connection.close, follower)
        client.socket = connection
        self.clients.append(client)
        return client

    async def open(self, **body: Any) -> Client:
        """A new conversation and a reader that is live on it."""
        client = await self.attach((await self.create(**body))["conversation"])
        await client.frame("live")
        return client

    async def again(self, client: Client, port: int | None = None) -> Client:
        """The same reader on a new connection, with its cursor."""
        follower = client.follower.again()
        conversation = client.attached["conversation"]
        back = await self.attach(conversation, follower.cursor, follower.log, follower, port)
        await back.until(lambda c: c.follower.attached, "attached")
        return back

    async def stream(
        self, conversation: str, last: str | None = None, /, **query: Any
    ) -> tuple[Client, list[str], list[str]]:
        """A reader over server-sent events; with it the comments and the ids of its `events` frames."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        path = f"/api/conversations/{conversation}/events"
        request = self.http.build_request("GET", path, params=query, headers=headers, timeout=60.0)
        response = await self.http.send(request, stream=True)
        if response.status_code != 200:
            raise AssertionError(f"{response.status_code} {await response.aread()!r}")
        assert response.headers["content-type"].startswith("text/event-stream"), response.headers
        comments: list[str] = []
        ids: list[str] = []
        follower = _standing_at(int(last.rpartition(":")[2]) if last else query.get("after", 0))
        client = Client(_event_stream(response, comments, ids), response.aclose, follower)
        self.clients.append(client)
        return client, comments, ids

    # --- what the tools did, and what is on disk

    def let(self, gate: str) -> None:
        """Open a gate that a tool waits at."""
        (self.gates / gate).touch()

    def ledger(self, line: str) -> list[str]:
        """What tools wrote for this line: `<tool> <begin or end> <line> <call id>`, in order."""
        entries = self.ledger_file.read_text().splitlines()
        return [entry for entry in entries if entry.split()[2] == line]

    async def wrote(self, line: str, what: str = "begin", times: int = 1) -> list[str]:
        """Wait for so many such entries of a line."""

        def entries() -> list[str] | None:
            found = [entry for entry in self.ledger(line) if entry.split()[1] == what]
            return found if len(found) >= times else None

        return list(await eventually(entries, f"{times} × {what} {line} in the ledger"))

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read the database behind the server's back."""
        files = [path for path in self.data.iterdir() if path.is_file()]
        [database] = [path for path in files if path.read_bytes()[:15] == b"SQLite format 3"]
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchall()


def _standing_at(after: int | str | None) -> Follower:
    return Follower(max(after, 0) if isinstance(after, int) else 0)


class _Anything(Follower):
    """The live list has no cursor and no rules beyond its frames being objects with a type."""

    def receive(self, text: str) -> Json:
        return dict(json.loads(text))


async def settled(server: Server, client: Client) -> list[Record]:
    """The whole log, found right, free of superseded events (§3.3), and all of what this reader saw.

    The run must be over. The log is read after the reader's history, so that what it saw must be there.
    """
    conversation = client.attached["conversation"]
    head = (await server.replay(conversation))[-1].seq
    await client.until(lambda c: c.cursor >= head, f"the reader is at {head}")
    seen, cursor = list(client.records), client.cursor
    log = await server.replay(conversation)
    assert faults(log) == []
    assert [record.text for record in surviving(log)] == [record.text for record in log], "superseded in a replay"
    assert not differences(seen, cursor, log)
    assert [r.text for r in surviving(seen)] == [r.text for r in log if r.seq <= cursor], "the merged view differs"
    return log


class Proxy:
    """A TCP proxy that cuts every connection on which nothing moved for `idle` seconds, as proxies do."""

    def __init__(self, target: int, idle: float) -> None:
        self.target, self.idle = target, idle
        self.cuts = 0
        self._listening: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._listening is not None
        return int(self._listening.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Proxy:
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listening is not None
        self._listening.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.target)
        moved = asyncio.Event()
        pumps = [
            asyncio.create_task(self._pump(reader, upstream_writer, moved)),
            asyncio.create_task(self._pump(upstream_reader, writer, moved)),
        ]
        try:
            while not any(pump.done() for pump in pumps):
                moved.clear()
                async with asyncio.timeout(self.idle):
                    await moved.wait()
        except TimeoutError:
            self.cuts += 1
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.transport.abort()
            upstream_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, moved: asyncio.Event) -> None:
        try:
            while data := await reader.read(65536):
                moved.set()
                writer.write(data)
                await writer.drain()
        finally:
            moved.set()
