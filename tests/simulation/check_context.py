"""What models were told, as it follows from what readers saw: words, notes, results, summaries (SEMANTICS.md §7, §8).

Each request that a model has heard is found by the digest in its `step.started`; what it may leave out is what the
surviving events say, as PROTOCOL.md words it. How the product builds a request is not asked here.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain

import msgspec

from app.agent.model import Request
from tests.simulation.agents import STANDING_IN, size, told
from tests.simulation.people import Json
from tests.simulation.world import World

CHARS_A_TOKEN = 4
TRIES_MAX = 3
"""A step that the provider calls too long is made smaller twice."""

BETWEEN_STEPS_MAX = 40
"""Compactions of a level before its next step."""

NOTE = re.compile(r"<note>(note [^<]*)</note>")
WRITTEN = re.compile(r"é(\d+)\.")


@dataclass
class Told:
    """What a level has been told so far. `words` of people by the seq that told them, as their beginning, which nothing
    cuts off. Up to `through` a summary stands for all of it, beside the newest `kept` words.
    """

    words: list[tuple[int, str]] = field(default_factory=list)
    replies: list[Json] = field(default_factory=list)
    through: int = 0
    kept: int = 0
    summary: str = ""
    shortened: set[int] = field(default_factory=set)
    refused: int = 0
    overflows: int = 0
    compactions: int = 0

    def beside(self, through: int, kept: int) -> list[str]:
        """The people's words that are told, where a summary goes so far."""
        older = [text for seq, text in self.words if seq <= through]
        return [*older[max(len(older) - kept, 0) :], *(text for seq, text in self.words if seq > through)]


