"""SEMANTICS.md §5 and source 4: sub-agents, their approvals at any depth, and what a crash or a stop does to them.

Rows 004-1, -3, -5, -6, -11, -12, -13, -14, -15, -16, -23, -26 inside a sub-agent. The module's server is
killed and brought back in the middle of its tests: nothing of it may be remembered but the log.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import Any

import pytest

from .harness import Client, Server, eventually, fresh, settled
from .history import Json, level_of
from .parts import Held, agent_of, asked_at, at, decision, parts, told
from .stub import Answer, Call, Story, Use, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

SERVED = ("tests.acceptance.levels:agents",)
USED = (11, 7)
"""What the stub says each reply has cost: input and output tokens."""


def asking(story: Story, agent: str, id: str, words: str = "Work") -> Use:
    """A call of a sub-agent."""
    return Use(agent, {"prompt": story.says(words)}, id=id)


def on(line: str, tool: str = "once", id: str = "k1", **more: Any) -> Use:
    """A call of a tool that writes this line into the ledger."""
    return Use(tool, {"line": line, **more}, id=id)


def table(place: str, id: str = "book", **more: Any) -> Use:
    return Use("reserve", {"place": place, "people": 2, **more}, id=id)


def paper(line: str, id: str) -> Use:
    return Use("sign", {"paper": line}, id=id)


async def begin(server: Server, story: Story, agent: str, brain: Callable[[Call], Answer]) -> Client:
    """A run of this agent, and its reader."""
    story.brain = brain
    tab = await server.open(agent=agent)
    await tab.do("prompt", text=story.says("Go"))
    return tab


def whole(entries: Sequence[str]) -> list[str]:
    """The tools of a ledger that began, in order; each must have ended."""
    began = [entry.split()[0] for entry in entries if entry.split()[1] == "begin"]
    assert sorted(began) == sorted(entry.split()[0] for entry in entries if entry.split()[1] == "end"), entries
    return began


def asked_of(story: Story, agent: str) -> list[Call]:
    """The requests of one agent."""
    return [call for call in story.calls if agent_of(call) == agent]


async def seated(server: Server, story: Story, *uses: Use) -> Client:
    """`lead` asks its worker (call `w`), which asks for these calls and then says "Worked."."""
    lead = [use(asking(story, "worker", "w")), say("All done.")]
    return await begin(server, story, "lead", parts(lead=lead, worker=[use(*uses), say("Worked.")]))


# --- the example of source 4


async def test_004_12_the_hr_story(server: Server, story: Story) -> None:
    """004-12, 004-13: as an author would tell it; each agent knows its own level only; authorised once."""
    name = fresh("name")
    told_to_account = story.says(f"Set up {name}")
    hr = [
        use(Use("send_email", {"name": name}, id="mail")),
        use(Use("account", {"prompt": told_to_account}, id="setup")),
        say(f"{name} is onboard."),
    ]
    account = [
        use(Use("create_account", {"name": name}, id="create")),
        use(Use("authorize_account", {"name": name}, id="rights")),
        say("The account is ready."),
    ]
    tab = await begin(server, story, "hr", parts(hr=hr, account=account))
    requested = await asked_at(tab, "setup")
    await tab.event("run.suspended", reason="approval")
    assert (requested["tool"], requested["call"], requested["arguments"]) == (
        "authorize_account",
        "rights",
        {"name": name},
    )
    assert whole(server.ledger(name)) == ["send_email", "create_account"]
    await tab.do("approve", **decision(requested))
    assert (await tab.ended())["type"] == "run.completed"
    assert told(await settled(server, tab)) == [
        "hr uses send_email",
        "hr asks account",
        "account uses create_account",
        "account may not yet authorize_account",
        "run.suspended",
        "a person says: approved",
        "run.resumed",
        "account uses authorize_account",
        "account says: The account is ready.",
        f"hr says: {name} is onboard.",
        "run.completed",
    ]
    assert whole(server.ledger(name)) == ["send_email", "create_account", "authorize_account"]
    assert [call.words for call in asked_of(story, "account")] == [[told_to_account]] * 3
    assert [call.tools for call in asked_of(story, "account")] == [["create_account", "authorize_account"]] * 3
    assert [set(call.results) for call in asked_of(story, "hr")] == [set(), {"mail"}, {"mail", "setup"}]
    assert asked_of(story, "hr")[2].results["setup"] == "The account is ready."
    assert len(story.calls) == 6


# --- what a level is


async def test_004_13_events_have_the_path_of_their_level(server: Server, story: Story) -> None:
    """§3.1: every event of a level has its path; the level opens and ends with its call's; no `run.*` has one."""
    line = fresh("line")
    tab = await seated(server, story, on(line, id="k1"))
    await tab.ended()
    log = [record.event for record in await settled(server, tab)]
    lasting = [event["type"] for event in at(log, "w") if event["type"] != "text.streamed"]
    assert lasting == [
        *("step.started", "model.replied", "tool.started", "tool.returned"),
        *("step.started", "model.replied"),
    ]
    [opened] = tab.all("tool.started", call="w")
    [closed] = tab.all("tool.returned", call="w")
    assert "path" not in opened and "path" not in closed and opened["agent"] == "worker"
    assert closed["result"] == "Worked." and "agent" not in at(tab.all("tool.started"), "w")[0]
    inside = [event["seq"] for event in at(log, "w")]
    assert opened["seq"] < min(inside) and max(inside) < closed["seq"]
    assert all("path" not in event for event in log if event["type"].startswith(("run.", "hint.", "prompt.")))
    assert [event["step"] for event in at(tab.all("step.started"), "w")] == [1, 2], "a level counts its own steps"


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
async def test_004_11_any_depth(server: Server, story: Story, depth: int) -> None:
    """004-11: the innermost call's address has a call id per level; its decision finds it; each level hears its own."""
    line = fresh("line")
    names = ["worker", *(f"nest{number}" for number in range(1, depth + 1))]
    roles: dict[str, list[Answer]] = {
        outer: [use(asking(story, inner, f"to-{inner}")), say(f"{outer} is done")] for inner, outer in pairwise(names)
    }
    tab = await begin(server, story, names[-1], parts(**roles, worker=[use(table(line)), say("worker is done")]))
    path = [f"to-{name}" for name in reversed(names[:-1])]
    requested = await asked_at(tab, *path)
    assert len(requested["path"]) == depth and requested["path"] == path
    await tab.refused("no_such_approval", "approve", **{**decision(requested), "call": [*path[1:], "book"]})
    await tab.do("approve", **decision(requested))
    assert (await tab.ended())["type"] == "run.completed"
    results = [event for event in tab.all("tool.returned") if event["call"].startswith("to-")]
    assert [event["result"] for event in results] == [f"{name} is done" for name in names[:-1]]
    assert whole(server.ledger(line)) == ["reserve"] and len(story.calls) == 2 * (depth + 1)
    await settled(server, tab)


