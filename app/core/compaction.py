"""What becomes of a level's history before its next request: nothing, references, or a summary (SEMANTICS.md §7).

Asked at every step boundary, one thing at a time, until the request fits: large old results are told by reference from
70 % on; from 85 % on what is recent is told in short where it alone is too large, then what is older is summarised.
Every answer is an event, so that it is decided once; each takes something away for good, so that it ends. What a
request holds is window.py's to say, how a summary comes about summarising.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from app.core import events as e
from app.core.codec import to_json
from app.core.context import entered, kept_words, recent, text_of
from app.core.events import Shortened
from app.core.request import digest_of
from app.core.state import HistoryItem, Words
from app.core.summarising import ITEM_PART, OVERFLOWS_MAX, Place, added_chars, line, summary_request
from app.core.window import CALL_CHARS, MESSAGE_CHARS, SHARES, Measure, waiting

REFERENCES_FROM = 70
SUMMARY_FROM = 85
"""Percent of what history may take."""

GAIN_PERCENT = 10
URGENT_GAIN_PERCENT = 2
"""What a change must take away to be worth the provider's cache: below the second mark, and from there on."""

HARDER_MAX = 2
"""So often is a step compacted again because the provider has called it too long."""

EXCERPT_CHARS_MIN = 200
EXCERPT_CHARS_MAX = 800
EXCERPT_PART = 40
"""A reference shows a fortieth of what history may take, between these."""

REFERENCE_CHARS = 200
"""What a reference costs beside its excerpt: a text that is hardly longer stays whole."""

_FOLLOWS = (e.ToolReturned, e.ToolFailed, e.ApprovalDecided)
"""What never stands without the reply before it."""

Fitting = Literal["fits", "compacted", "full"]


