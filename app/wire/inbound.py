"""What clients say, parsed and bounded: the one place where bytes of a stranger become a command.

No I/O, no clock of its own. Whatever comes in, the answer is a command, a `Rejected` for the sender, or a close code;
nothing else ever leaves this module, and nothing unbounded gets past it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from app.core.codec import clean, deeper
from app.core.commands import FromClient
from app.core.errors import Rejected
from app.core.events import Json
from app.wire import close_codes
from app.wire.frames import Limits

_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
_TYPES = {command.__struct_config__.tag for command in get_args(FromClient)}
STRIKES_MAX = 3
"""The frame that is no JSON object, for the third time, closes the socket."""


@dataclass(frozen=True, slots=True)
class Ping:
    """The client wants a heartbeat."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A `rejected` frame for the sender; `id` None where the frame had none."""

    id: str | None
    refusal: Rejected


@dataclass(frozen=True, slots=True)
class Close:
    code: int


Said = FromClient | Ping | Refused | Close


def is_id(value: object) -> bool:
    """Whether this can be a command's id."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def parse_object(data: str | bytes, depth_max: int) -> Json:
    """A JSON object with clean texts and bounded depth. Raises Rejected bad_json."""
    try:
        value = _loads(data)
    except (ValueError, RecursionError):
        raise Rejected("bad_json", "This is not valid JSON.") from None
    if not isinstance(value, dict):
        raise Rejected("bad_json", "This is not a JSON object.")
    if deeper(value, depth_max):
        raise Rejected("bad_command", f"The JSON is nested deeper than {depth_max} levels.")
    cleaned: Json = _clean(value)
    return cleaned


def parse_command(value: Json) -> FromClient:
    """The command of an object (PROTOCOL.md §1.2). Raises Rejected unknown_type or bad_command."""
    if not is_id(value.get("id")):
        raise Rejected("bad_command", "`id` is 1-64 characters of A-Z a-z 0-9 . _ : -")
    type = value.get("type")
    if type is None:
        raise Rejected("unknown_type", "The command has no `type`.")
    if not isinstance(type, str) or type not in _TYPES:
        raise Rejected("unknown_type", f"There is no command {str(type)[:100]!r}.")
    try:
        command: FromClient = msgspec.convert(value, FromClient)
        return command
    except msgspec.ValidationError as error:
        raise Rejected("bad_command", f"{error}.") from None


def _loads(data: str | bytes) -> Any:
    """msgspec is strict and fast; it refuses lone surrogates in escapes: these go the slower way and are replaced."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        if "\\ud" not in (data if isinstance(data, str) else data.decode("utf-8", "replace")).lower():
            raise ValueError("not JSON") from None
        return json.loads(data, parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _clean(value: Any) -> Any:
    """Every text of a value without lone surrogates and NUL; its depth is bounded by now."""
    match value:
        case str():
            return clean(value)
        case list():
            return [_clean(inner) for inner in value]
        case dict():
            return {clean(name): _clean(inner) for name, inner in value.items()}
    return value


class Tokens:
    """A token bucket over a clock that is handed in (seconds, monotonic)."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = self._left = float(burst)
        self._filled = now

    def take(self, now: float, cost: float = 1) -> bool:
        """Whether so much more is within the rate; what is not takes nothing."""
        self._left = min(self._burst, self._left + (now - self._filled) * self._rate)
        self._filled = now
        if self._left < cost:
            return False
        self._left -= cost
        return True


class Bucket:
    """The rate of one sender's frames or commands, and when that is a flood."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._tokens = Tokens(limits.rate, limits.burst, now)
        self._window = now
        self._count = 0

    def take(self, now: float) -> bool:
        """Whether one more is within the rate."""
        if now - self._window > self._limits.flood_seconds:
            self._window, self._count = now, 0
        self._count += 1
        return self._tokens.take(now)

    @property
    def flooded(self) -> bool:
        """Over twice the burst within the window."""
        return self._count > 2 * self._limits.burst


class Ear:
    """Listens to one socket: strikes, rate and shape."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._bucket = Bucket(limits, now)
        self._strikes = 0

    def hear(self, text: str | None, now: float) -> Said:
        """What a frame means. `text` None = a binary frame; `now` in seconds, monotonic."""
        if text is None:
            return Close(close_codes.BAD_FRAMES)
        within = self._bucket.take(now)
        if not within and self._bucket.flooded:
            return Close(close_codes.TOO_MANY_FRAMES)
        try:
            value = parse_object(text, self._limits.json_depth)
        except Rejected as refusal:
            self._strikes += refusal.code == "bad_json"
            return Close(close_codes.BAD_FRAMES) if self._strikes >= STRIKES_MAX else Refused(None, refusal)
        id = value.get("id") if is_id(value.get("id")) else None
        if not within:
            return Refused(id, Rejected("rate_limited", "Too many frames; slow down."))
        if value.get("type") == "ping":
            return Ping()
        try:
            return parse_command(value)
        except Rejected as refusal:
            return Refused(id, refusal)
