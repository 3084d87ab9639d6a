"""Settings of money: exact amounts, and a refusal that names the setting and never shows its value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent import Agent
from app.core.catalogue import Price
from app.main import rules_of, unpriced
from app.settings import SettingError, millionths, read

PRICES = '{"m": {"input": 0.25, "output": 2, "cached": 0.025}, "n": {"input": 1, "output": 0.000001}}'


def test_prices_are_exact() -> None:
    """003-8: in millionths for a million tokens, without a float in between."""
    settings = read({"HOLDFAST_PRICES": PRICES, "HOLDFAST_MONEY_MAX": "0.5"})
    assert settings.prices == {"m": Price(250_000, 2_000_000, 25_000), "n": Price(1_000_000, 1, 1_000_000)}
    assert settings.money_max == 500_000
    assert read({}).prices == {} and read({}).money_max is None


@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_every_amount_is_read_as_it_is_written(amount: int) -> None:
    assert millionths(f"{amount // 10**6}.{amount % 10**6:06d}") == amount


@pytest.mark.parametrize(
    "prices",
    [
        "{",
        "[]",
        "{}",
        "7",
        "null",
        '{"m": 5}',
        '{"": {"input": 1, "output": 1}}',
        '{"m": {"input": 1}}',
        '{"m": {"input": 1, "output": 1, "typo": 1}}',
        '{"m": {"input": -1, "output": 1}}',
        '{"m": {"input": 0.0000001, "output": 1}}',
        '{"m": {"input": 1e-3, "output": 1}}',
        '{"m": {"input": NaN, "output": 1}}',
        '{"m": {"input": 1, "output": 10000000000}}',
        '{"m": {"input": true, "output": 1}}',
        '{"m": {"input": 1, "output": 1, "cached": null}}',
        "[" * 100_000,
    ],
)
def test_prices_that_are_none_are_refused(prices: str) -> None:
    """FAULTS 104: by the setting's name, without its value."""
    with pytest.raises(SettingError, match="HOLDFAST_PRICES") as refused:
        read({"HOLDFAST_PRICES": prices})
    assert prices not in str(refused.value) or len(prices) < 5


@pytest.mark.parametrize("amount", ["0", "-1", "1,5", "1e3", "0.0000001", "much", "inf", "1/2"])
def test_an_amount_that_is_none_is_refused(amount: str) -> None:
    """FAULTS 104."""
    with pytest.raises(SettingError, match="HOLDFAST_MONEY_MAX") as refused:
        read({"HOLDFAST_PRICES": PRICES, "HOLDFAST_MONEY_MAX": amount})
    assert amount == "0" or amount not in str(refused.value)


def test_a_ceiling_of_money_needs_prices() -> None:
    """A ceiling that nothing can ever reach is a mistake."""
    with pytest.raises(SettingError, match="HOLDFAST_MONEY_MAX needs HOLDFAST_PRICES"):
        read({"HOLDFAST_MONEY_MAX": "1"})


def test_models_without_a_price_are_found_at_every_depth() -> None:
    """003-8: sub-agents may have models of their own; without any prices nobody asked."""
    inner = Agent("inner", model="dear")
    outer = Agent("outer", tools=[inner.as_tool("Helps")])
    settings = read({"HOLDFAST_PRICES": PRICES})
    assert unpriced(rules_of(settings, {"outer": outer}, "m")) == ["dear"]
    assert unpriced(rules_of(read({}), {"outer": outer}, "m")) == []
