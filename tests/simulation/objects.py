"""Suspended runs as objects in people's hands: exported, answered, returned too often, changed on the way, taken away.

An object is what travels between servers, so it passes through JSON here. `Returned` keeps what every return of one
object was answered; the checks compare it with what readers saw.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from app.actor.directory import Created
from app.actor.moving import Moving
from app.core.codec import to_json
from app.core.errors import Rejected
from app.store.event_log import Unavailable
from tests.simulation.people import Json, lossy

NO_ANSWER = ("storage_unavailable", "internal", "draining")
RETURNS_MAX = 200
"""So many times an answer may be lost before somebody has to be wrong."""


@dataclass
class Returned:
    """An object with its answers, and what came of each return. `changed`: somebody tampered with it."""

    object: Json
    changed: bool = False
    accepted: list[Created] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)

    @property
    def run(self) -> str:
        return str(self.object["holdfast"]["run"])

    @property
    def answers(self) -> set[tuple[str, tuple[str, ...], str]]:
        """What it says: run, path of call ids, decision."""
        said = {True: "approved", False: "denied"}
        infos = [info for info in self.object["approval_info"] if info["approved"] is not None]
        return {(self.run, tuple(info["path_ids"]), said[info["approved"]]) for info in infos}


def travelled(object: Json) -> Json:
    """An object as it arrives elsewhere."""
    arrived: Json = msgspec.json.decode(to_json(object))
    return arrived


def answered(object: Json, chance: random.Random) -> Json:
    """A copy in which somebody has answered some of what it asks."""
    copied = travelled(object)
    for info in copied["approval_info"]:
        info["approved"] = chance.choice([True, False, None])
    return copied


def tampered(object: Json, chance: random.Random) -> Json:
    """A copy that is not what left: other arguments, another place, another log."""
    copied = travelled(object)
    ours = copied["holdfast"]
    match chance.randrange(3):
        case 0:
            ours["digests"] = dict.fromkeys(ours["digests"], "0" * 64) or {"k1": "0" * 64}
        case 1:
            ours["events"] = ours["events"][:-1]
        case _:
            copied["continuation"]["resume_request"] = [{"id": "k9"}]
    return copied


async def return_until_heard(
    moving: Callable[[], Moving], returned: Returned, chance: random.Random, timeline: Callable[[], int] = lambda: 0
) -> None:
    """Returns an object one to three times, at least until somebody hears of it.

    An answer of a `timeline` that was since replaced by an older disk is worth nothing.
    """
    times = chance.choice([1, 2, 3])
    for _ in range(RETURNS_MAX):
        times -= 1
        now = timeline()
        try:
            created = await lossy(moving().put_back(returned.object, "object", force=False), chance)
        except (TimeoutError, ConnectionError, Unavailable, KeyError):
            await asyncio.sleep(chance.random())
            continue
        except Rejected as refusal:
            if refusal.code not in NO_ANSWER:
                returned.rejected.append(refusal.code)
            await asyncio.sleep(chance.random())
        else:
            if now == timeline():
                returned.accepted.append(created)
        if times <= 0 and (returned.accepted or returned.rejected):
            return
    raise AssertionError(f"nobody hears of the object of {returned.run}")
