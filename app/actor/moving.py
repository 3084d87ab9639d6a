"""Continuations in and out: a suspended run leaves as an object, comes back decided, or goes on here.

An object that comes back to the run it left decides that run; one of another server becomes a conversation here, with
the log that it carries. Returning the same object again finds the ids that it used before, so nothing happens twice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from app.actor.directory import Created, Directory
from app.core import commands as c
from app.core.apply import fold
from app.core.catalogue import Rules
from app.core.codec import decode, encode
from app.core.continuation import check, check_tools, decisions, export
from app.core.errors import Corrupt, Rejected
from app.core.events import ArchiveFlushed, ConversationCreated, Event, Json
from app.core.state import State
from app.store.event_log import EventLog

TRIES_MAX = 20
"""How often an export is tried again because the conversation went on meanwhile."""

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
        """The continuation of a suspended run, as a copy. Raises Rejected not_running, KeyError, Unavailable."""
        for _ in range(TRIES_MAX):
            log = (await self.log.head(conversation)).log
            through, texts = await self._texts(conversation)

            def exported(state: State, log: str = log, through: int = through, texts: list[str] = texts) -> Json | None:
                if state.seq != through:
                    return None
                try:
                    return export(state, conversation, log, texts, self.rules, self.secret, taken=taken)
                except Rejected as refusal:
                    return {"refused": refusal}

            found: Json | None = await self.directory.ask(conversation, exported)
            if found is not None and "refused" in found:
                raise found["refused"]
            if found is not None:
                return found
        raise Rejected("not_running", "The conversation does not stand still.")

    async def take(self, conversation: str, by: str) -> Json:
        """Ends the run here and gives what goes on elsewhere. Raises as `export`."""
        exported = await self.export(conversation, taken=True)
        ours = exported["holdfast"]
        await self.directory.submit(conversation, c.Take(ours["run"], ours["seq"]), by)
        return exported

    async def put_back(self, returned: Json, by: str, *, force: bool) -> Created:
        """Decides the run that an object belongs to, or goes on with it here; the same object again changes nothing.

        Raises Rejected: bad_command, digest_mismatch, not_running (gone on elsewhere; not taken), not_found.
        """
        ours = check(returned, self.secret, force=force)
        home = await self.log.find_run(ours["run"])
        if home is not None and (await self.log.head(home)).log == ours["log"]:
            status = await self.directory.ask(home, lambda state: state.runs[ours["run"]].status)
            if status == "moved":
                raise Rejected("not_running", "This run was taken: it goes on elsewhere.")
            return await self._decide(home, returned, by)
        if not ours.get("taken") and not force:
            raise Rejected("not_running", "This run was not taken from its server; `force` says that that is gone.")
        founded = await self._found(ours, by)
        decided = await self._decide(founded.conversation, returned, by, arrived=True)
        return Created(founded.conversation, ours["run"], duplicate=founded.duplicate and decided.duplicate)

    async def _found(self, ours: Json, by: str) -> Created:
        """A conversation with the log that an object carries."""
        try:
            events, texts = _arrived(ours["events"], by)
            state = fold(events)
        except (Corrupt, AssertionError, AttributeError, KeyError, StopIteration, TypeError, ValueError):
            raise Rejected("bad_command", "The log in this object makes no sense.") from None
        check_tools(state, self.rules)
        creation = "continuation-" + _digest(ours["run"], ours["log"])
        return await self.directory.found(state, events, texts, owner=by, creation=creation, claimed=False)

    async def _decide(self, conversation: str, returned: Json, by: str, *, arrived: bool = False) -> Created:
        """Decisions are independent: one that is refused keeps no other one back. Raises the first refusal.

        `arrived`: the run goes on here now, so what has ended on the way is no reason to refuse the object.
        """
        ours = returned["holdfast"]
        run, digests, said = ours["run"], ours["digests"], decisions(returned)
        commands: list[c.FromClient] = []
        for path, approved in said:
            digest = digests.get("/".join(path))
            if digest is None:
                raise Rejected("no_such_approval", "An answer names a call that asked for none.")
            id = "continuation-" + _digest(run, str(ours["signature"]), *path, str(approved))
            kind = c.Approve if approved else c.Deny
            commands.append(kind(id=id, run=run, call=path, digest=digest))
        if returned.get("end_reason") == "suspended":
            commands.append(c.Resume(id="continuation-" + _digest(run, str(ours["signature"])), run=run))
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
        return Created(conversation, run, duplicate=duplicate)

    async def _texts(self, conversation: str) -> tuple[int, list[str]]:
        """The whole log."""
        texts: list[str] = []
        cursor = 0
        while True:
            page = await self.log.read(conversation, cursor, PAGE_BYTES)
            texts += page.texts
            cursor = page.through
            if cursor >= page.head:
                return cursor, texts


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
