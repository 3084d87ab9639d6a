"""The request of a model call as a value that the log answers for (ACCEPTANCE 003-17).

An attempt begins here: its request is built once, its digest goes into `step.started`, and the runner sends that very
value. An agent is described in the log whenever it is not as the log last said, so that every request can be built
again from the log alone (rebuild.py). What the model sees is decided in transcript.py, never here.
"""

from __future__ import annotations

from app.core import events as e
from app.core.catalogue import Rules
from app.core.codec import hashed
from app.core.events import Description, Json, Path
from app.core.ledger import Ledger
from app.core.state import Level, Request, State
from app.core.transcript import messages, tools


def begin_attempt(
    ledger: Ledger, run: str, path: Path, number: tuple[int, int], model: str, asked: int, rules: Rules
) -> None:
    """Starts the attempt `number` (step, attempt) of a level, whose request has `asked` characters."""
    assert ledger.state.run is not None
    level = ledger.state.run.levels[path]
    request = request_of(ledger.state, path, model, rules)
    described = describe(level, rules)
    known = ledger.state.described.get(level.place) == hashed(described)
    ledger.emit(
        e.StepStarted(
            run=run,
            path=path,
            step=number[0],
            attempt=number[1],
            model=model,
            asked=asked,
            request=digest_of(request),
            described=None if known else described,
        )
    )
    level.request = request


def request_of(state: State, path: Path, model: str, rules: Rules) -> Request:
    """What a level asks its model now."""
    return Request(model, messages(state, path, rules), tools(state, path, rules))


def plain(request: Request) -> Json:
    """The request as one object."""
    return {"messages": request.messages, "model": request.model, "tools": request.tools}


def digest_of(request: Request) -> str:
    """SHA-256 (hex) of its canonical JSON: keys sorted at every depth, no spaces, UTF-8."""
    return hashed(plain(request))


def describe(level: Level, rules: Rules) -> Description:
    """The agent of a level; one that is not here any more has no instructions and no tools."""
    agent = rules.agent(level)
    if agent is None:
        return Description(agent=level.place[-1], instructions="", tools=[])
    tools = rules.tools(level)
    return Description(
        agent=agent.name,
        instructions=agent.instructions,
        tools=[tool.schema for tool in tools.values()],
        model=agent.model,
        origins={told.name: told.origin for told in rules.told(level) if told.name in tools},
    )
