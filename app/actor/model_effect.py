"""One attempt of a model call: the request goes out, text comes back in pieces, the end is exactly one report.

Time to first token and idle time are bounded here for every model alike; what comes out of a model is bounded here too
(characters, encoded bytes). Retrying is decided in core, in the open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from app.actor.pieces import Pieces
from app.agent.model import Finished, Model, ModelError, ReasoningDelta, Request, TextDelta
from app.core.bounds import ATTEMPT_BYTES_MAX, ATTEMPT_CHARS_MAX, CALLS_MAX, RESULT_CHARS_MAX
from app.core.codec import clean, to_json
from app.core.commands import AttemptFailed, Replied, Streamed, Summarised, SummaryFailed
from app.core.effects import ModelCall, Summary
from app.core.events import Call

Submit = Callable[[Any], asyncio.Future[Any]]


class _Heard:
    """What has come of a reply so far, within its bounds."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.full = False
        self._chars = 0
        self._bytes = 0

    def add(self, delta: TextDelta | ReasoningDelta, pieces: Pieces | None) -> None:
        """Keeps what a delta brings and sends it on its way to the readers, where there are any."""
        taken = self._take(delta.text)
        text, reasoning = (taken, "") if isinstance(delta, TextDelta) else ("", taken)
        self.text.append(text)
        self.reasoning.append(reasoning)
        if pieces is not None:
            pieces.add(text, reasoning)

    def _take(self, text: str) -> str:
        """As much of the text as the bounds allow; `full` once they are reached."""
        text = clean(text)[: ATTEMPT_CHARS_MAX - self._chars]
        if self._bytes + 6 * len(text) > ATTEMPT_BYTES_MAX:  # only then is it worth to count exactly
            while text and self._bytes + len(to_json(text).encode()) > ATTEMPT_BYTES_MAX:
                text = text[: len(text) // 2]
                self.full = True
        self._chars += len(text)
        self._bytes += len(to_json(text).encode())
        self.full = self.full or self._chars >= ATTEMPT_CHARS_MAX
        return text

    def calls(self, effect: ModelCall, calls: list[Call]) -> list[Call]:
        """The calls that still fit the event that ends the attempt; long arguments get a name to be kept under."""
        fitting = []
        for number, call in enumerate(calls):
            self._bytes += min(len(to_json(call).encode()), 6 * RESULT_CHARS_MAX)
            if self._bytes > ATTEMPT_BYTES_MAX or number == CALLS_MAX:
                self.full = True
                break
            arguments = clean(call.arguments)
            place = "/".join((effect.run, *effect.path, f"{effect.step}.{effect.attempt}", f"arguments-{number}"))
            kept = place if len(arguments) > RESULT_CHARS_MAX else None
            fitting.append(Call(call=clean(call.call), tool=clean(call.tool), arguments=arguments, kept=kept))
        return fitting


async def call_model(
    effect: ModelCall,
    model: Model,
    request: Request,
    submit: Submit,
    *,
    idle_seconds: float,
    pieces_per_second: float,
    keep: Callable[[str, str], Awaitable[None]],
) -> None:
    """Runs one attempt and submits its end. Cancelling it closes the provider's connection.

    Arguments that are too long for an event are put away with `keep(name, text)` first.
    """
    heard = _Heard()
    pieces = Pieces(lambda text, reasoning: submit(Streamed(effect, text, reasoning)), pieces_per_second)
    try:
        finished = await _listen(model, request, heard, pieces, idle_seconds)
    except ModelError as error:
        report: AttemptFailed | Replied = AttemptFailed(
            effect, error.kind, error.message, error.retryable, error.retry_after
        )
    else:
        report = _reply(effect, request, heard, finished)
        for call in report.calls:
            if call.kept is not None:
                await keep(call.kept, call.arguments)
    finally:
        pieces.stop()
    await submit(report)


async def summarise(effect: Summary, model: Model, request: Request, submit: Submit, idle_seconds: float) -> None:
    """One attempt of a summary: as `call_model`, but nobody reads along."""
    heard = _Heard()
    try:
        finished = await _listen(model, request, heard, None, idle_seconds)
    except ModelError as error:
        await submit(SummaryFailed(effect, error.kind, error.message, error.retryable, error.retry_after))
        return
    text, finish = "".join(heard.text), clean(finished.finish)
    await submit(Summarised(effect, text, finish, finished.usage, _asked(request, finished)))


async def _listen(
    model: Model, request: Request, heard: _Heard, pieces: Pieces | None, idle_seconds: float
) -> Finished:
    now = asyncio.get_running_loop().time
    stream = model.stream(request)
    try:
        async with aclosing(stream), asyncio.timeout(idle_seconds) as silence:  # type: ignore[type-var]
            async for delta in stream:
                if isinstance(delta, Finished):
                    return delta
                heard.add(delta, pieces)
                if heard.full:
                    return Finished("limit", [])
                if pieces is not None and pieces.crowded:
                    silence.reschedule(None)  # the log is slow, not the model
                    await pieces.room()
                silence.reschedule(now() + idle_seconds)
    except TimeoutError:
        raise ModelError("stall", f"The model was silent for {idle_seconds:g} s.", retryable=True) from None
    raise ModelError("cut", "The reply ended without a finish reason.", retryable=True)


def _reply(effect: ModelCall, request: Request, heard: _Heard, finished: Finished) -> Replied:
    calls = heard.calls(effect, finished.calls)
    return Replied(
        effect,
        text="".join(heard.text),
        reasoning="".join(heard.reasoning),
        calls=calls,
        finish="limit" if heard.full else clean(finished.finish),
        usage=finished.usage,
        asked=_asked(request, finished),
    )


def _asked(request: Request, finished: Finished) -> int:
    """The size of a request whose tokens nobody has told."""
    return 0 if finished.usage else len(to_json(request.messages)) + len(to_json(request.tools))
