"""SEMANTICS.md §9 and §5 "Budget is one, shared" on the pure floor: what is counted, and where it stops a run."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import commands as c
from app.core import events as e
from app.core.apply import fold
from app.core.bounds import CEILING_MAX, LEVELS_LISTED_MAX
from app.core.catalogue import Price, Rules
from app.core.codec import decode
from app.core.effects import ArchiveFlush, ModelCall
from app.core.events import Call, Path, Usage
from app.core.plan import plan
from app.core.usage import priced, tokens, total
from tests.core.stage import Stage, kinds
from tests.core.test_levels import opened
from tests.core.world import DEEP, RULES, FakeAgent, World

PRICES = {"m": Price(input=2_000_000, output=8_000_000, cached=500_000)}
"""2, 8 and 0.5 for a million tokens: 2, 8 and half a millionth for one."""


def raised(id: str, of: str, ceiling: int) -> c.Resume:
    """A resume with this ceiling."""
    ceilings: Any = {of: ceiling}
    return c.Resume(id=id, **ceilings)


# --- what is counted


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (Usage(input=10, output=5), 60),
        (Usage(input=10, output=5, cached=4), 54),
        (Usage(input=1, output=0, cached=1), 1),
        (Usage(input=3, output=0, cached=9), 2),
        (Usage(input=0, output=0), 0),
        (Usage(input=10**9, output=10**9), 10**10),
    ],
    ids=["plain", "cached", "rounded-up", "more-cached-than-read", "nothing", "much"],
)
def test_money_is_exact(usage: Usage, cost: int) -> None:
    """003-8: integers; a call's cost is rounded up to a millionth, never down."""
    assert priced(usage, "m", replace(RULES, prices=PRICES)).cost == cost


def test_what_has_no_price_says_so() -> None:
    """003-8: an unknown model among priced ones is unpriced; without any prices nobody asked for money."""
    usage = Usage(input=10, output=5)
    assert priced(usage, "other", replace(RULES, prices=PRICES)) == Usage(input=10, output=5, unpriced=True)
    assert priced(usage, "m", RULES) == usage
    assert total([Usage(input=1, output=1, cost=5), Usage(input=1, output=1, unpriced=True)]) == Usage(
        input=2, output=2, cost=5, unpriced=True
    )


def test_the_price_of_the_day_counts() -> None:
    """003-8: what a call costs is in the log; the fold of it never depends on today's prices."""
    stage = Stage(prices=PRICES)
    stage.prompt()
    stage.reply("", "missing")
    stage.change(prices={"m": Price(input=0, output=0, cached=0)})
    stage.reply("", "missing")
    stage.change(prices={})
    stage.reply("done")
    assert [reply.usage.cost for reply in stage.all(e.ModelReplied)] == [60, 0, None]
    assert stage.last(e.RunCompleted).usage.cost == 60


def test_the_price_is_that_of_the_model_which_was_asked() -> None:
    """003-8: an agent may have a model of its own."""
    stage = Stage(agent=FakeAgent(model="dear"), prices={**PRICES, "dear": Price(10**9, 10**9, 10**9)})
    stage.prompt()
    stage.reply("done")
    assert stage.last(e.RunCompleted).usage.cost == 15_000


@pytest.mark.parametrize("how", ["crash", "cancel", "hint", "upstream"])
def test_an_interrupted_attempt_is_estimated_and_counted(how: str) -> None:
    """FAULTS 89, §9: what was streamed had to be paid for, whoever ended it; it says that it is an estimate."""
    stage = Stage(prices=PRICES)
    stage.prompt()
    stage.stream("x" * 400)
    match how:
        case "crash":
            stage.crash()
        case "cancel":
            stage.cancel()
        case "hint":
            stage.hint(interrupt=True)
        case _:
            stage.fail()
    usage = stage.last(e.ModelInterrupted).usage
    assert usage is not None and usage.estimated and usage.output == 101 and usage.input > 1
    [record] = stage.state.runs.values()
    assert record.usage == record.levels[()].usage == usage and usage.cost == 2 * usage.input + 8 * usage.output