async def test_levels_end_somewhere(server: Server, story: Story) -> None:
    """§5: limit 8: the sub-agent beyond it is refused to whoever asked, and the run goes on."""
    depth = 10
    roles: dict[str, list[Answer]] = {
        f"nest{n}": [use(asking(story, f"nest{n - 1}" if n > 1 else "worker", f"d{n}")), say("Done.")]
        for n in range(1, depth + 1)
    }
    tab = await begin(server, story, "nest10", parts(**roles, worker=[say("Too deep.")]))
    assert (await tab.ended())["type"] == "run.completed"
    [failed] = tab.all("tool.failed")
    assert failed["error"]["kind"] == "error" and failed["path"] == [f"d{n}" for n in range(10, 2, -1)]
    assert {agent_of(call) for call in story.calls} == {f"nest{n}" for n in range(2, 11)}
    await settled(server, tab)


async def test_parallel_sub_agents(server: Server, story: Story) -> None:
    """§5: any number at a time, the same agent too; each has its own path; the step after waits for all."""
    lines = [fresh("line") for _ in range(3)]

    def brain(call: Call) -> Answer:
        if agent_of(call) == "lead":
            asked = [asking(story, "worker", f"w{number}", f"Do {line}") for number, line in enumerate(lines)]
            return say("All done.") if call.results else use(*asked)
        [line] = [line for line in lines if line in call.words[0]]
        return say(f"{line} finished") if call.results else use(on(line, gate=line))

    tab = await begin(server, story, "lead", brain)
    for line in lines:
        await server.wrote(line)
    for line in reversed(lines):
        server.let(line)
        await server.wrote(line, "end")
    assert (await tab.ended())["type"] == "run.completed"
    for number, line in enumerate(lines):
        [started] = at(tab.all("tool.started"), f"w{number}")
        assert (started["call"], started["arguments"]["line"]) == ("k1", line)
        assert whole(server.ledger(line)) == ["once"]
    assert asked_of(story, "lead")[-1].results == {f"w{n}": f"{line} finished" for n, line in enumerate(lines)}
    assert len(story.calls) == 8
    await settled(server, tab)


async def test_more_sub_agents_than_work_at_a_time(server: Server, story: Story) -> None:
    """§5, P8: twenty at once all get their turn, some after others; each has exactly one result."""
    story.brain = parts(
        lead=[use(*(asking(story, "worker", f"w{number}") for number in range(20))), say("All done.")],
        worker=[say("Worked.", pace=0.02)],
    )
    tab = await server.open(agent="lead")
    await tab.do("prompt", text=story.says("Go"))
    assert (await tab.ended())["type"] == "run.completed"
    assert {event["call"] for event in tab.all("tool.returned")} == {f"w{number}" for number in range(20)}
    assert 1 < story.most_open < 20
    await settled(server, tab)


async def test_a_prompt_that_is_none(server: Server, story: Story) -> None:
    """§9: a sub-agent called without its `prompt` is an error to the model; no level opens."""
    roles = {"lead": [use(Use("worker", {"task": "x"}, id="w")), say("Sorry.")], "worker": [say("Never asked.")]}
    tab = await begin(server, story, "lead", parts(**roles))
    assert (await tab.ended())["type"] == "run.completed"
    assert [event["error"]["kind"] for event in tab.all("tool.failed")] == ["bad_arguments"]
    assert asked_of(story, "worker") == [] and "prompt" in story.calls[1].results["w"]


async def test_a_prompt_that_is_too_long(server: Server, story: Story) -> None:
    """P8: refused to the model that wrote it, never handed on in part."""
    long = Use("worker", {"prompt": story.says("x" * 70_000)}, id="w")
    tab = await begin(server, story, "lead", parts(lead=[use(long), say("Sorry.")], worker=[say("Never asked.")]))
    assert (await tab.ended())["type"] == "run.completed"
    assert [event["error"]["kind"] for event in tab.all("tool.failed")] == ["bad_arguments"]
    assert asked_of(story, "worker") == [] and tab.all("tool.started") == []
    await settled(server, tab)


async def test_errors_stay_at_the_level_that_made_them(server: Server, story: Story) -> None:
    """§9: an unknown tool inside is told to the sub-agent; the agent above hears only its answer."""
    tab = await seated(server, story, Use("no_such_tool", {}, id="odd"))
    assert (await tab.ended())["type"] == "run.completed"
    [failed] = tab.all("tool.failed")
    assert failed["path"] == ["w"] and failed["error"]["kind"] == "unknown_tool"
    assert set(asked_of(story, "worker")[1].results) == {"odd"}
    assert asked_of(story, "lead")[1].results == {"w": "Worked."}
    await settled(server, tab)


async def test_a_sub_agent_that_says_nothing(server: Server, story: Story) -> None:
    """§3.1: no answer is an error of its call, of a kind that the contract knows; the agent that asked goes on."""

    async def silent(call: Call) -> None:
        await call.delta({"role": "assistant"})
        await call.end()

    tab = await begin(
        server, story, "lead", parts(lead=[use(asking(story, "worker", "w")), say("Well.")], worker=[silent])
    )
    assert (await tab.ended())["type"] == "run.completed"
    [failed] = tab.all("tool.failed", call="w")
    assert failed["error"]["kind"] == "error" and asked_of(story, "lead")[1].results["w"]
    await settled(server, tab)


