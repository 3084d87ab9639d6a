"""Random `kill -9` of a real server that runs conversations, and the count of what readers lost or saw wrongly.

Several conversations run at a time, each a chain of runs with text and with `never` and `safe` tools; three readers
follow each and come back with their cursors. Lives are killed at a random moment: every second one early, also before
it is ready, the others after every conversation has moved on, since three lives without progress rightly end a run
(SEMANTICS.md §1). Nothing of the server is replaced; what happened is judged from readers' histories, the log and a
ledger that the tools write, by acceptance/history.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from websockets.exceptions import WebSocketException

from tests.acceptance.harness import Client, Server, fresh
from tests.acceptance.history import CALL_ENDS, RUN_ENDS, Broken, Record, differences, faults, surviving
from tests.acceptance.stub import Answer, Call, Story, Stub, Use

STEPS = 5
READERS = 3
WORDS = ["Da ", "Enzo ", "has ", "a ", "free ", "table ", "at ", "eight; ", "☃ ", "I ", "looked ", "twice. "]


@dataclass
class Report:
    """What one campaign found. Everything from `lost` on must be 0 or empty."""

    seed: int
    kills: int = 0
    seconds: float = 0.0
    conversations: int = 0
    runs: int = 0
    events: int = 0
    reconnects: int = 0
    in_doubt: int = 0
    repeated: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    phantom: int = 0
    never_twice: int = 0
    commands_twice: int = 0
    unfinished: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        wrong = (self.lost, self.doubled, self.reordered, self.phantom)
        return not (any(wrong) or self.never_twice or self.commands_twice or self.unfinished or self.faults)

    def table(self) -> str:
        """The report for people."""
        rows = [
            ("kill -9 dealt out", self.kills),
            ("seconds", round(self.seconds, 1)),
            ("conversations × readers", f"{self.conversations} × {READERS}"),
            ("runs completed", self.runs),
            ("events in the logs", self.events),
            ("reconnects of readers", self.reconnects),
            ("calls said to be in doubt", self.in_doubt),
            ('calls declared "safe" run again', self.repeated),
            ("events lost", self.lost),
            ("events doubled", self.doubled),
            ("events reordered", self.reordered),
            ("events seen but not in the log", self.phantom),
            ('tools declared "never" run twice', self.never_twice),
            ("commands applied twice or never", self.commands_twice),
            ("runs that did not complete", self.unfinished),
            ("other faults in logs", len(self.faults)),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value:>10}" for name, value in rows]
        return "\n".join([*lines, *self.faults[:20], f"{'seed':<{width}}  {self.seed:>10}"])


def step_text(prompt: str, step: int) -> str:
    """What the model says in this step of this prompt, always."""
    return f"{prompt} step {step}: " + "".join(WORDS)


def model(dice: random.Random) -> Answer:
    """The same words for the same step of the same prompt; every step but the last asks for two tools."""

    async def answer(call: Call) -> None:
        last = max(n for n, message in enumerate(call.messages) if message["role"] == "user")
        step = 1 + sum(1 for message in call.messages[last:] if message["role"] == "assistant")
        prompt = call.words[-1].split()[0]
        for word in (f"{prompt} step {step}: ", *WORDS):
            await call.text(word)
            await asyncio.sleep(dice.random() * 0.03)
        if step < STEPS:
            lines = {"once": f"{prompt}-{step}-never", "safe": f"{prompt}-{step}-safe"}
            took = round(dice.random() * 0.3, 3)
            await call.use(*(Use(tool, {"line": line, "seconds": took}) for tool, line in lines.items()))
        await call.end("tool_calls" if step < STEPS else "stop")

    return answer


class Conversation:
    """One conversation: who prompts it, and the three readers that follow it through every life of the server."""

    def __init__(self, server: Server, story: Story, conversation: str) -> None:
        self.server, self.story, self.conversation = server, story, conversation
        self.prompts: dict[str, str] = {}
        self.reconnects = 0
        self.resets = 0
        self.broken: list[str] = []
        self.moved = 0
        self.stopping = asyncio.Event()
        self.readers: list[Client | None] = [None] * READERS
        self._noticed = [0] * READERS
        self._runs: dict[str, str] = {}
        self._over: set[str] = set()

    async def drive(self) -> None:
        """One prompt after the other, each sent under its id until it is accepted, until told to stop."""
        number = 0
        while not self.stopping.is_set():
            number += 1
            id, word = fresh("p"), f"w{number}-{self.conversation[:6]}"
            self.prompts[id] = word
            await self._until_accepted(id, self.story.says(word))
            while self._runs.get(id) not in self._over:
                await asyncio.sleep(0.02)
                self.notice()

    async def _until_accepted(self, id: str, text: str) -> None:
        while True:
            with contextlib.suppress(httpx2.HTTPError, OSError, RuntimeError):
                answer = await self.server.command(self.conversation, "prompt", id, text=text)
                if answer.status_code == 202:
                    return
            await asyncio.sleep(0.02)

    def notice(self) -> None:
        """Take in what readers have seen since the last time: which runs are over, how far the work has come."""
        for number, reader in enumerate(self.readers):
            for record in reader.records[self._noticed[number] :] if reader else []:
                self._noticed[number] += 1
                if record.type == "run.started":
                    self._runs[record.event["message"]] = record.event["run"]
                elif record.type in RUN_ENDS:
                    self._over.add(record.event["run"])
                elif record.type in ("model.replied", *CALL_ENDS):
                    self.moved = max(self.moved, record.seq)

    async def follow(self, number: int, dice: random.Random) -> None:
        """One reader: attach, read until the connection is gone, come back with the cursor."""
        while True:
            await asyncio.sleep(dice.random() * 0.1)
            before = self.readers[number]
            try:
                if before is None:
                    client = await self.server.attach(self.conversation)
                    await client.until(lambda c: c.follower.attached, "attached")
                else:
                    client = await self.server.again(before)
            except Broken as broken:
                self.broken.append(str(broken))
                return
            except (WebSocketException, OSError, EOFError, AssertionError):
                continue
            self.reconnects += before is not None
            self.resets += bool(client.attached["reset"])
            self.readers[number] = client
            await client.closed(within=3600)


async def campaign(home: Path, kills: int, seed: int, conversations: int = 3) -> Report:
    """Deal out so many kills and judge what is left."""
    dice, report = random.Random(seed), Report(seed, conversations=conversations)
    began = time.monotonic()
    stub = await Stub().start()
    server = Server(home, stub.url, {"HOLDFAST_RATE": "100000"})
    tasks: list[asyncio.Task[None]] = []
    try:
        await server.start()
        told: list[Conversation] = []
        for _ in range(conversations):
            story = stub.story()
            story.brain = lambda _: model(dice)
            told.append(Conversation(server, story, (await server.create())["conversation"]))
        for one in told:
            tasks += [asyncio.create_task(one.follow(n, dice)) for n in range(READERS)]
        drivers = [asyncio.create_task(one.drive()) for one in told]
        tasks += drivers
        for number in range(kills):
            await _one_life(server, told, dice, early=number % 2 == 1)
            report.kills += 1
        await server.start()
        for one in told:
            one.stopping.set()
        _, late = await asyncio.wait(drivers, timeout=60)
        report.unfinished = len(late)
        for one in told:
            await _judge(server, one, report)
        report.never_twice = _begun_twice(server, "once")
        report.repeated = _begun_twice(server, "safe")
        report.faults += stub.violations
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.close()
        await stub.close()
    report.seconds = time.monotonic() - began
    return report


async def _one_life(server: Server, told: list[Conversation], dice: random.Random, early: bool) -> None:
    """Let it live until a random moment and kill it; `early`: soon after its birth, ready or not."""
    if not server.alive:
        await server.start(ready=not early)
    if early:
        await asyncio.sleep(dice.random() * 1.5)
    else:
        heads = [(one, (await server.get(f"/api/conversations/{one.conversation}"))["head"]) for one in told]
        deadline = time.monotonic() + 10
        while any(one.moved <= head for one, head in heads) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await asyncio.sleep(dice.random() * 0.5)
    await server.kill()


async def _arrived(reader: Client, head: int) -> None:
    await reader.until(lambda c: c.cursor >= head, "the end of the log", 10)


async def _judge(server: Server, one: Conversation, report: Report) -> None:
    """Compare every reader's history with the log, which is read after it, and the log with what was said."""
    for reader in one.readers:
        if reader is None:
            report.faults.append("a reader never got in")
            continue
        head = (await server.replay(one.conversation))[-1].seq
        with contextlib.suppress(AssertionError):
            await _arrived(reader, head)
        if reader.fault:
            report.faults.append(f"reader: {reader.fault}")
        seen, cursor = list(reader.records), reader.cursor
        found = differences(seen, cursor, await server.replay(one.conversation))
        report.lost += len(found.lost) + (0 if cursor >= head else 1)
        report.doubled += len(found.doubled)
        report.reordered += len(found.reordered)
        report.phantom += len(found.phantom)
    log = await server.replay(one.conversation)
    report.events += len(log)
    report.faults += faults(log)
    if [record.seq for record in surviving(log)] != [record.seq for record in log]:
        report.faults.append("a replay holds superseded events")
    report.reconnects += one.reconnects
    report.faults += ["a reset although no log was lost"] * one.resets + one.broken
    _judge_words(one, log, report)


