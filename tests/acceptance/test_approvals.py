"""SEMANTICS.md §4: approvals: one state each, changed once, by whoever decides first, from anywhere."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .conftest import Launch
from .harness import Client, Server, fresh, settled
from .history import Json
from .stub import Story, Use, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]


def table(place: str, id: str = "book", **more: Any) -> Use:
    return Use("reserve", {"place": place, "people": 2, **more}, id=id)


async def asked(server: Server, story: Story, *uses: Use, agent: str = "desk") -> tuple[Client, Json]:
    """A run that waits for the approval of these calls: its reader and, by call id, what a decision must name."""
    tab = await server.open(agent=agent)
    story.then(use(*uses))
    await tab.do("prompt", text=story.says("Do it"))
    requested = await tab.count("approval.requested", len(uses))
    await tab.event("run.suspended", reason="approval")
    decisions = {e["call"]: {"run": e["run"], "call": [e["call"]], "digest": e["digest"]} for e in requested}
    return tab, decisions


async def test_nothing_runs_before_the_decision(server: Server, story: Story) -> None:
    """The event has what a person needs; the tool runs once, after the decision is in the log."""
    place = fresh("place")
    tab, decide = await asked(server, story, table(place))
    [requested] = tab.all("approval.requested")
    assert (requested["tool"], requested["arguments"]["place"], requested["arguments"]["people"]) == (
        "reserve",
        place,
        2,
    )
    assert requested["digest"] and "expires_at" not in requested
    assert server.ledger(place) == [] and tab.all("tool.started") == []
    story.then(say("Booked."))
    await tab.do("approve", "yes", **decide["book"])
    await tab.ended()
    [decided] = tab.all("approval.decided")
    assert (decided["decision"], decided["call"], decided["cause"]) == ("approved", "book", "yes") and decided["by"]
    assert decided["seq"] < tab.all("tool.started", call="book")[0]["seq"]
    assert [entry.split()[1] for entry in server.ledger(place)] == ["begin", "end"]
    assert story.calls[1].results == {"book": f"a table at {place} for 2"}
    await settled(server, tab)


async def test_denial_is_told_to_the_model(server: Server, story: Story) -> None:
    """With its reason, as the call's result; the tool never starts; the run goes on."""
    place = fresh("place")
    tab, decide = await asked(server, story, table(place))
    await tab.do("deny", **decide["book"], reason="We ate already")
    call = await story.call()
    assert "We ate already" in call.results["book"]
    await call.text("Then not.")
    await call.end()
    assert (await tab.ended())["type"] == "run.completed"
    [decided] = tab.all("approval.decided")
    assert (decided["decision"], decided["reason"]) == ("denied", "We ate already")
    assert tab.all("tool.failed", call="book")[0]["error"]["kind"] == "denied"
    assert tab.all("tool.started") == [] and server.ledger(place) == []
    await settled(server, tab)


async def test_an_agent_that_ends_on_denial(server: Server, story: Story) -> None:
    """`end_on_denial`: the run ends instead, and the model is not asked again."""
    tab, decide = await asked(server, story, table(fresh("place")), agent="stern")
    await tab.do("deny", **decide["book"])
    await tab.ended()
    assert len(story.calls) == 1
    await settled(server, tab)
    story.then(say("Yes."))
    await tab.do("prompt", text=story.says("And now?"))
    assert (await tab.ended(2))["type"] == "run.completed"
    await settled(server, tab)


async def test_the_end_by_denial_waits_for_tools_that_stop(server: Server, story: Story) -> None:
    """§2: a started tool that confirms its stop within the grace time is `cancelled`, not in doubt."""
    place, line = fresh("place"), fresh("line")
    tab = await server.open(agent="stern")
    story.then(use(table(place), Use("once", {"line": line, "gate": line}, id="beside")))
    await tab.do("prompt", text=story.says("Do it"))
    asked = await tab.event("approval.requested")
    await tab.event("tool.started", call="beside")
    await tab.do("deny", run=tab.run, call=["book"], digest=asked["digest"])
    assert (await tab.ended())["error"]["kind"] == "denied"
    assert tab.all("tool.failed", call="beside")[0]["error"]["kind"] == "cancelled"
    assert (await server.get(f"/api/runs/{tab.run}/output"))["end_reason"] == "rejected_tool_calls"
    await settled(server, tab)


