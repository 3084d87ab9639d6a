"""What a provider's refusal means, and that no key gets out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.agent.model_errors import refusal, retry_after, safe, stream_error

KEY = "sk-canary-0123456789"
NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (400, {"message": "unknown field"}, "bad_request", False),
        (400, {"message": "no", "code": "context_length_exceeded"}, "context", False),
        (400, {"message": "This model's maximum context length is 8192 tokens."}, "context", False),
        (400, {"message": "prompt is too long: 210000 tokens > 200000 maximum"}, "context", False),
        (413, "Request too large", "context", False),
        (
            422,
            {"detail": "Input validation error: `inputs` tokens + `max_new_tokens` exceeds the context"},
            "context",
            False,
        ),
        (400, {"message": "tool_calls must be followed by tool messages"}, "bad_request", False),
        (400, {"message": "filtered", "code": "content_filter"}, "refused", False),
        (401, {"message": f"Incorrect API key provided: {KEY}"}, "unauthorized", False),
        (403, "<html>forbidden</html>", "unauthorized", False),
        (404, {"error": {"message": "The model `x` does not exist"}}, "not_found", False),
        (405, None, "bad_request", False),
        (408, None, "upstream", True),
        (429, {"message": "Rate limit reached"}, "rate_limited", True),
        (429, {"message": "You exceeded your current quota", "type": "insufficient_quota"}, "rate_limited", False),
        (500, {"error": "boom"}, "upstream", True),
        (502, "<!DOCTYPE html><h1>Bad Gateway</h1>", "upstream", True),
        (503, None, "overloaded", True),
        (504, b"", "upstream", True),
        (520, None, "upstream", True),
        (529, {"type": "overloaded_error"}, "overloaded", True),
    ],
)
def test_statuses(status: int, body: Any, kind: str, retryable: bool) -> None:
    error = refusal(status, body, {}, KEY, NOW)
    assert (error.kind, error.retryable, error.retry_after) == (kind, retryable, None)
    assert str(status) in error.message and KEY not in error.message and "<" not in error.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "20", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Tue, 03 Feb 2026 04:05:36 GMT"}, 30.0),
        ({"retry-after": "Tue, 03 Feb 2026 04:05:36"}, 30.0),
        ({"retry-after": "Tue, 03 Feb 2020 04:05:36 GMT"}, 0.0),
        ({"retry-after": "999999999"}, 86_400.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        ({"message": "boom"}, "upstream", True),
        ("boom", "upstream", True),
        (True, "upstream", True),
        ({"code": 429, "message": "slow down"}, "rate_limited", True),
        ({"code": "503"}, "overloaded", True),
        ({"code": "rate_limit_exceeded"}, "rate_limited", True),
        ({"type": "overloaded_error", "message": "Overloaded"}, "overloaded", True),
        ({"type": "server_error", "code": None}, "upstream", True),
        ({"type": "invalid_request_error", "message": "no"}, "bad_request", False),
        ({"type": "invalid_request_error", "code": "context_length_exceeded"}, "context", False),
        ({"code": 400, "message": "maximum context length"}, "context", False),
        ({"code": "context_length_exceeded", "message": "no"}, "context", False),
        ({"code": 401, "message": f"bad key {KEY}"}, "unauthorized", False),
    ],
)
def test_errors_in_a_stream(error: Any, kind: str, retryable: bool) -> None:
    found = stream_error(error, KEY)
    assert (found.kind, found.retryable) == (kind, retryable)
    assert KEY not in found.message


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (f"key {KEY} is wrong", "key [key] is wrong"),
        ("Authorization: Bearer abc.def, next", "Authorization: [key], next"),
        ("provided: sk-proj-ab***********wxyz.", "provided: [key]"),
        ("a task-oriented sk-8 b", "a task-oriented sk-8 b"),
        ("two\nlines\t\ud800", "two lines \ufffd"),
    ],
)
def test_safe(message: str, told: str) -> None:
    assert safe(message, KEY) == told


def test_a_stand_in_for_a_key_is_an_ordinary_word() -> None:
    assert safe("none of the models", "none") == "none of the models"
    assert safe("empty", "") == "empty"


@settings(deadline=None)
@given(st.text(), st.text(), st.text("abc-._XYZ09", min_size=6))
def test_no_key_gets_out_and_no_message_is_long(before: str, after: str, key: str) -> None:
    told = safe(before + key + after * 50, key)
    assert len(told) <= 500
    assert key not in told or key in "[key]…"