def test_an_attempt_that_said_nothing_costs_nothing() -> None:
    """§9: a provider that refuses is not paid."""
    stage = Stage(prices=PRICES)
    stage.prompt()
    stage.fail()
    assert tokens(stage.run.usage) == 0


def test_the_summariser_is_counted_where_it_worked() -> None:
    """003-8, §9: its usage comes with `context.compacted`."""
    stage = opened()
    usage = Usage(input=100, output=20, cost=7)
    before = stage.run.usage
    compacted = e.ContextCompacted(
        seq=stage.state.seq + 1, at=stage.at, run=stage.run.run, path=("k1",), from_=1, to=2, before=9, after=3,
        summary="short", usage=usage,
    )  # fmt: skip
    fold([compacted], stage.state)
    assert stage.run.usage == total([before, usage])
    assert stage.state.runs[stage.run.run].levels["k1",].usage == usage


def test_the_levels_of_a_run_stay_listed() -> None:
    """003-8: steps and usage of each, closed ones too."""
    stage = opened()
    stage.path = ("k1",)
    stage.reply("", "never")
    stage.begin()
    stage.end()
    stage.reply("it is done")
    stage.path = ()
    stage.reply("done")
    [record] = stage.state.runs.values()
    shown = {path: (level.agent, level.steps, tokens(level.usage)) for path, level in record.levels.items()}
    assert shown == {(): ("a", 2, 30), ("k1",): ("inner", 2, 30)}


def test_too_many_levels_are_counted_where_they_were_called() -> None:
    """P8: the list is bounded, the sum stays right."""
    stage = opened(steps_max=10**6, calls_max=10**6, repeats_max=10**6)
    rounds = LEVELS_LISTED_MAX + 5
    for number in range(1, rounds + 1):
        stage.path = (f"k{number}",)
        stage.reply("it is done")
        stage.path = ()
        if number < rounds:
            stage.reply("", Call(call=f"k{number + 1}", tool="inner", arguments='{"prompt": "do it"}'))
    stage.reply("done")
    [record] = stage.state.runs.values()
    assert len(record.levels) == LEVELS_LISTED_MAX
    assert total(level.usage for level in record.levels.values()) == record.usage
    assert sum(level.steps for level in record.levels.values()) == stage.last(e.RunCompleted).steps + rounds


# --- where a run is stopped


@pytest.mark.parametrize(
    ("rules", "of", "ceiling", "used"),
    [
        ({"steps_max": 2}, "steps", 2, 2),
        ({"calls_max": 2}, "calls", 2, 2),
        ({"repeats_max": 2}, "repeats", 2, 2),
        ({"seconds_max": 7}, "seconds", 7, 8),
        ({"tokens_max": 40}, "tokens", 40, 30),
        ({"money_max": 150, "prices": PRICES}, "money", 150, 120),
    ],
    ids=["steps", "calls", "repeats", "seconds", "tokens", "money"],
)
def test_a_ceiling_says_which_it_is_and_holds_until_it_is_raised(
    rules: dict[str, Any], of: str, ceiling: int, used: int
) -> None:
    """003-8, 002-9, FAULTS 84: before the call that would cross it, across a crash; no model call, no spinning."""
    stage = Stage(**rules)
    stage.prompt()
    stage.at += 4_000
    assert stage.reply("", "missing")[-1] == "step.started"
    stage.at += 4_000
    assert stage.reply("", "missing")[-1] == "run.suspended"
    parked = stage.last(e.RunSuspended)
    assert (parked.reason, parked.of, parked.ceiling, parked.used) == ("budget", of, ceiling, used)
    stage.crash()
    assert (stage.run.reason, stage.wanted, stage.plan.wake_at) == ("budget", [], None)
    if of in ("repeats", "seconds"):  # a person has looked: these begin anew
        assert stage.say(c.Resume(id="r0")) == ["run.resumed", "step.started"]
        return
    for number in range(3):
        assert stage.say(c.Resume(id=f"same{number}")) == ["run.resumed", "run.suspended"]
    assert stage.say(raised("no", of, ceiling)) == ["run.resumed", "run.suspended"]
    assert stage.say(raised("yes", of, 2 * ceiling)) == ["run.resumed", "step.started"]
    stage.crash()
    assert stage.run.ceilings[of] == 2 * ceiling, "what a person gave is in the log"


