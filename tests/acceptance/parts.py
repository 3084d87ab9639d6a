"""The parts that the stub's model plays where several agents work in one run, and how the tests read their levels.

An agent is known by its instructions ("You are hr."), its place in its part by how often it has spoken at its level: so
a request that is repeated after a crash gets the same answer, in whatever order the levels ask.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

from .harness import Client
from .history import Json, Record
from .stub import DEADLINE, Answer, Call, text_of

_who = re.compile(r"You are (\w+)\.")


def agent_of(call: Call) -> str:
    """Whose request this is."""
    found = _who.search(text_of(call.messages[0]))
    assert found, call.messages[0]
    return found[1]


def spoken(call: Call) -> int:
    """How often the model has spoken in what this request holds."""
    return sum(message["role"] == "assistant" for message in call.messages)


Brain = Callable[[Call], Answer]


def parts(**roles: Sequence[Answer] | Brain) -> Brain:
    """A brain: the n-th step of an agent gets the n-th answer of its part, or what its own brain says."""

    def brain(call: Call) -> Answer:
        role = roles[agent_of(call)]
        return role(call) if callable(role) else role[spoken(call)]

    return brain


class Held:
    """An answer that the test gives itself, piece by piece."""

    def __init__(self) -> None:
        self._calls: asyncio.Queue[Call] = asyncio.Queue()

    async def __call__(self, call: Call) -> None:
        self._calls.put_nowait(call)

    async def call(self, within: float = DEADLINE) -> Call:
        """The next request whose sender still waits."""
        async with asyncio.timeout(within):
            while (call := await self._calls.get()).gone.is_set():
                pass
            return call


def at(events: Sequence[Json], *path: str) -> list[Json]:
    """The events of one level."""
    return [event for event in events if tuple(event.get("path", ())) == path]


def decision(event: Json) -> Json:
    """What a decision on this open approval or doubt must name."""
    return {"run": event["run"], "call": [*event.get("path", []), event["call"]], "digest": event["digest"]}


async def asked_at(tab: Client, *path: str) -> Json:
    """The approval that is open at this level, as its request."""

    def requested(client: Client) -> list[Json]:
        return at(client.all("approval.requested"), *path)

    return (await tab.until(requested, f"an approval at {path}"))[-1]


def told(log: Sequence[Record]) -> list[str]:
    """A run as its author would tell it: who used what, who waited, who said what, in order."""
    who: dict[tuple[str, ...], str] = {}
    lines = []
    for event in (record.event for record in log):
        path = tuple(event.get("path", ()))
        name = who.get(path, "")
        match event["type"]:
            case "run.started":
                who[()] = event["agent"]
            case "tool.started" if "agent" in event:
                who[(*path, event["call"])] = event["agent"]
                lines.append(f"{name} asks {event['agent']}")
            case "tool.started":
                lines.append(f"{name} uses {event['tool']}")
            case "approval.requested":
                lines.append(f"{name} may not yet {event['tool']}")
            case "approval.decided":
                lines.append(f"a person says: {event['decision']}")
            case "run.suspended" | "run.resumed" | "run.completed" | "run.cancelled" | "run.failed":
                lines.append(event["type"])
            case "model.replied" if event["finish"] == "stop":
                lines.append(f"{name} says: {event['text']}")
    return lines
