"""What MCP servers say, made fit for models and people: definitions of tools, and results. No I/O.

All of it is strangers' text: its size and number are bounded, what nobody can see is taken out, and a definition that
cannot be made fit is left out. What a tool is called here begins with its server's name: two servers never meet.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from app.agent.mcp_schema import is_schema
from app.agent.result import cut
from app.core.bounds import JSON_DEPTH_MAX
from app.core.calls import NAME_CHARS_MAX, NO_NAME_CHARACTER
from app.core.codec import canonical, clean, deeper
from app.core.events import Json, Origin
from app.core.reading import READ_RESULT
from app.core.servers import told
from app.core.state import Told

TOOLS_MAX = 128
"""Tools that one server may offer."""

DESCRIPTION_CHARS_MAX = 2_000
SCHEMA_BYTES_MAX = 16_384
"""Of one tool; a longer description is cut, a tool with a larger schema is left out."""

READ_BYTES_MAX = 512_000
"""Of all that a server declares; checking schemas is slow, about a second for so much."""

REMOTE_NAME_CHARS_MAX = 256
ERROR_CHARS_MAX = 4_000

UNSEEN = ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp")
"""Unicode's categories of what has no shape: controls, direction marks, tags, private use, surrogates."""

DESCRIBING = ("description", "title", "$comment")


@dataclass(frozen=True, slots=True)
class Declared:
    """A tool as a server declares it."""

    name: str
    description: str
    schema: Json


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a result: a text, or what is only told of. `kind`: image, audio, resource; `size` in bytes."""

    text: str | None = None
    kind: str = ""
    what: str = ""
    size: int | None = None


def fit(server: str, declared: Iterable[Declared]) -> tuple[list[Told], list[str]]:
    """The tools of a server as models may be told of them, and the names of those that had to be left out."""
    found: dict[str, Told] = {}
    left_out: list[str] = []
    read = 0
    for tool in declared:
        one = _fit(server, tool) if read < READ_BYTES_MAX else None
        read += len(canonical(one.schema)) if one is not None else 0
        if one is None or one.name in found:
            left_out.append(visible(tool.name)[:NAME_CHARS_MAX])
        else:
            found[one.name] = one
    return list(found.values()), left_out


def bounded(tools: Iterable[Told], bytes_max: int) -> tuple[list[Told], list[str]]:
    """As many of them as a model is told of, and the names of the others."""
    kept: list[Told] = []
    left_out: list[str] = []
    size = 0
    for tool in tools:
        room = len(canonical(tool.schema))
        if len(kept) == TOOLS_MAX or size + room > bytes_max:
            left_out.append(tool.origin.tool)
        else:
            kept.append(tool)
            size += room
    return kept, left_out


def shown_name(server: str, tool: str) -> str:
    """`server_tool`, within what providers take; where that changes the name, a digest of it keeps it apart."""
    plain = f"{server}_{NO_NAME_CHARACTER.sub('_', tool)}"
    if plain == f"{server}_{tool}" and len(plain) <= NAME_CHARS_MAX and plain != READ_RESULT.name:
        return plain
    mark = hashlib.sha256(tool.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{plain[: NAME_CHARS_MAX - 9]}_{mark}"


def visible(text: str) -> str:
    """The text without what nobody can see; line feeds and tabs stay."""
    return "".join(one for one in clean(text) if one in "\n\t" or unicodedata.category(one) not in UNSEEN)


def _fit(server: str, tool: Declared) -> Told | None:
    """None where no clean and bounded definition can be made of it."""
    if visible(tool.name) != tool.name or not tool.name.strip() or len(tool.name) > REMOTE_NAME_CHARS_MAX:
        return None
    if deeper(tool.schema, JSON_DEPTH_MAX) or (parameters := _seen(tool.schema)) is None:
        return None
    text = canonical(parameters)
    if len(text) > SCHEMA_BYTES_MAX or msgspec.json.decode(text) != parameters or not is_schema(parameters):
        return None  # what the log could not give back as it is would be another request
    description = _shortened(visible(tool.description).strip())
    function = {"name": shown_name(server, tool.name), "description": description, "parameters": parameters}
    return told(Origin(server=server, tool=tool.name), {"type": "function", "function": function})


def _shortened(text: str) -> str:
    return text if len(text) <= DESCRIPTION_CHARS_MAX else text[: DESCRIPTION_CHARS_MAX - 2] + " …"


def _seen(value: Any, describing: bool = False) -> Any:
    """A schema of which everything can be seen: descriptions are cleaned; None where other words would have to be."""
    match value:
        case str():
            return visible(value) if describing else value if visible(value) == value else None
        case list():
            inner = [_seen(one) for one in value]
            return (
                None if any(one is None and was is not None for one, was in zip(inner, value, strict=True)) else inner
            )
        case dict():
            kept = {name: _seen(one, name in DESCRIBING) for name, one in value.items()}
            hidden = any(
                visible(name) != name or (kept[name] is None and one is not None) for name, one in value.items()
            )
            return None if hidden else kept
    return value


def result_text(blocks: Sequence[Block], structured: Any) -> str:
    """The text of a result; parts that are no text are told of in a line each."""
    parts = [block.text if block.text is not None else _note(block) for block in blocks]
    if not parts and structured is not None:
        parts = [canonical(structured).decode()]
    return cut(clean("\n".join(parts)))


def error_text(text: str) -> str:
    """What a server says went wrong, bounded."""
    text = clean(text).strip() or "The tool failed and did not say why."
    return text if len(text) <= ERROR_CHARS_MAX else text[: ERROR_CHARS_MAX - 1] + "…"


def _note(block: Block) -> str:
    size = "" if block.size is None else f", {block.size:,} bytes"
    return f"[{block.kind} {visible(block.what)[:200]}{size}]"
