"""Agents whose tools leave traces that a test can read, through the product's public interface alone (DESIGN.md §7).

Every tool that acts appends `<tool> <begin or end> <line> <call id>` to the ledger (a file), and waits at a gate (a
file that the test creates) where one is named. Nothing is asserted here.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from app.agent import Agent, ToolContext, tool


def _write(entry: str) -> None:
    """One entry, whole, in one system call: also right when the process is killed."""
    ledger = os.open(os.environ["TEST_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, f"{entry}\n".encode())
    finally:
        os.close(ledger)


def _is_open(gate: str) -> bool:
    return not gate or (Path(os.environ["TEST_GATES"]) / gate).exists()


async def _act(name: str, line: str, gate: str, ctx: ToolContext, seconds: float = 0.0) -> str:
    _write(f"{name} begin {line} {ctx.call_id}")
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        await asyncio.sleep(left)  # uvloop's clock ticks in whole ms: a sleep may end up to one too early
    while not _is_open(gate):
        await asyncio.sleep(0.01)
    _write(f"{name} end {line} {ctx.call_id}")
    return f"{line} is done"


@tool(rerun="never")
async def once(line: str, ctx: ToolContext, gate: str = "", seconds: float = 0.0) -> str:
    """Do something that must not be done twice."""
    return await _act("once", line, gate, ctx, seconds)


@tool(rerun="safe")
async def safe(line: str, ctx: ToolContext, gate: str = "", seconds: float = 0.0) -> str:
    """Do something that may be repeated."""
    return await _act("safe", line, gate, ctx, seconds)


@tool(rerun="ask")
async def ask(line: str, ctx: ToolContext, gate: str = "") -> str:
    """Do something of which a person must say whether it may be repeated."""
    return await _act("ask", line, gate, ctx)


@tool
async def unmarked(line: str, ctx: ToolContext, gate: str = "") -> str:
    """Do something, with nothing declared."""
    return await _act("unmarked", line, gate, ctx)


@tool(rerun="safe")
def tick(number: int) -> str:
    """Count."""
    return f"tick {number}"


@tool
def blocking(line: str, ctx: ToolContext, gate: str = "") -> str:
    """Do something without ever looking whether it is still wanted."""
    _write(f"blocking begin {line} {ctx.call_id}")
    while not _is_open(gate):
        time.sleep(0.01)
    _write(f"blocking end {line} {ctx.call_id}")
    return f"{line} is done"


@tool(interruptible=True)
def attentive(line: str, ctx: ToolContext, gate: str = "") -> str:
    """Block, but stop when it is no longer wanted."""
    _write(f"attentive begin {line} {ctx.call_id}")
    while not _is_open(gate):
        if ctx.cancelled:
            _write(f"attentive stopped {line} {ctx.call_id}")
            raise RuntimeError("stopped half-way")
        time.sleep(0.01)
    _write(f"attentive end {line} {ctx.call_id}")
    return f"{line} is done"


@tool
async def stubborn(line: str, ctx: ToolContext, gate: str = "") -> str:
    """Do something and ignore every cancellation."""
    _write(f"stubborn begin {line} {ctx.call_id}")
    while not _is_open(gate):
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            _write(f"stubborn ignored {line} {ctx.call_id}")
    _write(f"stubborn end {line} {ctx.call_id}")
    return f"{line} is done"


@tool(interruptible=False)
async def patient(line: str, ctx: ToolContext, gate: str = "") -> str:
    """Do something that a hint does not interrupt."""
    return await _act("patient", line, gate, ctx)


@tool(timeout=0.4)
async def endless(line: str, ctx: ToolContext) -> str:
    """Never return, but stop when told to."""
    return await _act("endless", line, "never-opened", ctx)


@tool(timeout=0.4, rerun="safe")
async def endless_safe(line: str, ctx: ToolContext) -> str:
    """Never return; repeatable."""
    return await _act("endless_safe", line, "never-opened", ctx)


@tool(timeout=0.4)
def endless_sync(line: str, ctx: ToolContext, gate: str = "") -> str:
    """Block past the deadline, until the gate opens."""
    _write(f"endless_sync begin {line} {ctx.call_id}")
    while not _is_open(gate):
        time.sleep(0.01)
    _write(f"endless_sync end {line} {ctx.call_id}")
    return f"{line} is done"


@tool(timeout=0.4)
async def endless_stubborn(line: str, ctx: ToolContext, gate: str = "") -> str:
    """Run past the deadline and ignore that it is over, until the gate opens."""
    _write(f"endless_stubborn begin {line} {ctx.call_id}")
    while not _is_open(gate):
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            _write(f"endless_stubborn ignored {line} {ctx.call_id}")
    _write(f"endless_stubborn end {line} {ctx.call_id}")
    return f"{line} is done"


@tool(approval=True)
async def reserve(place: str, people: int, ctx: ToolContext, gate: str = "") -> str:
    """Reserve a table."""
    _write(f"reserve begin {place} {ctx.call_id}")
    while not _is_open(gate):
        await asyncio.sleep(0.01)
    _write(f"reserve end {place} {ctx.call_id}")
    return f"a table at {place} for {people}"


def _is_much(line: str, amount: int) -> bool:
    return amount > 100


@tool(approval=_is_much)
async def pay(line: str, amount: int, ctx: ToolContext) -> str:
    """Pay; more than 100 needs approval."""
    _write(f"pay begin {line} {ctx.call_id}")
    return f"paid {amount}"


@tool(approval=True, expires_in=0.5)
async def hurry(line: str, ctx: ToolContext) -> str:
    """Do something that has to be approved at once."""
    return await _act("hurry", line, "", ctx)


@tool
async def explode(kind: str) -> str:
    """Raise what is named."""
    match kind:
        case "recursion":

            def deeper(n: int) -> int:
                return deeper(n + 1) + 1

            deeper(0)
        case "value":
            raise ValueError("the value is wrong")
        case "exit":
            raise SystemExit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "memory":
            raise MemoryError
        case "cancelled":
            raise asyncio.CancelledError
        case "group":
            raise ExceptionGroup("several", [ValueError("one"), TypeError("two")])
        case "stop":
            raise StopAsyncIteration
        case "base":
            raise BaseException("the base of all")
    return "nothing raised"


@tool
def explode_sync(kind: str) -> str:
    """Raise what is named, on a worker."""
    kinds: dict[str, BaseException] = {
        "value": ValueError("the value is wrong"),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "memory": MemoryError(),
        "stop": StopIteration("early"),
        "base": BaseException("the base of all"),
    }
    raise kinds[kind]


@tool
async def big(size: int) -> str:
    """Return a long text."""
    return "0123456789abcdef" * (size // 16)


def _for_ever() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


class _Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("not even this")


@tool
async def odd(kind: str) -> Any:
    """Return something that is no text."""
    ring: list[Any] = []
    ring.append(ring)
    return {
        "bytes": b"\x00\xff\xfe binary",
        "nan": float("nan"),
        "generator": _for_ever(),
        "nothing": None,
        "object": {"places": ["Da Enzo"], "open": True},
        "set": {1},
        "ring": ring,
        "surrogate": "half \ud800 pair",
        "nul": "a\x00b",
        "unspeakable": _Unspeakable(),
    }[kind]


@tool
async def busy(count: int, ctx: ToolContext, gate: str = "") -> str:
    """Report progress many times."""
    for number in range(count):
        ctx.progress(f"part {number}", fraction=number / count)
        if number % 1000 == 0:
            await asyncio.sleep(0)
    while not _is_open(gate):
        await asyncio.sleep(0.01)
    return f"reported {count}"


@tool
async def phases(gates: list[str], ctx: ToolContext) -> str:
    """Report a phase, wait at its gate, and so on."""
    for number, gate in enumerate(gates):
        ctx.progress(f"phase {number}", fraction=number / len(gates))
        while not _is_open(gate):
            await asyncio.sleep(0.01)
    return "all phases"


@tool
async def identity(ctx: ToolContext) -> str:
    """Tell the ids of this call."""
    return json.dumps({"call": ctx.call_id, "conversation": ctx.conversation_id, "run": ctx.run_id})


@tool
async def typed(
    count: int,
    ratio: float,
    tags: list[str],
    mode: Literal["fast", "slow"],
    deep: dict[str, int],
    extra: str | None = None,
) -> str:
    """Take every kind of argument."""
    return json.dumps([count, ratio, tags, mode, deep, extra])


@tool
async def find_places(near: str, ctx: ToolContext, gate: str = "") -> str:
    """Find places to eat."""
    ctx.progress("Looking at the map", fraction=0.5)
    await _act("find_places", near, gate, ctx)
    return json.dumps(["Da Enzo", "Il Corvo"])


@tool
async def evaluate_places(places: list[str], ctx: ToolContext, gate: str = "") -> str:
    """Evaluate places."""
    await _act("evaluate_places", places[0].replace(" ", "-"), gate, ctx)
    return f"{places[0]} is best"


_general = [
    once,
    safe,
    ask,
    unmarked,
    tick,
    blocking,
    attentive,
    stubborn,
    patient,
    endless,
    endless_safe,
    endless_sync,
]
_odd = [endless_stubborn, explode, explode_sync, big, odd, busy, phases, identity, typed]

desk = Agent("desk", instructions="Do as you are told.", tools=[*_general, *_odd, reserve, pay, hurry])
plain = Agent("plain", instructions="Talk.", tools=[])
dinner = Agent("dinner", instructions="Order dinner.", tools=[find_places, evaluate_places, reserve])
stern = Agent("stern", instructions="Take no for an answer.", tools=[reserve, once], end_on_denial=True)