def test_a_person_may_give_more_time() -> None:
    """§9: `seconds` of a resume are a ceiling like the others."""
    stage = Stage(seconds_max=5)
    stage.prompt()
    stage.at += 6_000
    assert stage.reply("", "missing")[-1] == "run.suspended"
    stage.say(c.Resume(id="r", seconds=20))
    stage.at += 19_000
    assert stage.reply("", "safe")[-1] == "model.replied"
    stage.begin("k2")
    stage.at += 1_000
    assert stage.end("k2")[-1] == "run.suspended"


@pytest.mark.parametrize("ceiling", [0, -1, CEILING_MAX + 1, 10**30])
def test_a_ceiling_that_is_none_is_refused(ceiling: int) -> None:
    """PROTOCOL §1.2: nothing is changed."""
    stage = Stage(steps_max=1)
    stage.prompt()
    stage.reply("", "missing")
    for name in ("steps", "tokens", "money", "seconds", "calls"):
        assert stage.refuses(raised("r", name, ceiling)).code == "bad_command"


def test_what_is_left_may_be_spent_to_the_last() -> None:
    """§9: suspended before the call that would cross it, not before one that would just reach it."""
    stage = Stage(tokens_max=30)
    stage.prompt()
    assert stage.reply("", "missing")[-1] == "step.started"
    assert stage.reply("", "missing")[-1] == "run.suspended"
    assert tokens(stage.run.usage) == 30


def test_levels_at_work_at_a_time_do_not_go_over_it_together() -> None:
    """§5: calls under way count as expected; who has to wait for them goes on when they took less."""
    stage = opened(inner=3, tokens_max=60)
    asking = [path for path, level in stage.run.levels.items() if level.asking]
    assert len(asking) == 3 and stage.run.status == "running", "15 are spent, and 15 for each of three are left"
    stage = opened(inner=3, tokens_max=50)
    asking = [path for path, level in stage.run.levels.items() if level.asking]
    assert len(asking) == 2 and stage.run.status == "running" and stage.plan.wake_at is None
    stage.path = asking[0]
    assert stage.reply("that was cheap", usage=Usage(input=4, output=1))[-1] == "step.started"
    assert [path for path, level in stage.run.levels.items() if level.asking] != asking


def test_the_others_end_before_the_run_is_parked() -> None:
    """§6: nothing that works is cut by a ceiling; parked once nothing works."""
    stage = opened("never", tokens_max=40)
    stage.path = ("k1",)
    stage.reply("", "missing", usage=Usage(input=25, output=5))
    assert stage.run.status == "running" and stage.tools == ["k2"], "its tool is still to run"
    stage.path = ()
    stage.begin("k2")
    assert stage.end("k2")[-1] == "run.suspended"
    assert stage.last(e.RunSuspended).of == "tokens"


def test_a_retry_that_would_cross_the_ceiling_is_not_made() -> None:
    """§9: it is no new step, but it costs; and nothing turns while it may not be made."""
    stage = Stage(tokens_max=200, prices=PRICES)
    stage.prompt()
    stage.stream("x" * 4_000)
    stage.fail(retry_after=1)
    assert stage.plan.wake_at is not None
    assert stage.until_due() == ["run.suspended"]
    assert stage.last(e.RunSuspended).of == "tokens" and stage.plan.wake_at is None
    assert stage.say(c.Resume(id="r", tokens=10_000)) == ["run.resumed", "step.started"]
    assert stage.run.top.attempt == 2


