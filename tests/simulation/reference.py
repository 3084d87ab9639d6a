"""The reference world of the enumerated kills: one fixed story, in which a process can die at any given place.

Text, parallel tools of every kind, an approval, a hint, a doubt after a crash, a stop, words that wait, a rename. The
model and the people act on what they see, so the story finds its end wherever the process was killed. Nothing else goes
wrong.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import msgspec

from app.agent.model import Delta, Finished, ReasoningDelta, Request, TextDelta
from app.core.events import Call, Usage
from tests.simulation.agents import RandomModel
from tests.simulation.disk import Faults, Power
from tests.simulation.people import Json, Sent
from tests.simulation.world import Twists, World, decisions

SEED = 0
SNAPSHOTS = 5
"""Events after which there is a snapshot, so that what is written of it is among the places."""

STEPS: dict[str, list[list[str]]] = {
    "Begin.": [["count", "look", "guarded"], ["ask", "broken"], []],
    "Again.": [["stubborn", "count"], []],
    "Once more.": [[]],
}
"""The tools that each step of a run calls, by its prompt."""


class ScriptedModel(RandomModel):
    """What it says follows from the messages alone."""

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        self.hear(request)
        prompt, step = _place(request.messages)
        yield ReasoningDelta("hm ")
        said = ""
        for number in range(3):
            await asyncio.sleep(0.1)
            word = f"{prompt} {step}.{number}é "
            said += word
            yield TextDelta(word)
        tools = STEPS[prompt][min(step, len(STEPS[prompt]) - 1)]
        self.finished.add(said)
        calls = [Call(call=f"{prompt[0]}{step}{n}", tool=tool, arguments='{"n": 1}') for n, tool in enumerate(tools)]
        yield Finished("tool_calls" if calls else "stop", calls, Usage(input=10, output=5))


def _place(messages: list[Json]) -> tuple[str, int]:
    """The newest prompt, and how many replies with calls came after it."""
    prompt, step = "Begin.", 0
    for message in messages:
        if message["role"] == "user" and message["content"] in STEPS:
            prompt, step = message["content"], 0
        elif message.get("tool_calls"):
            step += 1
    return prompt, step


class Reference(World):
    """`kill_at`: the number of the commit boundary (`boundary`) or of the callback (`step`) at which it is killed."""

    def __init__(self, boundary: int | None = None, step: int | None = None, again: int | None = None) -> None:
        super().__init__(SEED, Faults(), Twists(snapshots=SNAPSHOTS))
        self.model = ScriptedModel(random.Random(SEED), self.ledger.numbers)
        self.boundaries = 0
        self.steps = 0
        self._boundary = {boundary, None if again is None or boundary is None else boundary + again}
        self._step = step

    def stepped(self) -> None:
        """A callback is about to run."""
        self.steps += 1
        if self.steps == self._step:
            self.power.fail()

    def _power(self) -> Power:
        return Power(self._passed)

    def _passed(self) -> None:
        self.boundaries += 1
        if self.boundaries in self._boundary:
            self.power.fail()

    async def _story(self) -> None:
        main = asyncio.current_task()
        assert main is not None
        self._ours.add(main)
        self.peace = asyncio.Event()
        await self._boot()
        killing = self._spawn(self._kill())
        while not self.conversation:
            await self._create()
        reading = [self._spawn(self._read(client)) for client in self.clients]
        await self._people()
        await self._come_to_rest()
        self.over = True
        await asyncio.gather(*reading)
        self.peace.set()
        await killing

    async def _people(self) -> None:
        """They see something, and say something about it, once."""
        said: set[str] = set()
        while not self._told_all(said):
            events = [msgspec.json.decode(text) for text in self.clients[0].seen.values()]
            for id, command in self._wanted(events):
                if id not in said:
                    said.add(id)
                    self._talking.add(self._spawn(self._send(Sent({"id": id, **command}))))
            await asyncio.sleep(0.05)

    def _told_all(self, said: set[str]) -> bool:
        return "once-more" in said and "name" in said

    def _wanted(self, events: list[Json]) -> list[tuple[str, Json]]:
        ended = [event["run"] for event in events if event["type"] in ("run.completed", "run.failed", "run.cancelled")]
        started = [event["run"] for event in events if event["type"] == "run.started"]
        wanted: list[tuple[str, Json]] = []
        for event in events:
            if event["type"] == "tool.started" and event["run"] == started[0]:
                wanted.append(("hint", {"type": "hint", "text": "Rather this."}))
            elif event["type"] == "tool.started" and event["run"] in started[1:2]:
                wanted.append(("wait", {"type": "prompt", "text": "Once more."}))
                wanted.append(("stop", {"type": "cancel"}))
            elif answers := decisions(event, random.Random(0), self.ledger.numbers):
                wanted.append((f"decide-{event['run']}-{event['call']}-{event['type']}", answers[0]))
        if ended:
            wanted.append(("again", {"type": "prompt", "text": "Again."}))
        if len(ended) >= 2:
            wanted.append(("once-more", {"type": "prompt", "text": "Once more."}))
            wanted.append(("name", {"type": "rename", "title": "A title"}))
        return wanted
