"""What effects report: text, replies, failures, notes, results.

A report of an effect that the state no longer knows is dropped, with one exception: what a call that had been given up
turned out to have done is kept as `tool.settled`.
"""

from __future__ import annotations

from app.core import commands as c
from app.core import events as e
from app.core.bounds import (
    CALL_CHARS_MAX,
    RESULT_CHARS_MAX,
    RETRY_AFTER_MS_MAX,
    RETRY_DELAY_MS_MAX,
    RETRY_FIRST_MS,
    RETRY_FLOOR_MS,
)
from app.core.calls import parse_arguments, shown_arguments
from app.core.catalogue import Rules
from app.core.codec import digest
from app.core.effects import ModelCall, ToolCall
from app.core.endings import end_attempt, fail
from app.core.errors import Rejected
from app.core.events import Call, Failure, Path, Usage
from app.core.ledger import Ledger
from app.core.notes import save_tool_note
from app.core.servers import has_changed, server_of
from app.core.state import Level, OpenCall, Run
from app.core.usage import estimated, priced

NO_TEXT = "(no text)"
"""The result of a tool that returned an empty one: strict providers take no empty message."""

FAULTS_OF_A_REQUEST = ("bad_request", "refused", "not_found")
"""Any other failure that is not worth a retry (no key, no credit) is that of every request of the run."""

# --- the model


def _open_attempt(ledger: Ledger, effect: ModelCall) -> tuple[Run, Level] | None:
    state, run = ledger.state, ledger.state.run
    if run is None or run.run != effect.run or run.stop is not None or state.epoch != effect.epoch:
        return None
    level = run.levels.get(effect.path)
    if level is None or not level.asking or (level.step, level.attempt) != (effect.step, effect.attempt):
        return None
    return run, level


def streamed(ledger: Ledger, command: c.Streamed) -> None:
    effect = command.effect
    found = _open_attempt(ledger, effect)
    if found is None:
        return
    run, level = found
    place = {"run": run.run, "path": effect.path, "step": effect.step, "attempt": effect.attempt}
    if command.reasoning:
        ledger.emit(
            e.ReasoningStreamed(**place, offset=level.reasoning_length, text=command.reasoning)  # type: ignore[arg-type]
        )
    if command.text:
        ledger.emit(e.TextStreamed(**place, offset=level.text_length, text=command.text))  # type: ignore[arg-type]


def replied(ledger: Ledger, command: c.Replied, rules: Rules) -> None:
    effect = command.effect
    found = _open_attempt(ledger, effect)
    if found is None:
        return
    run, level = found
    calls = _named(command.calls, level.ids, ledger)
    ledger.emit(
        e.ModelReplied(
            run=run.run,
            path=effect.path,
            step=effect.step,
            attempt=effect.attempt,
            message=ledger.fresh_id(),
            text=command.text,
            reasoning=command.reasoning or None,
            calls=[_cut(call) for call in calls],
            finish=command.finish,
            usage=_usage(command, level.model, rules),
        )
    )
    cut_off = command.finish in ("length", "limit")
    for call in calls:
        _ask(ledger, run, effect.path, level, call, rules, cut_off=cut_off)


def _named(calls: list[Call], taken: set[str], ledger: Ledger) -> list[Call]:
    """The provider's call ids, made unique where they are missing or repeat within the run and path.

    A slash would make paths of ids ambiguous wherever they are joined; the model gets back the id without it.
    """
    named, seen = [], set(taken)
    for call in calls:
        id = call.call[:CALL_CHARS_MAX].replace("/", "_") or f"call_{ledger.fresh_id()}"
        while id in seen:
            id = f"{id[:32]}_{ledger.fresh_id()}"
        seen.add(id)
        named.append(Call(call=id, tool=call.tool, arguments=call.arguments, kept=call.kept))
    return named


