"""Isolated tools, the server's side: one process for one call, its leash, and the truth about its end.

The process (child.py) is started anew, never forked from the server, and its standard input is the leash: when that
ends, the whole group of the tool is killed. It ends when the call has ended, when the call is killed, and when the
server dies, however that may be. How many there are is bounded by the slots of the runner, who also has the patience:
the first cancellation asks the tool to stop, the second one kills it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import json
import operator
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec

from app.agent.context import MESSAGE_CHARS_MAX, Cancelled, ConfigError, NoteRefused, ToolContext, ToolError
from app.agent.pipe import Begin, Failed, Frames, FromTool, Note, Noted, Progress, Returned, Stop, framed, from_tool
from app.core.commands import Draft
from app.core.errors import HoldfastError
from app.core.events import Json

TOP = Path(__file__).resolve().parents[2]
"""Where the package `app` is: from here it can be started, wherever the server has gone since."""

PRINTED_BYTES_MAX = 262_144
"""What one call may print; the rest is read and dropped."""

PIPES_SECONDS = 1.0
"""How long an ended process's pipes are read on: somebody who left its group may hold them for ever."""

REASON_CHARS_MAX = 500

KILLED = (
    "The tool did not stop when it was asked to, and its process was killed. "
    "It may or may not have happened: verify before repeating it."
)


