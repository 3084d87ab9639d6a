"""What others see of a state without following its log: the list item, the archive's rows, the answers of the API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from app.core.bounds import TITLE_CHARS_MAX
from app.core.events import Json, NoteSaved
from app.core.notes import current_task
from app.core.plan import Plan
from app.core.run_record import RunRecord
from app.core.state import State, Words
from app.store.archive import ArchivedConversation, ArchivedLevel, ArchivedRun
from app.store.event_log import Item

EXCERPT_CHARS = 60
NOTE_FIELDS = ("note", "kind", "text", "at", "by", "run", "call", "task", "result", "next")


def shown_title(state: State) -> str:
    """The title, or the beginning of the first words where nobody gave one."""
    if state.title:
        return state.title
    first = next((item for item in [*state.history, *state.queue] if isinstance(item, Words)), None)
    text = " ".join(first.text[:TITLE_CHARS_MAX].split()) if first else ""
    return text if len(text) <= EXCERPT_CHARS else text[: EXCERPT_CHARS - 1] + "…"


def item_of(conversation: str, state: State, plan: Plan) -> Item:
    """The list item of a state; `busy` and `wake_at` are for whoever starts this process again."""
    run = state.run
    newest = next(reversed(state.runs.values()), None)
    return Item(
        conversation=conversation,
        agent=state.agent,
        title=shown_title(state),
        owner=state.owner,
        status=state.status,
        created_at=state.created_at,
        updated_at=state.updated_at,
        run=newest.run if newest else None,
        run_status=newest.status if newest else None,
        started_at=newest.started_at if newest else None,
        step=newest.step if newest else 0,
        waiting_for=run.waits_for if run and run.status == "waiting" else None,
        busy=bool(plan.effects) or state.unfinished,
        wake_at=plan.wake_at,
    )


def archived_conversation(conversation: str, state: State) -> ArchivedConversation:
    return ArchivedConversation(
        conversation=conversation,
        owner=state.owner,
        agent=state.agent,
        title=shown_title(state),
        status=state.status,
        created_at=state.created_at,
        updated_at=state.updated_at,
    )


def archived_run(conversation: str, record: RunRecord) -> ArchivedRun:
    return ArchivedRun(
        run=record.run,
        conversation=conversation,
        agent=record.agent,
        status=record.status,
        started_at=record.started_at,
        finished_at=record.finished_at,
        step=record.step,
        usage=record.usage,
        error=record.error,
        result=record.result,
        levels=[
            ArchivedLevel(path=path, agent=level.agent, steps=level.steps, usage=level.usage)
            for path, level in record.levels.items()
        ],
    )


def note_json(note: NoteSaved) -> Json:
    """A note as the API answers it."""
    return {name: value for name in NOTE_FIELDS if (value := getattr(note, name)) is not None}


def notes_of(state: State) -> Json:
    """The state that an agent keeps outside its context: what is done, what it works on, what else it noted."""
    done = [note for note in state.notes if note.task is not None]
    return {
        "completed": [{"task": note.task, "result": note.result, "timestamp": iso_time(note.at)} for note in done],
        "current_task": current_task(state.notes),
        "notes": [note_json(note) for note in state.notes if note.task is None],
    }


def iso_time(at: int) -> str:
    """ISO 8601 of ms since the Unix epoch, in UTC, to the ms."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