def _cut(call: Call) -> Call:
    if len(call.arguments) <= RESULT_CHARS_MAX:
        return call
    cut = call.arguments[:RESULT_CHARS_MAX]
    return Call(call=call.call, tool=call.tool, arguments=cut, truncated=True, kept=call.kept)


def _usage(command: c.Replied, model: str, rules: Rules) -> Usage:
    said = len(command.text) + len(command.reasoning) + sum(len(call.arguments) for call in command.calls)
    return priced(command.usage or estimated(command.asked, said), model, rules)


def _ask(ledger: Ledger, run: Run, path: Path, level: Level, call: Call, rules: Rules, *, cut_off: bool) -> None:
    """Checks one call; what cannot run goes back to the model at once, what needs a person is requested.

    Of a reply that was cut off, no text of arguments may be half of one; any other half is no JSON.
    """
    spec = rules.tool(level, call.tool)
    failure: Failure | None = None
    arguments: e.Json = {}
    if spec is None:
        failure = Failure(kind="unknown_tool", message=f"There is no tool {call.tool[:100]!r}.")
    elif cut_off and not call.arguments.strip():
        failure = Failure(kind="bad_arguments", message="The reply was cut off before the arguments of this call.")
    elif spec.agent is not None and len(call.arguments) > RESULT_CHARS_MAX:
        failure = Failure(kind="bad_arguments", message=f"Its `prompt` has at most {RESULT_CHARS_MAX} characters.")
    else:
        try:
            arguments = parse_arguments(call.arguments)
            wrong = spec.check(arguments)
        except ValueError as error:
            wrong = str(error)
        if wrong is not None:
            failure = Failure(kind="bad_arguments", message=wrong[:2000])
    if failure is not None:
        ledger.emit(e.ToolFailed(run=run.run, path=path, call=call.call, error=failure))
        return
    assert spec is not None
    changed = has_changed(ledger.state, level, call.tool)
    allowed = (*level.via, call.tool) in ledger.state.always or not spec.needs_approval(arguments)
    if allowed and not changed:
        return
    expires = None if spec.expires_in is None else ledger.stamp.at + int(spec.expires_in * 1000)
    ledger.emit(
        e.ApprovalRequested(
            run=run.run,
            path=path,
            call=call.call,
            tool=call.tool,
            arguments=shown_arguments(level.batch[call.call]),
            digest=digest(call.tool, arguments),
            truncated=level.batch[call.call].kept is not None,
            summary=_summary(level, call.tool, changed=changed),
            expires_at=expires,
            changed=changed,
        )
    )


def _summary(level: Level, tool: str, *, changed: bool) -> str | None:
    """What the card says of a server's tool, in our own words alone."""
    server = server_of(level, tool)
    if server is None:
        return None
    told = f"This tool comes from the server “{server}”."
    return f"{told} Its definition is not the one that this conversation knew." if changed else told


def attempt_failed(ledger: Ledger, command: c.AttemptFailed, rules: Rules) -> None:
    effect = command.effect
    found = _open_attempt(ledger, effect)
    if found is None:
        return
    run, level = found
    failure = Failure(kind=command.kind, message=command.message)
    reason = "stall" if command.kind == "stall" else "upstream"
    if not command.retryable:
        end_attempt(ledger, run, effect.path, level, reason, rules, failure)
        if command.kind != "context":  # too long: the next boundary compacts
            _fail(ledger, run, effect.path, level, failure, rules)
        return
    at = ledger.stamp.at
    retry_at = at + delay(level.attempt, command.retry_after, ledger.stamp.chance)
    since = level.trouble_since if level.trouble_since is not None else at
    end_attempt(ledger, run, effect.path, level, reason, rules, failure, retry_at)
    if retry_at - since > rules.retry_ms and alone(run, level):
        ledger.emit(e.RunSuspended(run=run.run, reason="retry", until=at + rules.retry_ms))


