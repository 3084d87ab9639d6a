"""Events to text and back, and the few canonical forms that other parts agree on (digests, clean text).

An event is encoded once, when it is appended: that text is the row, the live frame and the replayed frame. Decoding is
for the fold only; what it does not know it keeps as an `UnknownEvent`, whose text is nobody's to rewrite.
"""

from __future__ import annotations

import hashlib
from functools import reduce
from operator import or_
from typing import Any

import msgspec

from app.core import events
from app.core.errors import Corrupt
from app.core.events import Event, Json, UnknownEvent

_known = [
    kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, Event) and kind not in (Event, UnknownEvent)
]
_encoder = msgspec.json.Encoder()
_canonical = msgspec.json.Encoder(order="deterministic")
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(reduce(or_, _known))


class _Envelope(msgspec.Struct):
    seq: int
    type: str
    at: int = 0
    cause: str | None = None


_envelope = msgspec.json.Decoder(_Envelope)


def encode(event: Event) -> str:
    """The one text of an event; it never holds a line feed."""
    return _encoder.encode(event).decode()


def decode(text: str) -> Event:
    """The event of a text. An event of an unknown type is kept by name; a text that is no event raises Corrupt."""
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError:
        try:
            envelope = _envelope.decode(text)
        except msgspec.MsgspecError as error:
            raise Corrupt(f"an event of the log cannot be read: {error}") from None
        return UnknownEvent(seq=envelope.seq, at=envelope.at, cause=envelope.cause, name=envelope.type)
    except msgspec.DecodeError as error:
        raise Corrupt(f"an event of the log is no JSON: {error}") from None


def to_json(value: Any) -> str:
    """Compact JSON of any plain value."""
    return _encoder.encode(value).decode()


def digest(tool: str, arguments: Json) -> str:
    """What a decision is bound to: a digest of the tool and its exact arguments, key order aside."""
    return hashlib.sha256(_canonical.encode([tool, arguments])).hexdigest()[:32]


def deeper(value: Any, depth_max: int) -> bool:
    """Whether a plain value is nested deeper than that; no recursion of its own."""
    layer = [value]
    for _ in range(depth_max):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not layer:
            return False
    return True


def canonical(value: Any) -> bytes:
    """The one JSON of a plain value, key order aside: what signatures are made of."""
    return _canonical.encode(value)


def hashed(value: Any) -> str:
    """SHA-256 of `canonical`, in hex."""
    return hashlib.sha256(_canonical.encode(value)).hexdigest()


def clean(text: str) -> str:
    """Text that every store and every client can hold: lone surrogates and NUL become U+FFFD."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
