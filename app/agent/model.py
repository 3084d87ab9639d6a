"""The contract of a model: messages in, a stream of deltas out, failures as one error with everything a policy needs.

A model keeps no state between calls, retries nothing and waits for nothing by itself: retry, time to first token and
idle time are the runner's policy, visible in the log. Closing the iterator (or cancelling the task that drives it)
closes the provider's connection at once. Variants: `model_openai`, `model_demo`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from app.core.errors import HoldfastError
from app.core.events import Call, Usage
from app.core.state import Request as Request


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a whole reply, always the last thing yielded. `usage` None = the provider did not say.

    `calls` in the order of their index; `call` ids are the provider's, "" where it sent none (core makes them unique).
    """

    finish: str
    calls: list[Call]
    usage: Usage | None = None


Delta = TextDelta | ReasoningDelta | Finished


class ModelError(HoldfastError):
    """A model call failed. `kind`: rate_limited, overloaded, upstream, cut, stall, malformed, context, refused,
    bad_request, unauthorized, not_found. `retryable`: worth the same request again; `retry_after` (s) if told."""

    def __init__(self, kind: str, message: str, *, retryable: bool, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retryable = retryable
        self.retry_after = retry_after


class Model(Protocol):
    @property
    def name(self) -> str:
        """The default model name, used when an agent names none."""

    def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Streams one reply. Raises ModelError, and nothing else, when there is no whole reply.

        A stream that ends without a finish reason is a `cut`, never a finished answer.
        """

    async def close(self) -> None:
        """Releases connections."""
