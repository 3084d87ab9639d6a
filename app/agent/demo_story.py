"""How the demo model understands a history: from any list of messages to what has happened in its story.

Pure and total: whatever the messages hold (other tools, other agents, partial replies, results in any wording), there
is a `Story` or none. What to do next is decided in `demo_script`; nothing here writes a word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from app.core.events import Json

CLOSING = "`HOLDFAST_AGENT=module:attribute`"
"""Whatever ends the story says this; so a history shows where the last story ended."""

Outcome = Literal["ok", "denied", "in_doubt", "cancelled", "skipped", "failed"]

_ORDER = re.compile(
    r"\b(dinner|supper|lunch|restaurants?|hungry|eat|food|vegetarian|vegan|pizza|sushi|tacos?|curry)\b"
    r"|\b(order|reserv|book)\w*\b.*\b(table|place|seats?|meal)\b",
    re.IGNORECASE | re.DOTALL,
)
_TAGS = {
    "vegetarian": r"vegetarian|veggie|no meat|without meat|meatless",
    "vegan": r"vegan|plant.based",
    "cheap": r"cheap\w*|budget|inexpensive|affordable|(too|so) (expensive|dear)",
    "elegant": r"elegant|fancy|romantic",
    "quiet": r"quiet\w*|calm|silent|not (too |so )?loud",
    "terrace": r"terrace|outside|outdoors?|garden",
    "fish": r"fish|seafood",
    "spicy": r"spicy",
    "fast": r"fast|quick\w*|near\w*|close by|hurry|(too|so) far",
    "kids": r"kids?|child\w*",
    "pizza": r"pizza",
    "italian": r"italian|pasta",
    "japanese": r"japanese|sushi",
    "indian": r"indian|curry",
    "french": r"french",
    "lebanese": r"lebanese|mezze|falafel",
    "mexican": r"mexican|tacos?",
}
_WISHES = {
    tag: re.compile(rf"\b(no |not |without |anything but )?\b({words})\b", re.IGNORECASE)
    for tag, words in _TAGS.items()
}
_NUMBERS = dict(one=1, two=2, three=3, four=4, five=5, six=6, seven=7, eight=8, nine=9, ten=10)  # noqa: C408
_PEOPLE = re.compile(
    rf"\b(?:for|we are|party of)\s+(\d{{1,2}}|{'|'.join(_NUMBERS)})\b(?!\s*(?::|am|pm|o'clock|minutes|hours))"
    rf"|\b(\d{{1,2}}|{'|'.join(_NUMBERS)})\s+(?:people|persons|of us|guests|friends)\b",
    re.IGNORECASE,
)
_TIME = re.compile(r"\b(\d{1,2})(?::([0-5]\d))?\s*(am|pm)\b|\b([01]?\d|2[0-3]):([0-5]\d)\b", re.IGNORECASE)
_SIGNS: tuple[tuple[Outcome, str], ...] = (
    ("in_doubt", r"in.doubt|may or may not|unknown whether"),
    ("denied", r"denied|declined|rejected|not approved?|expired"),
    ("cancelled", r"cancell?ed"),
    ("skipped", r"skipped"),
)


@dataclass
class Try:
    """One attempt to reserve: what was asked for, what came of it, and what the result says."""

    asked: Json
    outcome: Outcome
    result: Json
    text: str


@dataclass
class Story:
    """What has happened since a person asked for dinner. `fresh` = words that no reply has followed yet."""

    words: list[str]
    fresh: list[str] = field(default_factory=list)
    found: list[Json] | None = None
    find_failures: int = 0
    rated: dict[str, Json] = field(default_factory=dict)
    tries: list[Try] = field(default_factory=list)
    calls: int = 0
    stopped: bool = False

    @property
    def wanted(self) -> dict[str, bool]:
        """Each wish by its tag; False = the person does not want it. What was said last counts."""
        said = [*self.words, *(a_try.text for a_try in self.tries if a_try.outcome == "denied")]
        return wishes(" . ".join(said))

    @property
    def people(self) -> int:
        return next((number for text in reversed(self.words) if (number := people(text))), 2)

    @property
    def time(self) -> str:
        return next((time for text in reversed(self.words) if (time := clock(text))), "19:30")


def read(messages: list[Json]) -> Story | None:
    """The story that is going on at the end of the messages, or None when the last words are about something else."""
    story: Story | None = None
    told_before = False
    asked: dict[str, tuple[str, Json]] = {}
    for message in messages:
        role, text = message.get("role"), text_of(message.get("content"))
        if role == "user":
            if story is None or (story.stopped and not is_hint(text)):
                begins = is_order(text) or (told_before and bool(wishes(text)))
                story = Story([text]) if begins else None
            else:
                story.words.append(text)
                story.fresh.append(text)
                story.stopped = False
        elif role == "assistant":
            if CLOSING in text:
                told_before = told_before or story is not None
                story = None
            calls = list(_calls(message))
            asked.update({call: (tool, arguments) for call, tool, arguments in calls})
            if story is not None:
                story.calls += len(calls)
                story.fresh = story.fresh if not calls else []
        elif role == "tool" and story is not None:
            _take(story, *asked.get(str(message.get("tool_call_id")), ("", {})), text)
    return story


def is_order(text: str) -> bool:
    return bool(_ORDER.search(text))


def is_hint(text: str) -> bool:
    """Whether words make sense as a wish for a dinner that is being planned already."""
    return bool(is_order(text) or wishes(text) or people(text) or clock(text))


def wishes(text: str) -> dict[str, bool]:
    found = [(match.start(), tag, match) for tag, pattern in _WISHES.items() for match in pattern.finditer(text)]
    return {tag: not match[1] for _, tag, match in sorted(found, key=lambda item: item[0])}


def people(text: str) -> int | None:
    found = [match[1] or match[2] for match in _PEOPLE.finditer(text)]
    number = _NUMBERS.get(found[-1].lower()) or int(found[-1]) if found else 0
    return number if 1 <= number <= 20 else None


def clock(text: str) -> str | None:
    """A time of day as 19:30."""
    for hour, minute, half, hour24, minute24 in reversed(_TIME.findall(text)):
        number = int(hour24 or hour)
        if half:
            number = number % 12 + (12 if half.lower() == "pm" else 0)
        return f"{number:02d}:{minute24 or minute or '00'}"
    return None


def text_of(content: Any) -> str:
    """The text of a message's content, which may be a string, None or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return ""