def compact(place: Place, now: Measure, model: str) -> Fitting:
    """Emits the next thing that is due before a level's next request. "full": it does not fit, and nothing helps.

    The hints that wait count, but are left as they are as long as that is possible. `now`: the request as it is;
    `model`: the level's.
    """
    if place.level.too_long > HARDER_MAX or now.fixed >= now.window:
        return "full"
    urgent = now.percent >= SUMMARY_FROM or now.asked > now.window
    if now.percent < REFERENCES_FROM and not urgent:
        return "fits"
    look = _Look(place, now, model)
    gain = max(now.free * GAIN_PERCENT // 100, 1)
    if look.refer(look.old_results(), look.least if urgent else gain):
        return "compacted"
    if not urgent:
        return "fits"
    for hardness in range(min(place.level.too_long, len(SHARES) - 1), len(SHARES)):
        if look.refer(look.oversized(hardness), look.least) or look.summarise(hardness):
            return "compacted"
        if now.asked <= now.window:
            return "fits"
    return "full"


class _Look:
    """One look at a level that has to become smaller; everything in characters. `least`: a gain that is worth it."""

    def __init__(self, place: Place, now: Measure, model: str) -> None:
        self._place, self._level, self._now, self._model = place, place.level, now, model
        self._excerpt = min(max(now.free // EXCERPT_PART, EXCERPT_CHARS_MIN), EXCERPT_CHARS_MAX)
        self._told = self._level.history[recent(self._level.history, self._level.context) :]
        self._reads = added_chars(self._level.context, place.rules, self._level.overflows)
        self.least = max(now.free * URGENT_GAIN_PERCENT // 100, 1)

    # --- references

    def refer(self, texts: dict[int, int], least: int) -> bool:
        """Tells these texts (seq → characters) by reference from now on, if that takes enough away."""
        if not texts:
            return False
        shortened = [Shortened(of=seq, chars=chars) for seq, chars in sorted(texts.items())]
        event = e.ContextCompacted(
            from_=min(texts), to=max(texts), before=0, after=0, summary="", kind="references", shortened=shortened
        )
        return self._place.compacted(event, least)

    def old_results(self) -> dict[int, int]:
        """Large results of all but the newest batch."""
        old = self._told[: self._newest()]
        return self._cut([item for item in old if isinstance(item, e.ToolReturned)], self._excerpt)

    def oversized(self, hardness: int) -> dict[int, int]:
        """What is too large for its share by itself: results of the newest batch, messages of the person.

        The newest words may take the share of what is recent, too. Hints that wait are touched only where nothing else
        can help.
        """
        shares, free, newest = SHARES[hardness], self._now.free, self._newest()
        results = [item for item in self._told[newest:] if isinstance(item, e.ToolReturned)]
        kept = kept_words(self._level.history, self._level.context)
        older = [*kept, *(item for item in self._told[:newest] if isinstance(item, Words))]
        new = [item for item in self._told[newest:] if isinstance(item, Words)]
        found: dict[int, int] = {}
        if sum(self._chars(item) for item in results) > free * shares.tail // 100:
            found.update(self._cut(results, free * shares.tail // 100 // len(results)))
        found.update(self._cut(older, free * shares.words // 100))
        found.update(self._cut(new, free * (shares.words + shares.tail) // 100))
        if hardness == len(SHARES) - 1:
            hints = waiting(self._place.ledger.state, self._place.path)
            found.update(self._cut(hints, free * shares.words // 100 // max(len(hints), 1)))
        return found

    def _cut(self, items: Sequence[Words | e.ToolReturned], chars: int) -> dict[int, int]:
        """Those of the items that are longer, each to so many characters."""
        chars = max(chars, self._excerpt)
        return {item.seq: chars for item in items if self._chars(item) > chars + REFERENCE_CHARS}

    def _newest(self) -> int:
        """Where the newest reply and its results begin."""
        replies = [index for index, item in enumerate(self._told) if isinstance(item, e.ModelReplied)]
        return replies[-1] if replies else 0

    def _chars(self, item: Words | e.ToolReturned) -> int:
        return len(text_of(item, self._level.context))

    # --- a summary

    def summarise(self, hardness: int) -> bool:
        """Begins a summary of what is older than the tail, or of as much of it as a summariser can read at once."""
        level, shares = self._level, SHARES[hardness]
        end = self._tail(self._now.free * shares.tail // 100)
        if not any(not isinstance(item, Words) for item in self._told[:end]):
            return self._tighten(end, hardness)
        readable = level.overflows < OVERFLOWS_MAX
        started = self._started(self._readable(end) if readable else end, hardness)
        if not readable:
            return self._place.summarised_mechanically(started)
        started.request = digest_of(summary_request(self._level, started))
        self._place.ledger.emit(started)
        return True

    def _tighten(self, end: int, hardness: int) -> bool:
        """No reply is left to summarise: fewer messages of the person, a shorter summary, without a model."""
        started = self._started(end, hardness)
        return started.to > 0 and self._place.summarised_mechanically(started, least=self.least)

    def _started(self, end: int, hardness: int) -> e.CompactionStarted:
        """A summary of what is told as itself up to an index; of nothing new at index 0."""
        through = self._level.context.through
        to = entered(self._told[end - 1]) if end else through
        return e.CompactionStarted(
            run=self._place.run.run,
            path=self._place.path,
            from_=entered(self._told[0]) if end else through,
            to=to,
            attempt=self._level.summaries + 1,
            model=self._model,
            words=self._words(to, hardness),
            reads=self._reads,
            writes=self._now.summary_chars(hardness),
        )

    def _tail(self, chars: int) -> int:
        """Where the recent part begins that stays as it is; never between a call and its result."""
        start = end = len(self._told)
        while end:
            end -= 1
            chars -= self._cost(self._told[end])
            if chars < 0:
                break
            if not isinstance(self._told[end], _FOLLOWS):
                start = end
        return start

    def _readable(self, end: int) -> int:
        """Where the part ends that the summariser can read at once: at least one reply with its results."""
        context, most = self._level.context, self._reads
        reached = chars = 0
        some = False
        for index, item in enumerate(self._told[:end]):
            if some and not isinstance(item, _FOLLOWS):
                reached = index
            chars += len(line(item, context, most // ITEM_PART))
            some = some or not isinstance(item, Words)
            if reached and chars > most:
                return reached
        return end

    def _words(self, to: int, hardness: int) -> int:
        """How many of the person's messages up to there stay as they are: the newest, at least one."""
        most = self._now.free * SHARES[hardness].words // 100
        older = [item for item in self._level.history if isinstance(item, Words) and item.told <= to]
        kept = 0
        for item in reversed(older):
            most -= self._cost(item)
            if most < 0 and kept:
                break
            kept += 1
        return kept

    def _cost(self, item: HistoryItem) -> int:
        """About what an item takes in a request."""
        match item:
            case Words() | e.ToolReturned():
                return MESSAGE_CHARS + self._chars(item)
            case e.ModelReplied():
                calls = sum(CALL_CHARS + len(call.tool) + len(call.arguments) for call in item.calls)
                return MESSAGE_CHARS + len(item.text) + calls
            case e.ModelInterrupted():
                return MESSAGE_CHARS + len(item.text)
            case e.ToolFailed():
                return MESSAGE_CHARS + len(item.error.message)
            case e.ApprovalDecided():
                return MESSAGE_CHARS + len(to_json(item.arguments))