def _judge_words(one: Conversation, log: list[Record], report: Report) -> None:
    """Each prompt started one run that completed, and every reply is the text that the model said."""
    events = [record.event for record in log]
    started = Counter(event["message"] for event in events if event["type"] == "run.started")
    report.commands_twice += sum(1 for id in one.prompts if started[id] != 1)
    words = {event["run"]: one.prompts.get(event["message"], "?") for event in events if event["type"] == "run.started"}
    ended = Counter(
        event["type"] for event in events if event["type"] in ("run.completed", "run.failed", "run.cancelled")
    )
    report.runs += ended["run.completed"]
    report.unfinished += len(words) - ended["run.completed"]
    report.in_doubt += sum(1 for e in events if e["type"] == "tool.failed" and e["error"]["kind"] == "in_doubt")
    for event in events:
        if event["type"] == "model.replied":
            right = step_text(words[event["run"]], event["step"])
            if event["text"] != right:
                report.faults.append(f"said {right!r} but logged {event['text']!r}")
        elif event["type"] == "run.failed":
            report.faults.append(f"run failed: {event['error']}")


def _begun_twice(server: Server, tool: str) -> int:
    """Lines of this tool that were begun more than once."""
    entries = server.ledger_file.read_text().splitlines()
    begun = Counter(entry.split()[2] for entry in entries if entry.startswith(f"{tool} begin "))
    return sum(1 for times in begun.values() if times > 1)
