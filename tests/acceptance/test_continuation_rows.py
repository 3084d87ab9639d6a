"""Source 4 row by row, as far as the object itself is concerned (test_continuations.py has its ways in and out).

Rows 004-8 to 004-12, 004-14, 004-16 to 004-18, 004-21, 004-23, 004-26 and 004-27 of ACCEPTANCE.md.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tomllib
from collections.abc import Sequence
from functools import partial
from itertools import pairwise, product
from typing import Any

import pytest

from .conftest import Launch
from .harness import ROOT, Client, Server, eventually, fresh, settled
from .history import Json
from .parts import parts
from .stub import Answer, Call, Story, Use, say, use
from .test_continuations import answered, began, exported, hr_parts, put_back, waiting

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

SERVED = ("tests.acceptance.levels:agents", "tests.acceptance.levels:stern", "tests.acceptance.agents:plain")
SECRET = "a secret that these servers share"


def inmost(object: Json) -> Json:
    """The continuation of the innermost level that waits."""
    inside: Json = object["continuation"]
    while (call := inside["resume_request"][0]).get("continuation"):
        inside = call["continuation"]
    return inside


async def opened(server: Server, story: Story, agent: str, **roles: Sequence[Answer]) -> Client:
    story.brain = parts(**roles)
    tab = await server.open(agent=agent)
    await tab.do("prompt", text=story.says("Go"))
    return tab


def results(call: Call) -> list[Json]:
    return [message for message in call.messages if message["role"] == "tool"]


async def output(server: Server, run: str, status: int = 200) -> Json:
    return await server.get(f"/api/runs/{run}/output", status)


async def test_004_8_messages_and_the_pending_results_are_the_next_request(server: Server, story: Story) -> None:
    """004-8, 004-5: per level: what the object says, then the result that was waited for, and nothing else."""
    name = fresh("ann")
    tab = await waiting(server, story, name)
    object = await exported(server, tab)
    asked = len(story.calls)
    await put_back(server, answered(object, True))
    await tab.ended()
    account, hr = story.calls[asked:]
    for call, said, id in ((account, inmost(object), "rights"), (hr, object["continuation"], "setup")):
        *before, last = call.messages
        assert before == said["messages"] and (last["role"], last["tool_call_id"]) == ("tool", id)


async def test_004_9_the_call_is_named_byte_for_byte(server: Server, story: Story) -> None:
    """004-9: the arguments are the model's text, not our idea of it; the tool gets what they mean."""
    place = fresh("place")
    odd = f'{{ "people" :2,\n"place":  "{place}" }}'
    tab = await opened(server, story, "lead", lead=[use(Use("reserve", odd, id="call/1")), say("Done.")])
    await tab.event("run.suspended", reason="approval")
    object = await exported(server, tab)
    [call] = object["continuation"]["resume_request"]
    assert call["function"] == {"name": "reserve", "arguments": odd}
    assert call["id"] == tab.all("approval.requested")[0]["call"] == object["approval_info"][0]["path_ids"][0]
    await put_back(server, answered(object, True))
    assert (await tab.ended())["type"] == "run.completed" and began(server, place) == ["reserve"]