# --- approvals inside


async def test_004_1_nothing_marked_runs_before_the_decision(server: Server, story: Story) -> None:
    """004-1, 004-15: inside, the unmarked sibling runs at once and once, the marked one only after its decision."""
    line, place = fresh("line"), fresh("place")
    tab = await seated(server, story, table(place), on(line, gate=line))
    requested = await asked_at(tab, "w")
    await server.wrote(line)
    assert tab.all("run.suspended") == []
    server.let(line)
    await tab.event("run.suspended", reason="approval")
    assert (await server.get(f"/api/runs/{tab.run}"))["status"] == "waiting"
    assert server.ledger(place) == [] and whole(server.ledger(line)) == ["once"] and len(story.calls) == 2
    await tab.do("approve", **decision(requested))
    await tab.ended()
    assert whole(server.ledger(place)) == ["reserve"] and whole(server.ledger(line)) == ["once"]
    [decided] = tab.all("approval.decided")
    assert decided["seq"] < at(tab.all("tool.started", call="book"), "w")[0]["seq"]
    assert asked_of(story, "worker")[1].results == {"book": f"a table at {place} for 2", "k1": f"{line} is done"}
    await settled(server, tab)


async def test_siblings_at_two_levels(server: Server, story: Story) -> None:
    """004-15: the agent above has its own safe call beside the sub-agent that waits: it runs once, before the pause."""
    line, place = fresh("line"), fresh("place")
    roles: dict[str, list[Answer]] = {
        "lead": [use(asking(story, "worker", "w"), on(line)), say("All done.")],
        "worker": [use(table(place)), say("Worked.")],
    }
    tab = await begin(server, story, "lead", parts(**roles))
    requested = await asked_at(tab, "w")
    await tab.event("run.suspended", reason="approval")
    assert whole(server.ledger(line)) == ["once"] and len(asked_of(story, "lead")) == 1
    await tab.do("deny", **decision(requested))
    await tab.ended()
    assert whole(server.ledger(line)) == ["once"] and server.ledger(place) == []
    await settled(server, tab)


@pytest.mark.parametrize("channel", ["socket", "http"])
async def test_004_3_decided_over_the_socket_or_http(server: Server, story: Story, channel: str) -> None:
    """004-3, 004-5, 004-23: seen in the item with its path; decided with nothing but its ids; nothing is repeated."""
    line, place = fresh("line"), fresh("place")
    roles: dict[str, list[Answer]] = {
        "lead": [use(on(line)), use(asking(story, "worker", "w")), say("All done.")],
        "worker": [use(on(line)), use(table(place)), say("Worked.")],
    }
    tab = await begin(server, story, "lead", parts(**roles))
    await asked_at(tab, "w")
    await tab.event("run.suspended", reason="approval")
    conversation, run = tab.attached["conversation"], tab.run
    await tab.close()
    [item] = (await server.get(f"/api/conversations/{conversation}"))["approvals"]
    assert (item["path"], item["call"], item["tool"]) == (["w"], "book", "reserve")
    if channel == "http":
        answer = await server.command(conversation, "approve", **decision(item))
        assert answer.status_code == 202 and answer.json()["duplicate"] is False
    else:
        other = await server.attach(conversation)
        [shown] = (await other.frame("attached"))["approvals"]
        await other.do("approve", **decision(shown))
    assert (await server.outcome(run))["result"] == "All done."
    assert whole(server.ledger(line)) == ["once", "once"] and whole(server.ledger(place)) == ["reserve"]
    assert [agent_of(call) for call in story.calls] == ["lead", "lead", "worker", "worker", "worker", "lead"]
    assert (await server.get(f"/api/conversations/{conversation}"))["approvals"] == []


async def test_004_6_nothing_runs_while_it_waits(server: Server, story: Story) -> None:
    """004-6: the process ends in time with nothing to wait for; the next one asks and runs nothing until decided."""
    place = fresh("place")
    tab = await seated(server, story, table(place))
    requested = await asked_at(tab, "w")
    await tab.event("run.suspended", reason="approval")
    asked = len(story.calls)
    assert await server.terminate(within=8) == 0
    await server.start()
    tab = await server.again(tab)
    assert tab.attached["status"] == "waiting"
    assert [decision(event) for event in tab.attached["approvals"]] == [decision(requested)]
    assert len(story.calls) == asked and server.ledger(place) == []
    await tab.do("approve", **decision(requested))
    await tab.ended()
    assert whole(server.ledger(place)) == ["reserve"] and len(story.calls) == asked + 2
    await settled(server, tab)


@pytest.mark.parametrize("nested", [False, True])
async def test_004_14_denied(server: Server, story: Story, nested: bool) -> None:
    """004-14: not run; the refusal and its reason are told at the level that asked, and the run goes on."""
    place = fresh("place")
    roles: dict[str, list[Answer]] = {"worker": [use(table(place)), say("Then not.")]}
    roles["lead"] = [use(asking(story, "worker", "w")), say("All done.")]
    tab = await begin(server, story, "lead" if nested else "worker", parts(**roles))
    requested = await asked_at(tab, *(["w"] if nested else []))
    await tab.do("deny", **decision(requested), reason="Too dear")
    assert (await tab.ended())["type"] == "run.completed"
    assert server.ledger(place) == []
    [failed] = tab.all("tool.failed")
    assert failed["error"]["kind"] == "denied" and failed.get("path") == (["w"] if nested else None)
    assert "Too dear" in asked_of(story, "worker")[1].results["book"]
    assert all("Too dear" not in json.dumps(call.messages) for call in asked_of(story, "lead"))
    await settled(server, tab)


@pytest.mark.parametrize("how", ["denied", "expired"])
async def test_an_inner_agent_that_ends_on_denial(server: Server, story: Story, how: str) -> None:
    """004-14, §4: `end_on_denial` inside ends the run, and expiry counts as denial; no model is asked again."""
    line = fresh("line")
    asked = table(line) if how == "denied" else on(line, "hurry")
    roles = {"lead": [use(asking(story, "stern_worker", "s"))], "stern_worker": [use(asked)]}
    tab = await begin(server, story, "lead", parts(**roles))
    requested = await asked_at(tab, "s")
    if how == "denied":
        await tab.do("deny", **decision(requested))
    await tab.ended()
    assert [event["decision"] for event in tab.all("approval.decided")] == [how]
    assert len(story.calls) == 2 and server.ledger(line) == []
    await settled(server, tab)