async def test_approval_as_a_function_of_the_arguments(server: Server, story: Story) -> None:
    """Little is paid at once, much only when a person says so."""
    line = fresh("line")
    tab, decide = await asked(server, story, Use("pay", {"line": line, "amount": 500}, id="much"))
    assert server.ledger(line) == []
    story.then(use(Use("pay", {"line": line, "amount": 5}, id="little")), say("Paid."))
    await tab.do("approve", **decide["much"])
    await tab.ended()
    assert [event["call"] for event in tab.all("approval.requested")] == ["much"]
    assert [entry.split()[3] for entry in server.ledger(line)] == ["much", "little"]
    await settled(server, tab)


@pytest.mark.parametrize("kinds", [("approve", "approve"), ("approve", "deny"), ("deny", "deny")])
async def test_two_people_decide_at_the_same_time(server: Server, story: Story, kinds: tuple[str, str]) -> None:
    """FAULTS 59, 60: the first commit wins; equal decisions are both accepted, a different one hears who and when."""
    place = fresh("place")
    tab, decide = await asked(server, story, table(place))
    other = await server.attach(tab.attached["conversation"])
    story.then(say("Good."))
    answers = await asyncio.gather(
        *(client.send(kind, **decide["book"]) for client, kind in zip((tab, other), kinds, strict=True))
    )
    await tab.ended()
    [decided] = tab.all("approval.decided")
    refused = [answer for answer in answers if answer["type"] == "rejected"]
    if kinds[0] == kinds[1]:
        assert refused == []
        noted = [event for event in tab.all("command.noted") if event["cause"] in [answer["id"] for answer in answers]]
        assert len(noted) == 1
    else:
        assert [answer["code"] for answer in refused] == ["already_decided"]
        verdict = refused[0]["decision"]
        assert (verdict["decision"], verdict["by"], verdict["at"]) == (
            decided["decision"],
            decided["by"],
            decided["at"],
        )
    assert len([e for e in server.ledger(place) if " begin " in e]) == (1 if decided["decision"] == "approved" else 0)
    await settled(server, tab)


async def test_the_same_and_another_decision_later(server: Server, story: Story) -> None:
    """While the run goes on: the same again is accepted and noted, a different one is `already_decided` (HTTP: 409)."""
    place = fresh("place")
    tab, decide = await asked(server, story, table(place, gate=place))
    await tab.do("approve", "first", **decide["book"])
    await server.wrote(place)
    assert (await tab.do("approve", "first", **decide["book"]))["duplicate"] is True
    assert (await tab.do("approve", "second", **decide["book"]))["duplicate"] is False
    await tab.event("command.noted", cause="second")
    refusal = await tab.refused("already_decided", "deny", **decide["book"])
    assert refusal["decision"]["decision"] == "approved"
    answer = await server.command(tab.attached["conversation"], "deny", **decide["book"])
    assert answer.status_code == 409
    story.then(say("Done."))
    server.let(place)
    await tab.ended()
    assert len(tab.all("approval.decided")) == 1 and len(server.ledger(place)) == 2
    await settled(server, tab)


async def test_a_decision_must_name_what_was_asked(server: Server, story: Story) -> None:
    """FAULTS 62: digest, call and run are all checked; the approval stays open."""
    tab, decide = await asked(server, story, table(fresh("place")))
    right = decide["book"]
    for kind in ("approve", "deny"):
        await tab.refused("digest_mismatch", kind, **{**right, "digest": "0" * len(right["digest"])})
        await tab.refused("no_such_approval", kind, **{**right, "call": ["other"]})
        await tab.refused("no_such_approval", kind, **{**right, "call": ["book", "deeper"]})
        await tab.refused("no_such_approval", kind, **{**right, "run": "other"})
    assert tab.all("approval.decided") == []
    story.then(say("Done."))
    await tab.do("approve", **right)
    await tab.ended()


async def test_after_cancel_it_is_closed(server: Server, story: Story) -> None:
    """FAULTS 61: cancelled with the run: `already_closed`, and no tool."""
    place = fresh("place")
    tab, decide = await asked(server, story, table(place))
    await tab.do("cancel")
    await tab.ended()
    assert [event["decision"] for event in tab.all("approval.decided")] == ["cancelled"]
    for kind in ("approve", "deny"):
        await tab.refused("already_closed", kind, **decide["book"])
    assert server.ledger(place) == []
    await settled(server, tab)


