"""SEMANTICS.md §6: a suspended run as a value: inspected, decided, put back, here or on another server.

Rows 004-2, -3, -4, -7, -8, -9, -10, -13, -21, -22, -24, -25, -28 of ACCEPTANCE.md.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Sequence

import pytest

from .conftest import Launch
from .harness import Client, Server, fresh
from .history import Json
from .parts import parts
from .stub import Answer, Story, Use, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

SERVED = ("tests.acceptance.levels:agents",)
SECRET = "a secret that these servers share"


def hr_parts(story: Story, name: str) -> dict[str, Sequence[Answer]]:
    """The HR example: a welcome, an account with rights that somebody has to approve, and a last word."""
    return {
        "hr": [
            use(Use("send_email", {"name": name}, id="mail")),
            use(Use("account", {"prompt": story.says(f"Set {name} up")}, id="setup")),
            say(f"{name} is onboard."),
        ],
        "account": [
            use(Use("create_account", {"name": name}, id="create")),
            use(Use("authorize_account", {"name": name}, id="rights")),
            say("The account is ready."),
        ],
    }


async def waiting(server: Server, story: Story, name: str) -> Client:
    """The HR run, waiting for the approval two levels down."""
    story.brain = parts(**hr_parts(story, name))
    tab = await server.open(agent="hr")
    await tab.do("prompt", text=story.says(f"Onboard {name}"))
    await tab.event("run.suspended", reason="approval")
    return tab


async def exported(server: Server, tab: Client) -> Json:
    return await server.get(f"/api/conversations/{tab.attached['conversation']}/continuation")


def answered(object: Json, *approved: bool | None) -> Json:
    """A copy with these answers, in order."""
    copied = copy.deepcopy(object)
    for info, answer in zip(copied["approval_info"], approved, strict=True):
        info["approved"] = answer
    return copied


async def put_back(server: Server, object: Json, status: int = 201, force: bool = False) -> Json:
    answer = await server.http.post("/api/continuations" + ("?force=1" if force else ""), json=object)
    assert answer.status_code == status, answer.text
    got: Json = answer.json()
    return got


def began(server: Server, name: str) -> list[str]:
    return [entry.split()[0] for entry in server.ledger(name) if entry.split()[1] == "begin"]


async def test_the_object_has_the_documented_shape(server: Server, story: Story) -> None:
    """004-2, 004-8, 004-9, 004-10, 004-13: reason, messages of each level, the exact pending calls, nested."""
    name = fresh("ann")
    tab = await waiting(server, story, name)
    object = await exported(server, tab)
    assert object["end_reason"] == "approval_required"
    outer = object["continuation"]
    assert set(outer) == {"messages", "resume_request", "processed"}
    [call] = outer["resume_request"]
    assert (call["id"], call["type"], call["function"]["name"]) == ("setup", "function", "account")
    inner = call["continuation"]
    [leaf] = inner["resume_request"]
    assert leaf["id"] == "rights" and json.loads(leaf["function"]["arguments"]) == {"name": name}
    assert "continuation" not in leaf
    [info] = object["approval_info"]
    assert (info["paths"], info["path_ids"], info["approved"]) == (
        ["account", "authorize_account"],
        ["setup", "rights"],
        None,
    )
    assert info["tool_call"] == leaf and inner["processed"] == []
    roles = [message["role"] for message in inner["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant"], "its own level only, the pending call last"
    assert [message["role"] for message in outer["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert "create_account" not in json.dumps(outer["messages"])
    assert object["holdfast"]["run"] == tab.run and object["holdfast"]["signature"]
    await tab.do("cancel")


async def test_nothing_to_export_while_nothing_is_suspended(server: Server, story: Story) -> None:
    """409, for an idle conversation and one whose run has ended."""
    tab = await server.open(agent="hr")
    conversation = tab.attached["conversation"]
    await server.get(f"/api/conversations/{conversation}/continuation", 409)
    await server.post(f"/api/conversations/{conversation}/continuation/take", {}, 409)


@pytest.mark.parametrize("approved", [True, False])
async def test_a_copy_decides_the_run_it_belongs_to(server: Server, story: Story, approved: bool) -> None:
    """004-3, 004-5, 004-14, 004-25: put back on its own server; the same object again answers with the outcome."""
    name = fresh("bea")
    tab = await waiting(server, story, name)
    asked = len(story.calls)
    object = answered(await exported(server, tab), approved)
    put = await put_back(server, object)
    assert (put["conversation"], put["run"]) == (tab.attached["conversation"], tab.run)
    assert (await tab.ended())["type"] == "run.completed"
    again = await put_back(server, object, 200)
    assert again["run"] == tab.run and again["duplicate"] is True and again["status"] == "completed"
    assert began(server, name) == ["send_email", "create_account"] + ["authorize_account"] * approved
    assert len(story.calls) == asked + 2, "no model call was repeated"


async def test_an_object_of_a_closed_approval_is_refused(server: Server, story: Story) -> None:
    """004-25, 004-28: another answer than the recorded one, and an answer after a stop."""
    name = fresh("cid")
    tab = await waiting(server, story, name)
    object = await exported(server, tab)
    await put_back(server, answered(object, False))
    await tab.ended()
    refused = await put_back(server, answered(object, True), 409)
    assert refused["error"]["code"] == "already_decided"
    assert "authorize_account" not in began(server, name)


async def test_what_was_changed_is_refused(server: Server, story: Story) -> None:
    """004-24, 004-28: arguments, digests, the log, ids, versions; nothing runs, the run stays suspended."""
    name = fresh("dan")
    tab = await waiting(server, story, name)
    object = answered(await exported(server, tab), True)
    changed = [copy.deepcopy(object) for _ in range(7)]
    leaf = changed[0]["continuation"]["resume_request"][0]["continuation"]["resume_request"][0]
    leaf["function"]["arguments"] = '{"name": "mallory"}'
    changed[1]["approval_info"][0]["tool_call"]["function"]["arguments"] = '{"name": "mallory"}'
    changed[2]["holdfast"]["digests"]["setup/rights"] = "0" * 32
    changed[3]["holdfast"]["events"].pop()
    changed[4]["approval_info"][0]["path_ids"] = ["setup", "rights", "deeper"]
    changed[5]["holdfast"]["signature"] = "0" * 64
    changed[6]["continuation"]["messages"].pop()
    for one in changed:
        refused = await put_back(server, one, 409)
        assert refused["error"]["code"] == "digest_mismatch"
    newer = copy.deepcopy(object)
    newer["holdfast"]["version"] = 2
    ended: Json = {"result": "done", "messages": [], "end_reason": "completed"}
    wrong: list[Json] = [newer, {"continuation": {}}, {"holdfast": {}}, ended, {"approval_info": []}]
    for broken in [*wrong, {**object, "approval_info": [{"approved": "yes"}]}]:
        await put_back(server, broken, 400)
    assert "authorize_account" not in began(server, name)
    assert (await server.get(f"/api/runs/{tab.run}"))["status"] == "waiting"
    await tab.do("cancel")


async def test_the_same_call_takes_a_prompt(server: Server, story: Story) -> None:
    """004-4: the endpoint recognises what it is given."""
    story.then(say("Hello."))
    created = await put_back(server, {"prompt": story.says("Hello"), "agent": "hr"})
    assert (await server.outcome(created["run"]))["status"] == "completed"


async def test_a_taken_run_goes_on_elsewhere_and_only_there(launch: Launch, story: Story) -> None:
    """004-22, 004-21: B goes on where A stopped, repeating nothing; A refuses to go on; B takes it once."""
    name = fresh("eve")
    a = await launch(agents=SERVED, HOLDFAST_SECRET=SECRET)
    b = await launch(agents=SERVED, HOLDFAST_SECRET=SECRET)
    tab = await waiting(a, story, name)
    conversation = tab.attached["conversation"]
    copied = await exported(a, tab)
    assert (await put_back(b, answered(copied, True), 409))["error"]["code"] == "not_running", "it was not taken"
    taken = await a.post(f"/api/conversations/{conversation}/continuation/take", {})
    assert (await tab.ended())["type"] == "run.moved"
    await a.get(f"/api/conversations/{conversation}/continuation", 409)
    await put_back(a, answered(copied, True), 409)
    await put_back(a, answered(taken, True), 409)
    asked = len(story.calls)
    put = await put_back(b, answered(taken, True))
    assert put["run"] == tab.run
    done = await b.outcome(tab.run)
    assert (done["status"], done["result"]) == ("completed", f"{name} is onboard.")
    assert len(story.calls) == asked + 2
    again = await put_back(b, answered(taken, True), 200)
    assert again["conversation"] == put["conversation"] and again["status"] == "completed"
    assert began(a, name) == ["send_email", "create_account"] and began(b, name) == ["authorize_account"]


async def test_a_take_whose_answer_was_lost_is_repeated(launch: Launch, story: Story) -> None:
    """004-22, 004-25, FAULTS 2: `kill -9` once the run has moved: the same call, the same object."""
    name = fresh("fay")
    a = await launch(agents=SERVED, HOLDFAST_SECRET=SECRET)
    b = await launch(agents=SERVED, HOLDFAST_SECRET=SECRET)
    tab = await waiting(a, story, name)
    conversation = tab.attached["conversation"]
    take = f"/api/conversations/{conversation}/continuation/take"
    lost = asyncio.create_task(a.http.post(take))
    await tab.event("run.moved")
    await a.restart()
    await asyncio.wait({lost})
    taken = await a.post(take, {})
    assert taken == await a.post(f"{take}?run={tab.run}", {}), "as often as it is asked for"
    if lost.exception() is None:
        assert lost.result().json() == taken
    await a.post(f"{take}?run=another", {}, 409)
    await a.get(f"/api/conversations/{conversation}/continuation", 409)
    object = answered(taken, True)
    put = await put_back(b, object)
    assert (await b.outcome(put["run"]))["result"] == f"{name} is onboard."
    again = await put_back(b, object, 200)
    assert (again["conversation"], again["duplicate"]) == (put["conversation"], True)
    assert began(b, name) == ["authorize_account"] and "authorize_account" not in began(a, name)


async def test_the_object_is_sufficient(launch: Launch, story: Story) -> None:
    """004-7: the server is gone with its data and its key; a fresh one with the same agents completes the run."""
    name = fresh("flo")
    a = await launch(agents=SERVED)
    tab = await waiting(a, story, name)
    object = answered(await exported(a, tab), True)
    await a.kill()
    b = await launch(agents=SERVED)
    await put_back(b, object, 409)
    put = await put_back(b, object, force=True)
    assert (await b.outcome(put["run"]))["result"] == f"{name} is onboard."
    assert began(b, name) == ["authorize_account"]


async def test_a_run_suspended_on_request_goes_on_where_it_is_put(launch: Launch, story: Story) -> None:
    """004-19, 004-21: suspended at a step boundary, exported with its reason, resumed by being put back."""
    name = fresh("gil")
    a = await launch(agents=SERVED, HOLDFAST_SECRET=SECRET)
    b = await launch(agents=SERVED, HOLDFAST_SECRET=SECRET)
    tab = await a.open(agent="hr")
    await tab.do("prompt", text=story.says("Onboard"))
    first = await story.call()
    await tab.do("suspend")
    await first.use(Use("send_email", {"name": name}, id="mail"))
    await first.end("tool_calls")
    await tab.event("run.suspended", reason="request")
    taken = await a.post(f"/api/conversations/{tab.attached['conversation']}/continuation/take", {})
    assert (taken["end_reason"], taken["suspend_list"]) == ("suspended", ["request"])
    assert taken["continuation"]["resume_request"] == [] and taken["approval_info"] == []
    story.then(say("Done."))
    put = await put_back(b, taken)
    assert (await b.outcome(put["run"]))["result"] == "Done."
    assert began(a, name) == ["send_email"] and began(b, name) == []


async def test_an_unknown_tool_or_agent_is_refused(launch: Launch, story: Story) -> None:
    """004-28: another server without these agents says so, and nothing runs."""
    a = await launch(agents=SERVED, HOLDFAST_SECRET=SECRET)
    b = await launch(HOLDFAST_SECRET=SECRET)
    tab = await waiting(a, story, fresh("ida"))
    taken = await a.post(f"/api/conversations/{tab.attached['conversation']}/continuation/take", {})
    assert (await put_back(b, answered(taken, True), 404))["error"]["code"] == "not_found"
    assert (await b.get("/api/conversations"))["conversations"] == []
