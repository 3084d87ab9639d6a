"""What the demo model says and does next: a pure function of the messages and the tools it has.

Its story is "Can you order dinner?": find places, evaluate three in parallel, ask to reserve the best, and react to
hints, edits, denials, failures and doubts on the way. Everything else it answers honestly as what it is. It keeps no
state, so that it goes on from any history: after a restart, on another machine, with results it has never seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from app.agent.demo_story import CLOSING, Story, Try, count_calls, read, wishes
from app.core.codec import clean
from app.core.events import Call, Json

CALLS_MAX = 24
TOOLS = frozenset({"find_places", "evaluate", "reserve"})

PLUG_IN = (
    "All of this was real except my words: I am Holdfast's embedded **demo model** and follow a script. To plug in a "
    "real model, set `OPENAI_API_KEY` (and `OPENAI_BASE_URL`, `HOLDFAST_MODEL` if you like) and start again; your own "
    f"tools come in with {CLOSING}."
)

ABOUT = f"""I am Holdfast's embedded **demo model**. I follow a script and cannot really answer that, but everything
around my words is real: this conversation is on disk, the run goes on when you close the tab, and any other tab can
follow it and take part.

Try this:

- ask **“Can you order dinner?”** and watch the tools work
- while they do, send a hint such as *vegetarian* or *cheap*
- approve, change or deny the reservation, from any tab
- close the tab in the middle, or stop the server, and come back

To plug in a real model, start the server with

```sh
export OPENAI_API_KEY="your key"
export OPENAI_BASE_URL="any endpoint that speaks Chat Completions"
export HOLDFAST_MODEL="its model's name"
```

and to bring your own tools, set {CLOSING}:

