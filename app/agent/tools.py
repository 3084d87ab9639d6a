"""Tools: the decorator that makes one from a typed Python function, and the one way to call it.

Here is the only place of this room that catches every exception, since here alone the code of strangers runs. What a
call ends with is always the truth about its function: a text (it did its work), ToolError (it failed), or
CancelledError (it stopped). Deadlines, approvals, repetition and the log are the runner's and core's; nothing of them
may come here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, overload

from app.agent.context import MESSAGE_CHARS_MAX, BadArguments, Cancelled, ConfigError, ToolContext, ToolError
from app.agent.isolated import Place
from app.agent.result import RESULT_CHARS_MAX, collect, collect_async, render
from app.agent.signature import Signature, plain
from app.agent.threads import tool_threads
from app.core.calls import NAME
from app.core.catalogue import Rerun
from app.core.codec import clean
from app.core.events import Json

__all__ = ["RESULT_CHARS_MAX", "Cancelled", "ConfigError", "Tool", "ToolContext", "ToolError", "contained", "tool"]


Approval = bool | Callable[..., object]


@contextlib.contextmanager
def contained(safe: Callable[[str], str] = clean, chars: int = MESSAGE_CHARS_MAX) -> Iterator[None]:
    """Turns whatever a stranger's code raises, SystemExit and KeyboardInterrupt included, into ToolError("error").

    The message has the type and the first `chars` of what is `safe` of it; the original is the `__cause__`.
    """
    try:
        yield
    except BaseException as error:  # the one place
        told = str(traceback.TracebackException(type(error), error, None))  # survives a __str__ that raises
        message = f"{type(error).__name__}: {safe(told)[:chars]}" if told else type(error).__name__
        raise ToolError("error", message) from error


class Tool:
    """A function that a model may call. Satisfies `core.catalogue.ToolSpec`; calling it calls the function."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        approval: Approval = False,
        rerun: Rerun = "never",
        timeout: float | None = None,
        expires_in: float | None = None,
        interruptible: bool | None = None,
        isolated: bool = False,
    ) -> None:
        self.function = function
        self.name = getattr(plain(function), "__name__", type(function).__name__) if name is None else name
        if not NAME.fullmatch(self.name):
            raise ConfigError(f"A tool's name has 1 to 64 letters, digits, _ or -; {self.name[:80]!r} has not.")
        if rerun not in ("never", "safe", "ask"):
            raise ConfigError(f"Tool {self.name}: rerun is 'never', 'safe' or 'ask'.")
        for option, seconds in (("timeout", timeout), ("expires_in", expires_in)):
            if seconds is not None and not seconds > 0:
                raise ConfigError(f"Tool {self.name}: {option} is a number of seconds above 0, or None.")
        if inspect.iscoroutinefunction(approval):
            raise ConfigError(f"Tool {self.name}: approval is a plain function of the arguments, not an async one.")
        self.is_async = _is_async(function)
        self.rerun: Rerun = rerun
        self.timeout = timeout
        self.expires_in = expires_in
        self.interruptible = self.is_async if interruptible is None else interruptible
        self.agent = None  # a function, not a sub-agent
        self.place = Place(function, self.name) if isolated else None
        self._approval = approval
        self._signature = Signature(function, self.name)
        functools.update_wrapper(self, function, updated=())

    @property
    def schema(self) -> Json:
        """The function tool as Chat Completions wants it. Shared: do not change it."""
        return self._signature.schema

    @property
    def killable(self) -> bool:
        """Whether a second cancellation of its call kills it."""
        return self.place is not None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.name}>"

    def check(self, arguments: Json) -> str | None:
        """None when the arguments fit the declaration, otherwise a sentence that the model can act on."""
        try:
            self._parse(arguments)
        except ToolError as error:
            return error.message
        return None

    def needs_approval(self, arguments: Json) -> bool:
        """Whether a person has to approve this call; yes if the arguments do not fit or the predicate raises."""
        if isinstance(self._approval, bool):
            return self._approval
        try:
            keywords = self._parse(arguments)
            with contained():
                return bool(self._approval(**keywords))
        except ToolError:
            return True

    async def run(self, arguments: Json, context: ToolContext) -> str:
        """Calls the function and returns the text for the model, at most RESULT_CHARS_MAX characters.

        Raises ToolError: `bad_arguments` before anything was called, `error` with the type and the first 500 characters
        of whatever the function raised, `in_doubt` when it was killed or given up. Raises CancelledError when the
        task was cancelled (or `context.cancelled` set) and the function confirmed it: an async one by letting the
        cancellation through, a sync one by raising `Cancelled`, or because it had not begun.

        A sync function runs in a thread of `tool_threads`. Cancelling the task sets `context.cancelled` and goes on
        waiting: the task ends when the function does, and not before. An isolated one runs in a process of its own,
        which the second cancellation kills; that is no confirmation.
        """
        call = self.bound(arguments, context)
        try:
            return await (self._call(call, context) if self.place is None else self.place.run(arguments, context))
        except ToolError as error:
            if isinstance(error.__cause__, asyncio.CancelledError | Cancelled) and _is_cancelled(context):
                raise asyncio.CancelledError from error.__cause__
            raise

    def bound(self, arguments: Json, context: ToolContext) -> Callable[[], Any]:
        """The call that is to be made. Raises ToolError("bad_arguments")."""
        keywords = self._parse(arguments)
        if self._signature.context_parameter is not None:
            keywords[self._signature.context_parameter] = context
        return functools.partial(self.function, **keywords)

    async def _call(self, call: Callable[[], Any], context: ToolContext) -> str:
        value: Any = None
        if not self.is_async:
            value = await _in_thread(lambda: self.text(call(), context), context)
            if isinstance(value, str):
                return value
        with contained(context.safe):
            if self.is_async:
                value = call()
            if inspect.isawaitable(value):
                value = await value
            if isinstance(value, AsyncIterator):
                value = await collect_async(value)
            return str(self.text(value, context))

    def text(self, value: Any, context: ToolContext) -> Any:
        """The text of a result; the value itself where it has to be awaited first."""
        if inspect.isawaitable(value) or isinstance(value, AsyncIterator):
            return value
        if isinstance(value, Iterator):
            value = collect(value)  # still the tool's own code: it may fail
        try:
            with contained(context.safe):
                return render(value, context.safe)
        except ToolError as error:
            return f"{self.name} has finished, but its result cannot be shown: {error.message}"

    def _parse(self, arguments: Json) -> dict[str, Any]:
        try:
            with contained():
                return self._signature.parse(arguments)
        except ToolError as error:
            cause = error.__cause__
            message = str(cause) if isinstance(cause, BadArguments) else error.message
            raise ToolError("bad_arguments", clean(message)) from cause


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    approval: Approval = ...,
    rerun: Rerun = ...,
    timeout: float | None = ...,
    expires_in: float | None = ...,
    name: str | None = ...,
    interruptible: bool | None = ...,
    isolated: bool = ...,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Makes a tool from a typed function, bare or with options.

    `approval`: whether a person must approve, or a function of the validated arguments (as keywords) that says so.
    `rerun`: what becomes of a call that a crash cut off: "never" (the default: the model is told that it is in doubt),
    "safe" (run again with the same call id), "ask" (a person decides). `timeout`: seconds for the call, None for the
    setting. `expires_in`: seconds until an unanswered approval counts as denied, None for never. `interruptible`:
    whether a hint may cut it short; by default async functions yes, sync ones no. `isolated`: each call of this sync
    function runs in a process of its own, which can be killed and takes its children with it. Raises ConfigError.
    """
    if function is not None:
        return Tool(function)
    return lambda decorated: Tool(decorated, **options)


async def _in_thread(call: Callable[[], Any], context: ToolContext) -> Any:
    """Runs `call` in a tool thread and waits for its end, come what may: a cancellation is passed on, not obeyed."""

    def attempt() -> tuple[Any, ToolError | None]:
        try:
            with contained(context.safe):
                return call(), None
        except ToolError as error:
            return None, error

    with contained():
        work = tool_threads.submit(attempt)
    end = asyncio.wrap_future(work)
    while not end.done():
        try:
            await asyncio.wait([end])
        except asyncio.CancelledError:
            context._cancel()
            if work.cancel():  # had not begun, and now never will
                raise
    value, error = end.result()
    if error is not None:
        raise error
    return value


def _is_cancelled(context: ToolContext) -> bool:
    task = asyncio.current_task()
    return context.cancelled or (task is not None and task.cancelling() > 0)


def _is_async(function: Callable[..., Any]) -> bool:
    bare = function.func if isinstance(function, functools.partial) else function
    bare = bare if inspect.isroutine(bare) else type(bare).__call__
    return inspect.iscoroutinefunction(bare) or inspect.isasyncgenfunction(bare)
