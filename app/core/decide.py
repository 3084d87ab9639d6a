"""`decide(state, command) → events`: what may happen.

One door for people, programs and the runner. A client command that was accepted once is answered for ever with its
first seq; a refused one raises `Rejected` and leaves the state as it was; an accepted one leaves at least one event
that carries its id. The rules for a person's words and for the run's course are here, those for approvals and doubts
in permissions.py, for notes in notes.py, for what effects report in reports.py; what follows by itself in follow.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from app.core import commands as c
from app.core import events as e
from app.core.activate import activate
from app.core.bounds import CEILING_MAX, TEXT_BYTES_MAX, TITLE_CHARS_MAX
from app.core.catalogue import Rules
from app.core.commands import ClientCommand, Command, FromClient, Stamp
from app.core.endings import close, end_attempt, stop
from app.core.errors import Rejected
from app.core.events import Event
from app.core.follow import follow, is_interrupted
from app.core.ledger import Ledger
from app.core.notes import save_client_note
from app.core.permissions import approve, deny, revoke, settle
from app.core.reports import attempt_failed, noted, progressed, replied, streamed, tool_ended, tool_starting
from app.core.state import CEILINGS, Run, State
from app.core.summarising import summarised, summary_failed

DRAINING = "The server is going down; try again in a moment."


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of a command. `seq`: of its first event (for a repeated id: of the first time)."""

    events: list[Event]
    seq: int
    duplicate: bool = False


def decide(state: State, command: Command, stamp: Stamp, rules: Rules) -> Decision:
    """Decides one command, applies what it decides, and lets follow what follows. Raises Rejected."""
    if not isinstance(command, ClientCommand):
        ledger = Ledger(state, stamp, command.id if isinstance(command, c.Create) else None)
        _internal(ledger, command, rules)
        follow(ledger, replace(rules, admit=True) if isinstance(command, c.Admitted) else rules)
        return Decision(ledger.events, state.seq)
    if (seq := state.receipts.get(command.id)) is not None:
        return Decision([], seq, duplicate=True)
    ledger = Ledger(state, stamp, command.id)
    outcome = _client(ledger, command, rules)
    if not ledger.events:
        ledger.emit(e.CommandNoted(outcome=outcome or "nothing to do"))
    follow(ledger, rules)
    return Decision(ledger.events, ledger.events[0].seq)


def _client(ledger: Ledger, command: FromClient, rules: Rules) -> str | None:
    """Emits the events of a client's command, or returns why there are none."""
    match command:
        case c.Prompt():
            _prompt(ledger, command.id, command.text, rules)
        case c.Hint():
            _hint(ledger, command, rules)
        case c.Withdraw():
            _withdraw(ledger, command)
        case c.Approve():
            return approve(ledger, command, rules)
        case c.Deny():
            return deny(ledger, command, rules)
        case c.Settle():
            return settle(ledger, command)
        case c.Revoke():
            return revoke(ledger, command)
        case c.Cancel():
            return _cancel(ledger, command, rules)
        case c.Suspend():
            return _suspend(ledger, command)
        case c.Resume():
            _resume(ledger, command)
        case c.Rename():
            _rename(ledger, command)
        case c.Note():
            save_client_note(ledger, command)
        case _:
            assert_never(command)
    return None


def _internal(ledger: Ledger, command: c.Internal, rules: Rules) -> None:
    match command:
        case c.Create():
            _create(ledger, command, rules)
        case c.Activate():
            activate(ledger, command, rules)
        case c.Take():
            _take(ledger, command, rules)
        case c.Drain():
            ledger.emit(e.ActorDrained(epoch=ledger.state.epoch))
        case c.Streamed():
            streamed(ledger, command)
        case c.Replied():
            replied(ledger, command, rules)
        case c.Summarised():
            summarised(ledger, command, rules)
        case c.SummaryFailed():
            summary_failed(ledger, command, rules)
        case c.AttemptFailed():
            attempt_failed(ledger, command, rules)
        case c.ToolStarting():
            tool_starting(ledger, command, rules)
        case c.Progressed():
            progressed(ledger, command)
        case c.SaveNote():
            noted(ledger, command)
        case c.ToolEnded():
            tool_ended(ledger, command)
        case c.Flushed():
            if command.effect.epoch == ledger.state.epoch:
                ledger.emit(e.ArchiveFlushed(through=command.through))
        case c.Wake() | c.Admitted():
            pass
        case _:
            assert_never(command)


# --- a person's words


def _create(ledger: Ledger, command: c.Create, rules: Rules) -> None:
    check_title(command.title)
    if command.prompt is not None:
        check_text(command.prompt)
    if rules.draining:
        raise Rejected("draining", DRAINING)
    ledger.emit(e.ConversationCreated(agent=command.agent, title=command.title, owner=command.owner))
    if command.prompt is not None:
        _prompt(ledger, command.id or ledger.fresh_id(), command.prompt, rules)


def check_text(text: str) -> None:
    """Raises Rejected for a text that is empty or over its bound."""
    if not text.strip():
        raise Rejected("text_empty", "There is no text.")
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise Rejected("too_large", f"The text is longer than {TEXT_BYTES_MAX} bytes.")


