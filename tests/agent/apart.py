"""Isolated tools for tests: another process finds them here by their names. Nothing is asserted."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from app.agent import Cancelled, NoteRefused, ToolContext, tool


def sleeps() -> int:
    """A child that goes on for ever: its number."""
    return subprocess.Popen(["sleep", "1000"]).pid


@tool(isolated=True)
def tell(place: str, ctx: ToolContext, many: int = 2) -> str:
    """Tell everything about this call."""
    ctx.progress(f"Looking at {place}", fraction=0.5)
    ctx.note_sync("knowledge", f"{place} is known")
    asyncio.run(ctx.checkpoint("looked", place, "go"))
    ids = [ctx.key, ctx.call_id, ctx.conversation_id, ctx.run_id]
    process = [os.getpid(), os.getpgid(0), os.getppid(), threading.current_thread() is threading.main_thread()]
    return json.dumps({"ids": ids, "cancelled": ctx.cancelled, "process": process, "place": place, "many": many})


@tool(isolated=True)
def refused(ctx: ToolContext) -> str:
    """Try to save what is not saved."""
    try:
        ctx.note_sync("knowledge", "refuse this")
    except NoteRefused as error:
        return f"refused: {error}"
    return "saved"


@tool(isolated=True)
def flood(times: int, ctx: ToolContext) -> str:
    """Report often, and wait until the last report has gone."""
    for number in range(times):
        ctx.progress(f"part {number}", number / times)
    time.sleep(0.5)
    return f"reported {times}"


@tool(isolated=True)
def fails(how: str) -> str:
    """End in a way that is none."""
    match how:
        case "ValueError":
            raise ValueError("the reason " * 100)
        case "SystemExit":
            raise SystemExit(3)
        case "KeyboardInterrupt":
            raise KeyboardInterrupt
        case "Cancelled":
            raise Cancelled("though nobody asked")
        case "exit status 3":
            os._exit(3)
        case "SIGSEGV":
            ctypes.string_at(0)
        case "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        case "SIGTERM":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        case "no message":
            for number in range(3, 30):
                with contextlib.suppress(OSError):
                    os.write(number, b"\xff" * 100)
            time.sleep(1000)
        case "exit status 1":
            os.closerange(3, 100)
    return "nothing failed"


@tool(isolated=True)
def returns(what: str) -> Any:
    """Return what no pipe carries."""
    match what:
        case "lock":
            return threading.Lock()
        case "function":
            return lambda: 1
        case "generator":
            return (number for number in range(3))
        case "awaitable":
            return asyncio.sleep(1)
        case "huge":
            return "0123456789" * 10_000_000
        case "binary":
            return b"\x00\xff"
        case "four bytes a character":
            return "\U0001f30a" * 10_000_000
    return None


@tool(isolated=True)
def prints(size: int) -> str:
    """Print on both streams, also from a child, and put something else in the place of one."""
    print("on stdout hunter2-hunter2")
    sys.stdout.flush()
    subprocess.run(["sh", "-c", "echo by a child; echo on its stderr >&2"], check=True)
    print("x" * size)
    sys.stdout = None
    return "printed"


@tool(isolated=True)
def disturb(file: str) -> str:
    """Change what belongs to a process; then tell of its state."""
    handled = callable(signal.getsignal(signal.SIGUSR2))
    before = [os.getcwd(), os.environ.get("DISTURBED"), os.umask(0), handled]
    os.chdir("/")
    os.environ["DISTURBED"] = "yes"
    signal.signal(signal.SIGUSR2, lambda *_: None)
    if os.fork() == 0:
        Path(file).write_text("the fork was here")
        return "a fork that returns"
    os.wait()
    return json.dumps(before)


@tool(isolated=True)
def leaves(file: str) -> str:
    """Leave a child and a fork behind."""
    child = sleeps()
    if (fork := os.fork()) == 0:
        time.sleep(1000)
    return f"{child} {fork} {os.getpid()} {os.getppid()}"


@tool(isolated=True)
def works(file: str, how: str, ctx: ToolContext) -> str:
    """Say in a file who is there, then do something until it should stop, or longer."""
    signals: list[int] = []
    child = sleeps()
    match how:
        case "ignores":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case "dies":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        case "hears":
            signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    Path(f"{file}.new").write_text(f"{os.getpid()} {child} {os.getppid()}")
    Path(f"{file}.new").rename(file)
    if how == "orphans":
        os.kill(os.getppid(), signal.SIGKILL)
    while how == "ignores" or not (signals if how == "hears" else ctx.cancelled):
        time.sleep(0.01)
    match how:
        case "confirms":
            raise Cancelled
        case "fails":
            raise ValueError("broken on the way")
        case "hears":
            return f"heard {signals} after all"
    return "done after all"


@tool(isolated=True)
def begins(file: str) -> str:
    """Leave a trace."""
    Path(file).touch()
    return "begun"


class Box:
    """A place inside the module."""

    @staticmethod
    @tool(isolated=True)
    def inner() -> Iterator[int]:
        """Count."""
        yield from (1, 2)

    def method(self) -> None:
        """Has a self."""


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that does something."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return f"guarded {function(*args, **kwargs)}"

    return wrapped


@tool(isolated=True)
@guarded
def decorated() -> str:
    """Under a decorator."""
    return "call"


@guarded
def plainly() -> str:
    """Made a tool under another name."""
    return "name"


renamed = tool(isolated=True, name="another")(plainly)


def bare() -> str:
    """Something else than what stands in its place."""
    return "unguarded"


shadowed = tool(isolated=True)(guarded(bare))