async def test_expiry_inside(server: Server, story: Story) -> None:
    """§4: counts as denial, at the level that asked."""
    line = fresh("line")
    tab = await seated(server, story, on(line, "hurry"))
    requested = await asked_at(tab, "w")
    assert requested["expires_at"] > requested["at"]
    assert (await tab.ended())["type"] == "run.completed"
    [decided] = tab.all("approval.decided")
    assert (decided["decision"], decided["path"]) == ("expired", ["w"])
    await tab.refused("already_closed", "approve", **decision(requested))
    assert server.ledger(line) == [] and asked_of(story, "worker")[1].results["k1"]
    await settled(server, tab)


def three_papers(story: Story, line: str) -> Callable[[Call], Answer]:
    """chief → deputy → clerk: each asks to sign the same paper, with the same call id, and the one below to do so."""
    return parts(
        chief=[use(asking(story, "deputy", "d"), paper(line, "s")), say("chief")],
        deputy=[use(asking(story, "clerk", "c"), paper(line, "s")), say("deputy")],
        clerk=[use(paper(line, "s")), say("clerk")],
    )


PATHS = {"chief": (), "deputy": ("d",), "clerk": ("d", "c")}


async def test_004_16_three_nested_approvals(server: Server, story: Story, stub: Any) -> None:
    """004-16: the eight combinations, in an order of their own, with kill -9 between request and decision.

    The tools have one name, the calls one id and the papers one text at all three levels: only the path tells them
    apart. Each combination gives exactly the decided set.
    """
    waiting: list[tuple[tuple[bool, ...], str, Story, Client]] = []
    for choice in product([True, False], repeat=3):
        line, own = fresh("paper"), stub.story()
        tab = await begin(server, own, "chief", three_papers(own, line))
        await tab.count("approval.requested", 3)
        await tab.event("run.suspended", reason="approval")
        assert server.ledger(line) == []
        waiting.append((choice, line, own, tab))
    await server.restart()
    for number, (choice, line, own, tab) in enumerate(waiting):
        tab = await server.again(tab)
        requests = {tuple(event.get("path", ())): event for event in tab.attached["approvals"]}
        assert set(requests) == set(PATHS.values())
        agents = list(zip(PATHS, choice, strict=True))
        turned = agents[number % 3 :] + agents[: number % 3]
        for agent, yes in turned:
            await tab.do("approve" if yes else "deny", **decision(requests[PATHS[agent]]))
        assert (await tab.ended())["type"] == "run.completed"
        signed = {f"{agent}_sign" for agent, yes in agents if yes}
        assert set(whole(server.ledger(line))) == signed and len(whole(server.ledger(line))) == len(signed)
        decided = {tuple(event.get("path", ())): event["decision"] for event in tab.all("approval.decided")}
        assert decided == {PATHS[agent]: "approved" if yes else "denied" for agent, yes in agents}
        assert len(own.calls) == 6 and [event["result"] for event in tab.all("tool.returned", call="d")] == ["deputy"]
        await settled(server, tab)


async def test_one_of_three_at_a_time_across_lives(server: Server, story: Story) -> None:
    """§5: decided from the inside out, each in a life of its own: a decided call starts at once, a level goes on."""
    line = fresh("paper")
    tab = await begin(server, story, "chief", three_papers(story, line))
    await tab.count("approval.requested", 3)
    for times, agent in enumerate(("clerk", "deputy", "chief"), 1):
        await tab.count("run.suspended", times, reason="approval")  # a life may end only where nothing is being asked
        [requested] = at(tab.all("approval.requested"), *PATHS[agent])
        await server.restart()
        tab = await server.again(tab)
        await tab.do("approve", **decision(requested))
    assert (await tab.ended())["type"] == "run.completed"
    assert whole(server.ledger(line)) == ["clerk_sign", "deputy_sign", "chief_sign"]
    assert len(story.calls) == 6, "nothing that was asked before is asked again"
    await settled(server, tab)


async def test_a_sub_agent_that_has_to_be_approved(server: Server, story: Story) -> None:
    """§5: with `approval=True` the level opens only after the decision; the approval shows its prompt."""
    line = fresh("line")
    roles = {"lead": [use(asking(story, "guarded", "g", "Be careful")), say("All done.")]}
    tab = await begin(server, story, "lead", parts(**roles, guarded=[use(on(line)), say("Guarded.")]))
    requested = await asked_at(tab)
    await tab.event("run.suspended", reason="approval")
    assert requested["tool"] == "guarded" and "Be careful" in requested["arguments"]["prompt"]
    assert asked_of(story, "guarded") == []
    await server.restart()
    tab = await server.again(tab)
    await tab.do("approve", **decision(requested))
    assert (await tab.ended())["type"] == "run.completed"
    assert whole(server.ledger(line)) == ["once"]
    await settled(server, tab)


async def test_a_sub_agent_that_is_denied(server: Server, story: Story) -> None:
    """004-14: no level opens; the agent that asked is told."""
    tab = await begin(server, story, "lead", parts(lead=[use(asking(story, "guarded", "g")), say("Then not.")]))
    await tab.do("deny", **decision(await asked_at(tab)))
    assert (await tab.ended())["type"] == "run.completed"
    assert tab.all("tool.started") == [] and len(story.calls) == 2
    await settled(server, tab)