async def test_expiry_counts_as_denial(server: Server, story: Story) -> None:
    """`expires_in`: shown as `expires_at`; then decided as `expired`, told to the model, closed."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("hurry", {"line": line}, id="k1")))
    await tab.do("prompt", text=story.says("Hurry"))
    requested = await tab.event("approval.requested")
    assert 0 < requested["expires_at"] - requested["at"] <= 600
    call = await story.call()
    assert call.results["k1"]
    assert tab.all("approval.decided")[0]["decision"] == "expired"
    await tab.refused("already_closed", "approve", run=tab.run, call=["k1"], digest=requested["digest"])
    await call.end()
    await tab.ended()
    assert server.ledger(line) == []
    await settled(server, tab)


async def test_edited_arguments(server: Server, story: Story) -> None:
    """A full replacement: recorded, run with, and told to the model."""
    wrong, right = fresh("place"), fresh("place")
    tab, decide = await asked(server, story, table(wrong))
    await tab.do("approve", **decide["book"], arguments={"place": right, "people": 3})
    call = await story.call()
    assert server.ledger(wrong) == [] and len(server.ledger(right)) == 2
    [decided] = tab.all("approval.decided")
    assert decided["arguments"] == {"place": right, "people": 3}
    assert tab.all("tool.started")[0]["arguments"]["place"] == right
    assert right in call.results["book"] and call.results["book"] != f"a table at {right} for 3", (
        "the model knows of the edit"
    )
    await call.end()
    await tab.ended()
    await settled(server, tab)


@pytest.mark.parametrize("arguments", [{}, {"place": "x"}, {"place": 5, "people": 2}, {"place": "x", "people": "many"}])
async def test_edited_arguments_that_do_not_fit(server: Server, story: Story, arguments: Json) -> None:
    """FAULTS 63: `bad_arguments`, said to the sender; the approval stays open."""
    tab, decide = await asked(server, story, table(fresh("place")))
    await tab.refused("bad_arguments", "approve", **decide["book"], arguments=arguments)
    assert tab.all("approval.decided") == []
    story.then(say("Good."))
    await tab.do("deny", **decide["book"])
    await tab.ended()


async def test_decided_over_http_with_no_socket_open(server: Server, story: Story) -> None:
    """Any reader may decide, by HTTP alone: what is open is told by the conversation's item."""
    place = fresh("place")
    story.then(use(table(place)))
    made = await server.create(prompt=story.says("Book"))
    tab = await server.attach(made["conversation"])
    await tab.event("run.suspended", reason="approval")
    await tab.close()
    item = await server.get(f"/api/conversations/{made['conversation']}")
    [open_one] = item["approvals"]
    story.then(say("Booked."))
    fields = {"run": made["run"], "call": [open_one["call"]], "digest": open_one["digest"]}
    assert (await server.command(made["conversation"], "approve", **fields)).status_code == 202
    assert (await server.outcome(made["run"]))["result"] == "Booked."
    assert (await server.get(f"/api/conversations/{made['conversation']}"))["approvals"] == []
    assert len(server.ledger(place)) == 2


async def test_always(server: Server, story: Story) -> None:
    """This tool, this conversation; visible, and revocable."""
    places = [fresh("place") for _ in range(4)]
    tab, decide = await asked(server, story, table(places[0], "k0"))
    story.then(use(table(places[1], "k1")), say("Two."))
    await tab.do("approve", **decide["k0"], always=True)
    await tab.ended()
    assert [event["call"] for event in tab.all("approval.requested")] == ["k0"]
    assert tab.all("approval.decided")[0]["always"] is True
    assert [len(server.ledger(place)) for place in places] == [2, 2, 0, 0]
    await tab.do("revoke", "take-back", tool="reserve")
    await tab.event("always.revoked", tool="reserve", cause="take-back")
    story.then(use(table(places[2], "k2")))
    await tab.do("prompt", text=story.says("Again"))
    requested = await tab.event("approval.requested", call="k2")
    story.then(say("Booked."))
    await tab.do("approve", run=requested["run"], call=["k2"], digest=requested["digest"])
    await tab.ended(2)
    other, _ = await asked(server, story, table(places[3], "k3"))
    assert server.ledger(places[3]) == []
    await other.do("cancel")
    await other.ended()
    await settled(server, tab)