```python
from app.agent import Agent, tool

@tool(approval=True)
async def greet(name: str) -> str:
    \"\"\"Greet somebody.\"\"\"
    return f"Hello, {{name}}!"

agent = Agent("greeter", "You are polite.", [greet])
```
"""


@dataclass(frozen=True)
class Reply:
    """One scripted reply."""

    reasoning: str = ""
    text: str = ""
    calls: list[Call] = field(default_factory=list)


def play(messages: list[Json], tools: frozenset[str]) -> Reply:
    """The reply to these messages. `tools` are the names of the tools on offer. Never raises."""
    story = read(messages)
    if story is None or not tools >= TOOLS:
        return Reply(text=ABOUT)
    number = count_calls(messages)

    def call(tool: str, **arguments: object) -> Call:
        nonlocal number
        number += 1
        return Call(call=f"demo_{number}", tool=tool, arguments=clean(json.dumps(arguments, ensure_ascii=False)))

    return _ended(story) or (_find(story, call) if story.found is None else _choose(story, story.found, call))


def _ended(story: Story) -> Reply | None:
    """The last words, when there is nothing left to do."""
    last = story.tries[-1] if story.tries else None
    if last is not None and last.outcome == "ok":
        return Reply(text=_summary(story, last))
    if last is not None and last.outcome == "in_doubt":
        return _stop(
            f"I can't know whether the table at **{last.asked.get('place')}** was reserved: the call was cut off "
            "before its result came back. I will not try again by myself, since that might book it twice. Please ask "
            "the restaurant first."
        )
    if sum(a_try.outcome == "denied" for a_try in story.tries) >= 2:
        return _stop("All right, I stop here: nothing was reserved.")
    if sum(a_try.outcome == "failed" for a_try in story.tries) >= 2:
        return _stop("Reserving failed twice, so I stop here. As far as I was told, nothing was reserved.")
    if story.found is None and story.find_failures >= 2:
        return _stop("I could not find out which places there are, twice, so I stop here. Nothing was reserved.")
    if story.calls >= CALLS_MAX:
        return _stop("I have tried for long enough and stop here. Nothing was reserved.")
    return None


def _find(story: Story, call: Callable[..., Call]) -> Reply:
    wanted = ", ".join(tag for tag, yes in story.wanted.items() if yes)
    return Reply(
        "The person wants dinner. I know nothing about the places around here yet: look first, then compare, and ask "
        "before anything is booked.",
        f"{_heard(story)}Finding places…",
        [call("find_places", wishes=wanted)],
    )


def _choose(story: Story, found: list[Json], call: Callable[..., Call]) -> Reply:
    refused = {str(a_try.asked.get("place")) for a_try in story.tries if a_try.outcome in ("denied", "failed")}
    open_places = [place for place in found if str(place["name"]) not in refused]
    ranked = sorted(open_places, key=lambda place: -_fit(story, place))
    if not ranked:
        return _stop("There is no other place left to offer, so I stop here. Nothing was reserved.")
    rated = [place for place in ranked if str(place["name"]) in story.rated]
    unrated = [place for place in ranked if str(place["name"]) not in story.rated]
    if not rated or (unrated and _fit(story, unrated[0]) > _fit(story, rated[0])):
        least = _fit(story, rated[0]) + 1 if rated else _fit(story, unrated[-1])
        return _evaluate(story, [str(place["name"]) for place in unrated[:3] if _fit(story, place) >= least], call)
    best = max(rated, key=lambda place: (_fit(story, place), _rating(story, place)))
    return _offer(story, str(best["name"]), [str(place["name"]) for place in rated[:4]], call)


def _evaluate(story: Story, names: list[str], call: Callable[..., Call]) -> Reply:
    """Asks about these places, all at once."""
    opening = "That changes things." if story.rated else f"Found {len(story.found or [])} places."
    return Reply(
        "More than one place could fit. I evaluate the best matches, all at once.",
        f"{_heard(story)}{_turned_down(story)}{opening} Having a closer look at {_and(names)}.",
        [call("evaluate", place=name) for name in names],
    )


def _offer(story: Story, best: str, rated: list[str], call: Callable[..., Call]) -> Reply:
    """Asks to reserve `best`, after a denial or failure as the next best place."""
    if turned_down := _turned_down(story):
        opening = f"{turned_down}The next best place is **{best}**."
    else:
        lines = [f"- **{name}**: {_judged(story.rated[name])}" for name in rated]
        opening = "\n".join(["Here is how they compare:", "", *lines, "", f"My choice is **{best}**."])
    told = "; ".join(word.strip() for word in story.words[1:])[:200]
    return Reply(
        f"{best} fits best. Reserving is for a person to decide, so this call waits for an approval.",
        f"{_heard(story)}{opening} I would reserve a table for {story.people} at {story.time}; that needs your "
        "approval.",
        [call("reserve", place=best, people=story.people, time=story.time, wishes=told)],
    )


def _summary(story: Story, done: Try) -> str:
    got = done.result
    asked = {**got, **done.asked}
    changed = [f"{key}: {got[key]}" for key in ("place", "people", "time") if key in got and got[key] != asked[key]]
    lines = [
        f"Done: a table for **{got.get('people')}** at **{got.get('place')}**, {got.get('time')}. "
        f"The confirmation is `{got.get('confirmation')}`.",
        f"As you changed it ({'; '.join(changed)})." if changed else "",
        f"Your last words ({_quoted(story.fresh)}) came after the table was reserved; I did not change it."
        if story.fresh
        else "",
        "It took:",
        f"- {len(story.found or [])} places found, {len(story.rated)} evaluated in parallel\n"
        f"- {len(story.tries)} {'request' if len(story.tries) == 1 else 'requests'} for your approval",
        PLUG_IN,
    ]
    return "\n\n".join(line for line in lines if line)


def _stop(why: str) -> Reply:
    return Reply(text=f"{why}\n\n{PLUG_IN}")


def _turned_down(story: Story) -> str:
    last = story.tries[-1] if story.tries else None
    if last is None or last.outcome not in ("denied", "failed"):
        return ""
    what = "You would rather not go to" if last.outcome == "denied" else "The reservation did not work out at"
    return f"{what} **{last.asked.get('place')}**. "


def _heard(story: Story) -> str:
    """Acknowledges the hints that no reply has answered yet."""
    if not story.fresh:
        return ""
    understood = wishes(" . ".join(story.fresh))
    if understood:
        return f"Noted: {_and([tag if yes else f'not {tag}' for tag, yes in understood.items()], mark='')}. "
    return f"Noted ({_quoted(story.fresh)}); I will pass it on to the restaurant. "


def _fit(story: Story, place: Json) -> int:
    suits = place.get("suits")
    tags = {*(str(tag) for tag in (suits if isinstance(suits, list) else [])), str(place.get("kitchen"))}
    return sum((1 if yes else -2) for tag, yes in story.wanted.items() if tag in tags)


def _rating(story: Story, place: Json) -> float:
    rating = story.rated.get(str(place["name"]), {}).get("rating")
    return rating if isinstance(rating, int | float) else 0


def _judged(rated: Json) -> str:
    if not rated:
        return "could not be evaluated"
    return f"{rated.get('rating')} of 5, {rated.get('price')}. {rated.get('guests_say', '')}"


def _quoted(words: list[str]) -> str:
    return ", ".join(f"“{' '.join(word.split())[:80]}”" for word in words[-3:])


def _and(names: list[str], mark: str = "**") -> str:
    marked = [f"{mark}{name}{mark}" for name in names]
    return marked[0] if len(marked) == 1 else f"{', '.join(marked[:-1])} and {marked[-1]}"
