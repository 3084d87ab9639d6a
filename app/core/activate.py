"""What a new owner finds (SEMANTICS.md §1, §2): it closes what the older epoch left open, and that is all.

After that its way is everybody's way: follow.py says what is due, plan.py what should be running. There is no other
recovery.
"""

from __future__ import annotations

from app.core import commands as c
from app.core import events as e
from app.core.calls import shown_arguments
from app.core.catalogue import Rules
from app.core.codec import digest
from app.core.endings import end_attempt, fail
from app.core.events import Failure, Path
from app.core.ledger import Ledger
from app.core.state import OpenCall, Run


def activate(ledger: Ledger, command: c.Activate, rules: Rules) -> None:
    """Closes what the older epoch left open (SEMANTICS.md §1, §2)."""
    ledger.emit(e.ActorActivated(epoch=command.epoch, claim=ledger.fresh_id()))
    run = ledger.state.run
    if run is None:
        return
    died_here = run.crashes >= rules.crashes_max
    died_asking = died_here and any(level.busy for level in run.levels.values()) and run.stop is None
    for path, level in run.levels.items():
        if level.asking:
            end_attempt(ledger, run, path, level, "crash", rules)
    for path, call in run.calls:
        if call.runs and run.stop is None:
            _left_running(ledger, run, path, call, died_here, rules)
    if died_asking:
        message = f"The process died {run.crashes} times in this step."
        fail(ledger, run, Failure(kind="crash_loop", message=message), rules)


def _left_running(ledger: Ledger, run: Run, path: Path, call: OpenCall, died_here: bool, rules: Rules) -> None:
    """A call that was started and has no result: run again, asked about, or in doubt, as its tool declares."""
    spec = rules.tool(run.levels[path], call.tool)
    rerun = spec.rerun if spec is not None else "never"
    if died_here and rerun == "safe":
        error = Failure(kind="error", message=f"The process died {run.crashes} times in this call.")
    elif rerun == "safe":
        return
    elif rerun == "ask":
        arguments = shown_arguments(call)
        ledger.emit(
            e.DoubtRaised(
                run=run.run,
                path=path,
                call=call.call,
                tool=call.tool,
                arguments=arguments,
                digest=digest(call.tool, arguments),
                truncated=call.kept is not None,
            )
        )
        return
    else:
        error = Failure(
            kind="in_doubt",
            message="The process ended during this call. It may or may not have happened: verify before repeating it.",
        )
    ledger.emit(e.ToolFailed(run=run.run, path=path, call=call.call, error=error))
