"""What the model sees: the history of a level as Chat Completions messages, always valid for a strict provider.

Every assistant message with calls is followed at once by exactly one tool message per call, in the order of the calls;
the order in which results came does not matter. No message is empty, no call id repeats, every argument text is a JSON
object. Pure: the same state gives the same messages.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import count

from app.core import events as e
from app.core.calls import NAME_CHARS_MAX, NO_NAME_CHARACTER, parse_arguments
from app.core.catalogue import AgentSpec, Rules
from app.core.codec import to_json
from app.core.context import opening, recent, text_of
from app.core.events import Json, Path
from app.core.notes import put_before_the_model
from app.core.reading import READ_RESULT
from app.core.state import Context, HistoryItem, Level, State, Words

CUT_CHARS = 2_000
"""So much of arguments that were too long for their event goes back to the model."""


def messages(state: State, path: Path, rules: Rules, context: Context | None = None) -> list[Json]:
    """The messages of the next model call of a level; with another `context`, as they would be then."""
    assert state.run is not None
    level = state.run.levels[path]
    context = context or level.context
    told = [*_system(state, level, rules.agent(level)), *opening(level.history, context)]
    results: dict[str, Json] = {}
    for item in level.history[recent(level.history, context) :]:
        if isinstance(item, e.ApprovalDecided):
            results[item.call]["content"] = f"(A person changed the arguments to {to_json(item.arguments)}.)\n"
        elif isinstance(item, e.ToolReturned | e.ToolFailed):
            results[item.call]["content"] += result_text(item, context)
        else:
            told.extend(_message(item, results, context))
    _tell_apart(told)
    return told


def tools(state: State, path: Path, rules: Rules) -> list[Json]:
    """The tools that a level's model may call."""
    assert state.run is not None
    level = state.run.levels[path]
    offered = [tool.schema for tool in rules.tools(level).values()]
    if rules.tool(level, READ_RESULT.name) is READ_RESULT:
        offered.append(READ_RESULT.schema)
    return offered


def _system(state: State, level: Level, agent: AgentSpec | None) -> list[Json]:
    """The instructions, then the notes. An open attempt has the notes that it began with, whatever was saved since."""
    notes = level.notes if level.asking else state.notes
    parts = [agent.instructions if agent is not None else "", put_before_the_model(notes)]
    content = "\n\n".join(part for part in parts if part)
    return [{"role": "system", "content": content}] if content else []


def _message(item: HistoryItem, results: dict[str, Json], context: Context) -> list[Json]:
    match item:
        case Words():
            return [{"role": "user", "content": text_of(item, context)}]
        case e.ModelInterrupted():
            return [{"role": "assistant", "content": item.text}]
        case e.ModelReplied(calls=[]):
            return [{"role": "assistant", "content": item.text}] if item.text else []
        case e.ModelReplied():
            results.clear()
            answers = [{"role": "tool", "tool_call_id": call.call, "content": ""} for call in item.calls]
            results.update((call.call, answer) for call, answer in zip(item.calls, answers, strict=True))
            asked: Json = {"role": "assistant", "tool_calls": [_tool_call(call) for call in item.calls]}
            if item.text:
                asked["content"] = item.text
            return [asked, *answers]
    return []


def _tell_apart(told: list[Json]) -> None:
    """Gives every call an id of its own: some providers count anew in each reply, and others refuse what repeats.

    Wherever two calls have the same id, the older one gets another: the model gets back the newest as it wrote it.
    """
    asked = [(at, call) for at, one in enumerate(told) for at, call in enumerate(one.get("tool_calls", ()), at + 1)]
    left = Counter(call["id"] for _, call in asked)
    if len(left) == len(asked):
        return
    taken, numbers = set(left), defaultdict[str, Iterator[int]](partial(count, 1))
    for answer, call in asked:
        id = call["id"]
        left[id] -= 1
        if left[id]:
            other = next(name for number in numbers[id] if (name := f"{id}_{number}") not in taken)
            taken.add(other)
            call["id"] = told[answer]["tool_call_id"] = other


def _name(tool: str) -> str:
    """A tool's name as a provider takes it back. The model may have made one up, which is then no tool's."""
    return NO_NAME_CHARACTER.sub("_", tool)[:NAME_CHARS_MAX] or "_"


def _tool_call(call: e.Call) -> Json:
    """The call as the model wrote it; text that is no JSON object goes back as an empty one (its error says why)."""
    if call.truncated:
        arguments = to_json({"cut": call.arguments[:CUT_CHARS]})
    else:
        try:
            parse_arguments(call.arguments)
            arguments = call.arguments if call.arguments.strip() else "{}"
        except ValueError:
            arguments = "{}"
    return {"id": call.call, "type": "function", "function": {"name": _name(call.tool), "arguments": arguments}}


def result_text(event: e.ToolReturned | e.ToolFailed, context: Context | None = None) -> str:
    """A call's result as the model reads it, also when it has none; whole without a context that shortens it."""
    if isinstance(event, e.ToolReturned):
        return text_of(event, context) if context else event.result
    return f"Error ({event.error.kind}): {event.error.message}"