class Place:
    """Where another process finds a function: its module and its name there. Raises ConfigError when it cannot."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._name = name
        wrong = None
        if not hasattr(os, "fork"):
            wrong = "this system has no processes of the kind it needs"
        elif not inspect.isfunction(function):
            wrong = f"it has to be a function, not {type(function).__name__}"
        elif inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            wrong = "it has to be a sync function; an async one can be stopped where it is"
        elif function.__module__ == "__main__":
            wrong = "the program that was started cannot be imported once more: put the tool into a module of its own"
        elif "<" in function.__qualname__:
            wrong = "it has to be defined at the top of its module: a lambda or a function in a function has no address"
        elif function.__module__ not in sys.modules:
            wrong = f"its module {function.__module__} cannot be imported by that name"
        if wrong is not None:
            raise ConfigError(f"Tool {name} cannot be isolated: {wrong}.")
        self.module, self.qualname = function.__module__, function.__qualname__

    def check(self, tool: object, function: object) -> None:
        """Raises ConfigError when there is another function at this place: a wrapped one, or a later one."""
        try:
            found = find(self.module, self.qualname)
        except AttributeError:
            found = None
        if found is not tool and getattr(found, "function", found) is not function:
            where = f"{self.module}.{self.qualname}"
            raise ConfigError(f"Tool {self._name} cannot be isolated: {where} is not the function that it calls.")

    async def run(self, arguments: Json, context: ToolContext) -> str:
        """The text of one call, in a process of its own. Raises as `Tool.run` does, and ToolError("in_doubt") when the
        call was killed, or died, after it was asked to stop: nobody knows how far it had come.
        """
        task = asyncio.current_task()
        assert task is not None
        process = _Process(context)
        try:
            await process.start()
            process.write(framed(self._begin(arguments, context)))
            while not process.over.done():
                try:
                    await asyncio.wait([process.over])
                except asyncio.CancelledError:
                    context._cancel()
                    if task.cancelling() > 1:
                        process.kill()
                    else:
                        process.write(framed(Stop()))
        except (OSError, ValueError) as error:
            raise ToolError("error", f"The tool's process could not be started: {error}") from None
        finally:
            process.close()
        return process.truth()

    def _begin(self, arguments: Json, context: ToolContext) -> Begin:
        return Begin(
            module=self.module,
            qualname=self.qualname,
            name=self._name,
            arguments=json.dumps(arguments),
            path=list(sys.path),
            directory=os.getcwd(),
            call_id=context.call_id,
            key=context.key,
            conversation_id=context.conversation_id,
            run_id=context.run_id,
        )


def find(module: str, qualname: str) -> object:
    """What has this name in this module. Raises what importing the module raises, and AttributeError."""
    found: object = operator.attrgetter(qualname)(importlib.import_module(module))
    return found


class _Process(asyncio.SubprocessProtocol):
    """One child as the loop sees it. `over` is done when it has ended and all that it said has been read."""

    def __init__(self, context: ToolContext) -> None:
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()
        self._context = context
        self._frames = Frames()
        self._end: Returned | Failed | None = None
        self._noting: asyncio.Task[None] | None = None
        self._prints = _Prints(self)
        self._printing: asyncio.BaseTransport | None = None
        self._open = {1, 2}
        self._exited = False
        self._transport: asyncio.SubprocessTransport | None = None

    async def start(self) -> None:
        """Raises OSError. What it prints goes into a pipe of the system's: the loop's own may be sockets, and those
        cannot be opened as /dev/stderr.
        """
        reading, writing = os.pipe()
        try:
            pipe = os.fdopen(reading, "rb", 0)
            self._printing, _ = await self._loop.connect_read_pipe(lambda: self._prints, pipe)
            program = (sys.executable, "-m", "app.agent.child")
            await self._loop.subprocess_exec(
                lambda: self, *program, cwd=str(TOP), stderr=writing, start_new_session=True
            )
        finally:
            os.close(writing)

    @property
    def _leash(self) -> asyncio.WriteTransport:
        assert self._transport is not None
        return cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))

    def write(self, frame: bytes) -> None:
        if not self._leash.is_closing():
            self._leash.write(frame)

    def kill(self) -> None:
        """Ends its standard input: its keeper kills the group."""
        if not self._leash.is_closing():
            self._leash.abort()

    def close(self) -> None:
        """Gives everything back, once it is over or where it has not come to be, and says what it printed."""
        if self._noting is not None:
            self._noting.cancel()
        for transport in (self._transport, self._printing):
            if transport is not None:
                transport.close()
        if text := self._prints.text():
            with contextlib.suppress(OSError, ValueError, AttributeError):  # the stream may be closed, or none
                sys.stderr.write(text)  # in one piece, so that no secret is cut in two before it is taken out

    def truth(self) -> str:
        """The end of the call, as `Place.run` promises it."""
        match self._end:
            case Returned(text):
                return self._context.safe(text)
            case Failed(kind, message, stopped):
                told = self._context.safe(message)[:MESSAGE_CHARS_MAX]
                raise ToolError(kind, told) from (Cancelled() if stopped else None)
        if self._context.cancelled:
            raise ToolError("in_doubt", KILLED)
        assert self._transport is not None
        raise ToolError("error", f"The tool's process {_ended(self._transport.get_returncode())} before it returned.")

    # --- what the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if self._end is None:
            try:
                for body in self._frames.feed(data):
                    self._take(from_tool.decode(body))
            except (ValueError, msgspec.MsgspecError) as error:
                self._last(Failed("error", f"The tool's process said something that is no message: {error}", False))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        self._settle()

    def process_exited(self) -> None:
        self._exited = True
        self._loop.call_later(PIPES_SECONDS, self._give_up_pipes)
        self._settle()

    def _give_up_pipes(self) -> None:
        self._open.clear()
        self._settle()

    def _settle(self) -> None:
        if self._exited and not self._open and not self.over.done():
            self.over.set_result(None)

    # --- what the tool says

    def _take(self, message: FromTool) -> None:
        match message:
            case Progress(text, fraction):
                self._context.progress(text, fraction)
            case Note():
                if self._noting is not None and not self._noting.done():
                    raise ValueError("a note while another one is being saved")
                self._noting = self._loop.create_task(self._note(message))
            case Returned() | Failed():
                self._last(message)

    def _last(self, message: Returned | Failed) -> None:
        """The call has ended; what is left of its group ends with it."""
        if self._end is None:
            self._end = message
            self.kill()

    async def _note(self, note: Note) -> None:
        answer = Noted()
        try:
            await self._context._notes.save(Draft(note.kind, note.text, note.task, note.result, note.next))
        except HoldfastError as error:
            answer = Noted(str(error)[:REASON_CHARS_MAX], isinstance(error, NoteRefused))
        self.write(framed(answer))


class _Prints(asyncio.Protocol):
    """What a child and its children print, as far as it is kept."""

    def __init__(self, process: _Process) -> None:
        self._process = process
        self._kept = bytearray()
        self._dropped = 0

    def data_received(self, data: bytes) -> None:
        kept = data[: PRINTED_BYTES_MAX - len(self._kept)]
        self._kept += kept
        self._dropped += len(data) - len(kept)

    def connection_lost(self, exc: Exception | None) -> None:
        self._process.pipe_connection_lost(2, exc)

    def text(self) -> str:
        text = self._kept.decode("utf-8", "replace")
        return f"{text}\n[cut: {self._dropped:,} more bytes were printed]\n" if self._dropped else text


def _ended(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit status {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
