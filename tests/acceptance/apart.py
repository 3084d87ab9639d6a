"""An agent whose tools run in processes of their own, and do what would harm a server. Nothing is asserted.

Like those of agents.py they write to the ledger, here `<tool> <what> <line> <process>`, and wait at gates.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from app.agent import Agent, Cancelled, ToolContext, tool

from .agents import _is_open, _write, tick


def _family(name: str, line: str) -> None:
    """Starts a child, and writes down who is there: the tool, its child, and its keeper."""
    child = subprocess.Popen(["sleep", "1000"]).pid
    for what, pid in (("child", child), ("keeper", os.getppid()), ("begin", os.getpid())):
        _write(f"{name} {what} {line} {pid}")


def _wait(name: str, line: str, gate: str, ctx: ToolContext, *, confirms: bool = False) -> str:
    _family(name, line)
    while not _is_open(gate):
        if confirms and ctx.cancelled:
            _write(f"{name} stopped {line} {os.getpid()}")
            raise Cancelled
        time.sleep(0.01)
    _write(f"{name} end {line} {os.getpid()}")
    return f"{line} is done by {ctx.key}"


@tool(isolated=True)
def apart(line: str, ctx: ToolContext, gate: str = "") -> str:
    """Do something, with nothing declared, and leave a child behind."""
    return _wait("apart", line, gate, ctx)


@tool(isolated=True, rerun="safe")
def apart_safe(line: str, ctx: ToolContext, gate: str = "") -> str:
    """Do something that may be repeated."""
    return _wait("apart_safe", line, gate, ctx)


@tool(isolated=True, rerun="ask")
def apart_ask(line: str, ctx: ToolContext, gate: str = "") -> str:
    """Do something of which a person must say whether it may be repeated."""
    return _wait("apart_ask", line, gate, ctx)


@tool(isolated=True, interruptible=True)
def heeds(line: str, ctx: ToolContext, gate: str = "") -> str:
    """Stop when told to."""
    return _wait("heeds", line, gate, ctx, confirms=True)


@tool(isolated=True, timeout=5)
def heeds_late(line: str, ctx: ToolContext) -> str:
    """Take too long, and stop when told to."""
    return _wait("heeds_late", line, "never-opened", ctx, confirms=True)


@tool(isolated=True, timeout=5)
def deaf(line: str, ctx: ToolContext) -> str:
    """Ignore that it should stop."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return _wait("deaf", line, "never-opened", ctx)


@tool(isolated=True, timeout=5, rerun="safe")
def deaf_safe(line: str, ctx: ToolContext) -> str:
    """Ignore it, and be repeatable."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return _wait("deaf_safe", line, "never-opened", ctx)


@tool(isolated=True, timeout=5)
def frozen(line: str) -> str:
    """Hold the interpreter for ever: no other thread of this process runs any more."""
    _family("frozen", line)
    re.match("(a+)+$", "a" * 100 + "b")
    return f"{line} is done"


@tool(isolated=True)
def wreck(line: str) -> str:
    """Change directory, environment, umask and signal handlers, fork, and leave all of it behind."""
    told = json.dumps([os.getcwd(), os.environ.get("WRECKED"), os.umask(0), signal.getsignal(signal.SIGUSR2) is None])
    os.chdir("/")
    os.environ["WRECKED"] = "yes"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if (fork := os.fork()) == 0:
        return "a fork that returns"
    _family("wreck", line)
    _write(f"wreck fork {line} {fork}")
    return told


@tool(isolated=True)
def quits(how: str) -> str:
    """End the process."""
    match how:
        case "exit status 3":
            os._exit(3)
        case "SIGSEGV":
            ctypes.string_at(0)
        case "SystemExit":
            sys.exit(4)
    return "still there"


@tool(isolated=True)
def tells(gate: str, ctx: ToolContext) -> str:
    """Report and note."""
    for number in range(50_000):
        ctx.progress(f"part {number}", number / 50_000)
    ctx.note_sync("knowledge", "The sea is salt")
    while not _is_open(gate):
        time.sleep(0.01)
    return json.dumps([ctx.key, ctx.call_id, ctx.conversation_id, ctx.run_id])


@tool(isolated=True)
def giant(size: int) -> str:
    """Return a long text."""
    return "0123456789abcdef" * (size // 16)


@tool(isolated=True)
def tattles(name: str) -> str:
    """Tell a variable of the environment in every way."""
    secret = os.environ[name]
    print(f"the secret is {secret}")
    subprocess.run(["sh", "-c", f'echo "a child knows ${name}" >&2'], check=True)
    Path("/dev/stderr").write_text(f"past python: {secret}\n")
    raise ValueError(f"cannot sign in with {secret}")


family = Agent(
    "family",
    instructions="Do as you are told.",
    tools=[
        *(apart, apart_safe, apart_ask, heeds, heeds_late, deaf, deaf_safe, frozen),
        *(wreck, quits, tells, giant, tattles, tick),
    ],
)
