"""Continuations in and out: a suspended run leaves as an object, comes back decided, or goes on here.

An object that comes back to the run it left decides that run; one of another server becomes a conversation here, with
the log that it carries. Returning the same object again finds the ids that it used before, so nothing happens twice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from app.actor.directory import Created, Directory
from app.actor.load import load
from app.actor.records import pack
from app.core import commands as c
from app.core.apply import fold
from app.core.bounds import CONTINUATION_BYTES_MAX
from app.core.catalogue import Rules
from app.core.codec import clean, decode, encode, to_json
from app.core.continuation import (
    IN_DOUBT,
    Place,
    check,
    check_readable,
    check_tools,
    decisions,
    departure,
    ended,
    export,
    is_kept_of,
)
from app.core.continuation_value import Ours, parse
from app.core.errors import Corrupt, Rejected
from app.core.events import ArchiveFlushed, ConversationCreated, Event, Json, RunMoved, owner_of
from app.core.rebuild import CONTRADICTIONS
from app.core.state import State
from app.store.event_log import EventLog, Page, walk

TRIES_MAX = 20
"""How often it is tried again because the conversation went on meanwhile: the archive is flushed, a title changes."""

PAGE_BYTES = 1_048_576

ENDED_ON_THE_WAY = ("already_closed", "not_running")
"""An approval has expired, a suspension has ended by itself, while the object was nowhere: the run goes on without."""


@dataclass(frozen=True, slots=True)
class Moving:
    """`secret` signs what leaves, and is asked of what comes back. `shared`: somebody gave it to this server and to
    those that it exchanges runs with, so that `force` has no other key to trust.
    """

    directory: Directory
    log: EventLog
    rules: Rules
    secret: bytes
    shared: bool = False

    async def export(self, conversation: str) -> Json:
        """The continuation of a suspended run, as a copy.

        Raises Rejected not_running, or too_large for a log over CONTINUATION_BYTES_MAX; KeyError, Unavailable.
        """
        head = await self.log.head(conversation)
        if head.deleted:
            raise KeyError(conversation)
        return await self._exported(conversation, head.log, head.head, taken=False)

    async def output(self, conversation: str, run: str) -> Json:
        """What came of a run, in the shape of the field: its continuation, or what it has ended with.

        Raises Rejected not_running for one that is still at work, not_found, and as `export`.
        """

        def ended_with(state: State) -> Json | str | None:
            if (record := state.runs.get(run)) is None:
                return None
            if record.finished_at is None:
                return record.status
            return ended(state, record, self.rules) if not state.context.forgotten else "forgotten"

        found: Json | str | None = await self.directory.ask(conversation, ended_with)
        if found == "forgotten":  # its messages are all in the log
            _, state = await load(self.log, conversation, whole=True)
            found = ended_with(state)
        match found:
            case None:
                raise Rejected("not_found", "There is no such run.")
            case "running":
                raise Rejected("not_running", "The run is still at work.")
            case str():
                return await self.export(conversation)
        return found

    async def take(self, conversation: str, by: str, run: str | None = None) -> Json:
        """Ends the run here and gives what goes on elsewhere; again, for whoever has lost it. Raises as `export`."""

        def whereabouts(state: State) -> RunMoved | Rejected | None:
            try:
                return departure(state, run)
            except Rejected as refusal:
                return refusal

        for _ in range(TRIES_MAX):
            head = await self.log.head(conversation)
            found: RunMoved | Rejected | None = await self.directory.ask(conversation, whereabouts)
            if isinstance(found, Rejected):
                raise found
            if found is not None:
                return await self._taken_before(conversation, head.log, found)
            try:
                exported = await self._exported(conversation, head.log, head.head, taken=True)
                ours = exported["holdfast"]
                await self.directory.submit(conversation, c.Take(ours["run"], ours["seq"], ours["log"]), by)
            except Rejected as refusal:
                if refusal.code != "not_running":
                    raise
            else:
                return exported
        raise Rejected("not_running", "The conversation does not stand still.")

    async def _taken_before(self, conversation: str, log: str, moved: RunMoved) -> Json:
        """The object with which a run has left; only from the log that it left, and unless it has come back since."""
        if moved.log != log or await self.log.find_run(moved.run or "") != conversation:
            raise Rejected("not_running", "This run was taken before, and it is no longer this conversation's to give.")
        return await self._exported(conversation, log, moved.through or 0, taken=True)

    async def put_back(self, returned: Json, by: str, *, force: bool) -> Created:
        """Decides the run that an object belongs to, or goes on with it here; the same object again changes nothing.

        Raises Rejected: bad_command, digest_mismatch, not_running (gone on elsewhere; not taken), not_found,
        no_such_approval, and what a decision is refused with. What is refused before its log is here leaves no trace.
        """
        ours, genuine = check(returned, self.secret, force=force and not self.shared)
        said = decisions(returned)
        if not genuine and await self.log.find_run(ours.run) is not None:
            raise Rejected("digest_mismatch", "This server knows the run, and it has not signed this object.")
        if await self._is_ours(ours):
            record = await self.directory.ask(ours.conversation, lambda state: state.runs.get(ours.run))
            if record is None or record.status == "moved":
                raise Rejected("not_running", "This run was taken: it goes on elsewhere.")
            return await self._decide(ours.conversation, returned, said, by)
        if not ours.taken and not force:
            raise Rejected("not_running", "This run was not taken from its server; `force` says that that is gone.")
        founded = await self._found(returned, by, genuine)
        decided = await self._decide(founded.conversation, returned, said, by, arrived=True)
        return Created(founded.conversation, ours.run, duplicate=founded.duplicate and decided.duplicate)

    async def _is_ours(self, ours: Ours) -> bool:
        """Whether the object left this server. The run's newest conversation does not tell: it may have come back."""
        try:
            return (await self.log.head(ours.conversation)).log == ours.log
        except KeyError:
            return False

    async def _found(self, returned: Json, by: str, genuine: bool) -> Created:
        """A conversation with the log that an object carries. `genuine`: our key says that nothing was changed."""
        ours, _ = parse(returned)
        try:
            events, texts = _arrived(ours.events, by)
            state = fold(events)
        except (Corrupt, *CONTRADICTIONS):
            raise Rejected("bad_command", "The log in this object makes no sense.") from None
        if state.run is None or state.run.run != ours.run:
            raise Rejected("not_running", "The object does not hold the suspended run that it names.")
        check_tools(state, self.rules)
        if not genuine:
            check_readable(returned, state, self.rules)
        kept = tuple((clean(ref), clean(text)) for ref, text in ours.kept.items())
        creation = "continuation-" + _digest(ours.run, ours.log)
        rows = pack(events, texts).rows
        known = [run for run in state.runs if run != ours.run and await self._is_known(run, state.runs[run].status)]
        return await self.directory.found(
            state, rows, owner=by, creation=creation, claimed=False, elsewhere=tuple(known), kept=kept
        )

    async def _is_known(self, run: str, arriving: str) -> bool:
        """Whether this server knows what came of a run, or as much as the log that arrives."""

        def status(state: State) -> str | None:
            return state.runs[run].status if run in state.runs else None

        home = await self.log.find_run(run)
        try:
            known = None if home is None else await self.directory.ask(home, status)
        except (KeyError, Corrupt):  # deleted, damaged
            return False
        return known is not None and (known != "moved" or arriving == "moved")

    async def _decide(
        self, conversation: str, returned: Json, said: list[tuple[list[str], str, bool]], by: str, arrived: bool = False
    ) -> Created:
        """Decisions are independent: one that is refused keeps no other one back. Raises the first refusal.

        `arrived`: the run goes on here now, so what has ended on the way is no reason to refuse the object.
        """
        ours, _ = parse(returned)
        commands: list[c.FromClient] = []
        for path, digest, approved in said:
            id = "continuation-" + _digest(ours.run, ours.signature, *path, str(approved))
            kind = c.Approve if approved else c.Deny
            commands.append(kind(id=id, run=ours.run, call=path, digest=digest))
        if returned.get("end_reason") == "suspended" and returned.get("suspend_list") != [IN_DOUBT]:
            commands.append(c.Resume(id="continuation-" + _digest(ours.run, ours.signature), run=ours.run))
        duplicate = True
        refusals: list[Rejected] = []
        for command in commands:
            try:
                answer = await self.directory.submit(conversation, command, by)
                duplicate = duplicate and answer.duplicate
            except Rejected as refusal:
                if not arrived or refusal.code not in ENDED_ON_THE_WAY:
                    refusals.append(refusal)
        if refusals:
            raise refusals[0]
        return Created(conversation, ours.run, duplicate=duplicate)

    async def _exported(self, conversation: str, log: str, through: int, *, taken: bool) -> Json:
        """The continuation of the log up to `through`, whatever came after it. Raises Rejected as `export`."""
        state, texts = State(), list[str]()
        size = 0
        async for page in walk(self.log, conversation, 0, through, PAGE_BYTES):
            lasting = _lasting(page, through)
            try:
                fold((event for event, _ in lasting), state)
            except CONTRADICTIONS as error:
                raise Corrupt(f"{conversation}: the log contradicts itself after {page.after}: {error!r}") from error
            texts += [text for _, text in lasting]
            _check_size(size := size + sum(len(text) for _, text in lasting))
        state.seq = through
        kept: dict[str, str] = {}
        for ref in await self.log.kept_refs(conversation):
            if is_kept_of(state, ref):
                kept[ref] = await self.log.kept(conversation, ref) or ""
                _check_size(size := size + len(kept[ref]))
        exported = export(state, Place(conversation, log, texts, kept), self.rules, self.secret, taken=taken)
        _check_size(len(to_json(exported).encode()))
        return exported


