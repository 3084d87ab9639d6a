"""P1-P8 of PROTOCOL.md, checked from what readers saw, what senders heard, and what tools did.

The log is only the judge of what survived. How a run may go from step to step is in check_course.py, what
models are told on the way in check_context.py.
"""

from __future__ import annotations

from collections import Counter
from unittest import mock

import msgspec

from app.actor.load import load
from app.core.codec import decode
from app.core.events import owner_of, supersedes
from app.core.snapshot import forget
from tests.simulation.agents import GUARDED, Key, key_of
from tests.simulation.check_context import check_context
from tests.simulation.check_course import TERMINAL, check_courses
from tests.simulation.people import Json, Sent
from tests.simulation.world import World

CallId = tuple[str, tuple[str, ...], str]


async def check(world: World) -> None:
    """Raises AssertionError with the promise that was broken."""
    page = await world.disk.log.read(world.conversation, 0, 10**9)
    final = dict(zip(page.seqs, page.texts, strict=True))
    events = [msgspec.json.decode(text) for text in final.values()]
    _seen_is_kept(world, final)
    _commands_once(world, events)
    _ends(events)
    check_courses(events, world.terms)
    _tools_once(world, events)
    _decided_once(events)
    _as_people_said(world, events)
    _objects(world, events)
    _asked_and_answered(world, events)
    _crash_loops(world, events)
    await _archived(world, events)
    await _remembered(world)
    assert not world.model.leaks, f"§5: {world.model.leaks[0]}"
    assert not world.model.violations, f"a strict provider refuses {world.model.violations[0].messages}"
    check_context(world, events)
    errors = [error.getMessage() for error in world.errors]
    if world.ledger.overlapped:  # an old owner that is still alive finds out
        errors = [error for error in errors if not error.endswith("lost its log")]
    assert not errors, errors[0]
    assert world.deletions or not any(client.shut for client in world.clients), "a conversation was not found"


async def _remembered(world: World) -> None:
    """Whoever comes next finds what the log says, from whatever snapshot lies beside it."""
    with mock.patch("app.actor.load.SNAPSHOT_EVENTS", world.twists.snapshots):
        _, found = await load(world.disk.log, world.conversation)
    _, whole = await load(world.disk.log, world.conversation, whole=True)
    forget(found)
    forget(whole)
    assert found == whole, "a snapshot says other than its log"


def _seen_is_kept(world: World, final: dict[int, str]) -> None:
    """P1, P2, P4: all that was seen is in the log or superseded by what is; all that survives was seen by everybody."""
    superseding: dict[str, int] = {}
    for text in final.values():
        event = decode(text)
        if (owner := supersedes(event)) is not None:
            superseding[owner] = event.seq
    for client in world.clients:
        assert client.connections > 0
        for seq, text in [*client.seen.items(), *client.before]:
            if seq in final:
                assert msgspec.json.decode(text) == msgspec.json.decode(final[seq]), f"P2: {client.name} saw {text}"
                continue
            owner = owner_of(decode(text))
            assert owner is not None, f"P1: {client.name} saw what is not in the log: {text}"
            assert superseding.get(owner, 0) > seq, f"P1: nothing supersedes {text}"
        missing = final.keys() - client.seen.keys()
        assert not missing, f"P4: {client.name} never saw {sorted(missing)[:5]}"


def _commands_once(world: World, events: list[Json]) -> None:
    """P3: an accepted id has one event, and every answer for it names that."""
    causes = Counter(event["cause"] for event in events if "cause" in event)
    where = {event["cause"]: event["seq"] for event in events if "cause" in event}
    assert not [id for id, count in causes.items() if count > 1], f"P3: {causes.most_common(3)}"
    for sent in world.sent:
        id = sent.command["id"]
        assert {seq for seq, _ in sent.accepted} <= {where.get(id)}, f"P3: {sent} but {where.get(id)}"
        assert sum(not duplicate for _, duplicate in sent.accepted) <= 1, f"P3: {sent}"
    given = Counter(event["text"] for event in events if event["type"] == "prompt.given" and event["text"] == "Begin.")
    assert given["Begin."] == 1