def test_the_time_that_a_person_takes_does_not_count() -> None:
    """§9: seconds are those of work; a decision after days neither ends the budget nor renews it."""
    stage = Stage(seconds_max=10)
    stage.prompt()
    stage.at += 6_000
    stage.reply("", "guarded")
    assert stage.run.status == "waiting"
    stage.at += 86_400_000
    stage.approve()
    stage.begin()
    stage.at += 3_000
    assert stage.end()[-1] == "step.started", "9 of 10"
    stage.at += 1_000
    assert stage.reply("", "missing")[-1] == "run.suspended"
    assert stage.last(e.RunSuspended).used == 10


@pytest.mark.parametrize("away", [86_400_000, -3_600_000])
def test_the_time_in_which_there_was_no_process_does_not_count(away: int) -> None:
    """003-20, FAULTS 23: days later, or with a clock that is behind, the run has worked as long as before."""
    stage = Stage(seconds_max=10)
    stage.at += 10_000_000
    stage.prompt()
    stage.at += 6_000
    stage.reply("", "safe")
    stage.begin()
    stage.at += away
    stage.crash()
    stage.at += 3_000
    assert stage.end()[-1] == "step.started", "9 of 10"
    stage.at += 1_000
    assert stage.reply("", "missing")[-1] == "run.suspended"
    assert stage.last(e.RunSuspended).used == 10


@pytest.mark.parametrize(
    ("wait", "what"), [("retry", "step.started"), ("suspended", "run.resumed"), ("stop", "run.cancelled")]
)
def test_a_wait_stays_as_long_when_the_clock_is_set_back(wait: str, what: str) -> None:
    """FAULTS 23: whatever the run waits for falls due in the new owner's time."""
    stage = Stage(retry_ms=20_000)
    stage.at += 10_000_000
    stage.prompt()
    if wait == "stop":
        stage.reply("", "safe")
        stage.begin()
        stage.cancel()
    else:
        stage.fail(retry_after=5 if wait == "retry" else 50)
    due = (stage.plan.wake_at or 0) - stage.at
    assert stage.run.status == ("suspended" if wait == "suspended" else "running") and due > 0
    stage.at -= 3_600_000
    stage.crash()
    assert stage.plan.wake_at == stage.at + due
    assert stage.until_due()[-1] == what


def test_an_approval_does_not_renew_the_turns() -> None:
    """004-18: every N steps, whoever decided something meanwhile."""
    stage = Stage(turns=2)
    stage.prompt()
    stage.reply("", "guarded")
    stage.approve()
    stage.begin()
    stage.end()
    assert stage.reply("", "missing")[-1] == "run.suspended"
    assert stage.last(e.RunSuspended).reason == "turns"


# --- loops


def again(stage: Stage, times: int, *arguments: str) -> list[str]:
    """So many steps that ask for the same; what came of the last."""
    said: list[str] = []
    for _ in range(times):
        taken = len(stage.run.top.ids)
        calls = [Call(call=f"k{taken + n}", tool="safe", arguments=text) for n, text in enumerate(arguments, 1)]
        stage.reply("", *calls)
        for call in calls:
            stage.begin(call.call)
            said = stage.end(call.call)
    return said


def test_the_same_again_and_again_asks_the_person() -> None:
    """FAULTS 84: suspended and said why; gone on by a person only, and asked again after as many."""
    stage = Stage(steps_max=100, repeats_max=3)
    stage.prompt()
    assert again(stage, 2, '{"n": 1}')[-1] == "step.started"
    assert again(stage, 1, '{"n": 1}')[-1] == "run.suspended"
    parked = stage.last(e.RunSuspended)
    assert (parked.reason, parked.of, parked.used) == ("budget", "repeats", 3)
    assert stage.hint() == ["hint.given"], "§3: a hint does not resume what a budget has suspended"
    assert stage.say(c.Resume(id="r"))[-1] == "step.started"
    assert again(stage, 2, '{"n": 1}')[-1] == "step.started"
    assert again(stage, 1, '{"n": 1}')[-1] == "run.suspended"