def _lasting(page: Page, through: int) -> list[tuple[Event, str]]:
    """The events of a page up to `through`. Pieces are left out: once superseded, nobody could say what they were."""
    events = [(decode(text), text) for seq, text in zip(page.seqs, page.texts, strict=True) if seq <= through]
    return [(event, text) for event, text in events if owner_of(event) is None]


def _check_size(size: int) -> None:
    if size > CONTINUATION_BYTES_MAX:
        raise Rejected(
            "too_large", f"The continuation of this run is longer than {CONTINUATION_BYTES_MAX:,} bytes; it stays here."
        )


def _arrived(sent: list[str], owner: str) -> tuple[list[Event], list[str]]:
    """A log as it goes on here. What was archived there is not archived here, and its owner is who put it back; all
    else stays as it was written, what this version does not know included. Raises ValueError where it is no log."""
    events: list[Event] = []
    texts: list[str] = []
    seq = 0
    for text in sent:
        event = decode(text)
        if event.seq <= seq or isinstance(event, ConversationCreated) == bool(events):
            raise ValueError("these are not the events of one log, in order")
        seq = event.seq
        if isinstance(event, ConversationCreated) and event.owner != owner:
            event.owner = owner
            text = encode(event)
        if not isinstance(event, ArchiveFlushed):
            events.append(event)
            texts.append(text.replace("\n", " "))  # between tokens only: inside a string JSON has no line feed
    return events, texts


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]
