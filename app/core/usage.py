"""Tokens and money as sums: what was used is added up here, estimated where nobody said it, and priced.

Integers only: the same log gives the same figures, to the last digit, wherever it is folded. A price is applied once,
by whoever decides the event that tells the usage; a fold never looks at prices, because those may change.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from msgspec.structs import replace

from app.core.catalogue import Rules
from app.core.events import Usage

CHARS_PER_TOKEN = 4
MILLION = 1_000_000


def tokens(usage: Usage) -> int:
    return usage.input + usage.output


def added(one: Usage, other: Usage) -> Usage:
    costs = [cost for cost in (one.cost, other.cost) if cost is not None]
    return Usage(
        input=one.input + other.input,
        output=one.output + other.output,
        cached=one.cached + other.cached,
        estimated=one.estimated or other.estimated,
        cost=sum(costs) if costs else None,
        unpriced=one.unpriced or other.unpriced,
    )


def total(usages: Iterable[Usage]) -> Usage:
    return reduce(added, usages, Usage(input=0, output=0))


def estimated(asked: int, said: int) -> Usage:
    """The usage of a call of so many characters there and back, where the provider told none."""
    return Usage(input=asked // CHARS_PER_TOKEN + 1, output=said // CHARS_PER_TOKEN + 1, estimated=True)


def priced(usage: Usage, model: str, rules: Rules) -> Usage:
    """The usage with what it costs today, rounded up to a millionth; without any prices as it is."""
    if not rules.prices:
        return usage
    price = rules.prices.get(model)
    if price is None:
        return replace(usage, unpriced=True)
    cached = min(usage.cached, usage.input)
    exact = (usage.input - cached) * price.input + cached * price.cached + usage.output * price.output
    return replace(usage, cost=-(-exact // MILLION))
