"""Every setting, read once from the environment, checked at once: a wrong one stops the start and names itself.

The only reader of the environment. A message never shows a value: it might be a secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.core.catalogue import Price

SECRET_CHARS_MIN = 8
"""Shorter values are ordinary words."""
SECRET_NAMES = re.compile(r"((API|ACCESS|SECRET|PRIVATE)_?KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_AMOUNT = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,6}))?")


class SettingError(Exception):
    """A setting that cannot be used; the message names it and says what it should be."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Durations in seconds unless the name says otherwise, money in millionths; every row is in the README."""

    host: str
    port: int
    data: Path
    agent: str | None
    model: str
    api_key: str | None
    base_url: str | None
    secret: str | None
    origins: frozenset[str]
    proxies: tuple[str, ...]
    open: bool
    heartbeat_seconds: float
    context_tokens: int
    steps_max: int
    tokens_max: int | None
    seconds_max: int | None
    money_max: int | None
    calls_max: int
    repeats_max: int
    prices: Mapping[str, Price]
    turns: int | None
    slice_seconds: float | None
    tool_seconds: float
    model_idle_seconds: float
    drain_seconds: float
    retry_seconds: float
    cancel_grace_seconds: float
    send_seconds: float
    frame_bytes_max: int
    queue_max: int
    rate: float
    rate_bytes: int
    sockets_max: int
    demo_pace: float
    runs_max: int
    tools_parallel: int
    tools_max: int
    backups: int
    secrets: tuple[str, ...]
    """Values that must never be told to anybody, a tool's own ones included; the longest first."""


def read(environ: Mapping[str, str]) -> Settings:
    """Settings of an environment. Raises SettingError."""
    env = _Reader(environ)
    settings = Settings(
        host=env.text("HOLDFAST_HOST") or "127.0.0.1",
        port=env.integer("PORT", 8000, least=0, most=65535),
        data=Path(env.text("HOLDFAST_DATA") or "./data").absolute(),  # a tool may change the working directory
        agent=env.text("HOLDFAST_AGENT"),
        model=env.text("HOLDFAST_MODEL") or "gpt-5-mini",
        api_key=env.text("OPENAI_API_KEY"),
        base_url=env.address("OPENAI_BASE_URL"),
        secret=env.text("HOLDFAST_SECRET"),
        origins=env.origins("HOLDFAST_ORIGINS"),
        proxies=env.networks("HOLDFAST_PROXIES"),
        open=env.flag("HOLDFAST_OPEN"),
        heartbeat_seconds=env.number("HOLDFAST_HEARTBEAT_SECONDS", 20, least=0.05),
        context_tokens=env.integer("HOLDFAST_CONTEXT_TOKENS", 128_000, least=1_000),
        steps_max=env.integer("HOLDFAST_STEPS_MAX", 50, least=1),
        tokens_max=env.optional_integer("HOLDFAST_TOKENS_MAX"),
        seconds_max=env.optional_integer("HOLDFAST_SECONDS_MAX"),
        money_max=env.money("HOLDFAST_MONEY_MAX"),
        calls_max=env.integer("HOLDFAST_CALLS_MAX", 1_000, least=1),
        repeats_max=env.integer("HOLDFAST_REPEATS_MAX", 200, least=2),
        prices=env.prices("HOLDFAST_PRICES"),
        turns=env.optional_integer("HOLDFAST_TURNS"),
        slice_seconds=env.number("HOLDFAST_SLICE_SECONDS", 0) or None,
        tool_seconds=env.number("HOLDFAST_TOOL_SECONDS", 120, least=0.01),
        model_idle_seconds=env.number("HOLDFAST_MODEL_IDLE_SECONDS", 60, least=0.01),
        drain_seconds=env.number("HOLDFAST_DRAIN_SECONDS", 20),
        retry_seconds=env.number("HOLDFAST_RETRY_SECONDS", 300),
        cancel_grace_seconds=env.number("HOLDFAST_CANCEL_GRACE_SECONDS", 1),
        send_seconds=env.number("HOLDFAST_SEND_SECONDS", 10, least=0.01),
        frame_bytes_max=env.integer("HOLDFAST_FRAME_BYTES_MAX", 262_144, least=1_024, most=1_000_000),
        queue_max=env.integer("HOLDFAST_QUEUE_MAX", 10, least=1),
        rate=env.number("HOLDFAST_RATE", 20, least=0.1),
        rate_bytes=env.integer("HOLDFAST_RATE_BYTES", 6_000_000, least=1_024),
        sockets_max=env.integer("HOLDFAST_SOCKETS_MAX", 1_000, least=1),
        demo_pace=env.number("HOLDFAST_DEMO_PACE", 1),
        runs_max=env.integer("HOLDFAST_RUNS_MAX", 256, least=1),
        tools_parallel=env.integer("HOLDFAST_TOOLS_PARALLEL", 8, least=1),
        tools_max=env.integer("HOLDFAST_TOOLS_MAX", 64, least=1),
        backups=env.integer("HOLDFAST_BACKUPS", 3),
        secrets=_secrets(environ),
    )
    if env.integer("WEB_CONCURRENCY", 1, least=1) != 1:
        raise SettingError("WEB_CONCURRENCY must be 1: one process owns the data directory.")
    if settings.money_max is not None and not settings.prices:
        raise SettingError("HOLDFAST_MONEY_MAX needs HOLDFAST_PRICES: without prices nothing costs anything.")
    return settings


