"""A person's decisions: approvals, doubts, and what is always allowed.

Each is `pending → decided`, once, by the owner; the first decision wins and is remembered, so that the second
one is told who decided what and when. An approval is bound to its run, its path of call ids and the digest of
its exact arguments.
"""

from __future__ import annotations

from app.core import commands as c
from app.core import events as e
from app.core.bounds import REASON_CHARS_MAX, RESULT_CHARS_MAX
from app.core.catalogue import Rules
from app.core.codec import to_json
from app.core.endings import denied
from app.core.errors import Rejected
from app.core.events import Failure, Json, Path
from app.core.ledger import Ledger
from app.core.state import CallId, Decided, OpenCall

NOT_THESE = "The arguments are not the ones that this decision is about."


def approve(ledger: Ledger, command: c.Approve, rules: Rules) -> str | None:
    """Edited arguments are a full replacement, validated before they are accepted."""
    where = _where(command.run, command.call)
    if decided := ledger.state.decisions.get(where):
        return _again(decided, "approved", command.arguments, command.digest)
    call, request = _open_approval(ledger, where, command.digest)
    if command.arguments is not None:
        _check_arguments(ledger, where[1], call.tool, command.arguments, rules)
    ledger.emit(
        e.ApprovalDecided(
            run=command.run,
            path=where[1],
            call=request.call,
            decision="approved",
            by=ledger.stamp.by,
            arguments=command.arguments,
            always=command.always,
        )
    )
    return None


def deny(ledger: Ledger, command: c.Deny, rules: Rules) -> str | None:
    where = run, path, _ = _where(command.run, command.call)
    if decided := ledger.state.decisions.get(where):
        return _again(decided, "denied", None, command.digest)
    if command.reason is not None and len(command.reason) > REASON_CHARS_MAX:
        raise Rejected("too_large", f"The reason is longer than {REASON_CHARS_MAX} characters.")
    _, request = _open_approval(ledger, where, command.digest)
    ledger.emit(
        e.ApprovalDecided(
            run=run, path=path, call=request.call, decision="denied", by=ledger.stamp.by, reason=command.reason
        )
    )
    told = f"The person denied this call: {command.reason}" if command.reason else "The person denied this call."
    active = ledger.state.run
    assert active is not None
    denied(ledger, active, path, request.call, told, rules)
    return None


def settle(ledger: Ledger, command: c.Settle) -> str | None:
    """A person says what became of a call that nobody else can know of."""
    where = run, path, id = _where(command.run, command.call)
    call = _open_call(ledger, where)
    if call is None or call.doubt is None:
        if decided := ledger.state.decisions.get(where):
            return _again(decided, command.outcome, None, None)
        raise Rejected("no_such_approval", "No open doubt has this run and call.")
    if command.result is not None and len(command.result) > RESULT_CHARS_MAX:
        raise Rejected("too_large", f"The result is longer than {RESULT_CHARS_MAX} characters.")
    by = ledger.stamp.by
    ledger.emit(e.DoubtSettled(run=run, path=path, call=id, outcome=command.outcome, by=by, result=command.result))
    if command.outcome == "done":
        told = command.result or "A person confirmed that this call was done."
        ledger.emit(e.ToolReturned(run=run, path=path, call=id, result=told, ms=0))
    elif command.outcome == "skip":
        error = Failure(kind="skipped", message="A person decided that this call is not repeated.")
        ledger.emit(e.ToolFailed(run=run, path=path, call=id, error=error))
    return None


def revoke(ledger: Ledger, command: c.Revoke) -> str | None:
    if not any(names[-1] == command.tool for names in ledger.state.always):
        return "this tool was not always allowed"
    ledger.emit(e.AlwaysRevoked(tool=command.tool, by=ledger.stamp.by))
    return None


def _where(run: str, calls: list[str]) -> CallId:
    if not calls:
        raise Rejected("bad_command", "`call` is the path of call ids and the call's own.")
    return run, tuple(calls[:-1]), calls[-1]


def _open_call(ledger: Ledger, where: CallId) -> OpenCall | None:
    run, path, call = where
    active = ledger.state.run
    if active is None or active.run != run or path not in active.levels:
        return None
    found = active.levels[path].batch.get(call)
    if found is None or found.ended:
        return None
    if active.stop is not None:
        raise Rejected("already_closed", "The run is being stopped.")
    return found


def _open_approval(ledger: Ledger, where: CallId, digest: str) -> tuple[OpenCall, e.ApprovalRequested]:
    call = _open_call(ledger, where)
    if call is None or call.approval is None:
        raise Rejected("no_such_approval", "No open approval has this run and call.")
    if call.approval.expires_at is not None and ledger.stamp.at >= call.approval.expires_at:
        raise Rejected("already_closed", "This approval is closed: expired.")
    if call.approval.digest != digest:
        raise Rejected("digest_mismatch", NOT_THESE)
    return call, call.approval


def _check_arguments(ledger: Ledger, path: Path, tool: str, arguments: Json, rules: Rules) -> None:
    active = ledger.state.run
    assert active is not None
    spec = rules.tool(active.levels[path], tool)
    wrong = spec.check(arguments) if spec else f"The tool {tool} is not here any more."
    if wrong is None and len(to_json(arguments)) > RESULT_CHARS_MAX:
        wrong = f"The arguments are longer than {RESULT_CHARS_MAX} characters."
    if wrong is not None:
        raise Rejected("bad_arguments", wrong)


def _again(decided: Decided, decision: str, arguments: Json | None, digest: str | None) -> str:
    """The same decision again is noted; another one learns who was first. `digest`: what it is said to be about."""
    if decided.decision in ("cancelled", "expired"):
        raise Rejected("already_closed", f"This approval is closed: {decided.decision}.")
    if digest is not None and decided.digest is not None and digest != decided.digest:
        raise Rejected("digest_mismatch", NOT_THESE)
    if decided.decision != decision or decided.arguments != arguments:
        first = {"decision": decided.decision, "by": decided.by, "at": decided.at}
        raise Rejected("already_decided", f"{decided.by} has decided already: {decided.decision}.", decision=first)
    return f"already {decision}"
