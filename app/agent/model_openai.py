"""Any OpenAI-compatible Chat Completions endpoint as a model. The only file that knows the `openai` package.

The package is used for what it is good at (addresses, authentication, connections, errors). Its retries and its time
limits are off, since those are the runner's policy and visible in the log, and the stream is read as bytes, because
providers send what its types do not foresee. No state but the connections and whether the endpoint takes
`stream_options`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime
from typing import Any

import anyio
import httpx2
import openai
from openai import AsyncAPIResponse, AsyncOpenAI

from app.agent.assembly import Assembly, ReplyTooLarge
from app.agent.model import Delta, ModelError, Request
from app.agent.model_errors import refusal, safe, stream_error
from app.agent.sse import EVENT_BYTES_MAX, SseDecoder
from app.core.events import Json

DRAIN_SECONDS = 0.5
DONE = "[DONE]"
_CUT = (httpx2.HTTPError, httpx2.StreamError, ssl.SSLError, anyio.EndOfStream, OSError)


class OpenAIModel:
    """One endpoint. `name` is the default model; `connect_seconds` bounds connecting, nothing else is bounded here."""

    def __init__(self, name: str, api_key: str, base_url: str | None = None, connect_seconds: float = 10.0) -> None:
        self.name = name
        self._key = api_key
        self._takes_stream_options = True
        timeout = httpx2.Timeout(None, connect=connect_seconds)
        self._client = AsyncOpenAI(api_key=api_key, base_url=base_url, timeout=timeout, max_retries=0)

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """Streams one reply as `Model.stream` promises. `request.model` "" = the default.

        A connection that breaks after the finish reason does no harm: the reply is whole by then.
        """
        assembly = Assembly()
        async with contextlib.AsyncExitStack() as stack:
            response = await self._open(stack, self._body(request))
            chunks = await stack.enter_async_context(contextlib.aclosing(self._chunks(response)))
            try:
                async for chunk in chunks:
                    for delta in assembly.take(chunk):
                        yield delta
            except ReplyTooLarge as error:
                raise ModelError("malformed", f"The model provider does not stop: {error}.", retryable=False) from None
            except ModelError as error:
                if error.kind != "cut" or assembly.finish is None:
                    raise
        if assembly.finish is None:
            raise ModelError("cut", "The model's reply ended without a finish reason.", retryable=True)
        yield assembly.finished()

    async def close(self) -> None:
        """Releases connections."""
        await self._client.close()

    def _body(self, request: Request) -> Json:
        """Messages and tools go past the client's own walk over every parameter: that takes the event loop for half a
        second at a history of 2,500 calls, and changes nothing in what is plain JSON already.
        """
        extra: Json = {"messages": request.messages}
        if request.tools:  # an empty list is refused by many
            extra["tools"] = request.tools
        body: Json = {"model": request.model or self.name, "messages": [], "stream": True, "extra_body": extra}
        if self._takes_stream_options:
            body["stream_options"] = {"include_usage": True}
        return body

    async def _open(self, stack: contextlib.AsyncExitStack, body: Json) -> AsyncAPIResponse[Any]:
        """Sends the request and waits for the status. Raises ModelError.

        `from None` everywhere: what the package raises may quote the key.
        """
        try:
            create = self._client.chat.completions.with_streaming_response.create(**body)
            response: AsyncAPIResponse[Any] = await stack.enter_async_context(create)
            return response
        except openai.APIStatusError as error:
            unknown_option = error.status_code in (400, 422) and "stream_options" in f"{error.message} {error.body}"
            if not (unknown_option and "stream_options" in body):
                raise refusal(error.status_code, error.body, error.response.headers, self._key, _now()) from None
        except (openai.APIConnectionError, *_CUT) as error:
            why = type(error.__cause__ or error).__name__
            raise ModelError("upstream", f"The model provider cannot be reached ({why}).", retryable=True) from None
        except (openai.OpenAIError, TypeError, ValueError) as error:
            message = safe(f"The request cannot be sent to the model provider: {error}", self._key)
            raise ModelError("bad_request", message, retryable=False) from None
        self._takes_stream_options = False
        return await self._open(stack, {key: value for key, value in body.items() if key != "stream_options"})

    async def _chunks(self, response: AsyncAPIResponse[Any]) -> AsyncGenerator[Json, None]:
        """The chunks of a reply, up to its end. Raises ModelError: `cut`, `malformed`, or what the provider reports."""
        decoder = SseDecoder()
        try:
            async with contextlib.aclosing(response.iter_bytes()) as pieces:  # type: ignore[type-var]
                if response.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
                    yield self._chunk(await _whole(pieces))  # a provider that does not stream
                    return
                async for piece in pieces:
                    for data in decoder.feed(piece):
                        if data.strip() == DONE:
                            await _drain(pieces)
                            return
                        yield self._chunk(data)
                with contextlib.suppress(ValueError):  # half an event is a cut, not a mistake
                    for data in decoder.finish():
                        if data.strip() != DONE:
                            yield self._chunk(data)
        except _CUT as error:
            message = f"The connection to the model provider broke ({type(error).__name__})."
            raise ModelError("cut", message, retryable=True) from None
        except (ValueError, RecursionError) as error:
            message = safe(f"The model provider sent something unreadable: {error}", self._key)
            raise ModelError("malformed", message, retryable=True) from None

    def _chunk(self, data: str) -> Json:
        chunk = json.loads(data)
        if not isinstance(chunk, dict):
            raise ValueError("a chunk is not a JSON object")
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        failed = choice.get("finish_reason") == "error"
        if error := chunk.get("error") or choice.get("error") or ("an error without a word" if failed else None):
            raise stream_error(error, self._key)
        return chunk


async def _whole(pieces: AsyncIterator[bytes]) -> str:
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > EVENT_BYTES_MAX:
            raise ValueError(f"a reply has more than {EVENT_BYTES_MAX:,} bytes")
    return body.decode("utf-8")


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Reads what little follows the end, so that the connection can be used again."""
    with contextlib.suppress(TimeoutError, *_CUT):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in pieces:
                pass


def _now() -> datetime:
    return datetime.now(UTC)
