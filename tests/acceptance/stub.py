"""A scripted OpenAI-compatible provider, in the test's own loop and under its control to the byte.

A test takes a `Story`, puts its mark into the prompt (`story.says("…")`), and the stub hands every request whose
newest mark is that one to the story: answered by what was prepared (`then`, `brain`), or held for the test to answer
piece by piece (`call = await story.call()`). Requests are judged by `strict`; a bad one gets a 400 and is kept in
`violations`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .strict import complaints

Json = dict[str, Any]
DEADLINE = 15.0
_mark = re.compile(r"\[story ([0-9a-f]+)\]")


class Gone(ConnectionError):
    """The client closed the connection while it was being answered."""


@dataclass(frozen=True)
class Use:
    """A tool call as the model words it; `arguments` as an object, or as the exact text."""

    tool: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)
    id: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex[:12]}")

    @property
    def text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


class Call:
    """One request and the connection on which it is answered, piece by piece, by the test or by an `Answer`."""

    def __init__(self, body: Json, headers: Mapping[str, str], writer: asyncio.StreamWriter) -> None:
        self.body, self.headers = body, headers
        self.at = time.monotonic()
        self.gone = asyncio.Event()
        self.over = asyncio.Event()
        self.usage: tuple[int, int] | None = (11, 7)
        self._writer = writer
        self._began = False
        self._said = False
        self._id = f"chatcmpl-{uuid.uuid4().hex[:12]}"

    @property
    def messages(self) -> list[Json]:
        return list(self.body["messages"])

    @property
    def words(self) -> list[str]:
        """The texts of the person's messages."""
        return [text_of(message) for message in self.messages if message["role"] == "user"]

    @property
    def results(self) -> dict[str, str]:
        """What the model is told of each call: call id → content."""
        return {m["tool_call_id"]: text_of(m) for m in self.messages if m["role"] == "tool"}

    @property
    def tools(self) -> list[str]:
        return [tool["function"]["name"] for tool in self.body.get("tools", [])]

    # --- answering, piece by piece

    async def text(self, *pieces: str) -> None:
        for piece in pieces:
            await self.delta({"content": piece})

    async def reasoning(self, *pieces: str) -> None:
        for piece in pieces:
            await self.delta({"reasoning_content": piece})

    async def use(self, *uses: Use) -> None:
        """Whole tool calls, one chunk each."""
        for index, use in enumerate(uses):
            await self.tool(index, id=use.id, name=use.tool, arguments=use.text)

    async def tool(
        self, index: int, *, id: str | None = None, name: str | None = None, arguments: str | None = None
    ) -> None:
        """One chunk of a tool call, with only what is given."""
        function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
        part: Json = {"index": index, "function": function}
        if id is not None:
            part |= {"id": id, "type": "function"}
        await self.delta({"tool_calls": [part]})

    async def delta(self, delta: Json, finish: str | None = None) -> None:
        await self.chunk({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    async def chunk(self, fields: Json) -> None:
        """One chunk of the stream."""
        whole = {"id": self._id, "object": "chat.completion.chunk", "created": 1, "model": self.body["model"], **fields}
        await self.raw(b"data: " + json.dumps(whole, ensure_ascii=False).encode() + b"\n\n")

    async def end(self, finish: str = "stop") -> None:
        """Finish reason, usage if it was asked for and is set, the end mark, the end of the stream.

        A reply that would be empty says "Done." first: an empty one is trouble of its own, and has its own test.
        """
        if not self._said:
            await self.text("Done.")
        await self.delta({}, finish)
        if self.usage and self.body.get("stream_options", {}).get("include_usage"):
            prompt, completion = self.usage
            figures = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
            await self.chunk({"choices": [], "usage": figures})
        await self.raw(b"data: [DONE]\n\n")
        await self.cut()

    async def begin(self) -> None:
        """The head of a good answer and nothing more."""
        if not self._began:
            self._began = True
            head = (
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close"
            )
            await self._write(head.encode() + b"\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        """Any bytes as a piece of the stream."""
        self._said = True
        await self.begin()
        await self._write(b"%x\r\n%b\r\n" % (len(data), data))

    async def cut(self) -> None:
        """End the stream here, properly for HTTP."""
        await self.begin()
        await self._write(b"0\r\n\r\n")
        self._finish()

    async def reset(self) -> None:
        """Reset the connection (RST)."""
        with contextlib.suppress(OSError):  # closed already
            connection = self._writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.over.set()
        self._writer.transport.abort()

    async def refuse(self, status: int, message: str = "refused by the stub", **headers: str) -> None:
        """An error answer in the provider's usual shape."""
        body = json.dumps({"error": {"message": message, "type": "stub_error", "code": str(status)}}).encode()
        head = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        head |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        await self._write(f"HTTP/1.1 {status} Stub\r\n{lines}\r\n".encode() + body)
        self._finish()

    async def aborted(self, within: float = DEADLINE) -> None:
        """Wait until the client has closed the connection before its answer's end."""
        async with asyncio.timeout(within):
            await self.gone.wait()

    def _finish(self) -> None:
        self.over.set()
        self._writer.close()

    async def _write(self, data: bytes) -> None:
        if self.gone.is_set() or self._writer.is_closing():
            raise Gone("the client has closed the connection")
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError as error:
            raise Gone("the client has closed the connection") from error


def text_of(message: Json) -> str:
    """The text of a message, whole or in parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


Answer = Callable[[Call], Awaitable[None]]


def say(*pieces: str, reasoning: str = "", finish: str = "stop", pace: float = 0.0) -> Answer:
    """A final answer in these pieces, `pace` seconds apart."""

    async def answer(call: Call) -> None:
        if reasoning:
            await call.reasoning(reasoning)
        for piece in pieces:
            await call.text(piece)
            await asyncio.sleep(pace)
        await call.end(finish)

    return answer


def use(*uses: Use, text: str = "") -> Answer:
    """Some words and these tool calls."""

    async def answer(call: Call) -> None:
        if text:
            await call.text(text)
        await call.use(*uses)
        await call.end("tool_calls")

    return answer


def refuse(status: int, message: str = "refused by the stub", **headers: str) -> Answer:
    """An error answer, e.g. `refuse(429, retry_after="1")`."""
    return lambda call: call.refuse(status, message, **headers)


async def reset(call: Call) -> None:
    """The connection is reset before the first byte."""
    await call.reset()


class Story:
    """The model's part in one test: what was asked of it, and what it answers."""

    def __init__(self) -> None:
        self.key = uuid.uuid4().hex[:10]
        self.calls: list[Call] = []
        self.brain: Callable[[Call], Answer] | None = None
        self.open = 0
        self.most_open = 0
        self._prepared: deque[Answer] = deque()
        self._held: asyncio.Queue[Call] = asyncio.Queue()

    def says(self, text: str) -> str:
        """The text with the mark by which its requests find this story."""
        return f"{text} [story {self.key}]"

    def then(self, *answers: Answer) -> Story:
        """Prepare answers for the next requests."""
        self._prepared.extend(answers)
        return self

    async def call(self, within: float = DEADLINE) -> Call:
        """The next request that nothing was prepared for and whose sender still waits; the caller answers it."""
        try:
            async with asyncio.timeout(within):
                while (call := await self._held.get()).gone.is_set():
                    pass
                return call
        except TimeoutError:
            raise AssertionError(f"no request reached the model within {within} s") from None

    async def called(self, times: int, within: float = DEADLINE) -> Call:
        """Wait until there were so many requests; the last of them."""
        try:
            async with asyncio.timeout(within):
                while len(self.calls) < times:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{len(self.calls)} of {times} requests reached the model in {within} s") from None
        return self.calls[times - 1]

    async def answer(self, call: Call) -> None:
        self.calls.append(call)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self._prepared:
                await self._prepared.popleft()(call)
            elif self.brain:
                await self.brain(call)(call)
            else:
                self._held.put_nowait(call)
            await call.over.wait()
        except Gone:
            pass
        finally:
            self.open -= 1

    async def release(self) -> None:
        """Let whatever still asks have its end: the test is over."""
        self._prepared.clear()
        self.brain = lambda _: say("Over.")
        for call in self.calls:
            if not call.over.is_set() and not call.gone.is_set():
                await call.reset()


class Stub:
    """The provider: an HTTP server on a port of its own, in the running loop."""

    def __init__(self) -> None:
        self.stories: dict[str, Story] = {}
        self.violations: list[str] = []
        self._listening: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._listening is not None
        return f"http://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}/v1"

    async def start(self) -> Stub:
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=64 * 1024 * 1024)
        return self

    async def close(self) -> None:
        assert self._listening is not None
        self._listening.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def story(self) -> Story:
        story = Story()
        self.stories[story.key] = story
        return story

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))) or b"{}")
        call = Call(body, headers, writer)
        leaving = asyncio.create_task(self._notice(reader, call))
        try:
            if not head[0].startswith("POST /v1/chat/completions "):
                await call.refuse(404, f"the stub has no {head[0]}")
            elif wrong := complaints(body):
                self.violations += wrong
                await call.refuse(400, "; ".join(wrong))
            elif story := self._story_of(call):
                await story.answer(call)
            else:
                self.violations.append(f"a request of no story: {call.words!r:.300}")
                await call.refuse(400, "of no story")
        finally:
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)

    async def _notice(self, reader: asyncio.StreamReader, call: Call) -> None:
        """Set `gone` when the client closes first."""
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
        if not call.over.is_set():
            call.gone.set()
            call.over.set()

    def _story_of(self, call: Call) -> Story | None:
        marks: Sequence[str] = [mark for words in call.words for mark in _mark.findall(words)]
        return self.stories.get(marks[-1]) if marks else None
