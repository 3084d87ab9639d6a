"""Deliberate faults: each breaks one rule of the product, by patching, in tests only.

A fault that no check notices is a hole in the checks. What catches each is in README.md beside this file. Patches are
undone with their `pytest.MonkeyPatch`; the product itself has no switch and no hook for any of this.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec
import pytest

from app.actor import actor, directory, mailbox, moving, pages, reading, tool_effect
from app.actor import feed as feeds
from app.actor import load as loading
from app.actor.actor import Actor
from app.actor.feed import Feed
from app.actor.flush import due
from app.actor.load import load
from app.actor.mailbox import Letter, Mailbox
from app.actor.moving import Moving
from app.actor.records import Batch, pack
from app.actor.runner import Runner
from app.actor.tool_effect import ToolWork
from app.core import activate as activation
from app.core import apply as applying
from app.core import apply_level as levels
from app.core import (
    budget,
    compaction,
    context,
    endings,
    follow,
    notes,
    permissions,
    plan,
    reports,
    request,
    summarising,
    transcript,
    window,
)
from app.core import commands as c
from app.core import decide as deciding
from app.core import events as e
from app.core.continuation_value import parse
from app.core.decide import Decision, decide
from app.core.effects import ArchiveFlush, Effect, ToolCall
from app.core.reading import find
from app.core.snapshot import joined, parts
from app.core.state import Words
from app.store import log_memory
from app.store.event_log import Append, Row, Unavailable
from app.store.rows import page
from app.wire.frames import live_frame
from app.wire.reader import Behind, Reader, Tail
from tests.simulation.world import Twists

T = TypeVar("T")
PURE = -1
Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mutation:
    """`fault`: what is wrong. `says`: a pattern of what the check says that catches it. `seed`: a world that does.

    `twists`: where the seed's own are not enough. PURE as a seed: the pure floor notices, in random worlds of its own.
    """

    fault: str
    says: str
    seed: int
    switch: Callable[[Patch], None]
    twists: Twists | None = None

    @property
    def name(self) -> str:
        return self.switch.__name__.removeprefix("_")


# --- the gate: commit, then tell


def _publishes_before_the_append(patch: Patch) -> None:
    append = Actor._append

    async def hasty(self: Actor, events: list[e.Event]) -> None:
        batch = pack(events)
        self.feed.publish(batch.records, batch.superseded, self._state.seq)
        await append(self, events)

    def quiet(self: Actor, batch: Batch, item: Any) -> None:
        if item is not None:
            self._item = item

    patch.setattr(Actor, "_append", hasty)
    patch.setattr(Actor, "_publish", quiet)


def _acknowledges_before_the_commit(patch: Patch) -> None:
    original = Actor._decide

    def hasty(self: Actor, letter: Letter) -> Any:
        outcome = original(self, letter)
        if outcome is not None and not letter.answer.done():
            letter.answer.set_result(outcome)
        return outcome

    patch.setattr(Actor, "_decide", hasty)


def _answers_questions_before_the_commit(patch: Patch) -> None:
    original = Actor._decide

    def hasty(self: Actor, letter: Letter) -> Any:
        outcome = original(self, letter)
        if callable(letter.content) and not letter.answer.done():
            letter.answer.set_result(letter.content(self._state))
        return outcome

    patch.setattr(Actor, "_decide", hasty)


def _appends_again_at_a_new_place(patch: Patch) -> None:
    """An append in doubt is not repeated byte for byte but put after whatever the log holds now."""

    async def moved(attempt: Callable[[], Awaitable[T]], on_failure: Callable[[], None] | None = None) -> T:
        while True:
            try:
                return await attempt()
            except Unavailable:
                if on_failure is not None:
                    on_failure()
            await asyncio.sleep(0.05)
            cells = dict(zip(attempt.__code__.co_freevars, attempt.__closure__ or (), strict=True))
            wanted: Append = cells["append"].cell_contents
            around = cells["self"].cell_contents._around
            try:
                head = (await around.log.head(wanted.conversation)).head
            except Unavailable:
                continue
            if shift := head - wanted.after:
                cells["self"].cell_contents._state.seq += shift
                cells["append"].cell_contents = replace(
                    wanted, after=head, rows=tuple(_shifted(row, shift) for row in wanted.rows)
                )

    patch.setattr(actor, "until_stored", moved)


def _shifted(row: Row, shift: int) -> Row:
    seqs = tuple(seq + shift for seq in row.seqs)
    texts = tuple(
        text.replace(f'"seq":{seq},', f'"seq":{seq + shift},', 1) for seq, text in zip(row.seqs, row.texts, strict=True)
    )
    return Row(row.through + shift, seqs, texts, row.owner)


def _forgets_reports_while_the_store_is_down(patch: Patch) -> None:
    def careless(self: Mailbox) -> None:
        self._trouble.add(self)
        self._waiting.clear()

    patch.setattr(mailbox.Mailbox, "get_stuck", careless)


def _lets_an_older_owner_write(patch: Patch) -> None:
    """Epoch and expected seq are forgotten: whoever comes is appended."""
    patch.setattr(log_memory, "fence", lambda append, epoch, head: True)


def _flushes_what_is_not_committed(patch: Patch) -> None:
    effect = Runner._effect

    def late(self: Runner, wanted: Effect, state: Any) -> Any:
        if not isinstance(wanted, ArchiveFlush):
            return effect(self, wanted, state)

        async def flush() -> None:
            seq = state.seq
            for _ in range(100):
                if state.seq != seq:
                    break
                await asyncio.sleep(0.01)
            await self._archive_flush(wanted, due(self._conversation, state))

        return flush

    patch.setattr(Runner, "_effect", late)


# --- readers


def _joins_after_its_snapshot_and_skips_the_gap(patch: Patch) -> None:
    def skipping(self: Reader, tail: Tail) -> str | Behind | None:
        if not self.live and self.cursor >= self._standing.head:
            self.live, self.cursor = True, tail.head
            return live_frame(self.cursor)
        return pull(self, tail)

    pull = Reader.pull
    patch.setattr(Reader, "pull", skipping)


def _says_a_through_that_is_too_large(patch: Patch) -> None:
    frame = Feed.frame

    def too_far(self: Feed, after: int) -> tuple[int, str] | None:
        built = frame(self, after)
        if built is None or built[0] == self.head:
            return built
        return self.head, built[1].replace(f'"through":{built[0]},', f'"through":{self.head},', 1)

    patch.setattr(Feed, "frame", too_far)


def _keeps_superseded_pieces_in_the_feed(patch: Patch) -> None:
    publish = Feed.publish

    def keeping(self: Feed, records: Any, superseded: frozenset[str], head: int) -> None:
        publish(self, records, frozenset(), head)

    patch.setattr(Feed, "publish", keeping)


def _keeps_old_pages(patch: Patch) -> None:
    patch.setattr(pages.Pages, "clear", lambda self: None)


def _trims_one_record_too_many(patch: Patch) -> None:
    """The feed lets go of more than its floor says."""
    trim = Feed._trim

    def greedy(self: Feed) -> None:
        floor = self.floor
        trim(self)
        if self.floor != floor and len(self._records) > 1:
            del self._records[0], self._seqs[0]

    patch.setattr(feeds.Feed, "_trim", greedy)


def _takes_a_cursor_of_another_log(patch: Patch) -> None:
    start = Reader.__init__

    def trusting(self: Reader, standing: Any, after: int, log: str | None) -> None:
        start(self, standing, min(after, standing.head), standing.log)

    patch.setattr(Reader, "__init__", trusting)


def _shares_a_frame_between_cursors(patch: Patch) -> None:
    """A frame once built is given to whoever asks, wherever he stands."""

    def shared(self: Feed, after: int) -> tuple[int, str] | None:
        if after < self.head and self._frames:
            through, text = next(iter(self._frames.values()))
            return through, text
        return frame(self, after)

    frame = Feed.frame
    patch.setattr(Feed, "frame", shared)


# --- pieces


def _prunes_too_early(patch: Patch) -> None:
    """Every lasting append takes the pieces of whatever streams right now with it."""
    streaming: set[str] = set()

    def early(events: list[e.Event]) -> Batch:
        batch = pack(events)
        pieces = {record.owner for record in batch.records if record.owner is not None}
        streaming.update(pieces)
        pruned = frozenset(streaming - pieces) if batch.lasting else frozenset()
        return replace(batch, superseded=batch.superseded | pruned)

    patch.setattr(actor, "pack", early)


def _adds_the_next_attempt_to_the_last(patch: Patch) -> None:
    """A new attempt goes on with the text of the one that was cut off."""
    start = levels._step_started

    def going_on(state: Any, run: Any, level: Any, event: e.StepStarted) -> None:
        kept = (level.text, level.text_length)
        start(state, run, level, event)
        if event.attempt > 1:
            level.text, level.text_length = kept

    patch.setattr(levels, "_step_started", going_on)


# --- commands


def _forgets_receipts_at_a_restart(patch: Patch) -> None:
    async def forgetful(*arguments: Any) -> Any:
        log, state = await load(*arguments)
        state.receipts.clear()
        return log, state

    patch.setattr(directory, "load", forgetful)


def _counts_a_repeated_command_as_new(patch: Patch) -> None:
    def forgetful(*arguments: Any) -> Decision:
        return replace(decide(*arguments), duplicate=False)

    patch.setattr(actor, "decide", forgetful)


# --- tools


def _starts_a_tool_before_its_record(patch: Patch) -> None:
    start = ToolWork.__init__

    def hasty(self: ToolWork, effect: Any, conversation: str, submit: Any, around: Any) -> None:
        def post(command: Any) -> Any:
            answer = submit(command)
            if not isinstance(command, c.ToolStarting):
                return answer
            now: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            now.set_result(None)
            return now

        start(self, effect, conversation, post, around)

    patch.setattr(tool_effect.ToolWork, "__init__", hasty)


def _repeats_what_may_never_be_repeated(patch: Patch) -> None:
    """At activation `never` is taken for `safe`."""
    left = activation._left_running

    def careless(ledger: Any, run: Any, path: Any, call: Any, died_here: bool, rules: Any) -> None:
        spec = rules.tool(run.levels[path], call.tool)
        if spec is None or spec.rerun != "never":
            left(ledger, run, path, call, died_here, rules)

    patch.setattr(activation, "_left_running", careless)


def _repeats_what_a_person_was_asked_about(patch: Patch) -> None:
    """At activation `ask` is taken for `safe`."""
    left = activation._left_running

    def careless(ledger: Any, run: Any, path: Any, call: Any, died_here: bool, rules: Any) -> None:
        spec = rules.tool(run.levels[path], call.tool)
        if spec is None or spec.rerun != "ask":
            left(ledger, run, path, call, died_here, rules)

    patch.setattr(activation, "_left_running", careless)


def _runs_what_nobody_approved(patch: Patch) -> None:
    """The plan does not look whether a call waits."""
    of_run = plan._of_run

    def careless(epoch: int, run: Any, rules: Any) -> list[Effect]:
        wanted = of_run(epoch, run, rules)
        if run.stop is None and run.status != "suspended":
            for path, call in run.calls:
                if call.approval is not None:
                    wanted.append(ToolCall(epoch, run.run, path, call.call, call.tries))
        return wanted

    patch.setattr(plan, "_of_run", careless)


# --- hints, stops, crashes


def _drops_a_hint_at_the_end_of_a_run(patch: Patch) -> None:
    boundary = follow._boundary

    def forgetful(ledger: Any, run: Any, *rest: Any) -> bool:
        if run.top.reply is not None and not run.top.reply.calls:
            for words in [words for words in ledger.state.queue if words.kind == "hint"]:
                ledger.state.queue.remove(words)
        return boundary(ledger, run, *rest)

    patch.setattr(follow, "_boundary", forgetful)


def _leaves_calls_open_at_a_stop(patch: Patch) -> None:
    close = endings.close

    def careless(ledger: Any, run: Any, reason: str, by: str, rules: Any) -> None:
        if reason != "cancelled":
            close(ledger, run, reason, by, rules)
            return
        for path, level in run.levels.items():
            if level.asking:
                endings.end_attempt(ledger, run, path, level, "cancel", rules)

    patch.setattr(endings, "close", careless)
    patch.setattr(deciding, "close", careless)


def _goes_on_after_a_stop(patch: Patch) -> None:
    """The plan still wants the effects of a run that is being stopped."""

    def deaf(epoch: int, run: Any, rules: Any) -> list[Effect]:
        stop, run.stop = run.stop, None
        try:
            return of_run(epoch, run, rules)
        finally:
            run.stop = stop

    of_run = plan._of_run
    patch.setattr(plan, "_of_run", deaf)


def _takes_a_drain_for_a_crash(patch: Patch) -> None:
    activated = applying._activated

    def suspicious(state: Any, event: e.ActorActivated) -> None:
        state.drained = False
        activated(state, event)

    patch.setattr(applying, "_activated", suspicious)


def _tells_the_model_nothing_of_cancelled_calls(patch: Patch) -> None:
    messages = transcript.messages

    def silent(state: Any, path: Any, rules: Any) -> list[e.Json]:
        told = messages(state, path, rules)
        return [message for message in told if "cancelled" not in (message.get("content") or "")]

    patch.setattr(request, "messages", silent)


def _takes_a_cut_reply_for_an_answer(patch: Patch) -> None:
    def trusting(ledger: Any, command: c.AttemptFailed, rules: Any) -> None:
        found = reports._open_attempt(ledger, command.effect)
        if command.kind != "cut" or found is None or not found[1].text:
            failed(ledger, command, rules)
            return
        text = "".join(found[1].text)
        reports.replied(ledger, c.Replied(command.effect, text, "", [], "stop", None, 10), rules)

    failed = reports.attempt_failed
    patch.setattr(deciding, "attempt_failed", trusting)


def _picks_nobody_up_at_a_start(patch: Patch) -> None:
    async def lazy(self: Any, conversation: str) -> None:
        pass

    patch.setattr(directory.Directory, "_settled", lazy)


def _says_that_a_page_is_the_last(patch: Patch) -> None:
    """A page of the log says that it goes to the head where it was cut."""

    def too_far(after: int, bytes_max: int, head: int, rows: Any) -> Any:
        return replace(page(after, bytes_max, head, rows), through=max(after, head))

    patch.setattr(log_memory, "page", too_far)


def _takes_reports_of_an_older_epoch(patch: Patch) -> None:
    """A late report names its attempt or call, and nobody looks at its epoch."""

    def trusting(ledger: Any, effect: Any) -> Any:
        return open_attempt(ledger, replace(effect, epoch=ledger.state.epoch))

    def trusting_too(ledger: Any, effect: Any) -> Any:
        return open_call(ledger, replace(effect, epoch=ledger.state.epoch))

    open_attempt, open_call = reports._open_attempt, reports._open_call
    patch.setattr(reports, "_open_attempt", trusting)
    patch.setattr(reports, "_open_call", trusting_too)


# --- levels, suspensions, objects


def _gives_each_level_a_budget_of_its_own(patch: Patch) -> None:
    reached = budget.reached

    def own(run: Any, level: Any, rules: Any, at: int) -> Any:
        steps, run.steps = run.steps, level.step
        try:
            return reached(run, level, rules, at)
        finally:
            run.steps = steps

    patch.setattr(follow, "reached", own)
    patch.setattr(plan, "reached", own)


def _finds_an_approval_by_its_call_id_alone(patch: Patch) -> None:
    """The path is forgotten: the first open approval of that id, at whatever level, is decided."""

    def anywhere(ledger: Any, command: Any) -> Any:
        run = ledger.state.run
        for path, call in run.calls if run is not None else []:
            if call.call == command.call[-1] and call.approval is not None:
                return msgspec.structs.replace(command, call=[*path, call.call], digest=call.approval.digest)
        return command

    approve, deny = permissions.approve, permissions.deny
    patch.setattr(deciding, "approve", lambda ledger, command, rules: approve(ledger, anywhere(ledger, command), rules))
    patch.setattr(deciding, "deny", lambda ledger, command, rules: deny(ledger, anywhere(ledger, command), rules))


def _lets_one_denial_decide_all(patch: Patch) -> None:
    """Of nested approvals the last decision counts for every one."""

    def for_all(ledger: Any, command: c.Deny, rules: Any) -> str | None:
        outcome = deny(ledger, command, rules)
        run = ledger.state.run
        for path, call in run.calls if run is not None else []:
            if call.approval is not None:
                ledger.emit(
                    e.ApprovalDecided(run=run.run, path=path, call=call.call, decision="denied", by=ledger.stamp.by)
                )
                endings.denied(ledger, run, path, call.call, "The person denied this call.", rules)
                break
        return outcome

    deny = permissions.deny
    patch.setattr(deciding, "deny", for_all)


def _opens_a_level_that_nobody_approved(patch: Patch) -> None:
    def careless(ledger: Any, run: Any, path: Any, level: Any, rules: Any) -> bool:
        waiting = [(call, call.approval) for call in level.open_calls if call.approval is not None]
        for call, _ in waiting:
            call.approval = None
        try:
            return open_sub_agent(ledger, run, path, level, rules)
        finally:
            for call, approval in waiting:
                call.approval = approval

    open_sub_agent = follow._open_sub_agent
    patch.setattr(follow, "_open_sub_agent", careless)


def _tells_the_caller_all_that_its_sub_agent_said(patch: Patch) -> None:
    """The history of a level leaks into the one above it."""

    def leaking(state: Any, run: Any, level: Any, event: Any) -> None:
        inner = run.levels.get((*event.path, event.call))
        call_over(state, run, level, event)
        said = [item for item in inner.history if isinstance(item, e.ModelReplied)] if inner is not None else []
        level.history += [item for item in said if item.text and not item.calls]

    call_over = levels._call_over
    patch.setattr(levels, "_call_over", leaking)


def _closes_the_top_level_only(patch: Patch) -> None:
    """A stop forgets what sub-agents have open."""

    def shallow(ledger: Any, run: Any, *rest: Any) -> None:
        run.levels = {(): run.top}
        close(ledger, run, *rest)

    close = endings.close
    patch.setattr(endings, "close", shallow)
    patch.setattr(deciding, "close", shallow)


def _takes_reports_of_an_older_epoch_inside(patch: Patch) -> None:
    """At the top the epoch is looked at, inside it is not."""

    def trusting(ledger: Any, effect: Any) -> Any:
        return open_attempt(ledger, replace(effect, epoch=ledger.state.epoch) if effect.path else effect)

    def trusting_too(ledger: Any, effect: Any) -> Any:
        return open_call(ledger, replace(effect, epoch=ledger.state.epoch) if effect.path else effect)

    open_attempt, open_call = reports._open_attempt, reports._open_call
    patch.setattr(reports, "_open_attempt", trusting)
    patch.setattr(reports, "_open_call", trusting_too)


def _slices_in_the_middle_of_a_batch(patch: Patch) -> None:
    def hasty(ledger: Any, command: c.ToolEnded) -> None:
        ended(ledger, command)
        run = ledger.state.run
        if run is not None and run.status == "running" and run.calls and ledger.stamp.at - run.slice_since >= 2_000:
            ledger.emit(e.RunSliced(run=run.run))

    ended = reports.tool_ended
    patch.setattr(deciding, "tool_ended", hasty)


def _wakes_by_a_hint_whatever_it_was_suspended_for(patch: Patch) -> None:
    def eager(ledger: Any, command: c.Hint, rules: Any) -> None:
        hint(ledger, command, rules)
        run = ledger.state.run
        if run is not None and run.status == "suspended":
            ledger.emit(e.RunResumed(run=run.run, reason="hint", by=ledger.stamp.by))

    hint = deciding._hint
    patch.setattr(deciding, "_hint", eager)


def _goes_on_with_a_suspended_run(patch: Patch) -> None:
    """A suspension is written, and the next step is taken all the same."""
    boundary = follow._boundary

    def restless(ledger: Any, run: Any, path: Any, level: Any, rules: Any) -> bool:
        went_on = boundary(ledger, run, path, level, rules)
        if went_on and run.status == "suspended":
            ledger.emit(
                e.StepStarted(run=run.run, path=path, step=level.step + 1, attempt=1, model=rules.model),
            )
        return went_on

    patch.setattr(follow, "_boundary", restless)


def _takes_a_run_and_keeps_it(patch: Patch) -> None:
    """What was taken can still go on here."""

    async def copying(self: Moving, conversation: str, by: str) -> Any:
        head = await self.log.head(conversation)
        return await self._exported(conversation, head.log, head.head, taken=True)

    patch.setattr(Moving, "take", copying)


def _counts_a_returned_object_as_new(patch: Patch) -> None:
    numbers = itertools.count()
    digest = moving._digest
    patch.setattr(moving, "_digest", lambda *parts: digest(*parts, str(next(numbers))))


def _believes_an_object_that_was_changed(patch: Patch) -> None:
    patch.setattr(moving, "check", lambda returned, secret, force: (parse(returned)[0], True))


# --- the window, notes


def _gives_hints_before_it_compacts(patch: Patch) -> None:
    def hasty(place: Any, now: Any, model: str) -> Any:
        if now.percent >= compaction.SUMMARY_FROM:
            for words in window.waiting(place.ledger.state, place.path):
                place.ledger.emit(e.HintApplied(run=place.run.run, message=words.message, step=place.level.step + 1))
        return compact(place, now, model)

    compact = compaction.compact
    patch.setattr(follow, "compact", hasty)


def _forgets_the_hints_that_wait(patch: Patch) -> None:
    """What a request will hold is measured without them."""
    patch.setattr(window, "waiting", lambda state, path: [])


def _summarises_without_the_words_that_leave(patch: Patch) -> None:
    """Messages of the person that will no longer stand beside the summary are not in it either."""

    def careless(level: Any, started: Any, chars: int) -> list[str]:
        return [line for line in lines(level, started, chars) if not line.startswith("person:")]

    lines = summarising._lines
    patch.setattr(summarising, "_lines", careless)


def _keeps_the_oldest_words(patch: Patch) -> None:
    """Of the person's messages the first ones stay, and not the newest."""

    def oldest(history: Any, told: Any) -> list[Words]:
        return [item for item in history if isinstance(item, Words) and item.told <= told.through][: told.words]

    patch.setattr(context, "kept_words", oldest)