def test_something_else_in_between_is_no_loop() -> None:
    """FAULTS 84: other arguments, or another set of calls."""
    stage = Stage(steps_max=100, repeats_max=3)
    stage.prompt()
    again(stage, 2, '{"n": 1}')
    again(stage, 2, '{"n": 2}')
    assert again(stage, 2, '{"n": 1}', '{"n": 2}')[-1] == "step.started"
    assert stage.reply("done")[-1] == "run.completed"


# --- a sub-agent whose request is refused


@pytest.mark.parametrize("kind", ["bad_request", "refused", "not_found"])
def test_a_refused_request_of_a_sub_agent_fails_its_call(kind: str) -> None:
    """FAULTS 86, §5: a sub-agent is a tool: who called it is told and goes on; other levels are untouched."""
    stage = opened(inner=2)
    stage.path = ("k1",)
    assert stage.fail(kind, retryable=False) == ["model.failed", "tool.failed"]
    assert kinds(stage.all(e.ToolFailed)) == [("k1", "error")] and stage.last(e.ToolFailed).path == ()
    stage.path = ("k2",)
    assert stage.reply("it is done")[-1] == "step.started"
    assert stage.told[-2:] == [("tool", "Error (error): busy"), ("tool", "it is done")]


@pytest.mark.parametrize(("kind", "path"), [("unauthorized", ("k1",)), ("rate_limited", ("k1",)), ("bad_request", ())])
def test_a_refusal_that_is_everybodys_fails_the_run(kind: str, path: Path) -> None:
    """FAULTS 87: with a wrong key, or no credit, nobody of this run gets any further; nor does the top by itself."""
    stage = opened() if path else Stage()
    if not path:
        stage.prompt()
    stage.path = path
    assert stage.fail(kind, retryable=False)[-1] == "run.failed"
    assert stage.last(e.RunFailed).error.kind == kind


# --- random lives