def _waiting(ledger: Ledger, kind: str, rules: Rules) -> None:
    if sum(words.kind == kind for words in ledger.state.queue) >= rules.queue_max:
        raise Rejected("queue_full", f"{rules.queue_max} {kind}s wait already.")


def _prompt(ledger: Ledger, message: str, text: str, rules: Rules) -> None:
    """Idle: starts a run. Otherwise queued."""
    check_text(text)
    state, by = ledger.state, ledger.stamp.by
    if state.run is not None or state.queue:
        _waiting(ledger, "prompt", rules)
        ledger.emit(e.PromptQueued(message=message, text=text, author=by))
        return
    if rules.draining:
        raise Rejected("draining", DRAINING)
    run = ledger.fresh_id()
    ledger.emit(e.PromptGiven(run=run, message=message, text=text, author=by))
    ledger.emit(e.RunStarted(run=run, agent=state.agent, message=message))


def _hint(ledger: Ledger, command: c.Hint, rules: Rules) -> None:
    run, by = ledger.state.run, ledger.stamp.by
    if run is None or run.stop is not None:
        _prompt(ledger, command.id, command.text, rules)
        return
    check_text(command.text)
    _waiting(ledger, "hint", rules)
    ledger.emit(e.HintGiven(run=run.run, message=command.id, text=command.text, author=by, interrupt=command.interrupt))
    if run.status == "suspended" and run.reason in ("request", "turns"):
        ledger.emit(e.RunResumed(run=run.run, reason="hint", by=by))
    elif command.interrupt:
        _interrupt(ledger, run, rules)


def _interrupt(ledger: Ledger, run: Run, rules: Rules) -> None:
    """Cuts the model off, or skips what has not started once a running tool lets itself be stopped."""
    if run.top.asking:
        end_attempt(ledger, run, (), run.top, "hint", rules)
        return
    if not any(is_interrupted(run, path, call, rules) for path, call in run.calls):
        return
    for path, call in run.calls:
        if not path and call.started is None and not call.waits:
            error = e.Failure(kind="skipped", message="Not started: the person interrupted with a hint.")
            ledger.emit(e.ToolFailed(run=run.run, path=path, call=call.call, error=error))


def _withdraw(ledger: Ledger, command: c.Withdraw) -> None:
    state = ledger.state
    words = next((words for words in state.queue if words.message == command.target), None)
    if words is None:
        if command.target in state.delivered or any(words.message == command.target for words in state.carried):
            raise Rejected("already_delivered", "These words have been delivered.")
        raise Rejected("not_found", "No hint or queued prompt has this id.")
    if words.kind == "hint":
        ledger.emit(e.HintWithdrawn(run=state.run.run if state.run else None, message=words.message))
    else:
        ledger.emit(e.PromptWithdrawn(message=words.message))


# --- the run's course


def _active(ledger: Ledger, wanted: str | None) -> Run:
    run = ledger.state.run
    if run is None or (wanted is not None and wanted != run.run):
        raise Rejected("not_running", "This run is not the active one." if wanted else "No run is going on.")
    return run


def _cancel(ledger: Ledger, command: c.Cancel, rules: Rules) -> str | None:
    if command.run is None and ledger.state.run is None:
        return "no run is going on"
    run = _active(ledger, command.run)
    if run.stop is not None:
        return "the run is being stopped already"
    stop(ledger, run, ledger.stamp.by, None, rules)
    return None


def _suspend(ledger: Ledger, command: c.Suspend) -> str | None:
    run = _active(ledger, command.run)
    if run.status == "suspended" or run.stop is not None:
        raise Rejected("not_running", "The run is not running.")
    if run.suspend is not None:
        return "a suspension was requested already"
    ledger.emit(e.SuspensionRequested(run=run.run, by=ledger.stamp.by))
    return None


def _resume(ledger: Ledger, command: c.Resume) -> None:
    run = _active(ledger, command.run)
    if run.status != "suspended" or run.stop is not None:
        raise Rejected("not_running", "The run is not suspended.")
    ceilings = {of: given for of in CEILINGS if (given := getattr(command, of)) is not None}
    if not all(0 < ceiling <= CEILING_MAX for ceiling in ceilings.values()):
        raise Rejected("bad_command", f"A ceiling is a whole number from 1 to {CEILING_MAX}.")
    ledger.emit(e.RunResumed(run=run.run, reason="request", by=ledger.stamp.by, **ceilings))


def _take(ledger: Ledger, command: c.Take, rules: Rules) -> None:
    """Ends the run here, so that it can go on elsewhere: only from the very place that was exported."""
    run = _active(ledger, command.run)
    if run.status not in ("waiting", "suspended") or ledger.state.seq != command.seq:
        raise Rejected("not_running", "The run has gone on meanwhile; look again.")
    close(ledger, run, "moved", ledger.stamp.by or "holdfast", rules)
    ledger.emit(e.RunMoved(run=run.run, log=command.log, through=command.seq))


def _rename(ledger: Ledger, command: c.Rename) -> None:
    check_title(command.title)
    if not command.title.strip():
        raise Rejected("text_empty", "There is no title.")
    ledger.emit(e.ConversationRenamed(title=command.title))


def check_title(title: str) -> None:
    if len(title) > TITLE_CHARS_MAX:
        raise Rejected("too_large", f"The title is longer than {TITLE_CHARS_MAX} characters.")
