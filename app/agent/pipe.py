"""What the server and the process of an isolated tool say to each other, and how it is cut into frames.

A frame is its length in four bytes, then one message in MessagePack. Its length is known before it is read, so nobody
collects more than FRAME_BYTES_MAX. Only values: who starts what, and what an end means, is isolated.py and child.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from app.agent.result import RESULT_CHARS_MAX

FRAME_BYTES_MAX = 4 * RESULT_CHARS_MAX + 10_000
"""The longest result, at four bytes a character, and what is around it."""

LENGTH_BYTES = 4


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """To the tool, once: which function, with which arguments (JSON text), and where the server finds and does things.

    `path` is its `sys.path`, `directory` its working directory; the others are those of the call's context.
    """

    module: str
    qualname: str
    name: str
    arguments: str
    path: list[str]
    directory: str
    call_id: str
    key: str
    conversation_id: str
    run_id: str


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """To the tool: nobody wants it any more. Its group gets SIGTERM with it."""


class Noted(msgspec.Struct, frozen=True, tag="noted"):
    """To the tool: its note is durable, or why it was not saved; `known`: the reason is a NoteRefused."""

    refused: str | None = None
    known: bool = True


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """From the tool."""

    text: str | None
    fraction: float | None


class Note(msgspec.Struct, frozen=True, tag="note"):
    """From the tool, which waits for `Noted`: one at a time. The fields of a `Draft`."""

    kind: str
    text: str
    task: str | None
    result: str | None
    next: str | None


class Returned(msgspec.Struct, frozen=True, tag="returned"):
    """From the tool, its last word: the text for the model."""

    text: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """From the tool, its last word: it failed; `stopped`: it did not do its work, since it was told to stop."""

    kind: str
    message: str
    stopped: bool


ToTool = Begin | Stop | Noted
FromTool = Progress | Note | Returned | Failed

to_tool: msgspec.msgpack.Decoder[ToTool] = msgspec.msgpack.Decoder(ToTool)
from_tool: msgspec.msgpack.Decoder[FromTool] = msgspec.msgpack.Decoder(FromTool)


def framed(message: ToTool | FromTool) -> bytes:
    """The bytes of a message. Raises ValueError when it is too long for a frame."""
    body = msgspec.msgpack.encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise ValueError(f"A message of {len(body):,} bytes does not fit into a frame of {FRAME_BYTES_MAX:,}.")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class Frames:
    """Cuts what comes from a pipe into the bodies of its frames. Holds one unfinished frame at most."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that are whole now. Raises ValueError as soon as a frame says that it is too long."""
        self._rest += data
        while len(self._rest) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(self._rest[:LENGTH_BYTES], "big")
            if end > LENGTH_BYTES + FRAME_BYTES_MAX:
                raise ValueError(f"A frame of {end:,} bytes is longer than {FRAME_BYTES_MAX:,}.")
            if len(self._rest) < end:
                return
            body = bytes(self._rest[LENGTH_BYTES:end])
            del self._rest[:end]
            yield body