def _cuts_between_a_call_and_its_result(patch: Patch) -> None:
    patch.setattr(compaction, "_FOLLOWS", ())


def _gives_a_summary_to_the_caller(patch: Patch) -> None:
    """What a sub-agent's history was condensed to is told at the top."""
    compacted = levels._compacted

    def leaking(state: Any, run: Any, level: Any, event: Any) -> None:
        compacted(state, run, level, event)
        if event.path and event.kind != "references":
            run.top.context.through = max(run.top.context.through, context.entered(run.top.history[0]))
            run.top.context.summary = event.summary

    patch.setattr(levels, "_compacted", leaking)


def _never_gives_up_on_what_is_too_long(patch: Patch) -> None:
    patch.setattr(compaction, "HARDER_MAX", 1_000)


def _takes_an_empty_summary(patch: Patch) -> None:
    def trusting(ledger: Any, command: c.Summarised, rules: Any) -> None:
        summarised(ledger, replace(command, text=command.text if command.text.strip() else "nothing"), rules)

    summarised = summarising.summarised
    patch.setattr(deciding, "summarised", trusting)


def _takes_a_summary_of_an_older_epoch(patch: Patch) -> None:
    def trusting(ledger: Any, effect: Any, rules: Any) -> Any:
        return open_summary(ledger, replace(effect, epoch=ledger.state.epoch), rules)

    open_summary = summarising._open_summary
    patch.setattr(summarising, "_open_summary", trusting)


