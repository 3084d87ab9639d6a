"""The model that is there without a key: scripted, deterministic, and paced like somebody who reads aloud.

It satisfies the same contract as a real one; here is only the streaming. What it says is `demo_script.play`, a pure
function of the messages. It calls nobody and cannot fail.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator

from app.agent.demo_script import play
from app.agent.model import Delta, Finished, ReasoningDelta, Request, TextDelta
from app.core.codec import clean
from app.core.events import Usage

CHARS_PER_SECOND = 50  # a quick reader, at pace 1
CHARS_PER_TOKEN = 4


class DemoModel:
    """`pace` scales the speed of the words: 1 = quick human reading, 2 = half as fast, 0 = at once."""

    def __init__(self, pace: float = 1.0) -> None:
        self.name = "demo"
        self._pace = pace

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """Streams one scripted reply, word by word. Never raises ModelError."""
        reply = play(request.messages, frozenset(_tool_names(request)))
        for piece in _pieces(clean(reply.reasoning)):
            await self._pause(piece)
            yield ReasoningDelta(piece)
        for piece in _pieces(clean(reply.text)):
            await self._pause(piece)
            yield TextDelta(piece)
        said = len(reply.reasoning) + len(reply.text) + sum(len(call.arguments) for call in reply.calls)
        heard = sum(len(str(message)) for message in request.messages)
        usage = Usage(input=_tokens(heard), output=_tokens(said), estimated=True)
        yield Finished("tool_calls" if reply.calls else "stop", reply.calls, usage)

    async def close(self) -> None:
        """Nothing to release."""

    async def _pause(self, piece: str) -> None:
        await asyncio.sleep(len(piece) / CHARS_PER_SECOND * self._pace)


def _pieces(text: str) -> Iterator[str]:
    """The text word by word, every character once."""
    return (match[0] for match in re.finditer(r"\s*\S+\s?|\s+", text))


def _tokens(chars: int) -> int:
    return max(1, chars // CHARS_PER_TOKEN)


def _tool_names(request: Request) -> Iterator[str]:
    for offered in request.tools:
        function = offered.get("function")
        if isinstance(function, dict):
            yield str(function.get("name"))
