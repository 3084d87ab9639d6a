"""A suspended run as a value: taken out, inspected, decided, put back, here or on another server with the same agents.

The shape is the field's own (SEMANTICS.md §6); ours is what stands under `holdfast`: where the run belongs, the digests
of what is to be decided, the log itself, and a signature over all but the answers. The readable part is derived from
the log, and the log alone is what goes on: nothing done before is repeated, because everything done before is in it.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, replace
from typing import Any

from app.core.calls import call_key
from app.core.catalogue import Rules
from app.core.codec import canonical
from app.core.continuation_value import VERSION, Ours, parse
from app.core.errors import Rejected
from app.core.events import Json, Path, RunMoved
from app.core.run_record import RunRecord
from app.core.state import Level, OpenCall, Run, State
from app.core.transcript import messages

SUSPENDED = ("waiting", "suspended")
IN_DOUBT = "in_doubt"
"""Why a run is suspended that waits for a person and asks for no approval: nothing in its object can be decided."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run stands: its conversation, the log id, the log itself, and the texts that are kept beside it."""

    conversation: str
    log: str
    events: list[str]
    kept: dict[str, str]


def export(state: State, place: Place, rules: Rules, secret: bytes, *, taken: bool) -> Json:
    """The continuation of a suspended run. Raises Rejected where nothing is suspended."""
    run = state.run
    if run is None or run.status not in SUSPENDED:
        raise Rejected("not_running", "No run is suspended here.")
    waiting = _waiting(run)
    why = run.reason if run.status == "suspended" else None if waiting else IN_DOUBT
    exported: Json = {
        "continuation": _continuation(state, run, (), rules),
        "approval_info": [_approval(run, path, call) for path, call in waiting],
        "end_reason": "suspended" if why else "approval_required",
        "holdfast": {
            "version": VERSION,
            "conversation": place.conversation,
            "log": place.log,
            "seq": state.seq,
            "run": run.run,
            "agent": run.agent,
            "taken": taken,
            "digests": _digests(waiting),
            "events": place.events,
            "kept": place.kept,
            "key": key_of(secret),
        },
    }
    if why:
        exported["suspend_list"] = [why]
    exported["holdfast"]["signature"] = sign(exported, secret)
    return exported


def departure(state: State, run: str | None) -> RunMoved | None:
    """How a run has left that is to be taken, None where it is suspended here. Without a name: the newest run.

    Raises Rejected where there is nothing to take.
    """
    meant = run or next(reversed(state.runs), "")
    if state.run is not None and state.run.run == meant:
        if state.run.status not in SUSPENDED:
            raise Rejected("not_running", "No run is suspended here.")
        return None
    record = state.runs.get(meant)
    if record is None or record.moved is None or record.moved.through is None:
        raise Rejected("not_running", "No run is suspended here.")
    return record.moved


def is_kept_of(state: State, name: str) -> bool:
    """Whether a kept text was there when the log stood where `state` stands; its name begins with its run.

    Not of a later run, and not what a call that had been given up has left since.
    """
    late = {call_key(*given_up) for given_up in state.given_up}
    return name.partition("/")[0] in state.runs and name not in late


def _continuation(state: State, run: Run, path: Path, rules: Rules) -> Json:
    level = run.levels[path]
    pending = [call for call in level.batch.values() if not call.ended]
    unanswered = {call.call for call in pending}
    told = [message for message in messages(state, path, rules) if message.get("tool_call_id") not in unanswered]
    decided = [(call, state.decisions.get((run.run, path, call))) for call in level.batch]
    return {
        "messages": told,
        "resume_request": [_tool_call(state, run, path, call, rules) for call in pending],
        "processed": [{"id": call, "approved": how.decision == "approved"} for call, how in decided if how is not None],
    }


def _tool_call(state: State, run: Run, path: Path, call: OpenCall, rules: Rules) -> Json:
    told = _plain_call(call)
    inner = (*path, call.call)
    if inner in run.levels:
        told["continuation"] = _continuation(state, run, inner, rules)
    return told


def _plain_call(call: OpenCall) -> Json:
    return _tool_call_of(call.call, call.tool, call.asked)


def _tool_call_of(call: str, tool: str, asked: str) -> Json:
    return {"id": call, "type": "function", "function": {"name": tool, "arguments": asked}}


def _waiting(run: Run) -> list[tuple[Path, OpenCall]]:
    return [(path, call) for path, call in run.calls if call.approval is not None]


def _digests(waiting: list[tuple[Path, OpenCall]]) -> dict[str, str]:
    return {"/".join((*path, call.call)): call.approval.digest for path, call in waiting if call.approval is not None}


