"""Continuations in and out: a suspended run leaves as an object, comes back decided, or goes on here.

An object that comes back to the run it left decides that run; one of another server becomes a conversation here, with
the log that it carries. Returning the same object again finds the ids that it used before, so nothing happens twice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from app.actor.directory import Created, Directory
from app.actor.records import pack
from app.core import commands as c
from app.core.apply import fold
from app.core.bounds import CONTINUATION_BYTES_MAX
from app.core.catalogue import Rules
from app.core.codec import clean, decode, encode, to_json
from app.core.continuation import (
    Place,
    check,
    check_readable,
    check_tools,
    decisions,
    ended,
    export,
    is_genuine,
)
from app.core.continuation_value import Ours, parse
from app.core.errors import Corrupt, Rejected
from app.core.events import ArchiveFlushed, ConversationCreated, Event, Json
from app.core.rebuild import CONTRADICTIONS
from app.core.state import State
from app.store.event_log import EventLog

TRIES_MAX = 20
"""How often it is tried again because the conversation went on meanwhile: the archive is flushed, a title changes."""

PAGE_BYTES = 1_048_576

ENDED_ON_THE_WAY = ("already_closed", "not_running")
"""An approval has expired, a suspension has ended by itself, while the object was nowhere: the run goes on without."""


@dataclass(frozen=True, slots=True)
class Moving:
    """`secret` signs what leaves, and is asked of what comes back."""

    directory: Directory
    log: EventLog
    rules: Rules
    secret: bytes

    async def export(self, conversation: str, *, taken: bool = False) -> Json:
        """The continuation of a suspended run, as a copy.

        Raises Rejected not_running, or too_large for a log over CONTINUATION_BYTES_MAX; KeyError, Unavailable.
        """
        for _ in range(TRIES_MAX):
            through, place = await self._place(conversation)

            def exported(state: State, through: int = through, place: Place = place) -> Json | Rejected | None:
                if state.seq != through:
                    return None
                try:
                    return export(state, place, self.rules, self.secret, taken=taken)
                except Rejected as refusal:
                    return refusal

            found: Json | Rejected | None = await self.directory.ask(conversation, exported)
            if isinstance(found, Rejected):
                raise found
            if found is not None:
                _check_size(len(to_json(found).encode()))
                return found
        raise _restless()

    async def output(self, conversation: str, run: str) -> Json:
        """What came of a run, in the shape of the field: its continuation, or what it has ended with.

        Raises Rejected not_running for one that is still at work, not_found, and as `export`.
        """

        def ended_with(state: State) -> Json | str | None:
            if (record := state.runs.get(run)) is None:
                return None
            return record.status if record.finished_at is None else ended(state, record, self.rules)

        found: Json | str | None = await self.directory.ask(conversation, ended_with)
        match found:
            case None:
                raise Rejected("not_found", "There is no such run.")
            case "running":
                raise Rejected("not_running", "The run is still at work.")
            case str():
                return await self.export(conversation)
        return found

    async def take(self, conversation: str, by: str) -> Json:
        """Ends the run here and gives what goes on elsewhere. Raises as `export`."""
        for _ in range(TRIES_MAX):
            exported = await self.export(conversation, taken=True)
            ours = exported["holdfast"]
            try:
                await self.directory.submit(conversation, c.Take(ours["run"], ours["seq"]), by)
            except Rejected as refusal:
                if refusal.code != "not_running":
                    raise
            else:
                return exported
        raise _restless()

    async def put_back(self, returned: Json, by: str, *, force: bool) -> Created:
        """Decides the run that an object belongs to, or goes on with it here; the same object again changes nothing.

        Raises Rejected: bad_command, digest_mismatch, not_running (gone on elsewhere; not taken), not_found,
        no_such_approval, and what a decision is refused with. What is refused before its log is here leaves no trace.
        """
        ours = check(returned, self.secret, force=force)
        said = decisions(returned)
        if await self._is_ours(ours):
            record = await self.directory.ask(ours.conversation, lambda state: state.runs.get(ours.run))
            if record is None or record.status == "moved":
                raise Rejected("not_running", "This run was taken: it goes on elsewhere.")
            return await self._decide(ours.conversation, returned, said, by)
        if not ours.taken and not force:
            raise Rejected("not_running", "This run was not taken from its server; `force` says that that is gone.")
        founded = await self._found(returned, by)
        decided = await self._decide(founded.conversation, returned, said, by, arrived=True)
        return Created(founded.conversation, ours.run, duplicate=founded.duplicate and decided.duplicate)

    async def _is_ours(self, ours: Ours) -> bool:
        """Whether the object left this server. The run's newest conversation does not tell: it may have come back."""
        try:
            return (await self.log.head(ours.conversation)).log == ours.log
        except KeyError:
            return False

    async def _found(self, returned: Json, by: str) -> Created:
        """A conversation with the log that an object carries."""
        ours, _ = parse(returned)
        try:
            events, texts = _arrived(ours.events, by)
            state = fold(events)
        except (Corrupt, *CONTRADICTIONS):
            raise Rejected("bad_command", "The log in this object makes no sense.") from None
        if state.run is None or state.run.run != ours.run:
            raise Rejected("not_running", "The object does not hold the suspended run that it names.")
        check_tools(state, self.rules)
        if not is_genuine(returned, self.secret):
            check_readable(returned, state, self.rules)
        kept = tuple((clean(ref), clean(text)) for ref, text in ours.kept.items())
        creation = "continuation-" + _digest(ours.run, ours.log)
        rows = pack(events, texts).rows
        return await self.directory.found(state, rows, owner=by, creation=creation, claimed=False, kept=kept)

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
        if returned.get("end_reason") == "suspended":
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

    async def _place(self, conversation: str) -> tuple[int, Place]:
        """The whole log with what is kept beside it, and where it ends. Raises Rejected too_large."""
        log = (await self.log.head(conversation)).log
        texts: list[str] = []
        kept: dict[str, str] = {}
        size = cursor = 0
        while True:
            page = await self.log.read(conversation, cursor, PAGE_BYTES)
            texts += page.texts
            cursor = page.through
            _check_size(size := size + sum(map(len, page.texts)))
            if cursor >= page.head:
                break
        for ref in await self.log.kept_refs(conversation):
            kept[ref] = await self.log.kept(conversation, ref) or ""
            _check_size(size := size + len(kept[ref]))
        return cursor, Place(conversation, log, texts, kept)


def _restless() -> Rejected:
    return Rejected("not_running", "The conversation does not stand still.")


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
