"""Every setting, read once from the environment, checked at once: a wrong one stops the start and names itself.

The only reader of the environment. A message never shows a value: it might be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

SECRET_CHARS_MIN = 8
"""Shorter values are ordinary words."""
SECRET_NAMES = re.compile(r"((API|ACCESS|SECRET|PRIVATE)_?KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class SettingError(Exception):
    """A setting that cannot be used; the message names it and says what it should be."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Durations in seconds unless the name says otherwise; every row is in the README."""

    host: str
    port: int
    data: Path
    agent: str | None
    model: str
    api_key: str | None
    base_url: str | None
    secret: str | None
    origins: frozenset[str]
    open: bool
    heartbeat_seconds: float
    steps_max: int
    tokens_max: int | None
    seconds_max: int | None
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
        base_url=env.text("OPENAI_BASE_URL"),
        secret=env.text("HOLDFAST_SECRET"),
        origins=env.origins("HOLDFAST_ORIGINS"),
        open=env.flag("HOLDFAST_OPEN"),
        heartbeat_seconds=env.number("HOLDFAST_HEARTBEAT_SECONDS", 20, least=0.05),
        steps_max=env.integer("HOLDFAST_STEPS_MAX", 50, least=1),
        tokens_max=env.optional_integer("HOLDFAST_TOKENS_MAX"),
        seconds_max=env.optional_integer("HOLDFAST_SECONDS_MAX"),
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
    return settings


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

    def origins(self, name: str) -> frozenset[str]:
        found = frozenset(origin.rstrip("/") for origin in (self.text(name) or "").replace(",", " ").split())
        for origin in found:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path:
                raise SettingError(f"{name} must hold origins such as https://chat.example.org, comma-separated.")
        return found
