"""SEMANTICS.md §9: what a run has used, in tokens and money, and the ceilings that stop it. Rows 003-8, 002-9, 003-20.

FAULTS 23, 84, 86, 89 through a real server process. A reply of the stub takes 11 and 7 tokens: at these prices 78
millionths.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from .conftest import Configured, Launch
from .harness import Client, Server, fresh, settled
from .history import Json
from .parts import Brain, Held, agent_of, asked_at, decision, parts, spoken
from .stub import Answer, Call, Story, Stub, Use, refuse, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

SERVED = ("tests.acceptance.levels:agents",)
PRICES = '{"stub-1": {"input": 2, "output": 8}}'
EACH, COST = 18, 78
"""Tokens and millionths of a reply."""

HOUR, DAYS = 3_600, 3 * 86_400


async def begin(server: Server, story: Story, brain: Brain, agent: str = "worker") -> Client:
    """A run of this agent, and its reader."""
    story.brain = brain
    tab = await server.open(agent=agent)
    await tab.do("prompt", text=story.says("Go"))
    return tab


def on(line: str, id: str = "k1", tool: str = "once") -> Use:
    return Use(tool, {"line": line}, id=id)


def asking(story: Story, id: str = "w") -> Use:
    return Use("worker", {"prompt": story.says("Work")}, id=id)


def spent(usage: Json) -> int:
    return int(usage["input"] + usage["output"])


async def stopped_by(tab: Client, of: str, times: int = 1) -> Json:
    """The n-th suspension; it is for this ceiling."""
    event = (await tab.count("run.suspended", times))[times - 1]
    assert (event["reason"], event["of"]) == ("budget", of), event
    assert event["used"] > 0 and event["ceiling"] > 0
    return event


async def test_003_8_usage_is_exposed_and_money_suspends(configured: Configured, story: Story) -> None:
    """003-8: per step, level and run, closed sub-agents too; the ceiling suspends, over kill -9; raising it resumes."""
    server, line = await configured(PRICES=PRICES, MONEY_MAX="0.0003"), fresh("line")
    worker = [use(on(line)), use(on(line, "k2")), say("Worked.")]
    tab = await begin(server, story, parts(lead=[use(asking(story)), say("All done.")], worker=worker), "lead")
    parked = await stopped_by(tab, "money")
    assert (parked["ceiling"], parked["used"]) == (300, 3 * COST) and len(story.calls) == 3
    await tab.do("resume")
    await stopped_by(tab, "money", 2)
    await server.restart()
    tab = await server.again(tab)
    assert tab.attached["status"] == "suspended" and len(story.calls) == 3, "the same ceiling holds"
    await tab.do("resume", "more", money=1_000)
    assert (await tab.event("run.resumed", cause="more"))["money"] == 1_000
    ended = await tab.ended()
    assert ended["type"] == "run.completed" and ended["usage"] == {"input": 55, "output": 35, "cost": 5 * COST}
    assert {event["usage"]["cost"] for event in tab.all("model.replied")} == {COST}
    shown = await server.get(f"/api/runs/{tab.run}")
    assert shown["usage"] == ended["usage"]
    assert shown["levels"] == [
        {"agent": "lead", "steps": 2, "usage": {"input": 22, "output": 14, "cost": 2 * COST}},
        {"path": ["w"], "agent": "worker", "steps": 3, "usage": {"input": 33, "output": 21, "cost": 3 * COST}},
    ]
    kept = await server.archived(tab.attached["conversation"], tab.run)
    assert [run["levels"] for run in kept["runs"]] == [shown["levels"]]
    assert server.sql("SELECT cost, unpriced FROM runs WHERE run = ?", tab.run) == [(5 * COST, 0)]
    whole = (await server.get(f"/api/conversations/{tab.attached['conversation']}"))["usage"]
    assert (whole["cost"], spent(whole)) == (5 * COST, 5 * EACH)
    listed = (await server.get("/api/runs"))["runs"]
    assert [run["usage"]["cost"] for run in listed if run["run"] == tab.run] == [5 * COST]
    await settled(server, tab)


async def test_003_8_levels_at_work_at_a_time_share_one_budget(configured: Configured, story: Story) -> None:
    """003-8, §5: three sub-agents at once, tokens for two: the third waits for what the others leave, then all stop."""
    server, held = await configured(TOKENS_MAX=str(3 * EACH)), Held()
    three = use(*(asking(story, f"w{number}") for number in range(3)))
    tab = await begin(server, story, parts(lead=[three, say("All done.")], worker=lambda _: held), "lead")
    both = [await held.call(), await held.call()]
    await tab.ping()
    assert len(story.calls) == 3 and not tab.all("run.suspended"), "the calls under way count"
    for call in both:
        await call.end()
    await stopped_by(tab, "tokens")
    assert spent((await server.get(f"/api/runs/{tab.run}"))["usage"]) == 3 * EACH == 18 * len(story.calls)
    await tab.do("resume", tokens=100 * EACH)
    await (await held.call()).end()
    assert (await tab.ended())["type"] == "run.completed"
    await settled(server, tab)


async def test_002_9_the_page_and_programs_are_told_which_ceiling(configured: Configured, story: Story) -> None:
    """002-9: steps; the event says how many, and a higher ceiling goes on without asking anything again."""
    server, line = await configured(STEPS_MAX="2"), fresh("line")
    tab = await begin(server, story, parts(worker=[use(on(line)), use(on(line, "k2")), say("Worked.")]))
    parked = await stopped_by(tab, "steps")
    assert (parked["ceiling"], parked["used"]) == (2, 2)
    await tab.do("resume", steps=parked["used"] + 1)
    assert (await tab.ended())["type"] == "run.completed"
    assert len(story.calls) == 3 and len(server.ledger(line)) == 4
    await settled(server, tab)


async def test_faults_84_a_loop_asks_the_person(configured: Configured, story: Story) -> None:
    """FAULTS 84: the same tool with the same arguments again and again: nobody goes on but a person."""
    server = await configured(REPEATS_MAX="3")

    def looping(call: Call) -> Answer:
        return use(Use("tick", {"number": 1}, id=f"k{spoken(call)}")) if spoken(call) < 5 else say("Enough.")

    tab = await begin(server, story, looping)
    parked = await stopped_by(tab, "repeats")
    assert parked["used"] == 3 and len(story.calls) == 3
    await tab.do("hint", "h1", text="Stop that")
    await server.restart()
    tab = await server.again(tab)
    assert tab.attached["status"] == "suspended"
    await tab.do("resume")
    assert (await tab.ended())["type"] == "run.completed"
    assert story.calls[3].words[-1] == "Stop that"
    await settled(server, tab)


async def test_faults_84_ten_thousand_calls(configured: Configured, story: Story) -> None:
    """FAULTS 84: calls of a run are bounded, however many a reply asks for; `calls` raises it."""
    server = await configured(CALLS_MAX="6")

    def greedy(call: Call) -> Answer:
        ids = [f"k{spoken(call)}-{number}" for number in range(4)]
        return use(*(Use("tick", {"number": n}, id=id) for n, id in enumerate(ids, 4 * spoken(call))))

    tab = await begin(server, story, greedy)
    parked = await stopped_by(tab, "calls")
    assert (parked["ceiling"], parked["used"]) == (6, 8) and len(story.calls) == 2
    await tab.do("resume", calls=10)
    assert (await stopped_by(tab, "calls", 2))["used"] == 12
    await tab.do("cancel")
    assert (await tab.ended())["type"] == "run.cancelled"
    await settled(server, tab)


async def test_faults_86_a_refused_request_inside_is_told_to_who_asked(server: Server, story: Story) -> None:
    """FAULTS 86, §5: a sub-agent is a tool: its 400 fails its call, and the agent above makes the best of it."""

    def brain(call: Call) -> Answer:
        if agent_of(call) == "worker":
            return refuse(400, "this request is not for me")
        return say("Then I do it myself.") if call.results else use(asking(story))

    tab = await begin(server, story, brain, "lead")
    assert (await tab.ended())["type"] == "run.completed"
    [failed] = tab.all("tool.failed", call="w")
    assert failed["error"]["kind"] == "error" and "not for me" in failed["error"]["message"]
    assert "not for me" in story.calls[2].results["w"] and len(story.calls) == 3
    await settled(server, tab)


async def test_faults_89_what_was_cut_off_is_estimated_and_counted(configured: Configured, story: Story) -> None:
    """FAULTS 89: the provider never says what an interrupted reply took; it is estimated, said so, and paid for."""
    server, held = await configured(PRICES=PRICES, MONEY_MAX="1"), Held()
    tab = await begin(server, story, lambda _: held)
    call = await held.call()
    await call.text("x" * 400)
    await tab.shows("x" * 400)
    await call.reset()
    await (await held.call()).end()
    ended = await tab.ended()
    [broken] = tab.all("model.interrupted")
    usage = broken["usage"]
    assert usage["estimated"] and usage["output"] == 101 and usage["cost"] == 2 * usage["input"] + 8 * 101
    assert ended["usage"] == {
        "input": usage["input"] + 11, "output": 101 + 7, "estimated": True, "cost": usage["cost"] + COST,
    }  # fmt: skip
    assert (await server.get(f"/api/runs/{tab.run}"))["levels"][0]["usage"] == ended["usage"]
    await settled(server, tab)


async def test_models_without_a_price_say_so(launch: Launch, story: Story) -> None:
    """003-8: once at the start, and in the usage of every run."""
    server = await launch(agents=SERVED, HOLDFAST_PRICES='{"another": {"input": 1, "output": 1}}')
    tab = await begin(server, story, lambda _: say("Cheap."))
    assert (await tab.ended())["usage"] == {"input": 11, "output": 7, "unpriced": True}
    assert "no price for stub-1" in server.said()
    await tab.flushed()
    assert server.sql("SELECT cost, unpriced FROM runs") == [(None, 1)]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"HOLDFAST_PRICES": '{"stub-1": {"input": "secret-5f1d"}}'}, "HOLDFAST_PRICES"),
        ({"HOLDFAST_MONEY_MAX": "secret-5f1d", "HOLDFAST_PRICES": PRICES}, "HOLDFAST_MONEY_MAX"),
        ({"HOLDFAST_MONEY_MAX": "1"}, "HOLDFAST_PRICES"),
        ({"HOLDFAST_CALLS_MAX": "secret-5f1d"}, "HOLDFAST_CALLS_MAX"),
    ],
)
async def test_wrong_prices_are_refused(launch: Launch, settings: dict[str, str], name: str) -> None:
    """FAULTS 104: exit ≠ 0 with the setting's name and never its value."""
    server = await launch(ready=False, **settings)
    assert await server.exited(15) != 0
    assert name in server.said() and "secret-5f1d" not in server.said() and "Traceback" not in server.said()