def _approval(run: Run, path: Path, call: OpenCall) -> Json:
    level: Level = run.levels[path]
    return {
        "paths": [*level.via, call.tool],
        "path_ids": [*path, call.call],
        "tool_call": _plain_call(call),
        "approved": None,
    }


def ended(state: State, record: RunRecord, rules: Rules) -> Json:
    """What came of a run that has ended, in the shape of the field: messages, and the result or what was rejected."""
    of_run = [place for place, item in enumerate(state.history) if item.run == record.run]
    history = state.history[: of_run[-1] + 1] if of_run else []
    levels: dict[Path, Level] = {(): Level(record.agent, history)}
    at_its_end = Run(record.run, record.agent, "", record.started_at, levels, held_since=0, slice_since=0)
    output: Json = {"messages": messages(replace(state, run=at_its_end), (), rules), "end_reason": record.status}
    if record.denied is not None:
        call = record.denied
        rejected = {**_tool_call_of(call.call, call.tool, call.asked), "path_ids": [*call.path, call.call]}
        return {**output, "rejected_tool_calls": [rejected], "end_reason": "rejected_tool_calls"}
    if record.error is not None:
        return {**output, "error": {"kind": record.error.kind, "message": record.error.message}}
    return output if record.result is None else {**output, "result": record.result}


# --- signed


def key_of(secret: bytes) -> str:
    """A name for a key that does not tell it."""
    return hashlib.sha256(b"holdfast key\n" + secret).hexdigest()[:16]


def sign(exported: Json, secret: bytes) -> str:
    """A signature over everything but the answers and itself."""
    return hmac.new(secret, canonical(_unanswered(exported)), hashlib.sha256).hexdigest()


def _unanswered(exported: Json) -> Json:
    infos = [{**info, "approved": None} for info in exported.get("approval_info", [])]
    ours = {name: value for name, value in exported["holdfast"].items() if name != "signature"}
    return {**exported, "approval_info": infos, "holdfast": ours}


def check(returned: Json, secret: bytes, *, force: bool) -> tuple[Ours, bool]:
    """What stands under `holdfast` in an object that came back, and whether our key has signed it. Raises Rejected for
    anything that is not what left.

    An object that was signed with a key which is not ours is taken only where `force` says that its server is gone.
    """
    ours, _ = parse(returned)
    genuine = is_genuine(returned, secret)
    if genuine or (force and ours.key != key_of(secret)):
        return ours, genuine
    raise Rejected("digest_mismatch", "The object was changed, or another server's key has signed it; nothing runs.")


def is_genuine(returned: Json, secret: bytes) -> bool:
    """Whether an object of the right shape is what left, the answers aside."""
    try:
        return hmac.compare_digest(returned["holdfast"]["signature"], sign(returned, secret))
    except (RecursionError, TypeError, ValueError):
        return False


def decisions(returned: Json) -> list[tuple[list[str], str, bool]]:
    """The answers in an object: path of call ids, digest, whether it is approved. What is null stays open.

    Raises Rejected no_such_approval for an answer to what was not asked.
    """
    ours, infos = parse(returned)
    found = []
    for info in infos:
        if info.approved is not None:
            if (digest := ours.digests.get("/".join(info.path_ids))) is None:
                raise Rejected("no_such_approval", "An answer names a call that asked for none.")
            found.append((info.path_ids, digest, info.approved))
    return found


def check_readable(returned: Json, state: State, rules: Rules) -> None:
    """Raises Rejected where what people read in an object is not what its log says. For one that nobody signed whom we
    know; what the model was told is left out, since it is of the agents here.
    """
    run = state.run
    if run is None:
        raise Rejected("not_running", "The object holds no suspended run.")
    waiting = _waiting(run)
    said = [_continuation(state, run, (), rules), [_approval(run, *one) for one in waiting], _digests(waiting)]
    unanswered = [{**info, "approved": None} for info in returned["approval_info"]]
    read = [returned["continuation"], unanswered, returned["holdfast"]["digests"]]
    if _without_messages(read) != _without_messages(said):
        raise Rejected("digest_mismatch", "The object does not say what its log says; nothing runs.")


def _without_messages(value: Any) -> Any:
    match value:
        case list():
            return [_without_messages(inner) for inner in value]
        case dict():
            return {name: _without_messages(inner) for name, inner in value.items() if name != "messages"}
    return value


def check_tools(state: State, rules: Rules) -> None:
    """Raises Rejected where a run needs an agent or a tool that is not here."""
    run = state.run
    if run is None:
        raise Rejected("not_running", "The object holds no suspended run.")
    if rules.agent(run.top) is None:
        raise Rejected("not_found", f"There is no agent {run.agent} here.")
    for path, call in run.calls:
        if rules.tool(run.levels[path], call.tool) is None:
            raise Rejected("not_found", f"There is no tool {call.tool} here.")