async def test_004_10_processed_holds_both_outcomes(server: Server, story: Story) -> None:
    """004-10: decided one by one, each exported with those before it; approved and disapproved, and both go on."""
    places = [fresh("place") for _ in range(3)]
    uses = [Use("reserve", {"place": place, "people": 2}, id=f"k{n}") for n, place in enumerate(places)]
    tab = await opened(server, story, "lead", lead=[use(*uses), say("Done.")])
    await tab.event("run.suspended", reason="approval")
    await put_back(server, answered(await exported(server, tab), True, None, None))
    await tab.count("run.suspended", 2)
    await put_back(server, answered(await exported(server, tab), False, None))
    await tab.count("approval.decided", 2)
    last = await exported(server, tab)
    assert last["continuation"]["processed"] == [{"id": "k0", "approved": True}, {"id": "k1", "approved": False}]
    assert [call["id"] for call in last["continuation"]["resume_request"]] == ["k2"]
    await put_back(server, answered(last, True))
    assert (await tab.ended())["type"] == "run.completed"
    assert [began(server, place) for place in places] == [["reserve"], [], ["reserve"]]
    assert ["denied" in message["content"] for message in results(story.calls[-1])] == [False, True, False]


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
async def test_004_11_any_depth_as_an_object(server: Server, story: Story, depth: int) -> None:
    """004-11, 004-13: `paths` and `path_ids` have one entry per level and the leaf; so deep is the object nested."""
    place = fresh("place")
    names = ["worker", *(f"nest{number}" for number in range(1, depth + 1))]
    roles: dict[str, list[Answer]] = {
        outer: [use(Use(inner, {"prompt": story.says("Go deeper")}, id=f"to-{inner}")), say(f"{outer} is done")]
        for inner, outer in pairwise(names)
    }
    leaf = [use(Use("reserve", {"place": place, "people": 2}, id="leaf")), say("worker is done")]
    tab = await opened(server, story, names[-1], **roles, worker=leaf)
    await tab.event("run.suspended", reason="approval")
    object = await exported(server, tab)
    [info] = object["approval_info"]
    assert info["paths"] == [*reversed(names[:-1]), "reserve"] and len(info["paths"]) == depth + 1
    assert info["path_ids"] == [*(f"to-{name}" for name in reversed(names[:-1])), "leaf"]
    inside = object["continuation"]
    for id in info["path_ids"]:
        [call] = inside["resume_request"]
        assert call["id"] == id
        inside = call.get("continuation")
    assert inside is None
    await put_back(server, answered(object, True))
    assert (await tab.ended())["type"] == "run.completed" and began(server, place) == ["reserve"]
    assert len(story.calls) == 2 * (depth + 1)


async def test_004_12_the_hr_example_as_an_object(server: Server, story: Story) -> None:
    """004-12: onboard, e-mail, account agent, create, approval, nested object, approved, authorised once, done."""
    name = fresh("ann")
    tab = await waiting(server, story, name)
    assert began(server, name) == ["send_email", "create_account"]
    object = await exported(server, tab)
    [outer] = object["continuation"]["resume_request"]
    [inner] = outer["continuation"]["resume_request"]
    assert (outer["function"]["name"], inner["function"]["name"]) == ("account", "authorize_account")
    await put_back(server, answered(object, True))
    assert (await tab.ended())["type"] == "run.completed"
    assert began(server, name) == ["send_email", "create_account", "authorize_account"]
    done = await output(server, tab.run)
    assert (done["end_reason"], done["result"]) == ("completed", f"{name} is onboard.")
    await settled(server, tab)


@pytest.mark.parametrize("nested", [False, True])
async def test_004_14_what_was_rejected_is_an_output(server: Server, story: Story, nested: bool) -> None:
    """004-14: an agent that takes no for an answer: nothing runs, no model is asked, the output names the call."""
    place = fresh("place")
    booking = [use(Use("reserve", {"place": place, "people": 2}, id="book"))]
    if nested:
        asks = [use(Use("stern_worker", {"prompt": story.says("Book")}, id="s"))]
        tab = await opened(server, story, "lead", lead=asks, stern_worker=booking)
    else:
        tab = await opened(server, story, "stern_worker", stern_worker=booking)
    await tab.event("run.suspended", reason="approval")
    copied = await exported(server, tab)
    shown = await output(server, tab.run)
    assert all(shown[part] == copied[part] for part in ("continuation", "approval_info", "end_reason"))
    asked = len(story.calls)
    await put_back(server, answered(copied, False))
    assert (await tab.ended())["type"] == "run.failed"
    ended = await output(server, tab.run)
    [rejected] = ended["rejected_tool_calls"]
    assert ended["end_reason"] == "rejected_tool_calls" and "result" not in ended
    assert rejected["function"] == copied["approval_info"][0]["tool_call"]["function"]
    assert rejected["path_ids"] == copied["approval_info"][0]["path_ids"] == (["s", "book"] if nested else ["book"])
    assert ended["messages"][: len(copied["continuation"]["messages"])] == copied["continuation"]["messages"]
    assert len(story.calls) == asked and began(server, place) == []


