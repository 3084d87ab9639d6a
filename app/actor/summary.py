"""What others see of a state without following its log: the list item, the archive's rows, the answers of the API."""

from __future__ import annotations

from app.core.bounds import TITLE_CHARS_MAX
from app.core.plan import Plan
from app.core.state import RunRecord, State, Words
from app.store.archive import ArchivedConversation, ArchivedLevel, ArchivedRun
from app.store.event_log import Item

EXCERPT_CHARS = 60


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
        waiting_for=run.reason if run and run.status == "waiting" else None,
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
