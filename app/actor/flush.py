"""From the log to the archive: the rows of everything since the last `archive.flushed`, written idempotently.

A crash between the flush and its event is simply still wanted: the same rows are written again.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from app.actor.summary import archived_conversation, archived_run
from app.core import events as e
from app.core.codec import decode
from app.core.events import Event
from app.core.state import State, Words
from app.core.transcript import result_text
from app.store.archive import ArchivedCall, ArchivedMessage, Flush
from app.store.event_log import EventLog, walk

PAGE_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Due:
    """A flush as the committed state wanted it: what of it the log does not say by itself, and how far it goes."""

    since: int
    flush: Flush
    words: dict[str, Words]


def due(conversation: str, state: State) -> Due:
    """What is to be flushed now. Reads the state at once: later it may hold what is not committed yet."""
    flush = Flush(
        conversation=archived_conversation(conversation, state),
        through=state.seq,
        runs=[archived_run(conversation, record) for record in state.runs.values() if record.changed > state.flushed],
        messages=[],
        calls=[],
    )
    words = {item.message: item for item in [*state.history, *state.queue, *state.carried] if isinstance(item, Words)}
    return Due(state.flushed, flush, words)


async def collect(log: EventLog, conversation: str, due: Due) -> Flush:
    """The whole flush, with the messages and calls that the log holds. Raises Corrupt, Unavailable.

    Of runs only those that are at home here: a log that came from elsewhere may tell of others. What a call turns out
    to have done is told where it was begun.
    """
    flush, words = replace(due.flush, messages=[], calls=[]), dict(due.words)
    async for page in walk(log, conversation, due.since, flush.through, PAGE_BYTES):
        for text in page.texts:
            if (event := decode(text)).seq <= flush.through:
                _add(flush, event, words)
    of = {run.run for run in flush.runs} | {call.run for call in flush.calls}
    here = {run for run in of if await log.find_run(run) == conversation}
    runs = [run for run in flush.runs if run.run in here]
    return replace(flush, runs=runs, calls=[call for call in flush.calls if call.run in here or call.settled])


def _add(flush: Flush, event: Event, words: dict[str, Words]) -> None:
    match event:
        case e.HintCarried():
            flush.messages.append(_said(event, event.into, words.pop(event.message)))
        case e.RunStarted() | e.HintApplied():
            if event.message in words:  # a carried hint has its row already
                flush.messages.append(_said(event, event.run, words[event.message]))
        case e.ModelReplied():
            flush.messages.append(_message(event, "assistant", event.text, calls=event.calls or None))
            for call in event.calls:
                flush.calls.append(_call(event, call.call, tool=call.tool, arguments=call.arguments, status="asked"))
        case e.ModelInterrupted() if event.reason in ("cancel", "hint"):
            flush.messages.append(_message(event, "assistant", event.text))
        case e.ToolStarted():
            flush.calls.append(_call(event, event.call, tool=event.tool, status="started", started_at=event.at))
            if event.agent is not None:
                flush.messages.append(_asked(event))
        case e.ToolReturned():
            flush.messages.append(_message(event, "tool", event.result, call=event.call))
            flush.calls.append(
                _call(event, event.call, status="returned", result=event.result, finished_at=event.at, ms=event.ms)
            )
        case e.ToolFailed():
            flush.messages.append(_message(event, "tool", result_text(event), call=event.call))
            flush.calls.append(
                _call(
                    event,
                    event.call,
                    status=event.error.kind,
                    error=event.error.message,
                    finished_at=event.at,
                    ms=event.ms,
                )
            )
        case e.ToolSettled():
            settled = event.result if event.error is None else f"{event.error.kind}: {event.error.message}"
            flush.calls.append(ArchivedCall(run=event.of, path=event.path, call=event.call, settled=settled))


def _said(event: Event, run: str | None, words: Words) -> ArchivedMessage:
    return ArchivedMessage(seq=event.seq, at=event.at, run=run, role="user", text=words.text, author=words.author)


def _asked(event: e.ToolStarted) -> ArchivedMessage:
    """What a sub-agent was asked is the first message of its level."""
    text = str(event.arguments.get("prompt", ""))
    path = (*event.path, event.call)
    return ArchivedMessage(seq=event.seq, at=event.at, run=event.run, path=path, role="user", text=text, author="agent")


def _message(
    event: Event, role: str, text: str, calls: list[e.Call] | None = None, call: str | None = None
) -> ArchivedMessage:
    return ArchivedMessage(
        seq=event.seq, at=event.at, run=event.run, path=event.path, role=role, text=text, calls=calls, call=call
    )


def _call(event: Event, call: str, **fields: object) -> ArchivedCall:
    assert event.run is not None
    return ArchivedCall(run=event.run, path=event.path, call=call, **fields)  # type: ignore[arg-type]