async def test_004_16_the_eight_combinations_of_an_object(server: Server, stub: Any) -> None:
    """004-16: three approvals at three levels, of one name, id and text: the object decides each by its path alone."""
    for choice in product([True, False], repeat=3):
        line, story = fresh("paper"), stub.story()
        asked = Use("sign", {"paper": line}, id="s")
        tab = await opened(
            server,
            story,
            "chief",
            chief=[use(Use("deputy", {"prompt": story.says("Sign")}, id="d"), asked), say("chief")],
            deputy=[use(Use("clerk", {"prompt": story.says("Sign")}, id="c"), asked), say("deputy")],
            clerk=[use(asked), say("clerk")],
        )
        await tab.count("approval.requested", 3)
        await tab.event("run.suspended", reason="approval")
        object = await exported(server, tab)
        answers = dict(zip((("s",), ("d", "s"), ("d", "c", "s")), choice, strict=True))
        ordered = [answers[tuple(info["path_ids"])] for info in object["approval_info"]]
        await put_back(server, answered(object, *ordered))
        assert (await tab.ended())["type"] == "run.completed"
        wanted = {f"{who}_sign" for who, yes in zip(("chief", "deputy", "clerk"), choice, strict=True) if yes}
        assert sorted(began(server, line)) == sorted(wanted), choice


async def test_004_17_the_object_names_the_time_that_was_up(launch: Launch, story: Story) -> None:
    """004-17: suspended at the boundary after its seconds; `suspend_list` names why; put back, it goes on."""
    server, line = await launch(agents=SERVED, HOLDFAST_SECONDS_MAX="1"), fresh("line")
    slow = use(Use("once", {"line": line, "seconds": 1.05}, id="k1"))
    tab = await opened(server, story, "lead", lead=[slow, say("Done.")])
    await tab.event("run.suspended", reason="budget")
    object = await exported(server, tab)
    assert (object["end_reason"], object["suspend_list"]) == ("suspended", ["budget"])
    assert object["continuation"]["resume_request"] == object["approval_info"] == []
    await put_back(server, object)
    assert (await tab.ended())["type"] == "run.completed"
    assert (await put_back(server, object, 200))["status"] == "completed"
    assert began(server, line) == ["once"] and len(story.calls) == 2


async def test_004_21_from_server_to_server_at_every_boundary(launch: Launch, story: Story) -> None:
    """004-21, 004-18, 004-22: suspended after each step, taken, and put back on the other server, to and fro: every
    tool runs once, every step is asked once, and the whole story is where the run ends.
    """
    settings = {"HOLDFAST_SECRET": SECRET, "HOLDFAST_TURNS": "1"}
    servers = [await launch(agents=SERVED, **settings) for _ in range(2)]
    line = fresh("line")
    steps = [use(Use("once", {"line": line}, id=f"k{n}"), text=f"Step {n}.") for n in range(4)]
    tab = await opened(servers[0], story, "lead", lead=[*steps, say("All done.")])
    run, conversation = tab.run, tab.attached["conversation"]
    moves: list[tuple[Server, Server, Json]] = []
    for number in range(4):
        here, there = servers[number % 2], servers[(number + 1) % 2]
        await eventually(partial(has_status, here, run, "suspended"), f"suspended after step {number}")
        taken = await here.post(f"/api/conversations/{conversation}/continuation/take", {})
        assert taken["suspend_list"] == ["turns"] and len(story.calls) == number + 1
        conversation = (await put_back(there, taken))["conversation"]
        moves.append((here, there, taken))
    done = await servers[0].outcome(run)
    assert (done["status"], done["result"]) == ("completed", "All done.")
    for here, there, taken in moves:  # long after, and though the run was back here since
        assert (await put_back(here, taken, 409))["error"]["code"] == "not_running"
        assert (await put_back(there, taken, 200))["duplicate"] is True
    assert [len(server.ledger(line)) for server in servers] == [4, 4] and len(story.calls) == 5
    said = [message["content"] for message in story.calls[-1].messages if message["role"] == "assistant"]
    assert said == [f"Step {number}." for number in range(4)]