async def test_004_26_with_and_without_approvals(server: Server, story: Story) -> None:
    """004-26: an agent whose tools need no decision says and does the same at the top and as a sub-agent."""
    answers = []
    for agent in ("worker", "lead"):
        line = fresh("line")
        roles = {"worker": [use(on(line)), use(on(line, id="k2")), say("The same.")]}
        roles["lead"] = [use(asking(story, "worker", "w", "Go")), say("The same.")]
        tab = await begin(server, story, agent, parts(**roles))
        assert (await tab.ended())["type"] == "run.completed"
        assert tab.all("run.suspended") == []
        last = asked_of(story, "worker")[-1].messages
        answers.append(json.dumps(last).replace(line, "LINE"))
        assert (await server.outcome(tab.run))["result"] == "The same."
        assert [entry.split()[3] for entry in server.ledger(line)] == ["k1", "k1", "k2", "k2"]
        await settled(server, tab)
    assert answers[0] == answers[1]


# --- two people, late people, wrong people


@pytest.mark.parametrize("kinds", [("approve", "approve"), ("approve", "deny"), ("deny", "deny")])
async def test_two_people_decide_inside(server: Server, story: Story, kinds: tuple[str, str]) -> None:
    """FAULTS 59, 60: the first commit wins; the same again is noted; another one hears who and when (HTTP: 409)."""
    place = fresh("place")
    tab = await seated(server, story, table(place))
    named = decision(await asked_at(tab, "w"))
    other = await server.attach(tab.attached["conversation"])
    answers = await asyncio.gather(tab.send(kinds[0], **named), other.send(kinds[1], **named))
    await tab.ended()
    [decided] = tab.all("approval.decided")
    refused = [answer for answer in answers if answer["type"] == "rejected"]
    if kinds[0] == kinds[1]:
        assert refused == []
    else:
        assert [answer["code"] for answer in refused] == ["already_decided"]
        assert refused[0]["decision"] == {key: decided[key] for key in ("decision", "by", "at")}
    assert whole(server.ledger(place)) == (["reserve"] if decided["decision"] == "approved" else [])
    opposite = "deny" if decided["decision"] == "approved" else "approve"
    late = await server.command(tab.attached["conversation"], opposite, **named)
    assert late.status_code == 409 and late.json()["error"]["code"] == "already_decided"
    await settled(server, tab)


async def test_after_cancel_inside_it_is_closed(server: Server, story: Story) -> None:
    """FAULTS 61: cancelled with the run, after a restart too: `already_closed`, and no tool."""
    place = fresh("place")
    tab = await seated(server, story, table(place))
    named = decision(await asked_at(tab, "w"))
    await tab.do("cancel")
    assert (await tab.ended())["type"] == "run.cancelled"
    for kind in ("approve", "deny"):
        await tab.refused("already_closed", kind, **named)
    await server.restart()
    tab = await server.again(tab)
    await tab.refused("already_closed", "approve", **named)
    assert server.ledger(place) == []
    await settled(server, tab)


async def test_a_decision_inside_must_name_what_was_asked(server: Server, story: Story) -> None:
    """FAULTS 62, 63: digest, whole path, run and edited arguments are checked; it stays open, and then is decided."""
    place, right = fresh("place"), fresh("place")
    tab = await seated(server, story, table(place))
    named = decision(await asked_at(tab, "w"))
    for kind in ("approve", "deny"):
        await tab.refused("digest_mismatch", kind, **{**named, "digest": "0" * len(named["digest"])})
        for wrong in (["book"], ["w"], ["book", "w"], ["w", "book", "book"], ["w", "other"]):
            await tab.refused("no_such_approval", kind, **{**named, "call": wrong})
        await tab.refused("no_such_approval", kind, **{**named, "run": "other"})
    await tab.refused("bad_arguments", "approve", **named, arguments={"place": 5})
    assert tab.all("approval.decided") == []
    await tab.do("approve", **named, arguments={"place": right, "people": 3})
    await tab.ended()
    assert server.ledger(place) == [] and whole(server.ledger(right)) == ["reserve"]
    assert right in asked_of(story, "worker")[1].results["book"]
    await settled(server, tab)


async def test_equal_names_and_equal_ids_do_not_collide(server: Server, story: Story) -> None:
    """§5: agent, tools, arguments and call ids are equal at two levels: no at the top is no at the top only."""
    line = fresh("paper")
    roles = {"twin_above": [use(paper(line, "same"), asking(story, "twin", "t")), say("Above.")]}
    tab = await begin(server, story, "twin", parts(**roles, twin_below=[use(paper(line, "same")), say("Below.")]))
    above, below = await asked_at(tab), await asked_at(tab, "t")
    assert (above["call"], above["digest"]) == (below["call"], below["digest"])
    await tab.do("deny", **decision(above))
    await tab.do("approve", **decision(below))
    assert (await tab.ended())["type"] == "run.completed"
    assert whole(server.ledger(line)) == ["below_sign"]
    assert line in asked_of(story, "twin_below")[1].results["same"]
    await settled(server, tab)


async def test_always_does_not_reach_a_tool_of_the_same_name(server: Server, story: Story) -> None:
    """§4, §5: `always` is for this tool; another agent's tool of that name is another tool, and still asks."""
    line = fresh("paper")
    roles = {
        "twin_above": [use(paper(line, "a")), use(asking(story, "twin", "t")), say("Above.")],
        "twin_below": [use(paper(line, "b")), use(paper(line, "c")), say("Below.")],
    }
    tab = await begin(server, story, "twin", parts(**roles))
    await tab.do("approve", **decision(await asked_at(tab)), always=True)
    requested = await asked_at(tab, "t")
    assert whole(server.ledger(line)) == ["above_sign"]
    await tab.do("approve", **decision(requested), always=True)
    assert (await tab.ended())["type"] == "run.completed"
    assert whole(server.ledger(line)) == ["above_sign", "below_sign", "below_sign"]
    assert len(tab.all("approval.requested")) == 2
    await tab.do("revoke", tool="sign")
    await tab.do("prompt", text=story.says("Again"))
    story.brain = lambda call: use(paper(line, "d")) if "d" not in call.results else say("Again.")
    await tab.event("approval.requested", call="d")
    await tab.do("cancel")
    await tab.ended(2)


