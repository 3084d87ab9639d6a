"""Tools: what their end says about the function, in every way a function can end."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import pytest

from app.agent import Cancelled, Tool, ToolContext, tool
from app.agent.context import MESSAGE_CHARS_MAX
from app.agent.threads import THREADS_SPARE, Threads, tool_threads
from app.agent.tools import ConfigError, ToolError

from .calls import Watched


@tool
async def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    return a + b


async def test_bare_and_with_options() -> None:
    @tool(approval=True, rerun="safe", timeout=3, expires_in=60, name="renamed", interruptible=False)
    async def original() -> None:
        """Does nothing."""

    assert (add.name, add.rerun, add.timeout, add.expires_in, add.interruptible) == ("add", "never", None, None, True)
    assert (original.name, original.rerun, original.timeout, original.expires_in) == ("renamed", "safe", 3, 60)
    assert original.interruptible is False
    assert original.needs_approval({}) and not add.needs_approval({"a": 1})
    assert await add(1, 2) == 3
    assert await add.run({"a": 1}, Watched().context) == "3"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"name": "no spaces"}, "letters"),
        ({"name": ""}, "letters"),
        ({"rerun": "maybe"}, "rerun"),
        ({"timeout": 0}, "timeout"),
        ({"expires_in": -1}, "expires_in"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        Tool(lambda: None, **{"name": "fine", **options})


def test_approval_by_arguments() -> None:
    @tool(approval=lambda amount, **_: amount > 100)
    async def pay(amount: int, to: str = "anybody") -> None: ...

    @tool(approval=lambda **_: 1 / 0)
    async def broken() -> None: ...

    assert not pay.needs_approval({"amount": "100"}), "the predicate gets validated arguments"
    assert pay.needs_approval({"amount": 101})
    assert pay.needs_approval({"amount": "much"}), "arguments that do not fit are for a person"
    assert broken.needs_approval({}), "a predicate that raises means yes"

    async def asynchronous(**_: Any) -> bool:
        return False

    with pytest.raises(ConfigError, match="plain function"):
        tool(approval=asynchronous, name="act")(lambda: None)


async def test_the_context() -> None:
    @tool
    async def look(place: str, here: ToolContext) -> str:
        here.progress("Looking", fraction=0.5)
        here.progress(fraction=7)
        here.progress(fraction=float("nan"))
        here.progress("x" * 1000)
        return f"{here.call_id} {here.conversation_id} {here.run_id} {here.cancelled} {place}"

    watched = Watched()
    assert await look.run({"place": "there"}, watched.context) == "call_1 conversation_1 run_1 False there"
    assert watched.reports == [("Looking", 0.5), (None, 1.0), (None, None), ("x" * 500, None)]
    assert list(look.schema["function"]["parameters"]["properties"]) == ["place"]
    assert look.check({"place": "there", "here": 1}) is not None


async def test_sync_functions_run_in_tool_threads_with_their_context() -> None:
    who = contextvars.ContextVar("who", default="nobody")
    who.set("ann")

    @tool
    def where(ctx: ToolContext) -> str:
        ctx.progress("from a thread")
        return f"{threading.current_thread().name} {who.get()}"

    watched = Watched()
    assert await where.run({}, watched.context) == "holdfast-tool ann"
    assert watched.reports == [("from a thread", None)]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


RAISED: list[BaseException] = [
    ValueError("the reason"),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    StopIteration(1),
    StopAsyncIteration(),
    RecursionError("deep"),
    MemoryError(),
    asyncio.CancelledError("by itself"),
    TimeoutError(),
    Cancelled("though nobody asked"),
    ToolError("bad_arguments", "as if it were ours"),
    ConfigError("as if it were ours"),
    Unspeakable(),
    ValueError("long " * 1000),
    ValueError("\ud800"),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", ["sync", "async", "generator", "late"])
async def test_whatever_is_raised_is_an_error(error: BaseException, kind: str) -> None:
    def sync() -> None:
        raise error

    async def asynchronous() -> None:
        await asyncio.sleep(0)
        raise error

    async def generator() -> AsyncIterator[int]:
        yield 1
        raise error

    def late() -> Any:
        return asynchronous()

    chosen: dict[str, Any] = {"sync": sync, "async": asynchronous, "generator": generator, "late": late}
    with pytest.raises(ToolError) as caught:
        await Tool(chosen[kind], name="raises").run({}, Watched().context)
    assert caught.value.kind == "error"
    # Python itself turns the ends of iterations into RuntimeError on their way out of a coroutine or generator
    names = (
        type(error).__name__,
        *(("RuntimeError",) if isinstance(error, StopIteration | StopAsyncIteration) else ()),
    )
    assert caught.value.message.startswith(names)
    assert len(caught.value.message) < MESSAGE_CHARS_MAX + 50
    caught.value.message.encode()


def test_bad_arguments_before_anything_is_called() -> None:
    called = []

    @tool
    async def act(kind: Literal["a", "b"], many: int, label: str = "") -> None:
        called.append(kind)

    told = act.check({"kind": "c", "many": "x", "labell": ""})
    assert told is not None
    for word in ("act", "kind", "'a' or 'b'", "many", "integer", "labell is unknown", "takes kind, many, label"):
        assert word in told
    assert act.check({}) == "The arguments of act are not valid: kind is missing; many is missing."
    assert act.check({"kind": "a", "many": 1}) is None
    with pytest.raises(ToolError) as caught:
        asyncio.run(act.run({"kind": "c", "many": 1}, Watched().context))
    assert caught.value.kind == "bad_arguments" and "'a' or 'b'" in caught.value.message
    assert not called


async def test_a_cancelled_async_function_confirms_by_ending() -> None:
    @tool
    async def waits() -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(waits.run({}, Watched().context))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_an_async_function_that_finishes_although_cancelled_has_done_its_work() -> None:
    @tool
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
        return "sent"

    task = asyncio.create_task(stubborn.run({}, Watched().context))
    await asyncio.sleep(0.01)
    task.cancel()
    assert await task == "sent"


async def test_a_cancellation_inside_the_function_is_its_failure() -> None:
    @tool
    async def inner() -> None:
        other = asyncio.create_task(asyncio.sleep(60))
        other.cancel()
        await other

    task = asyncio.create_task(inner.run({}, Watched().context))
    with pytest.raises(ToolError, match="CancelledError"):
        await task


@pytest.mark.parametrize("ending", ["works", "confirms", "confirms_as_asyncio", "fails"])
async def test_the_end_of_a_sync_call_is_the_end_of_its_function(ending: str) -> None:
    begun, go = threading.Event(), threading.Event()

    @tool
    def slow(ctx: ToolContext) -> str:
        begun.set()
        assert go.wait(10)
        assert ctx.cancelled
        match ending:
            case "confirms":
                raise Cancelled
            case "confirms_as_asyncio":
                raise asyncio.CancelledError
            case "fails":
                raise ValueError("broken")
        return "sent"

    task = asyncio.create_task(slow.run({}, Watched().context))
    await asyncio.to_thread(begun.wait, 10)
    for _ in range(3):  # asking again changes nothing
        task.cancel()
        await asyncio.sleep(0.01)
    assert not task.done(), "the function still works"
    go.set()
    await asyncio.wait([task])
    match ending:
        case "works":
            assert task.result() == "sent"
        case "fails":
            assert isinstance(task.exception(), ToolError)
        case _:
            assert task.cancelled()


async def test_stuck_sync_tools_block_only_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 26: they have threads of their own, so many; one more waits, and async tools and the store do not."""
    monkeypatch.setattr(tool_threads, "limit", 2)
    go = threading.Event()

    @tool
    def stuck(number: int) -> str:
        assert go.wait(10)
        return f"done {number}"

    more = 40  # than the default executor has threads
    tasks = [asyncio.create_task(stuck.run({"number": number}, Watched().context)) for number in range(more)]
    await asyncio.sleep(0.02)
    assert await add.run({"a": 1}, Watched().context) == "3"
    async with asyncio.timeout(5):
        assert await asyncio.to_thread(lambda: "the default executor is free") == "the default executor is free"
    tasks[-1].cancel()
    await asyncio.wait([tasks[-1]], timeout=1)
    assert tasks[-1].cancelled(), "what has not begun stops at once"
    go.set()
    assert await asyncio.gather(*tasks[:-1]) == [f"done {number}" for number in range(more - 1)]


