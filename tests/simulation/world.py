"""One seeded world: a conversation, its owner process, three readers, and everything that can go wrong between them.

Real actor, feed, runner, directory, wire; virtual time. First trouble, then peace: faults end, a person decides
whatever is open, and the world must come to rest with nothing lost and nothing done twice.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
import random
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgspec

from app.actor.directory import Directory
from app.actor.listing import Listing
from app.actor.moving import Moving
from app.actor.surroundings import Surroundings
from app.core.catalogue import Rules
from app.core.errors import Rejected
from app.store.archive import Flush
from app.store.event_log import Unavailable
from app.web.follow import Follower
from app.wire.frames import Limits
from tests.simulation.agents import SUB_AGENTS, TROUBLE, Key, Ledger, RandomModel, make_agent
from tests.simulation.disk import Disk, Faults, FaultyStore, Power
from tests.simulation.objects import Returned, answered, return_until_heard, tampered, travelled
from tests.simulation.people import Client, Json, Sent, lossy, send_until_heard

BEGAN_MS = 1_760_000_000_000
TROUBLE_SECONDS = 30.0
PEACE_ROUNDS = 600
PEOPLE = ("owner", "ann", "bea")
MORE_STEPS = 200
"""The ceiling under which a patient person resumes a run."""
WIDE = 128_000
"""Tokens of a window in which nothing has to be compacted."""

SECRET = b"what all servers of a world share"
WORLD_SECONDS = 2_000
SILENCE_SECONDS = 10.0
"""A tool that was given up may still say what it did."""


@dataclass(frozen=True)
class Twists:
    """What else may happen in a world, besides faults.

    `drain`, `overlap`, `old_disk`: the chance that the end of a process is a drain (not a kill), that the old owner
    lives on for a while beside the new one, that an older copy of the disk is put back. `pause`: seconds between two
    ends, on average. `feed_bytes`: what a feed keeps in memory. `crashes_max`: of the crash-loop guard. `snapshots`:
    whoever folds so many events leaves one.
    """

    drain: float = 0.0
    overlap: float = 0.0
    old_disk: float = 0.0
    deletion: bool = False
    pause: float = 8.0
    drain_seconds: float = 5.0
    feed_bytes: int = 262_144
    crashes_max: int = 1_000
    snapshots: int = 20_000


@dataclass(frozen=True)
class Terms:
    """How deep the agents of a world stand inside each other, and the limits under which its runs go.

    `asking`: models call mostly sub-agents and what needs approval. `stern`: a denial inside a sub-agent ends the run.
    `objects`: people export suspended runs and return them; `moves`: they also take one to another server. `window`:
    the model's context in tokens, where all talk at length; `takes`: what it really reads, in characters. `notes`:
    tools and people write notes.
    """

    depth: int = 1
    asking: bool = False
    stern: bool = False
    steps_max: int = 12
    tokens_max: int | None = None
    turns: int | None = None
    slice_ms: int | None = None
    retry_ms: int = 20_000
    objects: bool = False
    moves: bool = False
    window: int | None = None
    takes: int | None = None
    notes: bool = False


@dataclass
class Copy:
    """An older copy of the disk, with what had happened outside and been heard by then."""

    disk: Disk
    begun: dict[Key, int]
    never: set[Key]
    started: set[Key]
    ended: set[str]
    parked: set[str]
    saved: set[str]
    noted: set[str]
    calls: int
    summaries: int
    heard: list[int]


@dataclass
class World:
    """Everything that the checks look at afterwards. `before`: the world from whose server a run came."""

    seed: int
    faults: Faults
    twists: Twists = field(default_factory=Twists)
    terms: Terms = field(default_factory=Terms)
    before: World | None = None
    disk: Disk = field(default_factory=Disk)
    ledger: Ledger = field(default_factory=Ledger)
    sent: list[Sent] = field(default_factory=list)
    returned: list[Returned] = field(default_factory=list)
    taken: Json | None = None
    clients: list[Client] = field(default_factory=list)
    conversation: str = ""
    starts: int = 0
    drains: int = 0
    timeline: int = 0
    deletions: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        random.seed(self.seed)  # the pauses of a store's retries
        if self.before is None:
            terms, wordy = self.terms, self.terms.window is not None
            self.model = RandomModel(
                random.Random(self.seed + 1),
                self.ledger.numbers,
                asking=terms.asking,
                wordy=random.Random(self.seed + 4) if wordy else None,
                takes=terms.takes,
            )
            self.agent = make_agent(
                random.Random(self.seed + 2),
                self.ledger,
                terms.depth,
                stern=terms.stern,
                wordy=wordy,
                notes=terms.notes,
            )
        else:
            self._arrive(self.before)
        self.extra = random.Random(self.seed + 3)
        self.clients = [
            Client("quick reader", random.Random(self.seed + 10), self._head),
            Client("slow reader", random.Random(self.seed + 11), self._head, slow=0.1),
            Client("wandering reader", random.Random(self.seed + 12), self._head, wander=0.3),
        ]
        for client in self.clients:
            client.strict = self.twists.overlap == 0
            calm = Twists(feed_bytes=self.twists.feed_bytes, snapshots=self.twists.snapshots)
            client.exact = self.faults == Faults() and self.twists == calm
        self.copies: list[Copy] = []
        self.power = Power()
        self._powers: list[Power] = []
        self._ids = itertools.count(1)
        self._ours: set[asyncio.Task[Any]] = set()
        self._talking: set[asyncio.Task[Any]] = set()
        self.over = False
        self.errors: list[logging.LogRecord] = []

    def _arrive(self, before: World) -> None:
        """The model, the tools and what they did are the same on every server; a run that was taken goes on."""
        assert before.taken is not None
        self.model, self.agent, self.ledger = before.model, before.agent, before.ledger
        self.model.trouble = TROUBLE
        ours = before.taken["holdfast"]
        self.model.calls = sum('"type":"step.started"' in text for text in ours["events"])
        self.model.summaries = sum('"type":"compaction.started"' in text for text in ours["events"])
        saved = [msgspec.json.decode(text) for text in ours["events"] if '"type":"note.saved"' in text]
        self.ledger.noted = {note["text"] for note in saved}
        self.ledger.ended.discard(ours["run"])
        self.ledger.parked.add(ours["run"])
        self.returned.append(Returned(answered(before.taken, self.chance)))

    @property
    def name(self) -> str:
        """What the ids of this world's commands begin with: a log that goes on elsewhere knows those of before."""
        return "c" if self.before is None else f"{self.before.name}c"

    def _head(self) -> int:
        return self.disk.head(self.conversation)

    def _archived(self, flush: Flush) -> None:
        if flush.through > self.disk.head(flush.conversation.conversation):
            self.ledger.wrong.append(f"the archive was given what is not committed: {flush.through}")

    # --- the process

    def _clock(self) -> int:
        return BEGAN_MS + int(asyncio.get_running_loop().time() * 1000)

    async def _start(self) -> None:
        """A new process on the same disk: recovery is done when this returns."""
        self.starts += 1
        chance = random.Random(self.seed * 1_000 + self.starts)
        store = [
            FaultyStore(s, self.power, self.faults, chance, self.ledger.committed, self._archived)
            for s in (self.disk.log, self.disk.archive)
        ]
        rules = Rules(
            agents={"sim": self.agent},
            model="random",
            steps_max=self.terms.steps_max,
            tokens_max=self.terms.tokens_max,
            turns=self.terms.turns,
            slice_ms=self.terms.slice_ms,
            retry_ms=self.terms.retry_ms,
            crashes_max=self.twists.crashes_max,
            context_tokens=self.terms.window or WIDE,
        )
        around = Surroundings(
            log=store[0],  # type: ignore[arg-type]
            archive=store[1],  # type: ignore[arg-type]
            agents={"sim": self.agent},
            model=self.model,
            rules=lambda: replace(rules, draining=directory.draining),
            clock=self._clock,
            fresh=lambda: f"{self.name[1:]}i{next(self._ids)}",
            chance=chance.random,
            runs=asyncio.Semaphore(4),
            tools=asyncio.Semaphore(8),
            on_item=lambda item, head: None,
            tools_parallel=chance.choice([1, 2]),
            model_idle_seconds=5,
            frame_bytes_max=chance.choice([1_024, 4_096, 262_144]),
        )
        self.directory = directory = Directory(around, Listing())
        self.moving = Moving(directory, store[0], rules, SECRET)  # type: ignore[arg-type]
        before = await self.disk.log.head(self.conversation) if self.conversation else None
        await directory.start()
        if before is not None and not before.deleted:
            now, (item, _) = await self.disk.log.head(self.conversation), await self.disk.log.item(self.conversation)
            assert item.status != "running" or now.epoch > before.epoch, f"P5: ready, and nobody owns {item}"

    async def _boot(self) -> None:
        """Starts until a start survives; a kill may hit in the middle of recovery too."""
        while True:
            self.power = self._power()
            self._powers.append(self.power)
            starting = asyncio.create_task(self._start())
            cut = asyncio.create_task(self.power.cut.wait())
            await asyncio.wait({starting, cut}, return_when=asyncio.FIRST_COMPLETED)
            cut.cancel()
            if starting.done() and self.power.on:
                return starting.result()
            await self._reap()

    def _power(self) -> Power:
        return Power()

    async def _reap(self) -> None:
        """What ran in the killed process is no more; nothing of it reaches the disk from here on."""
        for power in self._powers:
            power.fail()
        for _ in range(100):
            dead = [task for task in asyncio.all_tasks() if task not in self._ours]
            dead.sort(key=lambda task: (len(task.get_name()), task.get_name()))  # a set has another order each time
            if not dead:
                return
            for task in dead:
                task.cancel()
            await asyncio.wait(dead, timeout=0.1)
        raise AssertionError(f"these do not die: {dead}")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of the world outside, which no kill ends."""
        task = asyncio.create_task(work)
        self._ours.add(task)
        return task

    # --- the story

    async def run(self) -> None:
        """Trouble, then peace. Whatever the product logs as an error on the way is one."""
        handler = logging.Handler(logging.ERROR)
        handler.emit = self.errors.append  # type: ignore[assignment, method-assign]
        logging.getLogger("app").addHandler(handler)
        try:
            with (
                mock.patch("app.actor.feed.FEED_BYTES_MAX", self.twists.feed_bytes),
                mock.patch("app.actor.load.SNAPSHOT_EVENTS", self.twists.snapshots),
                mock.patch("app.actor.sweeping.SNAPSHOT_EVENTS", self.twists.snapshots),
                mock.patch("app.actor.tool_effect.time", SimpleNamespace(monotonic=asyncio.get_running_loop().time)),
            ):
                async with asyncio.timeout(WORLD_SECONDS):
                    await self._story()
        except TimeoutError:
            raise AssertionError(f"P5: after {WORLD_SECONDS} s this world has not come to rest") from None
        finally:
            logging.getLogger("app").removeHandler(handler)

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
        people = [self._spawn(self._talk()), self._spawn(self._copy())]
        if self.terms.objects:
            people.append(self._spawn(self._hand_round()))
        if self.twists.deletion:
            people.append(self._spawn(self._delete()))
        await asyncio.sleep(TROUBLE_SECONDS)
        self.faults.unavailable = self.faults.in_doubt = self.faults.late = self.faults.kill = 0
        self.model.trouble = 0.0
        self.peace.set()
        await asyncio.gather(killing, *people)
        await self._restore()
        await self._come_to_rest()
        self.over = True
        await asyncio.gather(*reading)

    async def close(self) -> None:
        """The last process ends."""
        await self._reap()

    async def _create(self) -> None:
        """The same creation until its answer is heard: one conversation all the same."""
        try:
            async with asyncio.timeout(2):
                if self.returned:
                    created = await self.moving.put_back(self.returned[0].object, "owner", force=False)
                    self.returned[0].accepted.append(created)
                else:
                    created = await self.directory.create(
                        owner="owner", agent="sim", title="", prompt="Begin.", id="the-creation"
                    )
            self.conversation = created.conversation
        except Rejected as refusal:
            if refusal.code == "already_closed":  # an approval in it has expired on the way: it goes on all the same
                self.conversation = await self.disk.log.find_run(self.returned[0].run) or ""
            await asyncio.sleep(0.5)
        except (TimeoutError, Unavailable):
            await asyncio.sleep(0.5)

    async def _kill(self) -> None:
        """Ends the process at commit boundaries (the disk decides) and at any other moment; boots again."""
        often = self.faults.kill > 0 or max(self.twists.drain, self.twists.overlap, self.twists.old_disk) > 0
        while not self.peace.is_set():
            ends = {asyncio.create_task(self.power.cut.wait()), asyncio.create_task(self.peace.wait())}
            self._ours |= ends
            seconds = self.chance.expovariate(1 / self.twists.pause) if often else None
            await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
            if self.peace.is_set() and self.power.on:
                return
            await self._end_process()
            await self._boot()

    async def _end_process(self) -> None:
        """One of the ways in which a process ends."""
        if self.power.on and self.extra.random() < self.twists.drain:
            await self._drain()
        if self.power.on and self.extra.random() < self.twists.overlap:
            self.ledger.overlapped = True
            for client in self.clients:
                client.two_owners = True
            self._spawn(self._cut_off(self.power))
            return
        await self._reap()
        await asyncio.sleep(self.chance.random())
        if self.copies and self.extra.random() < self.twists.old_disk:
            self._put_back(self.copies.pop())

    async def _cut_off(self, power: Power) -> None:
        """An old owner that is still alive, for a while; then nothing of it reaches the disk."""
        await asyncio.sleep(self.extra.random() * 4)
        power.fail()

    async def _drain(self) -> None:
        """SIGTERM: ends in time, whatever goes on."""
        self.drains += 1
        began = asyncio.get_running_loop().time()
        draining = self._spawn(self.directory.drain(self.twists.drain_seconds))
        cut = self._spawn(self._until_cut())
        await asyncio.wait({draining, cut}, return_when=asyncio.FIRST_COMPLETED)
        cut.cancel()
        draining.cancel()
        if draining.done() and not draining.cancelled():
            draining.result()
        assert asyncio.get_running_loop().time() - began <= self.twists.drain_seconds + 3, "a drain ends in time"

    async def _until_cut(self) -> None:
        await self.power.cut.wait()

    # --- copies of the disk, deletions

    async def _copy(self) -> None:
        """Makes copies of the disk now and then, where they may be put back."""
        while self.twists.old_disk and not self.peace.is_set():
            await asyncio.sleep(self.extra.expovariate(1 / 5))
            if self.conversation:
                ledger = self.ledger
                self.copies.append(
                    Copy(
                        disk=self.disk.copy(),
                        begun=dict(ledger.begun),
                        never=set(ledger.never),
                        started=set(ledger.started),
                        ended=set(ledger.ended),
                        parked=set(ledger.parked),
                        saved=set(ledger.saved),
                        noted=set(ledger.noted),
                        calls=self.model.calls,
                        summaries=self.model.summaries,
                        heard=[len(sent.accepted) for sent in self.sent],
                    )
                )

    def _put_back(self, old: Copy) -> None:
        """The disk is as it was; what happened since never happened, for readers and senders alike. Only a snapshot of
        the time that never was is still about: nobody promises that one is of the log beside which it lies."""
        self.timeline += 1
        left = self.disk.snapshot(self.conversation)
        self.disk = copy.deepcopy(old.disk)
        self.disk.put_back(f"back{self.timeline}", self.conversation, left)
        ledger = self.ledger
        ledger.begun.clear()
        ledger.begun.update(old.begun)
        ledger.never, ledger.started, ledger.saved = set(old.never), set(old.started), set(old.saved)
        ledger.ended, ledger.parked, ledger.noted = set(old.ended), set(old.parked), set(old.noted)
        self.model.calls, self.model.summaries = old.calls, old.summaries
        for number, sent in enumerate(self.sent):
            del sent.accepted[old.heard[number] if number < len(old.heard) else 0 :]

    async def _delete(self) -> None:
        """Deletes the conversation at some moment, and restores it a while later."""
        await asyncio.sleep(self.extra.random() * TROUBLE_SECONDS)
        self.deletions += 1
        for _ in range(20):
            try:
                async with asyncio.timeout(20):
                    await self.directory.delete(self.conversation, "owner")
                break
            except KeyError:
                break
            except (TimeoutError, Unavailable, Rejected):
                await asyncio.sleep(1)
        await asyncio.sleep(self.extra.random() * 30)
        await self._restore()

    async def _restore(self) -> None:
        """Until it is there again, in whatever copy of the disk."""
        while (await self.disk.log.head(self.conversation)).deleted:
            try:
                async with asyncio.timeout(5):
                    await self.directory.restore(self.conversation)
            except (TimeoutError, Unavailable, Rejected):
                await asyncio.sleep(1)

    async def _read(self, client: Client) -> None:
        """Comes back again and again, until the end has been seen."""
        while not (self.over and client.live and await self._at_the_end(client)):
            if self.power.on:
                following = asyncio.create_task(client.follow(self._follower(), self.conversation))
                await asyncio.wait({following})
                if not following.cancelled():
                    following.result()
            await asyncio.sleep(client.chance.random())

    def _follower(self) -> Follower:
        return Follower(self.directory, Limits(), self._clock)

    async def _at_the_end(self, client: Client) -> bool:
        head = await self.disk.log.head(self.conversation)
        return (client.log, client.cursor) == (head.log, head.head)

    async def _send(self, sent: Sent) -> None:
        self.sent.append(sent)
        await send_until_heard(
            lambda: self.directory, self.conversation, sent, self.chance, timeline=lambda: self.timeline
        )
        if sent.command["type"] == "note" and sent.accepted:
            self.ledger.noted.add(sent.command["text"])

    def _say(self, id: str, command: Json) -> None:
        if "text" in command:
            at_length = " please" * self.extra.choice([0, 0, 40, 400]) if self._at_length(command) else ""
            command = {**command, "text": f"{command['text']} ({self.name}-{id}){at_length}"}
        sent = Sent({"id": f"{self.name}-{id}", **command}, self.extra.choice(PEOPLE))
        self._talking.add(self._spawn(self._send(sent)))

    def _at_length(self, command: Json) -> bool:
        """Notes are short: they are told whole whatever the window is."""
        return self.terms.window is not None and command["type"] != "note"

    async def _talk(self) -> None:
        """People say all kinds of things at all kinds of times."""
        while not self.peace.is_set():
            await asyncio.sleep(self.chance.expovariate(1 / 1.5))
            client = self.chance.choice(self.clients)
            self._say(str(len(self.sent)), self.chance.choice(self._ideas(client)))

    def _ideas(self, client: Client) -> list[Json]:
        """What somebody might say who saw what this client saw."""
        events = [msgspec.json.decode(text) for text in client.seen.values()]
        said = [event["message"] for event in events if event["type"] in ("hint.given", "prompt.queued")]
        ideas: list[Json] = [
            {"type": "prompt", "text": "Do something."},
            {"type": "hint", "text": "Rather this."},
            {"type": "hint", "text": "Now!", "interrupt": True},
            {"type": "cancel"},
            {"type": "rename", "title": "A title"},
            {"type": "suspend"},
        ]
        if self.terms.notes:
            ideas += [{"type": "note", "kind": kind, "text": "note"} for kind in ("decision", "environment")]
        ideas += [{"type": "withdraw", "target": message} for message in said[-2:]]
        course = [event for event in events if event["type"].startswith("run.")]
        if course and course[-1]["type"] == "run.suspended":
            ideas += [{"type": "resume"}, {"type": "resume", "run": course[-1]["run"], "steps": MORE_STEPS}] * 2
        for event in events[-40:]:
            ideas += decisions(event, self.chance, self.ledger.numbers) * 4
        return ideas

    async def _hand_round(self) -> None:
        """People export the run whenever it is suspended, answer what it asks, and return it, sooner or later."""
        while not self.peace.is_set():
            await asyncio.sleep(self.extra.expovariate(1 / 3))
            taking = self.terms.moves and self.taken is None and self.extra.random() < 0.5
            try:
                if taking:
                    object = travelled(await lossy(self.moving.take(self.conversation, "ann"), self.extra))
                    self.taken = object
                else:
                    object = travelled(await lossy(self.moving.export(self.conversation), self.extra))
            except (TimeoutError, ConnectionError, Unavailable, Rejected, KeyError):
                continue
            changed = not taking and self.extra.random() < 0.15
            self._hand_in(Returned((tampered if changed else answered)(object, self.extra), changed))

    def _hand_in(self, returned: Returned) -> None:
        self.returned.append(returned)
        back = return_until_heard(lambda: self.moving, returned, self.extra, timeline=lambda: self.timeline)
        self._talking.add(self._spawn(back))

    async def _come_to_rest(self) -> None:
        """P5: a patient person decides all that is open, until nothing is going on and the archive is written."""
        if self._talking:
            await asyncio.wait(self._talking)
        for number in range(PEACE_ROUNDS):
            item, head = await self.disk.log.item(self.conversation)
            if item.status == "idle" and not item.busy:
                await asyncio.sleep(SILENCE_SECONDS)
                if head == self._head():
                    return
            try:
                async with asyncio.timeout(5):
                    waiting = await self.directory.ask(self.conversation, open_events)
            except (TimeoutError, Unavailable):
                continue
            ideas = [self.chance.choice(decisions(event, self.chance, self.ledger.numbers)) for event in waiting]
            if item.status == "suspended":
                ideas.append(self.chance.choice([{"type": "cancel"}, {"type": "resume", "steps": MORE_STEPS}]))
            for idea in ideas:
                sent = Sent({"id": f"{self.name}-peace{number}-{len(self.sent)}", **idea}, self.extra.choice(PEOPLE))
                await self._send(sent)
            await asyncio.sleep(1)
        raise AssertionError(f"after {PEACE_ROUNDS} s of peace the conversation is still {item.status}: {item}")


def open_events(state: Any) -> list[Json]:
    """What waits for a person."""
    calls = state.run.calls if state.run else []
    return [msgspec.to_builtins(event) for _, call in calls for event in (call.approval, call.doubt) if event]


def decisions(event: Json, chance: random.Random, numbers: Iterator[int]) -> list[Json]:
    """The ways in which a person may answer an event. Whoever edits arguments uses a number that nobody used."""
    where = {"run": event.get("run"), "call": [*event.get("path", []), event.get("call")]}
    match event["type"]:
        case "approval.requested":
            bound = {**where, "digest": event["digest"]}
            edited = {"prompt": f"Task {next(numbers)}."} if event["tool"] in SUB_AGENTS else {"n": next(numbers)}
            return [
                {"type": "approve", **bound},
                {"type": "approve", **bound, "arguments": edited},
                {"type": "deny", **bound, "reason": "not today"},
            ]
        case "doubt.raised":
            return [{"type": "settle", **where, "outcome": chance.choice(["done", "rerun", "skip"])}]
    return []