def _ends(events: list[Json]) -> None:
    """P7 and the rules of endings: one terminal event, one result per call, one end per hint, silence afterwards."""
    ended: set[str] = set()
    results: Counter[CallId] = Counter()
    asked: Counter[CallId] = Counter()
    hints: dict[str, int] = {}
    for event in events:
        run = event.get("run", "")
        assert run not in ended, f"P7: {event}"
        match event["type"]:
            case "model.replied":
                asked.update((run, tuple(event.get("path", ())), call["call"]) for call in event["calls"])
            case "tool.returned" | "tool.failed":
                results[id_of(event)] += 1
            case "hint.given":
                hints[event["message"]] = 0
            case "hint.applied" | "hint.carried" | "hint.withdrawn" | "hint.dropped":
                hints[event["message"]] += 1
            case type if type in TERMINAL:
                ended.add(run)
    assert results == asked, f"each call has one result: {asked - results} {results - asked}"
    assert all(count == 1 for count in hints.values()), f"each hint has one end: {hints}"
    started = [event["run"] for event in events if event["type"] == "run.started"]
    assert sorted(started) == sorted(ended), "P5: every run has ended"


def _tools_once(world: World, events: list[Json]) -> None:
    """P6: what may not be repeated was begun once at most, and nothing before its start was committed."""
    ledger = world.ledger
    twice = {call: ledger.begun[call] for call in ledger.never if ledger.begun[call] > 1}
    assert not twice, f"P6: {twice}"
    assert not ledger.wrong, f"P6: {ledger.wrong[0]}"
    keys: dict[CallId, Key] = {}
    again: Counter[Key] = Counter()
    asked: set[Key] = set()
    for event in events:
        if event["type"] == "tool.started":
            key = keys[id_of(event)] = key_of(event)
            if event["tool"] == "ask":
                asked.add(key)
        elif event["type"] == "doubt.settled" and event["outcome"] == "rerun":
            again[keys[id_of(event)]] += 1
    for call in asked:
        assert ledger.begun[call] <= 1 + again[call], f"P6: {call} was run again, and nobody said so"


def _decided_once(events: list[Json]) -> None:
    """An approval is decided once; exactly what was approved runs, unless it was stopped before it began."""
    asked = Counter(id_of(e) for e in events if e["type"] == "approval.requested")
    decided = Counter(id_of(e) for e in events if e["type"] == "approval.decided")
    assert asked == decided, f"each approval has one decision: {asked - decided} {decided - asked}"
    given = {id_of(e) for e in events if e["type"] == "approval.decided" and e["decision"] == "approved"}
    guarded = {id_of(e) for e in events if e["type"] == "tool.started" and e["tool"] in GUARDED}
    assert guarded <= given, f"nobody approved {guarded - given}"
    stopped = {id_of(e) for e in events if e["type"] == "tool.failed" and e["error"]["kind"] != "denied"}
    assert given <= guarded | stopped, f"approved, and never begun: {given - guarded - stopped}"


def _as_people_said(world: World, events: list[Json]) -> None:
    """Who decided what is what somebody said about this very call, in a command or in an object that he returned."""
    said: dict[str, Sent] = {}
    answers: set[tuple[str, tuple[str, ...], str]] = set()
    here: World | None = world
    while here is not None:
        said |= {str(sent.command["id"]): sent for sent in here.sent}
        answers |= {answer for returned in here.returned if not returned.changed for answer in returned.answers}
        here = here.before
    kinds = {"approve": "approved", "deny": "denied"}
    for event in events:
        if event["type"] not in ("approval.decided", "doubt.settled"):
            continue
        run, path, call = id_of(event)
        if event.get("decision") in ("expired", "cancelled"):
            continue
        cause = event.get("cause", "")
        if cause.startswith("continuation-"):
            assert (run, (*path, call), event["decision"]) in answers, f"no object said so: {event}"
            continue
        assert cause in said, f"nobody said so: {event}"
        sent = said[cause]
        assert (sent.command["run"], sent.command["call"], sent.by) == (run, [*path, call], event["by"]), (
            f"{event}: {sent}"
        )
        wanted = sent.command.get("outcome", kinds.get(sent.command["type"]))
        assert wanted == event.get("outcome", event.get("decision")), f"{event}: {sent}"