# --- a wall clock that somebody sets


class Machine(Server):
    """A server on a machine whose clock can be set."""

    def set_clock(self, seconds: float) -> None:
        file = Path(self.settings["TEST_CLOCK"])
        file.with_suffix(".new").write_text(str(seconds))
        file.with_suffix(".new").replace(file)


@pytest_asyncio.fixture(loop_scope="module")
async def machine(stub: Stub, tmp_path: Path) -> AsyncIterator[Machine]:
    settings = {"TEST_CLOCK": str(tmp_path / "clock"), "HOLDFAST_CANCEL_GRACE_SECONDS": "1"}
    server = Machine(tmp_path / "server", stub.url, settings, SERVED)
    server.program = ("-m", "tests.acceptance.set_clock")
    await server.start()
    yield server
    await server.close()
    assert "Traceback" not in server.said()


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_faults_23_a_clock_that_jumps_delays_nothing(machine: Machine, story: Story, jump: int) -> None:
    """FAULTS 23: an hour either way in a retry wait, and back again in a grace time; time never goes backwards."""
    line = fresh("line")
    story.then(refuse(503, retry_after="3"), use(Use("stubborn", {"line": line, "gate": line}, id="k1")))
    tab = await machine.open(agent="worker")
    await tab.do("prompt", text=story.says("Go"))
    await tab.event("model.failed")
    machine.set_clock(jump)
    await machine.wrote(line)
    assert story.calls[1].at - story.calls[0].at >= 2
    machine.set_clock(0)
    began = time.monotonic()
    await tab.do("cancel")
    assert (await tab.ended())["type"] == "run.cancelled"
    assert time.monotonic() - began < 10
    machine.let(line)
    await tab.event("tool.settled")
    times = [record.event["at"] for record in await machine.replay(tab.attached["conversation"])]
    assert times == sorted(times)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_faults_23_the_next_process_has_another_time(machine: Machine, story: Story, jump: int) -> None:
    """FAULTS 23: killed in a retry wait, and back with a clock that is an hour off: the wait is no hour longer."""
    story.then(refuse(503, retry_after="8"))
    tab = await machine.open(agent="worker")
    await tab.do("prompt", text=story.says("Go"))
    await tab.event("model.failed")
    await machine.kill()
    machine.set_clock(jump)
    await machine.start()
    tab = await machine.again(tab)
    await (await story.call(within=30)).end()
    assert (await tab.ended())["type"] == "run.completed"
    await settled(machine, tab)


async def test_003_20_days_pass_between_two_steps(machine: Machine, story: Story) -> None:
    """003-20: days in an approval and days in which there was no process: the same run goes on, nothing done twice."""
    line, place = fresh("line"), fresh("place")
    table = Use("reserve", {"place": place, "people": 2}, id="book")
    tab = await begin(machine, story, parts(worker=[use(on(line)), use(table), use(on(line, "k3")), say("Worked.")]))
    requested = await asked_at(tab)
    await tab.event("run.suspended")
    machine.set_clock(DAYS)
    await machine.kill()
    machine.set_clock(2 * DAYS)
    await machine.start()
    tab = await machine.again(tab)
    assert tab.attached["status"] == "waiting"
    await tab.do("approve", **decision(requested))
    ended = await tab.ended()
    assert ended["type"] == "run.completed" and ended["steps"] == 4 and ended["ms"] > 2 * DAYS * 1000
    assert len(story.calls) == 4 and len(machine.ledger(line)) == 4 and len(machine.ledger(place)) == 2
    await settled(machine, tab)