class Course:
    """One pass over the surviving events. `notes` by id."""

    def __init__(self, world: World) -> None:
        self.notes: dict[str, str] = {}
        self._model = world.model
        self._window = world.terms.window
        self._given: dict[str, str] = {}
        self._waiting: list[str] = []
        self._carried: list[str] = []
        self._applied: list[str] = []
        self._results: dict[str, Json] = {}
        self._calls: dict[str, Json] = {}
        self._top = Told()
        self._levels: dict[tuple[str, ...], Told] = {}

    def take(self, event: Json) -> None:
        """Raises AssertionError where a model was told something else than it should have been."""
        kind, path = event["type"], tuple(event.get("path", ()))
        if self._applied and "run" in event:
            assert kind in ("hint.applied", "step.started"), f"§3: a hint was given, and then {event}"
        if kind.startswith(("prompt.", "hint.")):
            self._words(event)
        elif kind == "run.started":
            self._levels = {(): self._top}
            others = [one for one in [*self._carried, *self._waiting] if one != event["message"]]
            self._tell(event["seq"], event["message"], *others)
            self._carried, self._waiting = [], []
        elif kind == "run.resumed":
            for level in self._levels.values():
                level.refused = 0
        elif kind == "note.saved":
            assert event["note"] not in self.notes, f"§8: a note is saved twice: {event}"
            self.notes[event["note"]] = event["text"]
        elif path in self._levels:
            self._at_level(event, self._levels[path], path)

    def _words(self, event: Json) -> None:
        message = event["message"]
        match event["type"]:
            case "prompt.given" | "prompt.queued":
                self._given[message] = event["text"]
            case "hint.given":
                self._given[message] = event["text"]
                self._waiting.append(message)
            case "hint.withdrawn" | "hint.dropped":
                self._waiting.remove(message)
            case "hint.carried":
                self._waiting.remove(message)
                self._carried.append(message)
            case "hint.applied":
                self._waiting.remove(message)
                self._applied.append(message)
                self._tell(event["seq"], message)

    def _tell(self, seq: int, *messages: str) -> None:
        self._top.words += [(seq, beginning(self._given[message])) for message in messages]

    def _at_level(self, event: Json, level: Told, path: tuple[str, ...]) -> None:
        match event["type"]:
            case "tool.started" if "agent" in event:
                prompt = event["arguments"].get("prompt", "")
                self._levels[(*path, event["call"])] = Told(words=[(event["seq"], prompt)])
            case "model.replied" if event["calls"]:
                level.replies.append(event)
                self._calls |= {name(event, call["call"]): call for call in event["calls"]}
            case "model.failed" if event["error"]["kind"] == "context":
                level.refused += 1
                assert level.refused <= TRIES_MAX, f"§7: too long for ever: {event}"
            case "compaction.failed" if event["error"]["kind"] == "context":
                level.overflows += 1
            case "tool.returned" | "tool.failed":
                self._result(event)
            case "context.compacted":
                self._compacted(event, level)
            case "step.started":
                level.refused = 0 if event["attempt"] == 1 else level.refused
                level.compactions = level.overflows = 0
                if (request := self._model.heard.get(event["request"])) is not None:
                    self._asked(event, request, level)
                self._applied = []

    def _result(self, event: Json) -> None:
        """What is read back is what was there."""
        ref = name(event, event["call"])
        self._results[ref] = event
        if event["type"] == "tool.returned" and self._calls[ref]["tool"] == "read_result":
            wanted = msgspec.json.decode(self._calls[ref]["arguments"])["reference"]
            original = self._results[wanted]["result"] if wanted in self._results else self._given[wanted]
            assert event["result"].partition("\n")[2] in original, f"§7: {wanted} is not {event}"

    def _compacted(self, event: Json, level: Told) -> None:
        level.compactions += 1
        assert level.compactions <= BETWEEN_STEPS_MAX, f"§7: compacted for ever: {event}"
        if event.get("kind") == "references":
            level.shortened |= {one["of"] for one in event["shortened"]}
            return
        through, kept = event["to"], event.get("words", 0)
        assert event["from"] <= through and level.through <= through, f"§7: it goes back: {event}"
        for reply in level.replies:
            results = [self._results.get(name(reply, call["call"])) for call in reply["calls"]]
            apart = reply["seq"] <= through and any(result is None or result["seq"] > through for result in results)
            assert not apart, f"§7: calls are parted from their results: {event}"
        leaving = set(level.beside(level.through, level.kept)) - set(level.beside(through, kept))
        if event.get("kind", "summary") == "summary":
            found = WRITTEN.match(event["summary"])
            assert found and int(found[1]) in self._model.written, f"§7: no model has written {event}"
            of = self._model.written[int(found[1])]
            readable = level.overflows == 0  # else the summariser has said that it reads less than is due
            assert not readable or all(words in of for words in leaving), (
                f"§7: words are lost without a summary: {leaving} {event}"
            )
        level.through, level.kept, level.summary = through, kept, event["summary"]

    def _asked(self, event: Json, request: Request, level: Told) -> None:
        """A request holds all that was said at its level and is not summarised, in order; notes once; hints last."""
        said = request.messages
        assert self._window is None or size(request) <= self._window * CHARS_A_TOKEN, f"§7: over the window: {event}"
        notes = sorted(NOTE.findall(told(said[0])))
        assert notes == sorted(self.notes.values()), f"§8: the notes of {event} are {notes}, not {self.notes}"
        summaries = [told(one) for one in said if told(one).startswith(STANDING_IN)]
        assert len(summaries) == (level.through > 0), f"§7: {event} is told {summaries}"
        assert all(level.summary.strip() in summary for summary in summaries), f"§7: another summary: {summaries}"
        words = [told(one) for one in said if one["role"] == "user" and not told(one).startswith(STANDING_IN)]
        wanted = level.beside(level.through, level.kept)
        right = len(words) == len(wanted) and all(map(str.startswith, words, wanted))
        assert right, f"§7: words are lost without a summary: {event} is told {words}, not {wanted}"
        last = [beginning(self._given[message]) for message in self._applied]
        newest = [told(one) for one in said[len(said) - len(last) :]]
        assert all(map(str.startswith, newest, last)), f"§3: hints are not the last words of {event}: {newest}"
        replies = [reply for reply in level.replies if reply["seq"] > level.through]
        calls = [[call["id"] for call in one["tool_calls"]] for one in said if one.get("tool_calls")]
        given = [[call["call"] for call in reply["calls"]] for reply in replies]
        assert [[*map(first, ids)] for ids in calls] == [[*map(first, ids)] for ids in given], (
            f"§7: calls of {event}: {calls}, not {given}"
        )
        every = list(chain(*calls))
        assert len(set(every)) == len(every), f"002-10: ids repeat in {event}: {calls}"
        assert set(chain(*given)) <= set(every), f"§3.1: the newest of each is told as it was given: {calls}"
        results = [one["tool_call_id"] for one in said if one["role"] == "tool"]
        assert results == every, f"§7: results of {event}: {results}"
        answers = [told(one) for one in said if one["role"] == "tool"]
        refs = [name(reply, call["call"]) for reply in replies for call in reply["calls"]]
        for answer, ref in zip(answers, refs, strict=True):
            result = self._results[ref]
            whole = result.get("result") or result.get("error", {}).get("message", "")
            part = f"kept as {ref}, from" if result["seq"] in level.shortened else whole
            assert part in answer, f"§7: {event} is told {answer} of {result}"


def name(event: Json, call: str) -> str:
    """The name under which the result of a call is kept."""
    return "/".join([event["run"], *event.get("path", ()), call])


def first(id: str) -> str:
    """The id that a model gave, without what tells it apart from others."""
    return id.partition("_")[0]


def beginning(text: str) -> str:
    """A person's words without what makes them long."""
    return text.partition(" please")[0]


def check_context(world: World, events: list[Json]) -> None:
    """Raises AssertionError with the rule that was broken."""
    course = Course(world)
    for event in events:
        course.take(event)
    texts = Counter(course.notes.values())
    assert max(texts.values(), default=1) == 1, f"§8: notes are there twice: {texts}"
    assert world.ledger.noted <= texts.keys(), f"§8: notes are lost: {world.ledger.noted - texts.keys()}"
    begun = any(event["type"] == "compaction.started" for event in events)
    assert begun or not world.model.summaries, "P7: nobody began the summary that a model was asked for"