async def has_status(server: Server, run: str, status: str) -> bool:
    return bool((await server.get(f"/api/runs/{run}"))["status"] == status)


@pytest.mark.parametrize("approved", [True, False])
async def test_004_23_a_third_party_channel_decides_by_path_ids(server: Server, story: Story, approved: bool) -> None:
    """004-23: no socket anywhere: what a channel keeps of the object (run, path of ids, digest) is enough to decide by
    one plain HTTP request, after a restart too; a second click changes nothing, another answer learns who was first.
    """
    name = fresh("ann")
    story.brain = parts(**hr_parts(story, name))
    made = await server.create(agent="hr", prompt=story.says(f"Onboard {name}"))
    await eventually(partial(has_status, server, made["run"], "waiting"), "it waits")
    object = await server.get(f"/api/conversations/{made['conversation']}/continuation")
    [info] = object["approval_info"]
    button = {
        "run": object["holdfast"]["run"],
        "call": info["path_ids"],
        "digest": object["holdfast"]["digests"]["/".join(info["path_ids"])],
    }
    assert info["paths"][-1] == "authorize_account" and name in info["tool_call"]["function"]["arguments"]
    await server.restart()
    kind, other = ("approve", "deny") if approved else ("deny", "approve")
    clicks = [await server.command(made["conversation"], kind, **button) for _ in range(2)]
    assert [answer.status_code for answer in clicks] == [202, 202]
    refused = await server.command(made["conversation"], other, **button)
    assert refused.status_code == 409 and refused.json()["error"]["decision"]["by"] == "owner"
    wrong = await server.command(made["conversation"], kind, **{**button, "call": ["setup", "wrong"]})
    assert wrong.status_code == 404
    assert (await server.outcome(made["run"]))["status"] == "completed"
    assert began(server, name) == ["send_email", "create_account"] + ["authorize_account"] * approved


async def test_004_26_an_agent_that_never_pauses_gives_the_same_output(server: Server, story: Story) -> None:
    """004-26: with tools that may pause and with none: the same words in, the same output; only the tools differ."""
    outputs = []
    for agent in ("plain", "lead"):
        story.then(say("The same answer."))
        made = await put_back(server, {"prompt": story.says("Answer"), "agent": agent})
        await server.outcome(made["run"])
        outputs.append(await output(server, made["run"]))
        assert outputs[-1]["end_reason"] == "completed" and "rejected_tool_calls" not in outputs[-1]
    for one in outputs:
        assert one["messages"].pop(0)["role"] == "system"
    assert outputs[0] == outputs[1]


FRAMEWORKS = (
    "agents", "autogen", "autogen_core", "crewai", "dspy", "griptape", "guidance", "haystack",
    "langchain", "langchain_core", "langgraph", "letta", "litellm", "llama_index", "magentic", "marvin", "phi",
    "pydantic_ai", "semantic_kernel", "smolagents", "strands", "swarm",
)  # fmt: skip


async def test_004_27_only_the_openai_package_is_behind_it(launch: Launch, story: Story) -> None:
    """004-27: its dependencies name no agent framework, none is imported by what serves, and the provider sees the
    `openai` client."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {one.split(">")[0].split("[")[0].strip().replace("-", "_") for one in declared}
    assert "openai" in names and not names & set(FRAMEWORKS)
    script = (
        "import sys, json, app.__main__, app.agent.model_openai, app.embedded; print(json.dumps(list(sys.modules)))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    modules = set(json.loads(printed))
    assert process.returncode == 0 and "openai" in modules and not modules & set(FRAMEWORKS)
    server = await launch()
    story.then(say("Hello."))
    made = await server.create(agent="plain", prompt=story.says("Hello"))
    assert (await server.outcome(made["run"]))["status"] == "completed"
    assert story.calls[0].headers["user-agent"].startswith("AsyncOpenAI/Python")