def _objects(world: World, events: list[Json]) -> None:
    """The same object twice changes nothing; what was changed is refused; what was taken goes on elsewhere only."""
    for returned in world.returned:
        assert not (returned.changed and returned.accepted), f"a changed object was accepted: {returned.object}"
        assert len({(put.conversation, put.run) for put in returned.accepted}) <= 1, f"two places: {returned.accepted}"
        fresh = [put for put in returned.accepted if not put.duplicate]
        assert len(fresh) <= 1, f"the same object was put back twice: {returned.accepted}"
    ends = {event["run"]: event["type"] for event in events if event["type"] in TERMINAL}
    if world.taken is not None:
        ours = world.taken["holdfast"]
        run = ours["run"]
        assert ends[run] == "run.moved", f"a taken run goes on here: {ends[run]}"
        for returned in world.returned:
            gone = returned.object["holdfast"]
            back = gone["taken"] and gone["log"] == ours["log"]
            assert not (back and returned.accepted), f"a taken run was taken back: {returned.accepted}"
    if world.before is not None and world.before.taken is not None:
        through = world.before.taken["holdfast"]["seq"]
        known = {int(event["seq"]): event for event in events}
        for seq, text in world.before.clients[0].seen.items():
            told = msgspec.json.decode(text)
            if seq <= through and owner_of(decode(text)) is None and told["type"] != "archive.flushed":
                assert known.get(seq) == told, f"P4: {told} did not come along"


def id_of(event: Json) -> CallId:
    """A call by its address."""
    return event["run"], tuple(event.get("path", ())), event["call"]


def _asked_and_answered(world: World, events: list[Json]) -> None:
    """P7: no model call without its committed step; what the log calls a reply is what a model has finished."""
    steps = sum(event["type"] == "step.started" for event in events)
    assert world.model.calls <= steps, f"P7: {world.model.calls} model calls, {steps} steps"
    replies = {event["text"] for event in events if event["type"] == "model.replied"}
    assert replies <= world.model.finished, f"no model has finished {replies - world.model.finished}"


def _crash_loops(world: World, events: list[Json]) -> None:
    """The guard of SEMANTICS.md §1 counts crashes without progress in between, and no drains.

    It looks when a new owner comes; the results with which it closes a run are no progress.
    """
    crashes, found, running, drained = 0, 0, False, False
    for event in events:
        match event["type"]:
            case "run.started" | "run.resumed":
                running, crashes = True, crashes if event["type"] == "run.resumed" else 0
            case "run.suspended" | "run.completed" | "run.cancelled" | "run.moved":
                running = False
            case "actor.activated":
                crashes += running and not drained
                found, drained = crashes, False
            case "actor.drained":
                drained = True
            case "model.replied" | "tool.returned" | "tool.failed" | "context.compacted":
                crashes = 0
            case "run.failed":
                running = False
                looped = event["error"]["kind"] == "crash_loop"
                assert not looped or found >= world.twists.crashes_max, f"{found} crashes are no loop: {event}"


async def _archived(world: World, events: list[Json]) -> None:
    """The archive says what the log says."""
    runs = await world.disk.archive.runs(world.conversation)
    ends = {event["run"]: event["type"].removeprefix("run.") for event in events if event["type"] in TERMINAL}
    assert {run.run: run.status for run in runs} == ends
    messages = await world.disk.archive.messages(world.conversation)
    replies = [event["text"] for event in events if event["type"] == "model.replied"]
    said = [message.text for message in messages if message.role == "assistant" and message.seq in _seqs(events)]
    assert said == replies
    delivered = [event["message"] for event in events if event["type"] in ("run.started", "hint.applied")]
    assert len([message for message in messages if message.role == "user"]) >= len(set(delivered))


def _seqs(events: list[Json]) -> set[int]:
    return {event["seq"] for event in events if event["type"] == "model.replied"}