def _reads_back_what_is_shown_anyway(patch: Patch) -> None:
    """Behind a reference is the text with the gap in it, and not the original."""

    def shown(history: Any, ref: str) -> Any:
        item = find(history, ref)
        if not isinstance(item, e.ToolReturned):
            return item
        return msgspec.structs.replace(item, result=context.excerpt(item.result, compaction.EXCERPT_CHARS_MIN, ref))

    patch.setattr(reading, "find", shown)


def _loses_notes_at_a_compaction(patch: Patch) -> None:
    system = transcript._system

    def forgetful(state: Any, level: Any, agent: Any) -> Any:
        kept, state.notes = state.notes, [] if level.context.through else state.notes
        try:
            return system(state, level, agent)
        finally:
            state.notes = kept

    patch.setattr(transcript, "_system", forgetful)


def _saves_a_note_again_when_its_call_is_repeated(patch: Patch) -> None:
    note_id = notes.note_id
    patch.setattr(notes, "note_id", lambda effect, number: f"{note_id(effect, number)}.{effect.epoch}")


def _says_that_a_note_is_saved_before_it_is(patch: Patch) -> None:
    """The answer of a tool's note does not wait for the commit."""
    original = Actor._decide

    def hasty(self: Actor, letter: Letter) -> Any:
        outcome = original(self, letter)
        if isinstance(letter.content, c.SaveNote) and not letter.answer.done():
            letter.answer.set_result(outcome)
        return outcome

    patch.setattr(Actor, "_decide", hasty)


