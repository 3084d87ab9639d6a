"""What a conversation knows of servers' tools: strangers' definitions, which may be others at any time.

A level goes by what its first step was told, for its whole run; a conversation by the definition that it met first, or
that a person has approved since. Any other one asks a person, whatever the developer has declared, and an `always` that
was given for one definition does not hold for another.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.core.codec import hashed
from app.core.events import Description, Json, Origin
from app.core.state import Level, State, Told


def told(origin: Origin, schema: Json) -> Told:
    """A server's tool as its schema words it."""
    return Told(schema["function"]["name"], origin, schema, hashed([origin, schema]))


def told_of(described: Description) -> Mapping[str, Told]:
    """The servers' tools in a description, by name."""
    schemas = {schema["function"]["name"]: schema for schema in described.tools} if described.origins else {}
    return {name: told(origin, schemas[name]) for name, origin in described.origins.items()}


def pin(state: State, level: Level) -> None:
    """The first step of a level: what it was told holds. What the conversation meets for the first time it goes by."""
    level.told = state.told.get(level.place, {})
    for one in level.told.values():
        if (tool := (*level.via, one.name)) not in state.known:
            state.known[tool] = one.digest
            state.always.discard(tool)


def go_by(state: State, level: Level, name: str) -> None:
    """A person has approved a call of this tool: its definition is the one to go by, and no older `always` holds."""
    one = level.told.get(name) if level.told else None
    if one is not None and state.known.get(tool := (*level.via, name)) != one.digest:
        state.known[tool] = one.digest
        state.always.discard(tool)


def server_of(level: Level, name: str) -> str | None:
    """The server that a tool of this level comes from, if it is one's."""
    one = level.told.get(name) if level.told else None
    return None if one is None else one.origin.server


def has_changed(state: State, level: Level, name: str) -> bool:
    """Whether this tool has another definition than the one that the conversation goes by."""
    one = level.told.get(name) if level.told else None
    return one is not None and state.known.get((*level.via, name)) != one.digest