class Spender(World):
    """A random world in which calls cost what they cost, and people raise ceilings, or not enough."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        pick = chance.choice
        rules = replace(
            RULES,
            agents={"a": pick([DEEP, FakeAgent()])},
            steps_max=pick([3, 30]),
            tokens_max=pick([None, 40, 300]),
            money_max=pick([None, 300, 2_000]),
            calls_max=pick([3, 100]),
            seconds_max=pick([None, 9]),
            repeats_max=pick([2, 10]),
            prices=pick([PRICES, PRICES, {"other": PRICES["m"]}]),
        )
        super().__init__(chance, rules)

    def step(self) -> None:
        super().step()
        run = self.state.run
        if run is not None and run.reason == "budget" and self.chance.random() < 0.4:
            parked = next(event for event in reversed(self.log) if isinstance(event, e.RunSuspended))
            more = (parked.ceiling or 0) + self.chance.choice([1, 50])
            looked = parked.of == "repeats"
            self.do(c.Resume(id=self.fresh()) if looked else raised(self.fresh(), parked.of or "", more))

    def _replied(self, effect: ModelCall) -> c.Internal:
        report = super()._replied(effect)
        assert isinstance(report, c.Replied)
        usage = Usage(input=self.chance.randint(1, 40), output=self.chance.randint(0, 20))
        return replace(report, usage=self.chance.choice([usage, usage, None]))


@dataclass
class Books:
    """A run's spending, kept from its log alone by other means than the product's."""

    rules: Rules
    given: dict[str, int] = field(default_factory=dict)
    usages: list[tuple[Path, Usage]] = field(default_factory=list)
    replies: list[Usage] = field(default_factory=list)
    last: dict[Path, Usage] = field(default_factory=dict)
    open: set[Path] = field(default_factory=set)
    steps: int = 0
    called: int = 0

    def ceiling(self, of: str) -> float:
        default = getattr(self.rules, f"{of}_max")
        return self.given.get(of, float("inf") if default is None else default)

    @property
    def used(self) -> dict[str, int]:
        usages = [usage for _, usage in self.usages]
        money = sum(usage.cost or 0 for usage in usages)
        return {"steps": self.steps, "calls": self.called, "tokens": sum(map(tokens, usages)), "money": money}

    def expected(self, path: Path) -> Usage | None:
        return self.last.get(path) or min(self.replies, key=tokens, default=None)

    def take(self, event: e.Event) -> None:
        match event:
            case e.StepStarted():
                self.begins(event)
            case e.ModelReplied():
                self.open.discard(event.path)
                self.usages.append((event.path, event.usage))
                self.replies.append(event.usage)
                self.last[event.path] = event.usage
                self.called += len(event.calls)
            case e.ModelInterrupted():
                self.open.discard(event.path)
                assert event.usage is not None and event.usage.estimated
                self.usages.append((event.path, event.usage))
            case e.ModelFailed():
                self.open.discard(event.path)
            case e.RunResumed():
                self.given |= {of: value for of in self.used if (value := getattr(event, of)) is not None}
            case e.RunSuspended(reason="budget", of=of, ceiling=ceiling, used=used) if of in self.used:
                assert (ceiling, used) == (self.ceiling(of or ""), self.used[of or ""])

    def begins(self, event: e.StepStarted) -> None:
        """No model call starts over a ceiling, nor with those under way beyond it."""
        kinds_ = ("steps", "calls", "tokens", "money") if event.attempt == 1 else ("tokens", "money")
        for of in kinds_:
            assert self.used[of] < self.ceiling(of), f"begun over the ceiling of {of}"
        known = [usage for path in (*self.open, event.path) if (usage := self.expected(path)) is not None]
        assert self.used["tokens"] + sum(map(tokens, known)) <= self.ceiling("tokens")
        assert self.used["money"] + sum(usage.cost or 0 for usage in known) <= self.ceiling("money")
        self.open.add(event.path)
        self.steps += event.attempt == 1


@given(st.integers(min_value=0, max_value=2**32))
@settings(max_examples=150, deadline=None)
def test_no_call_begins_over_a_ceiling_and_sums_are_sums(seed: int) -> None:
    """003-8, 002-9, §5: random ceilings, raised or not, at every level, across crashes."""
    world = Spender(seed)
    for _ in range(140):
        world.step()
    books: dict[str, Books] = {}
    for event in world.log:
        if isinstance(event, e.RunStarted):
            books[event.run or ""] = Books(world.rules)
        elif event.run in books:
            books[event.run].take(event)
    for run, kept in books.items():
        record = world.state.runs[run]
        by_level: defaultdict[Path, list[Usage]] = defaultdict(list)
        for path, usage in kept.usages:
            by_level[path].append(usage)
        assert record.usage == total(usage for _, usage in kept.usages)
        for path, level in record.levels.items():
            assert level.usage == total(by_level[path])
        assert sum(level.steps for level in record.levels.values()) == kept.steps
    assert fold(decode(text) for text in world.texts()) == world.state


@given(st.integers(min_value=0, max_value=2**32))
@settings(max_examples=80, deadline=None)
def test_a_budget_neither_hangs_a_run_nor_makes_it_turn(seed: int) -> None:
    """P5, P8: what goes on has something to go on with; a time to wake at is never past; what is due has happened."""
    world = Spender(seed)
    for _ in range(120):
        world.step()
        world.do(c.Wake(), "")
        before = len(world.log)
        world.do(c.Wake(), "")
        assert len(world.log) == before
        planned = plan(world.state, world.rules)
        assert planned.wake_at is None or planned.wake_at > world.at
        if world.state.run is not None and world.state.run.status == "running":
            at_work = [effect for effect in planned.effects if not isinstance(effect, ArchiveFlush)]
            assert at_work or planned.wake_at is not None