def _fail(ledger: Ledger, run: Run, path: Path, level: Level, failure: Failure, rules: Rules) -> None:
    """A sub-agent is a tool: where its own request was refused its call fails, and who called it can act on that."""
    if not path or failure.kind not in FAULTS_OF_A_REQUEST:
        fail(ledger, run, failure, rules)
        return
    error = Failure(kind="error", message=failure.message)
    ms = ledger.stamp.at - level.opened_at
    ledger.emit(e.ToolFailed(run=run.run, path=path[:-1], call=path[-1], error=error, ms=ms))


def alone(run: Run, level: Level) -> bool:
    """Whether nothing else of the run is at work: a suspension would cut it off."""
    others = [other for other in run.levels.values() if other is not level]
    return not any(other.busy or other.retry_at for other in others) and not any(call.runs for _, call in run.calls)


def delay(attempt: int, retry_after: float | None, chance: float) -> int:
    """ms until the next try: what the provider said, else exponential back-off with full jitter."""
    if retry_after is not None:
        return min(max(int(retry_after * 1000), RETRY_FLOOR_MS), RETRY_AFTER_MS_MAX)
    ceiling = min(RETRY_DELAY_MS_MAX, RETRY_FIRST_MS * 2 ** min(attempt - 1, 10))
    return max(RETRY_FLOOR_MS, int(chance * ceiling))


# --- tools


def _open_call(ledger: Ledger, effect: ToolCall) -> OpenCall | None:
    state, run = ledger.state, ledger.state.run
    if run is None or run.run != effect.run or state.epoch != effect.epoch or effect.path not in run.levels:
        return None
    call = run.levels[effect.path].batch.get(effect.call)
    return call if call is not None and not call.ended and call.tries == effect.tries else None


def tool_starting(ledger: Ledger, command: c.ToolStarting, rules: Rules) -> None:
    """Records the start right before the call. Nothing is recorded for a repeated safe one, or one not wanted now."""
    effect = command.effect
    call, run = _open_call(ledger, effect), ledger.state.run
    if call is None or call.waits or call.started is not None or run is None or run.stop or rules.draining:
        return
    ledger.emit(
        e.ToolStarted(
            run=run.run,
            path=effect.path,
            call=call.call,
            tool=call.tool,
            arguments=shown_arguments(call),
            truncated=call.kept is not None,
        )
    )


def progressed(ledger: Ledger, command: c.Progressed) -> None:
    effect = command.effect
    call, run = _open_call(ledger, effect), ledger.state.run
    if call is None or run is None or run.stop is not None or not call.runs:
        return
    ledger.emit(
        e.ToolProgressed(run=run.run, path=effect.path, call=call.call, text=command.text, fraction=command.fraction)
    )


def noted(ledger: Ledger, command: c.SaveNote) -> None:
    """Raises Rejected: its tool is told that nothing was saved."""
    call = _open_call(ledger, command.effect)
    if call is None or not call.runs:
        raise Rejected("not_running", "The call is over; its note was not saved.")
    save_tool_note(ledger, command)


def tool_ended(ledger: Ledger, command: c.ToolEnded) -> None:
    effect = command.effect
    call, run = _open_call(ledger, effect), ledger.state.run
    if call is None or run is None:
        _settled(ledger, command)
    elif command.error is not None:
        ledger.emit(e.ToolFailed(run=run.run, path=effect.path, call=call.call, error=command.error, ms=command.ms))
    else:
        ledger.emit(
            e.ToolReturned(
                run=run.run,
                path=effect.path,
                call=call.call,
                result=command.result or NO_TEXT,
                ms=command.ms,
                truncated=command.truncated,
            )
        )


def _settled(ledger: Ledger, command: c.ToolEnded) -> None:
    effect = command.effect
    if (effect.run, effect.path, effect.call) not in ledger.state.given_up:
        return
    ledger.emit(
        e.ToolSettled(path=effect.path, call=effect.call, of=effect.run, result=command.result, error=command.error)
    )
