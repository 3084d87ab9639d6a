"""The process of one call of an isolated tool: `python -m app.agent.child`, started by isolated.py.

It becomes two. The tool runs in the second one, in its main thread and in a process group of its own. The first one
keeps it: it hears what the server says on standard input and passes it on, and when the tool has ended, or standard
input has, it kills the group and ends just as the tool did. A keeper does not depend on what the tool does to its own
threads, signals and descriptors, and it is there when the server is not any more.

Standard output carries frames to the server (pipe.py); what the tool prints, on either stream, goes to standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import queue
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator

from app.agent.context import Cancelled, NoteRefused, ToolContext, ToolError
from app.agent.isolated import find
from app.agent.pipe import (
    FRAME_BYTES_MAX,
    Begin,
    Failed,
    Frames,
    FromTool,
    Note,
    Noted,
    Progress,
    Returned,
    Stop,
    framed,
    to_tool,
)
from app.agent.tools import Tool, contained
from app.core.codec import clean
from app.core.commands import Draft
from app.core.errors import HoldfastError

READ_BYTES = 65_536
PROGRESS_PAUSE_SECONDS = 0.05
"""Between two reports to the server, which shows no more than ten a second."""


def main() -> None:
    """One call. Without one on standard input, nothing."""
    frames, bodies = Frames(), list[bytes]()
    while not bodies:
        if not (data := os.read(0, READ_BYTES)):
            return
        bodies += frames.feed(data)
    begin = to_tool.decode(bodies.pop(0))
    assert isinstance(begin, Begin)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # what came along from the server by mistake
    signal.signal(signal.SIGTERM, lambda *_: None)  # a tool hears of a stop; its own children get the signal as it is
    heard, pass_on = os.pipe()
    tool = os.fork()  # nothing but this thread is there yet
    if tool:
        os.close(heard)
        os.close(1)
        _keep(tool, pass_on, frames, bodies)
    else:
        os.close(pass_on)
        _work(begin, heard)


# --- the keeper


def _keep(tool: int, pass_on: int, frames: Frames, bodies: list[bytes]) -> None:
    """Until the tool or standard input has ended; then the group dies, and this process as the tool did."""
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # whatever is told to everybody, it is the server that decides
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(pass_on, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with contextlib.suppress(OSError):
        os.setpgid(tool, tool)  # here and there: whoever comes first
    _pass_on(tool, pass_on, iter(bodies))
    ended, status = os.waitpid(tool, os.WNOHANG)
    while not ended:
        readable, _, _ = select.select([0, woken], [], [])
        if woken in readable:
            os.read(woken, READ_BYTES)
        if 0 in readable:
            if not (data := os.read(0, READ_BYTES)):
                break
            _pass_on(tool, pass_on, frames.feed(data))
        ended, status = os.waitpid(tool, os.WNOHANG)
    if not ended:
        os.kill(tool, signal.SIGKILL)  # it may have left its group
    _signal_group(tool, signal.SIGKILL)  # its number is not given away as long as anybody is in the group
    if not ended:
        _, status = os.waitpid(tool, 0)
    _end_as(status)


def _pass_on(tool: int, pass_on: int, bodies: Iterator[bytes]) -> None:
    for body in bodies:
        message = to_tool.decode(body)
        if isinstance(message, Stop):
            _signal_group(tool, signal.SIGTERM)  # before the tool can act on the message
        # a tool that does not listen is no reason to wait; so short a frame is written whole or not at all
        with contextlib.suppress(OSError):
            os.write(pass_on, framed(message))


def _signal_group(group: int, sign: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, sign)


def _end_as(status: int) -> None:
    """Ends this process with the status, or by the signal, that the tool ended with."""
    if os.WIFSIGNALED(status):
        sign = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # SIGKILL has no other way
            signal.signal(sign, signal.SIG_DFL)
        os.kill(os.getpid(), sign)
    os._exit(os.waitstatus_to_exitcode(status))


# --- the tool


def _work(begin: Begin, heard: int) -> None:
    """Calls the function and tells how it ended. Ends the process then and there, whatever else still runs in it."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    said = os.dup(1)
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    line = _Line(said)
    cancelled, notes = threading.Event(), _Notes(line)
    threading.Thread(target=_listen, args=(heard, cancelled, notes), name="holdfast-heard", daemon=True).start()
    context = ToolContext(
        call_id=begin.call_id,
        key=begin.key,
        conversation_id=begin.conversation_id,
        run_id=begin.run_id,
        on_progress=_Reports(line),
        notes=notes,
        cancelled=cancelled,
    )
    end: Returned | Failed
    try:
        end = Returned(_call(begin, context))
    except ToolError as error:
        end = Failed(error.kind, error.message, isinstance(error.__cause__, Cancelled | asyncio.CancelledError))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ToolError), contained():  # by now it may be anything
            stream.flush()
    if line.is_mine:  # else this is a fork that the tool let return
        line.send(end)
    os._exit(0)


