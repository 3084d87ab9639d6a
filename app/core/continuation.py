"""A suspended run as a value: taken out, inspected, decided, put back, here or on another server with the same agents.

The shape is the field's own (SEMANTICS.md §6); ours is what stands under `holdfast`: where the run belongs, the digests
of what is to be decided, the log itself, and a signature over all but the answers. The readable part is derived from
the log, and the log alone is what goes on: nothing done before is repeated, because everything done before is in it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from app.core.catalogue import Rules
from app.core.codec import canonical
from app.core.errors import Rejected
from app.core.events import Json, Path
from app.core.state import Level, OpenCall, Run, State
from app.core.transcript import messages

VERSION = 1


def export(
    state: State, conversation: str, log: str, texts: list[str], rules: Rules, secret: bytes, *, taken: bool
) -> Json:
    """The continuation of a suspended run. `texts`: its log up to now. Raises Rejected where nothing is suspended."""
    run = state.run
    if run is None or run.status not in ("waiting", "suspended"):
        raise Rejected("not_running", "No run is suspended here.")
    waiting = [(path, call) for path, call in run.calls if call.approval is not None]
    exported: Json = {
        "continuation": _continuation(state, run, (), rules),
        "approval_info": [_approval(run, path, call) for path, call in waiting],
        "end_reason": "approval_required" if run.status == "waiting" else "suspended",
        "holdfast": {
            "version": VERSION,
            "conversation": conversation,
            "log": log,
            "seq": state.seq,
            "run": run.run,
            "agent": run.agent,
            "taken": taken,
            "digests": {"/".join((*path, call.call)): _digest_of(call) for path, call in waiting},
            "events": texts,
            "key": key_of(secret),
        },
    }
    if run.status == "suspended":
        exported["suspend_list"] = [run.reason]
    exported["holdfast"]["signature"] = sign(exported, secret)
    return exported


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
    return {"id": call.call, "type": "function", "function": {"name": call.tool, "arguments": call.asked}}


def _digest_of(call: OpenCall) -> str:
    assert call.approval is not None
    return call.approval.digest


def _approval(run: Run, path: Path, call: OpenCall) -> Json:
    level: Level = run.levels[path]
    return {
        "paths": [*level.via, call.tool],
        "path_ids": [*path, call.call],
        "tool_call": _plain_call(call),
        "approved": None,
    }


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


def check(returned: Json, secret: bytes, *, force: bool) -> Json:
    """What stands under `holdfast` in an object that came back. Raises Rejected for anything that is not what left.

    An object that was signed with a key which is not ours is taken only where `force` says that its server is gone.
    """
    ours = returned.get("holdfast")
    if not isinstance(ours, dict) or not isinstance(returned.get("continuation"), dict):
        raise Rejected("bad_command", "This is no continuation of Holdfast: `holdfast` is missing.")
    if ours.get("version") != VERSION:
        raise Rejected("bad_command", f"This continuation is of version {ours.get('version')!r}; here is {VERSION}.")
    infos = returned.get("approval_info")
    if not isinstance(infos, list) or not all(isinstance(info, dict) and _answer(info) for info in infos):
        raise Rejected("bad_command", "`approval_info` is a list; `approved` in it is true, false or null.")
    try:
        genuine = hmac.compare_digest(str(ours.get("signature")), sign(returned, secret))
    except (TypeError, ValueError):
        genuine = False
    if genuine or (force and ours.get("key") != key_of(secret)):
        return ours
    raise Rejected("digest_mismatch", "The object was changed, or another server's key has signed it; nothing runs.")


def _answer(info: dict[str, Any]) -> bool:
    return info.get("approved") in (True, False, None) and isinstance(info.get("path_ids"), list)


def decisions(returned: Json) -> list[tuple[list[str], bool]]:
    """The answers in an object: path of call ids, and whether it is approved. What is null stays open."""
    infos = returned["approval_info"]
    return [(info["path_ids"], info["approved"]) for info in infos if info.get("approved") is not None]


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