def millionths(amount: object) -> int | None:
    """An amount such as 0.25 in millionths, exactly; None where it is no such amount."""
    found = _AMOUNT.fullmatch(amount) if isinstance(amount, str) else None
    return None if found is None else int(found[1]) * 1_000_000 + int((found[2] or "").ljust(6, "0"))


def _secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    named = {value.strip() for name, value in environ.items() if SECRET_NAMES.search(name)}
    return tuple(sorted((value for value in named if len(value) >= SECRET_CHARS_MIN), key=len, reverse=True))


def check_exposure(settings: Settings) -> None:
    """Raises SettingError for an address that strangers may reach, unless the owner said that they may."""
    if settings.host not in LOOPBACK and not settings.open:
        raise SettingError(
            "HOLDFAST_HOST is not a loopback address and nobody has to sign in. "
            "Set HOLDFAST_OPEN=1 if whoever reaches the port may use it."
        )


def hosts(settings: Settings) -> frozenset[str] | None:
    """Names that a Host header may say; None = any, on a server that is open and names no origins."""
    if settings.open and not settings.origins:
        return None
    named = {urlsplit(origin).hostname or "" for origin in settings.origins}
    return frozenset({*LOOPBACK, settings.host, *named})


def _price(row: Any) -> Price | None:
    """The price of one model; None where the row is none."""
    if not isinstance(row, dict) or not {"input", "output"} <= row.keys() <= {"input", "output", "cached"}:
        return None
    read, written = millionths(row["input"]), millionths(row["output"])
    cached = millionths(row.get("cached", row["input"]))
    return None if read is None or written is None or cached is None else Price(read, written, cached)


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def flag(self, name: str) -> bool:
        text = self.text(name)
        if text not in (None, "0", "1"):
            raise SettingError(f"{name} must be 0 or 1.")
        return text == "1"

    def number(self, name: str, default: float, least: float = 0) -> float:
        text = self.text(name)
        try:
            value = default if text is None else float(text)
        except ValueError:
            raise SettingError(f"{name} must be a number.") from None
        if not least <= value < float("inf"):
            raise SettingError(f"{name} must be a number from {least:g} on.")
        return value

    def integer(self, name: str, default: int, least: int = 0, most: int = 10**12) -> int:
        value = self.optional_integer(name, least, most)
        return default if value is None else value

    def optional_integer(self, name: str, least: int = 1, most: int = 10**12) -> int | None:
        text = self.text(name)
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or not least <= int(text[:18]) <= most:
            raise SettingError(f"{name} must be a whole number from {least} to {most}.")
        return int(text)

    def money(self, name: str) -> int | None:
        text = self.text(name)
        amount = None if text is None else millionths(text)
        if text is not None and not amount:
            raise SettingError(f"{name} must be an amount above 0 such as 0.25, with six decimals at most.")
        return amount

    def prices(self, name: str) -> Mapping[str, Price]:
        text = self.text(name)
        try:
            table = json.loads(text or "{}", parse_int=str, parse_float=str, parse_constant=str)
        except (ValueError, RecursionError):
            table = None
        prices = {model: _price(row) for model, row in table.items()} if isinstance(table, dict) else {"": None}
        good = {model: price for model, price in prices.items() if model and price is not None}
        if len(good) < len(prices) or (text is not None and not good):
            raise SettingError(
                f'{name} must be a JSON object such as {{"gpt-5-mini": {{"input": 0.25, "output": 2}}}}: what a '
                "million tokens cost, with six decimals at most; `cached` is as `input` where it is missing."
            )
        return good

    def address(self, name: str) -> str | None:
        text = self.text(name)
        try:
            parts = urlsplit(text or "http://none")
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good:
            raise SettingError(f"{name} must be an address such as https://api.example.org/v1.")
        return text

    def networks(self, name: str) -> tuple[str, ...]:
        found = tuple((self.text(name) or "").replace(",", " ").split())
        try:
            for network in found:
                ip_network(network)
        except ValueError:
            raise SettingError(f"{name} must hold addresses or networks such as 10.0.0.0/8, comma-separated.") from None
        return found

    def origins(self, name: str) -> frozenset[str]:
        found = frozenset(origin.rstrip("/") for origin in (self.text(name) or "").replace(",", " ").split())
        for origin in found:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path:
                raise SettingError(f"{name} must hold origins such as https://chat.example.org, comma-separated.")
        return found