def test_no_tool_that_has_a_place_waits_for_a_thread() -> None:
    """Its `tool.started` is durable by then: waiting for a thread, it would be in doubt without having begun."""
    threads = Threads()
    threads.room(64)
    together = threading.Barrier(64 + THREADS_SPARE, timeout=10)
    for work in [threads.submit(together.wait) for _ in range(together.parties)]:
        work.result(10)


async def test_closing_gives_up_stuck_calls() -> None:
    go = threading.Event()

    @tool
    def stuck() -> None:
        go.wait(10)

    task = asyncio.create_task(stuck.run({}, Watched().context))
    await asyncio.sleep(0.02)
    tool_threads.close()
    with pytest.raises(ToolError) as caught:
        await task
    assert caught.value.kind == "in_doubt"
    go.set()


async def test_generators_are_consumed_up_to_a_limit() -> None:
    """FAULTS 92: an infinite one, and one whose parts are large."""
    closed = []

    @tool
    def endless() -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.append("sync")

    @tool
    async def endless_async() -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 1_000_000
        finally:
            closed.append("async")

    result = await endless.run({}, Watched().context)
    assert result.startswith("[0,1,2,") and result.endswith('"[cut after 100,000 items]"]')
    assert (await endless_async.run({}, Watched().context)).endswith('"[cut after 9 items]"]')
    assert closed == ["sync", "async"]


async def test_a_result_that_cannot_be_shown_is_no_failure() -> None:
    class Shy:
        def __repr__(self) -> str:
            raise SystemExit

    @tool
    async def act() -> Shy:
        return Shy()

    @tool
    async def nest() -> list[Any]:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        return deep

    assert await act.run({}, Watched().context) == "act has finished, but its result cannot be shown: SystemExit"
    assert "RecursionError" in await nest.run({}, Watched().context)


async def test_callables_of_every_kind() -> None:
    class Greeter:
        """Greets."""

        async def __call__(self, name: str) -> str:
            return f"hello {name}"

        def method(self, name: str) -> str:
            """Greets from a method."""
            return f"hi {name}"

    def scale(factor: int, value: int) -> int:
        """Scales."""
        return factor * value

    async def result(made: Tool, **arguments: Any) -> str:
        return await made.run(arguments, Watched().context)

    assert await result(Tool(Greeter(), name="greet"), name="bo") == "hello bo"
    assert Tool(Greeter(), name="greet").interruptible
    assert await result(Tool(Greeter().method), name="bo") == "hi bo"
    double = Tool(functools.partial(scale, 2), name="double")
    assert double.schema["function"]["description"] == "Scales."
    assert await result(double, value=4) == "8"
    with pytest.raises(ConfigError, match="not a class"):
        Tool(Greeter)