def _call(begin: Begin, context: ToolContext) -> str:
    """The text of the result. Raises ToolError as `Tool.run` does."""
    with contained():
        sys.path[:] = begin.path
        os.chdir(begin.directory)
        found = find(begin.module, begin.qualname)
        tool = found if isinstance(found, Tool) else Tool(found, name=begin.name)  # type: ignore[arg-type]
    call = tool.bound(json.loads(begin.arguments), context)
    with contained(chars=FRAME_BYTES_MAX // 8):  # whole: the server takes secrets out of it before it cuts
        if context.cancelled:
            raise Cancelled("It was stopped before it began.")
        value = tool.text(call(), context)
        if inspect.iscoroutine(value):
            value.close()
        if not isinstance(value, str):
            raise TypeError("an isolated tool is a sync function, and this one returned something to be awaited")
    return value


def _listen(heard: int, cancelled: threading.Event, notes: _Notes) -> None:
    frames = Frames()
    while data := os.read(heard, READ_BYTES):
        for body in frames.feed(data):
            match to_tool.decode(body):
                case Stop():
                    cancelled.set()
                case Noted() as answer:
                    notes.answers.put(answer)
    os.killpg(0, signal.SIGKILL)  # the keeper is gone, and nobody knows of this process any more


class _Line:
    """The way to the server, from any thread. A fork that the tool makes has none."""

    def __init__(self, said: int) -> None:
        self._said = said
        self._lock = threading.Lock()
        self._process = os.getpid()

    @property
    def is_mine(self) -> bool:
        return os.getpid() == self._process

    def send(self, message: FromTool) -> None:
        data = memoryview(framed(message))
        with self._lock:
            while data:
                data = data[os.write(self._said, data) :]


class _Reports:
    """Progress, merged: the latest wins, and whoever reports does not wait."""

    def __init__(self, line: _Line) -> None:
        self._line = line
        self._latest: Progress | None = None
        self._lock = threading.Lock()
        self._sending = False

    def __call__(self, text: str | None, fraction: float | None) -> None:
        if not self._line.is_mine:
            return
        with self._lock:
            self._latest = Progress(None if text is None else clean(text), fraction)
            if self._sending:
                return
            self._sending = True
        threading.Thread(target=self._send, name="holdfast-progress", daemon=True).start()

    def _send(self) -> None:
        while True:
            with self._lock:
                latest, self._latest = self._latest, None
                if latest is None:
                    self._sending = False
                    return
            self._line.send(latest)
            time.sleep(PROGRESS_PAUSE_SECONDS)


class _Notes:
    """Notes on their way to the server, one at a time. Satisfies `agent.context.Notes`."""

    def __init__(self, line: _Line) -> None:
        self.answers: queue.SimpleQueue[Noted] = queue.SimpleQueue()
        self._line = line
        self._lock = threading.Lock()

    async def save(self, draft: Draft) -> None:
        await asyncio.to_thread(self.save_and_wait, draft)

    def save_and_wait(self, draft: Draft) -> None:
        """Raises NoteRefused, and HoldfastError with the reason when nobody could answer."""
        if not self._line.is_mine:
            raise NoteRefused("A fork of a tool saves no notes.")
        texts = [draft.task, draft.result, draft.next]
        task, result, following = (None if text is None else clean(str(text)) for text in texts)
        note = Note(clean(str(draft.kind)), clean(str(draft.text)), task, result, following)
        with self._lock:
            self._line.send(note)
            answer = self.answers.get()
        if answer.refused is not None:
            raise NoteRefused(answer.refused) if answer.known else HoldfastError(answer.refused)


if __name__ == "__main__":
    main()
