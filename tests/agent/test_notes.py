"""The ready tools for notes, as a model meets them."""

from __future__ import annotations

import pytest

from app.agent import Agent, checkpoint, save_note
from app.core.bounds import NOTE_CHARS_MAX
from app.core.commands import Draft

from .calls import Watched


async def test_save_note_and_checkpoint() -> None:
    watched = Watched()
    assert await save_note.run({"kind": "decision", "text": "SQLite"}, watched.context) == "saved"
    assert await checkpoint.run({"task": "find", "result": "three"}, watched.context) == "saved"
    assert await checkpoint.run({"task": "pay", "result": "paid", "next": "rest"}, watched.context) == "saved"
    assert watched.drafts == [
        Draft("decision", "SQLite"),
        Draft("progress", task="find", result="three"),
        Draft("progress", task="pay", result="paid", next="rest"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"kind": "todo", "text": "x"},
        {"kind": "decision", "text": ""},
        {"kind": "decision", "text": "x" * (NOTE_CHARS_MAX + 1)},
    ],
)
def test_what_does_not_fit_is_refused_before_it_runs(arguments: dict[str, str]) -> None:
    assert save_note.check(arguments)


def test_an_agent_has_them_when_it_lists_them() -> None:
    """003-19: nobody has them who did not ask."""
    assert list(Agent("a").tools) == []
    agent = Agent("a", tools=[save_note, checkpoint])
    assert list(agent.tools) == ["save_note", "checkpoint"]
    for ready in (save_note, checkpoint):
        assert ready.rerun == "safe" and not ready.interruptible and not ready.needs_approval({})
    parameters = save_note.schema["function"]["parameters"]["properties"]
    assert parameters["kind"]["enum"] == ["progress", "knowledge", "environment", "decision"]
    assert parameters["text"]["maxLength"] == NOTE_CHARS_MAX
