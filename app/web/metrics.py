"""`GET /metrics`: figures for Prometheus, in its text format (FAULTS.md 16, 19, 25, 27).

Read from what is there anyway at the moment of asking; counters are those of this process. Only numbers, and labels
that are words of ours: no contents, ids or secrets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from starlette.requests import Request
from starlette.responses import Response

from app.web.access import authorize, principal_of
from app.web.context import House

MEDIA_TYPE = "text/plain; version=0.0.4"

EFFECTS = {"ModelCall": "model_call", "Summary": "summary", "ToolCall": "tool_call", "ArchiveFlush": "archive_flush"}
"""What is counted of what runs; where a run only waits for its place is told by its status."""


async def show(request: Request) -> Response:
    """`GET /metrics`"""
    authorize(principal_of(request.scope), "list", None)
    house: House = request.app.state.house
    writable = await house.log.writable()
    return Response("".join(_lines(house, writable)), media_type=MEDIA_TYPE)


def _lines(house: House, writable: bool) -> Iterator[str]:
    census, directory = house.directory.census(), house.directory
    figures = {name: {"": figure()} for name, figure in house.figures.items()}
    none: dict[str, int] = {}
    begun = {EFFECTS[kind]: count for kind, count in census.begun.items() if kind in EFFECTS}
    under_way = {name: census.under_way[kind] for kind, name in EFFECTS.items()}
    runs = {status: census.runs[status] for status in ("running", "waiting", "suspended")}
    yield from _metric("store_writable", "gauge", "1 if the log can be written right now.", {"": int(writable)})
    yield from _metric("store_waiting_actors", "gauge", "Actors whose append is being repeated.", {"": census.stuck})
    yield from _metric(
        "store_failures_total",
        "counter",
        "Writes that failed: no space, no access.",
        figures.get("store_failures", none),
    )
    yield from _metric("store_wal_bytes", "gauge", "Size of the write-ahead log.", figures.get("wal_bytes", none))
    yield from _metric(
        "event_loop_stalls_total", "counter", "Times that the loop was blocked for 5 s.", figures.get("stalls", none)
    )
    yield from _metric("connections", "gauge", "Open connections of every kind.", figures.get("connections", none))
    yield from _metric("readers", "gauge", "Open sockets and event streams.", {"": sum(house.sockets.values())})
    yield from _metric(
        "connections_refused_total", "counter", "Connections and requests refused at the door.", house.refused, "reason"
    )
    yield from _metric("actors", "gauge", "Conversations in memory.", {"": census.actors})
    yield from _metric("runs", "gauge", "Unfinished runs in memory.", runs, "status")
    yield from _metric(
        "effects", "gauge", "What is under way for runs; a tool call may wait for its place.", under_way, "kind"
    )
    yield from _metric("effects_begun_total", "counter", "What was begun for runs.", begun, "kind")
    yield from _metric(
        "commands_total", "counter", "Commands that reached a conversation.", directory.outcomes, "outcome"
    )


def _metric(name: str, kind: str, help: str, values: Mapping[str, int], label: str = "") -> Iterator[str]:
    """One metric and its samples; label values are words of ours and need no escapes."""
    yield f"# HELP holdfast_{name} {help}\n# TYPE holdfast_{name} {kind}\n"
    for value, figure in values.items():
        labels = f'{{{label}="{value}"}}' if label else ""
        yield f"holdfast_{name}{labels} {figure}\n"