def count_calls(messages: list[Json]) -> int:
    return sum(1 for message in messages for _ in _calls(message))


def _take(story: Story, tool: str, asked: Json, text: str) -> None:
    """Takes one tool's result into the story."""
    values = list(_values(text))
    outcome = _outcome(text)
    story.stopped = story.stopped or outcome == "cancelled"
    match tool:
        case "find_places":
            places = [value for value in values if isinstance(value, list) and value]
            named = [place for place in (places[-1] if places else []) if isinstance(place, dict) and place.get("name")]
            story.found = named or story.found
            story.find_failures += not named
        case "evaluate":
            place = str(asked.get("place"))
            ratings = [value for value in values if isinstance(value, dict) and "rating" in value]
            if ratings or outcome not in ("cancelled", "skipped"):
                story.rated[place] = ratings[-1] if ratings else {}
        case "reserve":
            done = [value for value in values if isinstance(value, dict) and value.get("confirmation")]
            story.tries.append(Try(asked, "ok" if done else outcome, done[-1] if done else {}, text))


def _outcome(text: str) -> Outcome:
    """What a result without a value is: by its kind where it names one, else by the first telling word."""
    if named := re.search(r"Error \((\w+)\)", text):
        text = named[1]
    signs = [(match.start(), kind) for kind, sign in _SIGNS if (match := re.search(sign, text, re.IGNORECASE))]
    return min(signs)[1] if signs else "failed"


def _calls(message: Json) -> Iterator[tuple[str, str, Json]]:
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            values = list(_values(str(function.get("arguments"))))
            arguments = values[0] if values and isinstance(values[0], dict) else {}
            yield str(call.get("id")), str(function.get("name")), arguments


def _values(text: str) -> Iterator[Any]:
    """The JSON objects and arrays in a text that may say other things around them."""
    text = text[:20_000]
    decoder, at = json.JSONDecoder(), 0
    for _ in range(20):
        opening = re.compile(r"[\[{]").search(text, at)
        if opening is None:
            return
        try:
            value, at = decoder.raw_decode(text, opening.start())
            yield value
        except (ValueError, RecursionError):
            at = opening.start() + 1
