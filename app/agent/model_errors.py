"""What a provider's refusal means: status, headers and body in, one ModelError out. Pure.

The policy (wait, repeat, give up, compact) is core's; here is only what a policy has to know. No message ever holds the
key, or anything that looks like one.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.agent.model import ModelError
from app.core.codec import clean

MESSAGE_CHARS_MAX = 500
KEY_CHARS_MIN = 6  # anything shorter, as "none", stands in for a key where an endpoint wants none
RETRY_AFTER_MAX = 86_400.0

_CONTEXT = re.compile(
    r"context.?(length|window|size)|maximum context|(prompt|input|request)\b.{0,20} too (long|large)"
    r"|too many (input )?tokens|reduce the length|exceeds? .{0,40}\b(token|context)",
    re.IGNORECASE | re.DOTALL,
)
_REFUSED = re.compile(r"content_filter|content_policy|content management policy|responsible.?ai", re.IGNORECASE)
_NO_MONEY = re.compile(
    r"insufficient_quota|billing|exceeded your current quota|insufficient (credits|balance)", re.IGNORECASE
)
_LIMITED = re.compile(r"rate.?limit|too many requests|throttl", re.IGNORECASE)
_OVERLOADED = re.compile(r"overloaded|capacity|unavailable", re.IGNORECASE)
_KEYS = re.compile(r"\b(sk|pk|rk|gsk|xai|key)-[\w*.\-]{6,}|\bbearer\s+[^\s\"',;]+|\bAIza[\w\-]{20,}", re.IGNORECASE)

_BY_STATUS = {
    400: ("bad_request", False),
    401: ("unauthorized", False),
    403: ("unauthorized", False),
    404: ("not_found", False),
    408: ("upstream", True),
    409: ("upstream", True),
    425: ("upstream", True),
    429: ("rate_limited", True),
    503: ("overloaded", True),
    529: ("overloaded", True),
}


def refusal(status: int, body: Any, headers: Mapping[str, str], secret: str, now: datetime) -> ModelError:
    """The error of an HTTP answer with this status (400 and up). `body` is parsed JSON, or a text."""
    message, codes = _words(body)
    kind, retryable = _BY_STATUS.get(status, ("upstream", True) if status >= 500 else ("bad_request", False))
    kind, retryable = _by_words(kind, retryable, f"{codes} {message}")
    told = f"The model provider answered {status}: {message}" if message else f"The model provider answered {status}."
    return ModelError(kind, safe(told, secret), retryable=retryable, retry_after=retry_after(headers, now))


def stream_error(error: Any, secret: str) -> ModelError:
    """The error of an `error` object in the middle of a stream: as by its status, if it names one."""
    message, codes = _words(error)
    status = error.get("code", error.get("status")) if isinstance(error, dict) else None
    number = int(str(status)) if re.fullmatch(r"[45]\d\d", str(status)) else 500
    kind, retryable = _BY_STATUS.get(number, ("upstream", True) if number >= 500 else ("bad_request", False))
    words = f"{codes} {message}"
    if number == 500:
        limited = "rate_limited" if _LIMITED.search(words) else "overloaded" if _OVERLOADED.search(words) else kind
        kind = "bad_request" if "invalid_request" in codes or _CONTEXT.search(codes) else limited
        retryable = kind != "bad_request"
    kind, retryable = _by_words(kind, retryable, words)
    return ModelError(kind, safe(f"The model provider broke off: {message or codes}", secret), retryable=retryable)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait as the provider asks: `retry-after-ms`, or `retry-after` in seconds or as an HTTP date."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return min(milliseconds / 1000, RETRY_AFTER_MAX)
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is None and value:
        try:
            at = email.utils.parsedate_to_datetime(value)
        except (ValueError, IndexError, OverflowError):
            return None
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
    return None if seconds is None else min(max(0.0, seconds), RETRY_AFTER_MAX)


def safe(message: str, secret: str) -> str:
    """The message without the key and without anything like one, in at most 500 characters."""
    if len(secret) >= KEY_CHARS_MIN:
        message = message.replace(secret, "[key]")
    message = " ".join(clean(_KEYS.sub("[key]", message)).split())
    return message if len(message) <= MESSAGE_CHARS_MAX else message[: MESSAGE_CHARS_MAX - 1] + "…"


def _by_words(kind: str, retryable: bool, words: str) -> tuple[str, bool]:
    """What codes and words say more exactly than a status does."""
    if kind == "bad_request" and _CONTEXT.search(words):
        return "context", False
    if kind == "bad_request" and _REFUSED.search(words):
        return "refused", False
    if kind == "rate_limited" and _NO_MONEY.search(words):
        return kind, False
    return kind, retryable


def _words(body: Any) -> tuple[str, str]:
    """A body's message for people and its codes for us."""
    if isinstance(body, dict) and isinstance(body.get("error"), dict | str):
        body = body["error"]
    if isinstance(body, dict):
        message = body.get("message") or body.get("detail") or body.get("msg") or ""
        codes = " ".join(str(body[key]) for key in ("code", "type", "status") if body.get(key))
        return (message if isinstance(message, str) else str(message)), codes
    text = body if isinstance(body, str) else ""
    return ("" if text.lstrip().startswith("<") else text), ""  # a proxy's HTML page says nothing to anybody


def _number(value: str | None) -> float | None:
    if value is None or not re.fullmatch(r"\s*\d{1,12}(\.\d{1,9})?\s*", value):
        return None
    return float(value)
