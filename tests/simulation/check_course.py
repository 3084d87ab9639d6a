"""The course of a run as readers saw it: levels, batches, suspensions, slices, ceilings (SEMANTICS.md §5, §6, §9).

One pass over the surviving events. Only what the wire says is known here, and the limits that the world was played
under; nothing is asked of the product.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.simulation.people import Json
from tests.simulation.world import Terms

TERMINAL = ("run.completed", "run.failed", "run.cancelled", "run.moved")
WAKES = {
    "approval": {"approval"},
    "in_doubt": {"in_doubt"},
    "request": {"request", "hint"},
    "turns": {"request", "hint"},
    "budget": {"request"},
    "retry": {"request", "retry"},
    "context": {"request"},
}
"""What may resume a run that was suspended for a reason."""

QUIET = (
    "step.started",
    "compaction.started",
    "tool.started",
    "text.streamed",
    "reasoning.streamed",
    "tool.progressed",
    "run.sliced",
)
"""What no suspended run does."""

Place = tuple[str, ...]
"""A call by its path and its own id, or a level by its path."""


@dataclass
class Course:
    """One run, event after event. `held`: the steps since it started or was resumed; `since` (ms): or was sliced."""

    terms: Terms
    since: int
    steps_max: int
    tokens_max: int | None
    steps: int = 0
    held: int = 0
    tokens: int = 0
    suspended: Json | None = None
    sliced: bool = False
    last: Json = field(default_factory=dict)
    open: Counter[Place] = field(default_factory=Counter)
    levels: dict[Place, int] = field(default_factory=lambda: {(): 0})

    def take(self, event: Json) -> None:
        """Raises AssertionError where this event may not come now."""
        path: Place = tuple(event.get("path", ()))
        kind = event["type"]
        assert path in self.levels, f"§5: the level of {event} is not open"
        assert not (self.sliced and kind not in ("step.started", "hint.applied")), f"§6: sliced, and then {event}"
        if self.suspended is not None:
            assert kind not in QUIET, f"§6: {event} while the run is suspended"
        match kind:
            case "step.started":
                self._step(event, path)
            case "model.replied":
                self.tokens += event["usage"]["input"] + event["usage"]["output"]
                self.open.update({(*path, call["call"]): 1 for call in event["calls"]})
            case "tool.started" if "agent" in event:
                self.levels[(*path, event["call"])] = 0
            case "tool.returned" | "tool.failed":
                self._result((*path, event["call"]))
            case "run.suspended":
                self._suspended(event)
            case "run.resumed":
                self._resumed(event)
            case "run.sliced":
                assert self.terms.slice_ms is not None and event["at"] - self.since >= self.terms.slice_ms, (
                    f"§6: sliced too early: {event}"
                )
                self.sliced, self.since = True, event["at"]
        self.last = event

    def _step(self, event: Json, path: Place) -> None:
        mine = [place for place in +self.open if place[:-1] == path]
        assert not mine, f"§5: {event}, but {mine} of its batch have no result"
        late = event["at"] - self.since
        if self.terms.slice_ms is not None and self.steps > 0 and not self.sliced:
            assert late < self.terms.slice_ms, f"§6: a slice of {late} ms goes on with {event}"
        self.sliced = False
        if event["attempt"] > 1:
            return
        self.levels[path] += 1
        assert event["step"] == self.levels[path], f"§5: {event} is step {self.levels[path]} of its level"
        self.steps += 1
        self.held += 1
        assert self.steps <= self.steps_max, f"P8: {self.steps} steps of all levels: {event}"
        assert self.terms.turns is None or self.held <= self.terms.turns, f"P8: {self.held} steps at a time: {event}"
        assert self.tokens_max is None or self.tokens < self.tokens_max, f"P8: {self.tokens} tokens: {event}"

    def _result(self, place: Place) -> None:
        self.open[place] -= 1
        for inside in [level for level in self.levels if level[: len(place)] == place]:
            del self.levels[inside]
        inside_it = [call for call in +self.open if call[: len(place)] == place]
        assert not inside_it, f"§5: {place} has its result before {inside_it} inside it"

    def _suspended(self, event: Json) -> None:
        assert self.suspended is None, f"§6: suspended twice: {event}"
        self.suspended = event

    def _resumed(self, event: Json) -> None:
        assert self.suspended is not None, f"§6: {event} of what was not suspended"
        reason, why = self.suspended["reason"], event["reason"]
        assert why in WAKES[reason], f"§6: suspended for {reason}, and resumed by {why}"
        if why == "hint":
            assert self.last["type"] == "hint.given", f"§3: {event} without a hint"
        if why == "retry":
            assert event["at"] >= self.suspended["until"], f"§9: {event} too early: {self.suspended}"
        self.suspended, self.held, self.since = None, 0, event["at"]
        self.steps_max = event.get("steps", self.steps_max)
        self.tokens_max = event.get("tokens", self.tokens_max)


def check_courses(events: list[Json], terms: Terms) -> None:
    """Follows every run of a log from its start to its end."""
    course: Course | None = None
    for event in events:
        if event["type"] == "run.started":
            course = Course(terms, event["at"], terms.steps_max, terms.tokens_max)
        elif event["type"] in TERMINAL:
            assert course is not None and not +course.open, f"each call has one result: {course} {event}"
            course = None
        elif course is not None and "run" in event:
            course.take(event)
