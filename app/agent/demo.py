"""The embedded demo agent: three real tools over a small town that does not exist.

They are tools like anybody's: they take time, report progress, fail on nonsense, and the one that does something in the
world wants a person's approval. No model and no script live here; a real model can use this agent as well.
"""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from app.agent.agents import Agent
from app.agent.context import ToolContext
from app.agent.tools import Tool, tool

INSTRUCTIONS = """You help people to get a table for dinner. Find places first, evaluate the two or three that fit best
(in parallel), then reserve the best one. What the person says while you work changes your choice. If a reservation is
denied, offer the next best place. If you cannot know whether a reservation happened, say so and do not repeat it."""


@dataclass(frozen=True)
class Place:
    """One invented restaurant. `price` from 1 (cheap) to 3, `minutes` on foot, `rating` from 1 to 5."""

    name: str
    kitchen: str
    suits: tuple[str, ...]
    price: int
    minutes: int
    rating: float
    says: str


PLACES = (
    Place(
        "Trattoria Lumaca", "italian", ("pizza", "vegetarian", "kids"), 2, 6, 4.4, "Loud, warm, and the dough is right."
    ),
    Place("Kissaten Moon", "japanese", ("fish", "quiet"), 3, 11, 4.7, "Twelve seats and nobody raises their voice."),
    Place("Green Anchor", "vegetarian", ("vegetarian", "vegan", "terrace"), 2, 9, 4.5, "Nobody misses the meat."),
    Place("Saffron Yard", "indian", ("vegetarian", "vegan", "spicy", "cheap"), 1, 8, 4.3, "Ask for medium, mean it."),
    Place("Chez Odile", "french", ("elegant", "quiet"), 3, 14, 4.8, "Five courses; plan the evening around it."),
    Place(
        "Beirut Corner",
        "lebanese",
        ("vegetarian", "cheap", "fast", "kids"),
        1,
        3,
        4.2,
        "Mezze at the speed of a snack.",
    ),
    Place("Harbour Grill", "fish", ("fish", "terrace", "elegant"), 2, 12, 4.1, "The catch of the morning, and a view."),
    Place("Taquería Sol", "mexican", ("spicy", "cheap", "fast"), 1, 5, 4.0, "Small tables, large tacos."),
)


def demo_agent(pace: float = 1.0) -> Agent:
    """The agent `demo`. `pace` scales how long its tools take: 1 = about a second each, 0 = at once."""
    return Agent("demo", INSTRUCTIONS, [_find_places(pace), _evaluate(pace), _reserve(pace)])


def _find_places(pace: float) -> Tool:
    @tool(rerun="safe")
    async def find_places(ctx: ToolContext, wishes: str = "") -> list[dict[str, Any]]:
        """Find places for dinner within walking distance, the best matches first.

        Args:
            wishes: what the person would like, in a few words, such as "vegetarian, quiet"
        """
        await _work(ctx, pace, ("Asking the map", "Reading opening hours"))
        wanted = wishes.lower()

        def matches(place: Place) -> int:
            return sum(wish in wanted for wish in (*place.suits, place.kitchen))

        return [
            {"name": place.name, "kitchen": place.kitchen, "suits": place.suits, "minutes": place.minutes}
            for place in sorted(PLACES, key=matches, reverse=True)
        ]

    return find_places


def _evaluate(pace: float) -> Tool:
    @tool(rerun="safe")
    async def evaluate(place: str, ctx: ToolContext) -> dict[str, Any]:
        """Evaluate one place: rating from 1 to 5, price level, what guests say.

        Args:
            place: its name, as find_places gave it
        """
        found = _named(place)
        slower = 0.7 + zlib.crc32(found.name.encode()) % 7 / 10
        await _work(ctx, pace * slower, ("Reading the menu", "Reading what guests say", "Counting free tables"))
        return {"place": found.name, "rating": found.rating, "price": "€" * found.price, "guests_say": found.says}

    return evaluate


def _reserve(pace: float) -> Tool:
    @tool(approval=True, rerun="never", timeout=30)
    async def reserve(
        place: str,
        people: Annotated[int, Field(ge=1, le=20)],
        time: Annotated[str, Field(pattern=r"^([01]?\d|2[0-3]):[0-5]\d$")],
        ctx: ToolContext,
        wishes: str = "",
    ) -> dict[str, Any]:
        """Reserve a table for today.

        Args:
            place: its name, as find_places gave it
            people: how many, 1 to 20
            time: when, as 19:30
            wishes: what the restaurant should know
        """
        found = _named(place)
        await _work(ctx, pace, (f"Calling {found.name}", "Waiting for somebody to pick up", "Spelling the name"))
        number = zlib.crc32(ctx.call_id.encode()) % 10_000
        told = {"place": found.name, "people": people, "time": time, "wishes": wishes}
        return {"reserved": True, **told, "confirmation": f"HF-{number:04d}"}

    return reserve


def _named(name: str) -> Place:
    for place in PLACES:
        if place.name.casefold() == name.strip().casefold():
            return place
    raise ValueError(f"there is no place called {name[:80]!r}")


async def _work(ctx: ToolContext, seconds: float, phases: tuple[str, ...]) -> None:
    for done, phase in enumerate(phases):
        ctx.progress(phase, fraction=done / len(phases))
        await asyncio.sleep(seconds / len(phases))