async def test_the_same_ids_in_the_next_call_of_a_sub_agent(server: Server, story: Story) -> None:
    """§5: the provider repeats its ids at both levels: a call is another call, its approval another approval."""
    first, second = fresh("place"), fresh("place")

    def brain(call: Call) -> Answer:
        if agent_of(call) == "lead":
            done = len(call.results)
            return say("All done.") if done == 2 else use(asking(story, "worker", "w", second if done else first))
        return say("Worked.") if call.results else use(table(second if second in call.words[0] else first))

    tab = await begin(server, story, "lead", brain)
    one = await asked_at(tab, "w")
    await tab.do("approve", **decision(one))
    _, two = await tab.count("approval.requested", 2)
    assert two["path"] != one["path"] and two["arguments"]["place"] == second
    answer = await tab.send("deny", **{**decision(one), "digest": two["digest"]})
    assert answer["code"] == "digest_mismatch"
    await tab.do("deny", **decision(two))
    assert (await tab.ended())["type"] == "run.completed"
    assert whole(server.ledger(first)) == ["reserve"] and server.ledger(second) == []
    await settled(server, tab)


# --- stops


@pytest.mark.parametrize("moment", ["asked", "streaming", "approval"])
async def test_cancel_in_a_sub_agent(server: Server, story: Story, moment: str) -> None:
    """FAULTS 69, §10: before its first token, in the middle of its words, during its approval: ends `cancelled`."""
    held = Held()
    roles: dict[str, list[Answer]] = {"lead": [use(asking(story, "worker", "w"))]}
    roles["worker"] = [use(table(fresh("place")))] if moment == "approval" else [held]
    tab = await begin(server, story, "lead", parts(**roles))
    if moment == "approval":
        await asked_at(tab, "w")
    else:
        call = await held.call()
        if moment == "streaming":
            await call.text("Half")
            await tab.event("text.streamed", path=["w"])
    await tab.do("cancel", "stop")
    end = await tab.ended()
    [accepted] = [event for event in tab.events if event.get("cause") == "stop"]
    assert end["type"] == "run.cancelled" and end["at"] - accepted["at"] < 500, "no tool runs: no grace time"
    if moment != "approval":
        await call.aborted(within=2)
        kind = "model.interrupted" if moment == "streaming" else "model.failed"
        assert [event.get("text", "Half") for event in at(tab.all(kind), "w")] == ["Half"]
    [failed] = tab.all("tool.failed", call="w")
    assert failed["error"]["kind"] == "cancelled" and len(story.calls) == 2
    await settled(server, tab)


async def test_cancel_closes_every_level(server: Server, story: Story) -> None:
    """§5, §10, P7: a model, a tool and an approval, each at another place, all end in the append of the stop."""
    line, place, held = fresh("line"), fresh("place"), Held()
    scenes: dict[str, Answer] = {"speak": held, "work": use(on(line, gate=line)), "ask": use(table(place))}

    def brain(call: Call) -> Answer:
        if agent_of(call) == "lead":
            return use(*(asking(story, "worker", f"w-{scene}", scene) for scene in scenes))
        return next(answer for scene, answer in scenes.items() if scene in call.words[0])

    tab = await begin(server, story, "lead", brain)
    call = await held.call()
    await call.text("Half")
    await server.wrote(line)
    await asked_at(tab, "w-ask")
    await tab.event("text.streamed", path=["w-speak"])
    await tab.do("cancel")
    end = await tab.ended()
    assert end["type"] == "run.cancelled"
    await call.aborted(within=2)
    failed = {(*event.get("path", ()), event["call"]): event["error"]["kind"] for event in tab.all("tool.failed")}
    assert set(failed) == {*((f"w-{scene}",) for scene in scenes), ("w-work", "k1"), ("w-ask", "book")}
    assert failed["w-work", "k1"] in ("cancelled", "in_doubt") and failed["w-ask", "book"] == "cancelled"
    assert [event["decision"] for event in at(tab.all("approval.decided"), "w-ask")] == ["cancelled"]
    server.let(line)
    log = await settled(server, tab)
    assert not [record for record in log if record.seq > end["seq"] and record.event.get("run")]
    assert server.ledger(place) == [] and asked_of(story, "lead")[1:] == []


async def test_a_tool_inside_that_ignores_its_stop(server: Server, story: Story) -> None:
    """FAULTS 72, §2: after the grace time it is in doubt; what it did after all is kept with its path as settled."""
    line = fresh("line")
    tab = await seated(server, story, on(line, "stubborn", gate=line))
    await server.wrote(line)
    await tab.do("cancel")
    assert (await tab.ended(within=6))["type"] == "run.cancelled"
    [failed] = at(tab.all("tool.failed"), "w")
    assert failed["error"]["kind"] == "in_doubt"
    server.let(line)
    settled_as = await tab.event("tool.settled", call="k1")
    assert (settled_as["of"], settled_as["path"], settled_as["result"]) == (tab.run, ["w"], f"{line} is done")
    assert "run" not in settled_as
    await settled(server, tab)


async def test_a_tool_inside_that_never_returns(server: Server, story: Story) -> None:
    """FAULTS 90: its deadline ends it; its sub-agent is told and goes on."""
    line = fresh("line")
    tab = await seated(server, story, on(line, "endless"))
    assert (await tab.ended())["type"] == "run.completed"
    [failed] = at(tab.all("tool.failed"), "w")
    assert failed["error"]["kind"] == "timeout" and asked_of(story, "worker")[1].results["k1"]
    await settled(server, tab)


# --- crashes


async def test_killed_while_a_sub_agent_streams(server: Server, story: Story) -> None:
    """§1 inside: its words end as `crash`, its step is asked again as attempt 2; the call above stays open, once."""
    held = Held()
    roles: dict[str, list[Answer]] = {"lead": [use(asking(story, "worker", "w")), say("All done.")], "worker": [held]}
    tab = await begin(server, story, "lead", parts(**roles))
    first = await held.call()
    await first.text("Half of it")
    await tab.event("text.streamed", path=["w"])
    await server.restart()
    second = await held.call()
    assert second.messages == first.messages
    tab = await server.again(tab)
    [broken] = await tab.count("model.interrupted", 1)
    assert (broken["reason"], broken["text"], broken["path"]) == ("crash", "Half of it", ["w"])
    await second.text("All of it.")
    await second.end()
    assert (await tab.ended())["type"] == "run.completed"
    assert [event["attempt"] for event in at(tab.all("step.started"), "w")] == [1, 2]
    assert len(tab.all("tool.started", call="w")) == 1 and len(asked_of(story, "lead")) == 2
    assert asked_of(story, "lead")[1].results == {"w": "All of it."}
    await settled(server, tab)