async def test_several_approvals_are_independent(server: Server, story: Story) -> None:
    """§5: decided one by one; a decided call starts at once; the model is asked when all have a result."""
    places = [fresh("place") for _ in range(3)]
    tab, decide = await asked(server, story, *(table(place, f"k{n}") for n, place in enumerate(places)))
    await tab.do("approve", **decide["k2"])
    await tab.event("tool.returned", call="k2")
    assert len(story.calls) == 1
    item = await server.get(f"/api/conversations/{tab.attached['conversation']}")
    assert [approval["call"] for approval in item["approvals"]] == ["k0", "k1"]
    await tab.do("deny", **decide["k0"])
    await tab.do("approve", **decide["k1"])
    call = await story.call()
    assert set(call.results) == {"k0", "k1", "k2"}
    assert [len(server.ledger(place)) for place in places] == [0, 2, 2]
    await call.end()
    await tab.ended()
    await settled(server, tab)


async def test_what_needs_no_approval_runs_meanwhile(server: Server, story: Story) -> None:
    """§5: siblings run at once; the run is `waiting` only when nothing runs any more."""
    line, place = fresh("line"), fresh("place")
    tab = await server.open()
    story.then(use(table(place), Use("once", {"line": line, "gate": line}, id="k1")))
    await tab.do("prompt", text=story.says("Both"))
    requested = await tab.event("approval.requested")
    await server.wrote(line)
    assert tab.all("run.suspended") == []
    assert (await server.get(f"/api/runs/{tab.run}"))["status"] == "running"
    server.let(line)
    await tab.event("run.suspended", reason="approval")
    assert len(server.ledger(line)) == 2 and server.ledger(place) == []
    story.then(say("Both done."))
    await tab.do("approve", run=tab.run, call=["book"], digest=requested["digest"])
    await tab.ended()
    assert len(server.ledger(line)) == 2 and len(server.ledger(place)) == 2
    await settled(server, tab)


async def test_equal_call_ids_of_two_runs_do_not_collide(server: Server, story: Story) -> None:
    """§5: the provider repeats an id in the next run: another approval, with its own decision."""
    first, second = fresh("place"), fresh("place")
    tab, decide = await asked(server, story, table(first))
    story.then(say("One."))
    await tab.do("approve", **decide["book"])
    await tab.ended()
    story.then(use(table(second)))
    await tab.do("prompt", text=story.says("Again"))
    await tab.count("approval.requested", 2)
    requested = tab.all("approval.requested")[1]
    answer = await tab.send("deny", **decide["book"])
    assert answer["type"] == "rejected" and answer["code"] in ("no_such_approval", "already_decided")
    story.then(say("Two."))
    await tab.do("approve", run=requested["run"], call=[requested["call"]], digest=requested["digest"])
    await tab.ended(2)
    assert len(server.ledger(first)) == len(server.ledger(second)) == 2
    await settled(server, tab)


async def test_an_approval_survives_the_process(launch: Launch, story: Story) -> None:
    """FAULTS 8: the same approval, digest and all, is open after kill -9, and nobody ran anything."""
    server = await launch()
    place = fresh("place")
    tab, decide = await asked(server, story, table(place))
    await server.restart()
    tab = await server.again(tab)
    await tab.frame("live")
    assert tab.attached["status"] == "waiting"
    assert [event["digest"] for event in tab.attached["approvals"]] == [decide["book"]["digest"]]
    assert server.ledger(place) == [] and len(story.calls) == 1
    story.then(say("Booked."))
    await tab.do("approve", **decide["book"])
    await tab.ended()
    assert len(tab.all("approval.requested")) == 1 and len(server.ledger(place)) == 2
    await settled(server, tab)


async def test_killed_right_after_the_decision(launch: Launch, story: Story) -> None:
    """The decision is durable before the tool starts: killed at its receipt: started once, or in doubt."""
    server = await launch()
    place = fresh("place")
    tab, decide = await asked(server, story, table(place, gate=place))
    await tab.do("approve", **decide["book"])
    await server.restart()
    server.let(place)
    call = await story.call()
    assert len([entry for entry in server.ledger(place) if " begin " in entry]) <= 1
    await call.end()
    tab = await server.again(tab)
    await tab.ended()
    assert [event["decision"] for event in tab.all("approval.decided")] == ["approved"]
    outcome = tab.all("tool.returned", call="book") or tab.all("tool.failed", call="book")
    assert outcome[0]["type"] == "tool.returned" or outcome[0]["error"]["kind"] == "in_doubt"
    await settled(server, tab)
