"""How things end: attempts, calls that get no result of their own, runs.

Whatever ends a run passes through `close`, in the append of its terminal event: every attempt has one end, every call
one result, every approval one decision, every waiting word a way back to the composer.
"""

from __future__ import annotations

from app.core import events as e
from app.core.catalogue import Rules
from app.core.codec import to_json
from app.core.events import Failure, Path
from app.core.ledger import Ledger
from app.core.state import Level, OpenCall, Run
from app.core.transcript import messages, tools
from app.core.usage import estimated, priced


def fail(ledger: Ledger, run: Run, failure: Failure, rules: Rules) -> bool:
    return stop(ledger, run, "holdfast", failure, rules)


def stop(ledger: Ledger, run: Run, by: str, failure: Failure | None, rules: Rules) -> bool:
    """Ends a run that is not done: failed, or cancelled where there is no `failure`.

    Where tools are at work, they are stopped first and have the grace time to confirm it; then this is called again.
    """
    if run.stop is None and any(call.runs for _, call in run.calls):
        ledger.emit(e.CancelRequested(run=run.run, by=by, error=failure))
    elif failure is not None:
        close(ledger, run, "failed", by, rules)
        ledger.emit(e.RunFailed(run=run.run, error=failure))
    else:
        close(ledger, run, "cancelled", by, rules)
        ledger.emit(e.RunCancelled(run=run.run, by=by))
    return True


def close(ledger: Ledger, run: Run, reason: str, by: str, rules: Rules) -> None:
    """Closes all that a run leaves open, in the append that ends it: every call gets its one result."""
    for path, level in run.inmost:
        if level.asking:
            end_attempt(ledger, run, path, level, "cancel", rules)
    for path, call in run.calls:
        if call.approval is not None:
            ledger.emit(e.ApprovalDecided(run=run.run, path=path, call=call.call, decision="cancelled", by=by))
        ledger.emit(given_up(run, path, call, rules))
    for words in list(ledger.state.queue):
        if run.stop is not None and words.seq > run.stop.seq:
            continue
        dropped = e.HintDropped if words.kind == "hint" else e.PromptDropped
        ledger.emit(dropped(run=run.run, message=words.message, reason=reason))


def denied(ledger: Ledger, run: Run, path: Path, call: str, told: str, rules: Rules) -> None:
    """A call that no person let run: told to the model at its level, or the end of the run, as its agent wants it."""
    failure = Failure(kind="denied", message=told)
    ledger.emit(e.ToolFailed(run=run.run, path=path, call=call, error=failure))
    agent = rules.agent(run.levels[path])
    if agent is not None and agent.end_on_denial:
        fail(ledger, run, failure, rules)


def given_up(run: Run, path: Path, call: OpenCall, rules: Rules) -> e.ToolFailed:
    """The result of a call that gets no other: never started, harmless, or nobody knows."""
    spec = rules.tool(run.levels[path], call.tool)
    if call.started is None or call.agent is not None or (spec is not None and spec.rerun == "safe"):
        error = Failure(kind="cancelled", message="The call was cancelled.")
    else:
        error = Failure(
            kind="in_doubt",
            message="The call was started and given up. It may or may not have happened: verify before repeating it.",
        )
    return e.ToolFailed(run=run.run, path=path, call=call.call, error=error)


def end_attempt(
    ledger: Ledger,
    run: Run,
    path: Path,
    level: Level,
    reason: str,
    rules: Rules,
    error: Failure | None = None,
    retry_at: int | None = None,
) -> None:
    """Ends an attempt without a reply: interrupted if something had been streamed, failed if nothing had.

    What was streamed had to be paid for, and no provider says how much that was: it is estimated.
    """
    text, reasoning = "".join(level.text), "".join(level.reasoning)
    common = {"run": run.run, "path": path, "step": level.step, "attempt": level.attempt, "retry_at": retry_at}
    if text or reasoning:
        asked = len(to_json(messages(ledger.state, path, rules))) + len(to_json(tools(ledger.state, path, rules)))
        usage = priced(estimated(asked, len(text) + len(reasoning)), level.model, rules)
        said = {"text": text, "reasoning": reasoning or None, "usage": usage}
        ledger.emit(e.ModelInterrupted(**common, **said, reason=reason, error=error))  # type: ignore[arg-type]
    else:
        error = error or Failure(kind=reason, message=_ENDED_BY[reason])
        ledger.emit(e.ModelFailed(**common, error=error))  # type: ignore[arg-type]


_ENDED_BY = {
    "cancel": "The run was stopped before the first word.",
    "hint": "A hint interrupted the model before the first word.",
    "crash": "The process ended before the first word.",
}
