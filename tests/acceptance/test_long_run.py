"""Issue 4's story: two hundred steps with sub-agents, approvals, slices, a small window, twenty kills: no difference.

The same run is played on two servers at once: undisturbed, and in slices of 2 s, in a window of 8,000 tokens that holds
a fraction of it, under random kills (`kill -9`). What is compared is what people and programs have of it afterwards:
the messages of every level, the result, and what the tools did. Effects are equal by key: a `safe` tool may begin again
with its own call id, and counts once; the one `never` tool begins once at most, and where a kill hit it, its result
says that it is in doubt.

The model answers from the last thing that a request says alone, so that neither a repeated attempt nor a shortened
history changes its mind.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from typing import Any

import httpx2
import pytest

from .conftest import Launch
from .harness import Client, Server, fresh, settled
from .history import Json
from .parts import agent_of, decision
from .readers import is_summary, tokens
from .stub import Answer, Call, Story, Use, text_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

SERVED = ("tests.acceptance.levels:agents",)
STEPS = 168
"""Of the agent at the top, before its last word; eight legs of four steps each come on top of that."""

NEVER = 77
KILLS = 20
LIMITS = {"HOLDFAST_STEPS_MAX": "1000"}
WINDOW = 8_000
NARROW = {**LIMITS, "HOLDFAST_SLICE_SECONDS": "2", "HOLDFAST_CONTEXT_TOKENS": str(WINDOW)}


def marathon(story: Story, line: str) -> Any:
    """The brain: the next step follows from the call whose result came last, or from the prompt where none has."""

    def brain(call: Call) -> Answer:
        if is_summary(call):
            return summary(text_of(call.messages[1]))
        last = call.messages[-1]
        assert last["role"] == "tool" or len(call.messages) == 2, "the newest result survives every compaction"
        done = last["tool_call_id"] if last["role"] == "tool" else ""
        if agent_of(call) == "leg":
            return leg(text_of(call.messages[1]) if not done else "", done)
        number = int(done.removeprefix("n")) + 1 if done else 1
        if number > STEPS:
            return spoken(f"All {STEPS} steps are done.")
        name = f"{line}-{number}"
        if number % 20 == 10:
            prompt = story.says(f"Run leg {number}.")
            return spoken(f"Step {number}.", Use("leg", {"prompt": prompt}, id=f"n{number}"))
        tool = "once" if number == NEVER else "stamp" if number % 40 == 0 else "survey"
        return spoken(f"Step {number}.", Use(tool, {"line": name, "seconds": 0.01}, id=f"n{number}"))

    def summary(history: str) -> Answer:
        """How far it has come, of all that the request tells of."""
        steps = [int(number) for number in re.findall(r"\bn(\d+)\b", history)]
        return spoken(f"The steps up to {max(steps)} are done.")

    def leg(prompt: str, done: str) -> Answer:
        """Three steps, the second of which a person approves in every second leg; their ids say which leg it is."""
        found = re.search(r"leg (\d+)", prompt) or re.match(r"n(\d+)-", done)
        assert found, (prompt, done)
        number, part = int(found[1]), int(done.rpartition("-")[2]) + 1 if done else 1
        if part > 3:
            return spoken(f"Leg {number} is done.")
        tool = "stamp" if part == 2 and number % 40 == 10 else "safe"
        use = Use(tool, {"line": f"{line}-{number}-{part}", "seconds": 0.01}, id=f"n{number}-{part}")
        return spoken(f"Part {part}.", use)

    return brain


def spoken(text: str, *uses: Use) -> Answer:
    """A few words with a moment between them, in which a process can die, and calls."""

    async def answer(call: Call) -> None:
        for word in text.split(" "):
            await call.text(f"{word} ")
            await asyncio.sleep(0.005)
        await call.use(*uses)
        await call.end("tool_calls" if uses else "stop")

    return answer


async def approving(server: Server, conversation: str) -> None:
    """A person who approves whatever is asked, in whatever life of the server, under one id each."""
    while True:
        with contextlib.suppress(httpx2.HTTPError, OSError, RuntimeError):
            item = (await server.http.get(f"/api/conversations/{conversation}")).json()
            for request in item.get("approvals", []):
                about = decision(request)
                await server.command(conversation, "approve", f"yes-{'.'.join(about['call'])}", **about)
        await asyncio.sleep(0.05)


async def killing(server: Server, story: Story, conversation: str, dice: random.Random) -> None:
    """So many lives, each of which ends at a random moment after the model has been asked a few times in it."""
    for _ in range(KILLS):
        asked = len(story.calls)
        await story.called(asked + dice.randint(3, 8), within=60)
        await asyncio.sleep(dice.random() * 0.05)  # not a wait: the moment of death is what is random
        item = await server.get(f"/api/conversations/{conversation}")
        assert item["status"] != "idle", "the run ended before all kills were dealt out"
        await server.restart()


async def play(server: Server, story: Story, line: str, kills: random.Random | None) -> Client:
    """The whole run, and a reader who comes at its end."""
    story.brain = marathon(story, line)
    made = await server.create(agent="marathon", prompt=story.says("Run"))
    person = asyncio.create_task(approving(server, made["conversation"]))
    try:
        if kills is not None:
            await killing(server, story, made["conversation"], kills)
        outcome = await server.outcome(made["run"], within=120)
    finally:
        person.cancel()
        await asyncio.gather(person, return_exceptions=True)
    assert (outcome["status"], outcome["result"]) == ("completed", f"All {STEPS} steps are done. ")
    tab = await server.attach(made["conversation"])
    await tab.ended()
    return tab


async def told(server: Server, tab: Client, *hidden: str) -> dict[str, list[Json]]:
    """The messages of each level, in order, as the archive has them; `hidden` words are those of one story alone."""
    kept = (await server.archived(tab.attached["conversation"], tab.run))["messages"]
    levels: dict[str, list[Json]] = {}
    for message in kept:
        shown = {key: message.get(key) for key in ("role", "text", "calls", "call")}
        if message.get("call") == f"n{NEVER}":
            shown["text"] = "either done or in doubt"
        text = repr(shown)
        for word in hidden:
            text = text.replace(word, "HIDDEN")
        levels.setdefault("/".join(message.get("path") or []), []).append({"said": text})
    return levels


def effects(server: Server, line: str) -> set[tuple[str, str]]:
    """What the tools finished, by tool and key. Whatever began again did so under its own call id."""
    entries = [entry.split() for entry in server.ledger_file.read_text().splitlines()]
    mine = [entry for entry in entries if entry[2].startswith(f"{line}-")]
    keys = {(entry[2], entry[3]) for entry in mine}
    assert len(keys) == len({name for name, _ in keys}), "one call id for each line"
    return {(tool, name.removeprefix(line)) for tool, what, name, _ in mine if what == "end" and tool != "once"}


async def test_two_hundred_steps_and_twenty_kills(launch: Launch, story: Story, stub: Any) -> None:
    """Issue 4, 002-10, 003-1, P1, P6: the same messages at every level, the same result, the same effects."""
    calm, rough, lines = stub.story(), story, [fresh("calm"), fresh("rough")]
    undisturbed, killed = await launch(agents=SERVED, **LIMITS), await launch(agents=SERVED, **NARROW)
    seed = random.randrange(2**32)
    print(f"kills by seed {seed}")
    first, second = await asyncio.gather(
        play(undisturbed, calm, lines[0], None), play(killed, rough, lines[1], random.Random(seed))
    )
    assert len(first.all("step.started")) == STEPS + 1 + 8 * 4 >= 200
    assert len(first.all("approval.decided", decision="approved")) == 8 and not first.all("run.sliced")
    assert len(second.all("actor.activated")) >= KILLS and len(second.all("run.sliced")) >= 3
    kinds = [event.get("kind", "summary") for event in second.all("context.compacted")]
    assert kinds.count("summary") >= 3 and "mechanical" not in kinds and not first.all("context.compacted")
    assert max(tokens(call) for call in rough.calls) <= WINDOW < max(tokens(call) for call in calm.calls)
    await settled(undisturbed, first)
    await settled(killed, second)
    messages = [
        await told(undisturbed, first, lines[0], calm.key),
        await told(killed, second, lines[1], rough.key),
    ]
    assert messages[0] == messages[1] and len(messages[0]) == 9
    assert effects(undisturbed, lines[0]) == effects(killed, lines[1])
    never = f"{lines[1]}-{NEVER}"
    assert len([entry for entry in killed.ledger(never) if " begin " in entry]) <= 1, "P6"
    results = [event for event in second.events if event.get("call") == f"n{NEVER}" and "result" in event]
    doubts = [event["error"]["kind"] for event in second.all("tool.failed")]
    assert len(results) + len(doubts) == 1 and set(doubts) <= {"in_doubt"}
    if results:
        assert len(killed.ledger(never)) == 2