@pytest.mark.parametrize(("tool", "begun"), [("safe", 2), ("once", 1)])
async def test_killed_during_a_tool_of_a_sub_agent(server: Server, story: Story, tool: str, begun: int) -> None:
    """§2 inside: `safe` runs again with its call id; `never` does not: in doubt, told to the sub-agent alone."""
    line = fresh("line")
    tab = await seated(server, story, on(line, tool, gate=line))
    await server.wrote(line)
    await server.kill()
    server.let(line)
    await server.start()
    tab = await server.again(tab)
    assert (await tab.ended())["type"] == "run.completed"
    assert [entry.split()[3] for entry in server.ledger(line) if " begin " in entry] == ["k1"] * begun
    kinds = [event["error"]["kind"] for event in at(tab.all("tool.failed"), "w")]
    assert kinds == ([] if tool == "safe" else ["in_doubt"])
    assert (asked_of(story, "worker")[1].results["k1"] == f"{line} is done") == (tool == "safe")
    assert asked_of(story, "lead")[1].results == {"w": "Worked."} and len(asked_of(story, "worker")) == 2
    await settled(server, tab)


@pytest.mark.parametrize("outcome", ["done", "rerun", "skip"])
async def test_a_doubt_inside_is_a_persons_to_settle(server: Server, story: Story, outcome: str) -> None:
    """§2 inside: `ask` waits with its path; settled by path; the sub-agent hears the outcome."""
    line = fresh("line")
    tab = await seated(server, story, on(line, "ask", gate=line))
    await server.wrote(line)
    await server.kill()
    server.let(line)
    await server.start()
    tab = await server.again(tab)
    doubt = await tab.event("doubt.raised", path=["w"], call="k1")
    await tab.event("run.suspended", reason="in_doubt")
    result = {"result": "It is there."} if outcome == "done" else {}
    await tab.refused("no_such_approval", "settle", run=tab.run, call=["k1"], outcome=outcome)
    await tab.do("settle", run=doubt["run"], call=["w", "k1"], outcome=outcome, **result)
    assert (await tab.ended())["type"] == "run.completed"
    assert len([entry for entry in server.ledger(line) if " begin " in entry]) == (2 if outcome == "rerun" else 1)
    heard = asked_of(story, "worker")[1].results["k1"]
    assert heard == {"done": "It is there.", "rerun": f"{line} is done"}.get(outcome, heard) and heard
    await settled(server, tab)


async def test_killed_with_several_levels_at_work(server: Server, story: Story) -> None:
    """P5, P6: one streams, one works, one waits for a person: each goes on as its own kind does, and nothing twice."""
    line, place, held = fresh("line"), fresh("place"), Held()
    scenes: dict[str, Answer] = {"speak": held, "work": use(on(line, "safe", gate=line)), "ask": use(table(place))}

    def brain(call: Call) -> Answer:
        if agent_of(call) == "lead":
            asked = [asking(story, "worker", f"w-{scene}", scene) for scene in scenes]
            return say("All done.") if call.results else use(*asked)
        scene = next(scene for scene in scenes if scene in call.words[0])
        return say(f"{scene} is over") if call.results else scenes[scene]

    tab = await begin(server, story, "lead", brain)
    await (await held.call()).text("Half")
    await server.wrote(line)
    requested = await asked_at(tab, "w-ask")
    await server.restart()
    tab = await server.again(tab)
    server.let(line)
    await tab.do("approve", **decision(requested))
    again = await held.call()
    await again.text("speak is over")
    await again.end()
    assert (await tab.ended())["type"] == "run.completed"
    assert asked_of(story, "lead")[-1].results == {f"w-{scene}": f"{scene} is over" for scene in scenes}
    assert whole(server.ledger(place)) == ["reserve"]
    assert len(tab.all("tool.started", call="w-ask")) == len(at(tab.all("tool.started"), "w-work")) == 1
    await settled(server, tab)


async def test_a_drain_waits_for_a_tool_of_a_sub_agent(server: Server, story: Story) -> None:
    """§11 inside: not cut, its result is kept, exit 0 in time; the next life goes on in the sub-agent."""
    line = fresh("line")
    tab = await seated(server, story, on(line, gate=line))
    await server.wrote(line)
    ending = asyncio.create_task(server.terminate(within=10))
    await tab.frame("draining")
    server.let(line)
    assert await ending == 0
    assert whole(server.ledger(line)) == ["once"] and len(story.calls) == 2
    await server.start()
    tab = await server.again(tab)
    assert (await tab.ended())["type"] == "run.completed"
    assert whole(server.ledger(line)) == ["once"] and len(asked_of(story, "worker")) == 2
    await settled(server, tab)


async def test_the_third_crash_in_one_call_of_a_sub_agent(server: Server, story: Story) -> None:
    """FAULTS 12, §1 inside: that call fails and its sub-agent is told; the run goes on."""
    line = fresh("line")
    tab = await seated(server, story, on(line, "safe", gate=line))
    for life in range(1, 4):
        await server.wrote(line, times=life)
        await server.restart()
    tab = await server.again(tab)
    assert (await tab.ended())["type"] == "run.completed"
    [failed] = tab.all("tool.failed")
    assert (failed["error"]["kind"], failed["path"]) == ("error", ["w"]) and len(server.ledger(line)) == 3
    await settled(server, tab)


# --- hints


