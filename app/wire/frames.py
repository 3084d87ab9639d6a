"""What the server says, as text: every frame of PROTOCOL.md §1.1 is built here and nowhere else.

No I/O, no clock. The text of an event is never looked into: frames are joined from what the log holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from app.core import bounds
from app.core.codec import to_json
from app.core.errors import Rejected
from app.core.events import Json
from app.core.state import Run, State

PROTOCOL = 1
FRAME_COST_BYTES = 128
"""What a frame or a fragment of a client costs beside its bytes: about what it takes to look at an empty one."""

FRAMES_BURST = 100
"""Frames that a client may send at once."""

FRAME_ROOM = 200
"""Bytes of an `events` frame around its events."""

SHORT_CHARS = 2_000
"""To this, or less, a text is cut inside `attached` where the frame would be over its bound; its event is whole."""

APPROVALS_MAX = 1_000
"""So many are in such a frame at most; the others are in the events all the same."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of PROTOCOL.md, as `attached.limits` states them."""

    frame_bytes: int = bounds.CLIENT_FRAME_BYTES_MAX
    text_bytes: int = bounds.TEXT_BYTES_MAX
    title_chars: int = bounds.TITLE_CHARS_MAX
    json_depth: int = bounds.JSON_DEPTH_MAX
    queued: int = 10
    burst: int = FRAMES_BURST
    rate: float = 20
    burst_bytes: int = FRAMES_BURST * (bounds.CLIENT_FRAME_BYTES_MAX + FRAME_COST_BYTES)
    rate_bytes: int = 6_000_000
    flood_seconds: float = 10
    sockets: int = 1000
    attempt_chars: int = bounds.ATTEMPT_CHARS_MAX
    attempt_calls: int = bounds.CALLS_MAX
    result_chars: int = bounds.RESULT_CHARS_MAX
    note_chars: int = bounds.NOTE_CHARS_MAX
    notes: int = bounds.NOTES_MAX
    server_frame_bytes: int = bounds.FRAME_BYTES_MAX
    event_bytes: int = bounds.EVENT_BYTES_MAX
    heartbeat_seconds: float = 20


def split(texts: list[str], bytes_max: int) -> int:
    """How many of these events the next frame takes: as many as fit, at least one."""
    size = 0
    for count, text in enumerate(texts):
        size += (len(text) if text.isascii() else len(text.encode())) + 1
        if size > bytes_max - FRAME_ROOM:
            return max(count, 1)
    return len(texts)


def events_frame(after: int, through: int, texts: Iterable[str]) -> str:
    """`texts`: encoded events, or several of them joined by commas."""
    return f'{{"type":"events","after":{after},"through":{through},"events":[{",".join(texts)}]}}'


def live_frame(through: int) -> str:
    return f'{{"type":"live","through":{through}}}'


def heartbeat_frame(head: int, at: int) -> str:
    return f'{{"type":"heartbeat","head":{head},"at":{at}}}'


def draining_frame(retry_after_ms: int) -> str:
    return f'{{"type":"draining","retry_after_ms":{retry_after_ms}}}'


def accepted_frame(id: str, seq: int, duplicate: bool) -> str:
    return to_json({"type": "accepted", "id": id, "seq": seq, "duplicate": duplicate})


def rejected_frame(id: str | None, refusal: Rejected) -> str:
    return to_json({"type": "rejected", "id": id, "code": refusal.code, "message": refusal.message, **refusal.details})


def conversation_frame(item: Json) -> str:
    return to_json({"type": "conversation", "item": item})


def conversation_deleted_frame(conversation: str) -> str:
    return to_json({"type": "conversation_deleted", "conversation": conversation})


# --- where a reader stands


@dataclass(frozen=True, slots=True)
class Standing:
    """What `attached` says of the conversation at `head`, taken from the committed state."""

    log: str
    head: int
    status: str
    agent: str
    title: str
    run: Json | None
    approvals: list[Json]
    queued: list[Json]


def standing(state: State, log: str) -> Standing:
    """The part of a state that a reader sees; the client's fold gives the same (static/fold.js `projection`)."""
    run = state.run
    calls = run.calls if run else []
    open_events = [event for _, call in calls for event in (call.approval, call.doubt) if event is not None]
    return Standing(
        log=log,
        head=state.seq,
        status=state.status,
        agent=state.agent,
        title=state.title,
        run=_run(run),
        approvals=[msgspec.to_builtins(event) for event in sorted(open_events, key=lambda event: event.seq)],
        queued=[
            {
                "kind": words.kind,
                "target": words.message,
                "message": words.message,
                "text": words.text,
                "author": words.author,
            }
            for words in [*state.carried, *state.queue]
        ],
    )


def _run(run: Run | None) -> Json | None:
    if run is None:
        return None
    return {"run": run.run, "status": run.status, "started_at": run.started_at, "step": run.top.step}


def attached_frame(
    conversation: str, standing: Standing, *, after: int, reset: bool, viewer: Json, limits: Limits, now: int
) -> str:
    """The first frame of a reader; long texts in it are cut when it would be over its bound."""
    frame: dict[str, Any] = {
        "type": "attached",
        "protocol": PROTOCOL,
        "conversation": conversation,
        "log": standing.log,
        "after": after,
        "head": standing.head,
        "reset": reset,
        "status": standing.status,
        "run": standing.run,
        "agent": standing.agent,
        "title": standing.title,
        "approvals": standing.approvals,
        "queued": standing.queued,
        "viewer": viewer,
        "limits": asdict(limits),
        "now": now,
    }
    text = to_json(frame)
    for chars in (SHORT_CHARS, SHORT_CHARS // 20, 0):
        if len(text.encode()) > limits.server_frame_bytes:
            frame["queued"] = [{**words, "text": words["text"][:chars]} for words in standing.queued]
            frame["approvals"] = [_shortened(approval, chars) for approval in standing.approvals[:APPROVALS_MAX]]
            text = to_json(frame)
    return text


def _shortened(approval: Json, chars: int) -> Json:
    whole = {name: to_json(value) for name, value in approval["arguments"].items()}
    if sum(map(len, whole.values())) <= chars:
        return approval
    cut = {name: approval["arguments"][name] if len(text) <= chars else text[:chars] for name, text in whole.items()}
    return {**approval, "arguments": cut if len(to_json(cut)) <= 4 * chars else {}, "truncated": True}