# --- snapshots


def _believes_a_snapshot_of_another_log(patch: Patch) -> None:
    """Of which incarnation it is, and whether that log goes so far, is not looked at."""
    patch.setattr(loading, "believed", lambda snapshot, head: snapshot.stamp == loading.STAMP)


def _says_that_a_snapshot_is_newer_than_it_is(patch: Patch) -> None:
    """The state of the time before lies beside the log as if it went as far as the log does now."""
    before: dict[str, bytes] = {}

    def lagging(state: Any) -> Any:
        older = [joined(None, part) for part in [before.get(state.owner)] if part is not None]
        before[state.owner] = next(iter(parts(state)))
        return parts(state) if not older else parts(replace(older[0], seq=state.seq))

    patch.setattr(loading, "parts", lagging)


RESTLESS = Twists(drain=1.0, pause=1.0, drain_seconds=0.2, crashes_max=3)
OFTEN_PUT_BACK = Twists(old_disk=0.5, snapshots=5)
TWO_OWNERS = Twists(overlap=0.4, pause=1.0, feed_bytes=500)
KEPT = Twists(pause=4.0, snapshots=5)

MUTATIONS = [
    Mutation("readers see an event before it is durable", "P1: .* not durable", 5, _publishes_before_the_append),
    Mutation("a command is acknowledged before its commit", "P3|P6", 3, _acknowledges_before_the_commit),
    Mutation("`attached` tells of what is not durable", "P1: .* told", 6, _answers_questions_before_the_commit),
    Mutation("an append in doubt goes to a new place", "P4: .* never saw", 9, _appends_again_at_a_new_place),
    Mutation("reports are lost while the store is down", "P5", 89, _forgets_reports_while_the_store_is_down),
    Mutation("the log takes the appends of an older owner", "P2", 1, _lets_an_older_owner_write),
    Mutation("a report of an older epoch is believed", "older epoch", PURE, _takes_reports_of_an_older_epoch),
    Mutation(
        "the archive gets what is not committed", "effect of .* failed|archive", 5, _flushes_what_is_not_committed
    ),
    Mutation("a reader joins after its snapshot", "P4", 1, _joins_after_its_snapshot_and_skips_the_gap),
    Mutation("a frame's `through` goes too far", "P4", 1, _says_a_through_that_is_too_large),
    Mutation("a page's `through` goes too far", "P4", 29, _says_that_a_page_is_the_last),
    Mutation("the feed shows superseded pieces", "§3.3", 0, _keeps_superseded_pieces_in_the_feed),
    Mutation("a cached page shows superseded pieces", "§3.3", 232, _keeps_old_pages),
    Mutation("the feed trims below its floor", "P4", 9, _trims_one_record_too_many),
    Mutation("a frame is shared between cursors", r"\d+ after \d+", 1, _shares_a_frame_between_cursors),
    Mutation("a cursor of another log is taken for ours", "attached|P4", 31, _takes_a_cursor_of_another_log),
    Mutation("pieces are pruned before their attempt ended", "does not follow|was shown", 4, _prunes_too_early),
    Mutation("an attempt goes on with the last one's text", "does not follow", 0, _adds_the_next_attempt_to_the_last),
    Mutation("accepted ids are forgotten at a restart", "P3", 1, _forgets_receipts_at_a_restart),
    Mutation("a repeated command counts as new", "P3", 0, _counts_a_repeated_command_as_new),
    Mutation("a tool begins before its record", "P6: .* before", 3, _starts_a_tool_before_its_record),
    Mutation("`never` is taken for `safe`", "P6: {", 3, _repeats_what_may_never_be_repeated),
    Mutation("`ask` is taken for `safe`", "P6: .* nobody said so", 106, _repeats_what_a_person_was_asked_about),
    Mutation("a call runs that waits for a person", "P6", 0, _runs_what_nobody_approved),
    Mutation("a hint is lost at the end of a run", "hint has one end", 8, _drops_a_hint_at_the_end_of_a_run),
    Mutation("a stop leaves calls open", "one result", 0, _leaves_calls_open_at_a_stop),
    Mutation("a stopping run goes on", "P6|P7", 757, _goes_on_after_a_stop),
    Mutation("a drain counts as a crash", "no loop", 20, _takes_a_drain_for_a_crash, RESTLESS),
    Mutation(
        "cancelled calls have no result in the transcript", "strict", 0, _tells_the_model_nothing_of_cancelled_calls
    ),
    Mutation("a cut reply counts as an answer", "no model has finished", 16, _takes_a_cut_reply_for_an_answer),
    Mutation("a start picks up nothing", "P5: ready", 1, _picks_nobody_up_at_a_start),
    Mutation("each level has a budget of its own", "P8: .* steps of all", 74, _gives_each_level_a_budget_of_its_own),
    Mutation("an approval is found by its call id alone", "approve|deny", 397, _finds_an_approval_by_its_call_id_alone),
    Mutation("one denial decides every approval", "nobody said so", 41, _lets_one_denial_decide_all),
    Mutation("a level opens that nobody approved", "nobody approved", 12, _opens_a_level_that_nobody_approved),
    Mutation("a sub-agent's history leaks", "§5: level .* told", 4, _tells_the_caller_all_that_its_sub_agent_said),
    Mutation("a stop closes the top level only", "one result", 4, _closes_the_top_level_only),
    Mutation(
        "a report of an older epoch is believed inside", "older epoch", PURE, _takes_reports_of_an_older_epoch_inside
    ),
    Mutation("a slice ends in the middle of a batch", "§6: sliced", 1, _slices_in_the_middle_of_a_batch),
    Mutation(
        "a hint wakes what a budget has suspended", "for .*by hint", 16, _wakes_by_a_hint_whatever_it_was_suspended_for
    ),
    Mutation("a suspended run goes on", "while the run is suspended", 2, _goes_on_with_a_suspended_run),
    Mutation("a taken run is kept", "taken run|P6", 9, _takes_a_run_and_keeps_it),
    Mutation("a returned object counts as new", "put back twice|two places", 4, _counts_a_returned_object_as_new),
    Mutation("a changed object is believed", "changed object", 13, _believes_an_object_that_was_changed),
    Mutation("hints are given before a compaction", "§3: a hint was given", 5, _gives_hints_before_it_compacts),
    Mutation("hints that wait are not measured", "§7: over the window|P5", 52, _forgets_the_hints_that_wait),
    Mutation("words leave without a summary", "§7: words are lost", 5, _summarises_without_the_words_that_leave),
    Mutation("the oldest words are kept", "§7: words are lost", 1, _keeps_the_oldest_words),
    Mutation(
        "calls are parted from their results", "actor of .* failed|parted", 1, _cuts_between_a_call_and_its_result
    ),
    Mutation("a sub-agent's summary leaks", "§5|§7", 607, _gives_a_summary_to_the_caller, TWO_OWNERS),
    Mutation("what is too long is tried for ever", "§7: too long for ever", 96, _never_gives_up_on_what_is_too_long),
    Mutation("an empty summary is taken", "§7: no model has written", 1, _takes_an_empty_summary),
    Mutation("a summary of an older epoch is believed", "older epoch", PURE, _takes_a_summary_of_an_older_epoch),
    Mutation("no original is read back", "§7: .* is not", 140, _reads_back_what_is_shown_anyway),
    Mutation("notes are lost at a compaction", "§8: the notes of", 4, _loses_notes_at_a_compaction),
    Mutation(
        "a repeated call saves a note again", "§8: notes are there", 121, _saves_a_note_again_when_its_call_is_repeated
    ),
    Mutation(
        "a snapshot of another log is believed",
        "P5: ready|snapshot says",
        1,
        _believes_a_snapshot_of_another_log,
        OFTEN_PUT_BACK,
    ),
    Mutation(
        "a snapshot is older than it says",
        "snapshot says|P5",
        0,
        _says_that_a_snapshot_is_newer_than_it_is,
        KEPT,
    ),
    Mutation("a note is saved before its commit", "§8: .* not durable", 29, _says_that_a_note_is_saved_before_it_is),
]