async def test_hints_go_to_the_agent_at_the_top(server: Server, story: Story) -> None:
    """§3: while a sub-agent works; it does not hear of it, also with `interrupt`; the top hears it with the result."""
    line, words = fresh("line"), fresh("words")
    tab = await seated(server, story, on(line, "once", gate=line))
    await server.wrote(line)
    await tab.do("hint", "h1", text=words, interrupt=True)
    await tab.do("hint", "h2", text=f"{words} again")
    server.let(line)
    assert (await tab.ended())["type"] == "run.completed"
    assert [event["step"] for event in tab.all("hint.applied")] == [2, 2]
    [heard] = tab.all("tool.returned", call="w")
    assert all("path" not in event and event["seq"] > heard["seq"] for event in tab.all("hint.applied"))
    assert all(words not in json.dumps(call.messages) for call in asked_of(story, "worker"))
    last = asked_of(story, "lead")[1].messages
    assert [message["role"] for message in last[-3:]] == ["tool", "user", "user"]
    assert [message["content"] for message in last[-2:]] == [words, f"{words} again"]
    assert whole(server.ledger(line)) == ["once"]
    await settled(server, tab)


async def test_a_hint_while_an_approval_inside_waits(server: Server, story: Story) -> None:
    """§3: kept and shown, decides nothing; delivered to the top once the sub-agent is done."""
    place, words = fresh("place"), fresh("words")
    tab = await seated(server, story, table(place))
    requested = await asked_at(tab, "w")
    await tab.event("run.suspended", reason="approval")
    await tab.do("hint", "h1", text=words, interrupt=True)
    item = await server.get(f"/api/conversations/{tab.attached['conversation']}")
    assert item["status"] == "waiting" and [queued["message"] for queued in item["queued"]] == ["h1"]
    await server.restart()
    tab = await server.again(tab)
    await tab.do("approve", **decision(requested))
    assert (await tab.ended())["type"] == "run.completed"
    assert [event["message"] for event in tab.all("hint.applied")] == ["h1"]
    assert asked_of(story, "lead")[1].words[-1] == words
    assert all(words not in json.dumps(call.messages) for call in asked_of(story, "worker"))
    await settled(server, tab)


# --- what readers, programs and SQL see of it


async def test_usage_is_summed_over_all_levels(server: Server, story: Story) -> None:
    """§9: of the run and of the conversation: every model call of every level."""
    tab = await seated(server, story, on(fresh("line")))
    ended = await tab.ended()
    replies = tab.all("model.replied")
    assert len(replies) == 4 and all(event["usage"] == {"input": USED[0], "output": USED[1]} for event in replies)
    assert (ended["usage"]["input"], ended["usage"]["output"]) == (4 * USED[0], 4 * USED[1])
    for owner in (f"runs/{tab.run}", f"conversations/{tab.attached['conversation']}"):
        usage = (await server.get(f"/api/{owner}"))["usage"]
        assert (usage["input"], usage["output"]) == (4 * USED[0], 4 * USED[1])


async def test_the_archive_shows_the_tree(server: Server, story: Story) -> None:
    """§2 of the protocol: messages of all levels in order, each with its path; the same again after a restart."""
    line = fresh("line")
    roles = {
        "nest2": [use(asking(story, "nest1", "ab")), say("outer")],
        "nest1": [use(asking(story, "worker", "c")), say("middle")],
        "worker": [use(on(line)), say("inner")],
    }
    tab = await begin(server, story, "nest2", parts(**roles))
    await tab.ended()
    conversation = tab.attached["conversation"]
    kept = await server.archived(conversation, tab.run)
    said = [(m.get("path", []), m["text"]) for m in kept["messages"] if m["role"] == "assistant" and m["text"]]
    assert said == [(["ab", "c"], "inner"), (["ab"], "middle"), ([], "outer")]
    results = [(m.get("path", []), m["call"], m["text"]) for m in kept["messages"] if m["role"] == "tool"]
    assert results == [(["ab", "c"], "k1", f"{line} is done"), (["ab"], "c", "inner"), ([], "ab", "middle")]
    seqs = [message["seq"] for message in kept["messages"]]
    assert seqs == sorted(set(seqs))
    assert [run["run"] for run in kept["runs"]] == [tab.run]
    await server.restart()
    assert (await server.get(f"/api/conversations/{conversation}/messages"))["messages"] == kept["messages"]


async def test_every_reader_sees_the_same_tree(server: Server, story: Story) -> None:
    """P2, P4: one from the start, one that joined in the middle of a level, one over SSE, one that came late."""
    line, held = fresh("line"), Held()
    roles: dict[str, list[Answer]] = {
        "lead": [use(asking(story, "worker", "w1"), asking(story, "worker", "w2")), say("All done.")],
        "worker": [use(on(line, "safe")), held],
    }
    first = await begin(server, story, "lead", parts(**roles))
    conversation = first.attached["conversation"]
    calls = [await held.call(), await held.call()]
    for call in calls:
        await call.text("Half")
    await first.until(lambda c: {level_of(e) for e in c.all("text.streamed")} >= levels(c), "both speak")
    joined = await server.attach(conversation)
    streamed, _, _ = await server.stream(conversation)
    await joined.frame("live")
    await server.restart()
    first, joined = await server.again(first), await server.again(joined)
    for _ in calls:
        call = await held.call()
        await call.text("Whole.")
        await call.end()
    await first.ended()
    late = await server.attach(conversation)
    for reader in (first, joined, late):
        await settled(server, reader)
    await streamed.closed()


def levels(client: Client) -> set[tuple[Any, ...]]:
    """The levels that are below the top, as this reader knows them."""
    return {(event["run"], event["call"]) for event in client.all("tool.started") if "agent" in event}


async def test_runs_are_listed_as_what_they_are(server: Server, story: Story) -> None:
    """A run is one, however many agents work in it: one item, of the agent at the top; it waits as those inside do."""
    place = fresh("place")
    tab = await seated(server, story, table(place))
    requested = await asked_at(tab, "w")
    await tab.event("run.suspended", reason="approval")

    async def listed() -> list[Json]:
        runs = (await server.get("/api/runs", status="active"))["runs"]
        return [run for run in runs if run["conversation"] == tab.attached["conversation"]]

    [item] = await listed()
    assert (item["run"], item["agent"], item["status"]) == (tab.run, "lead", "waiting")
    await tab.do("approve", **decision(requested))
    await tab.ended()

    async def gone() -> bool:
        return await listed() == []

    await eventually(gone, "no active run of it is listed")
