"""Settles the plan: starts what is wanted and not running, stops what runs and is not wanted.

An effect's key holds the epoch and the try; what it submits names the key, so that a late answer is dropped in core.
Every effect ends in one report. A failure of our own code becomes one too: this is one of the two places of the house
that catch every exception (the other one is where a tool's code is called).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from app.actor.flush import Due, collect, due
from app.actor.model_effect import call_model, summarise
from app.actor.patience import until_stored
from app.actor.reading import reader
from app.actor.surroundings import Surroundings
from app.actor.tool_effect import ToolWork
from app.agent.mcp import McpTool
from app.agent.model import Request
from app.agent.tools import Tool
from app.core.commands import Admitted, AttemptFailed, Command, Flushed, SummaryFailed, ToolEnded
from app.core.effects import Admission, ArchiveFlush, Effect, ModelCall, Summary, ToolCall
from app.core.events import Failure
from app.core.plan import Plan
from app.core.reading import READ_RESULT
from app.core.state import State
from app.core.summarising import summary_request

logger = logging.getLogger(__name__)

Doing = Callable[[], Coroutine[Any, Any, None]]


class Runner:
    """The effects of one conversation. `submit` posts a command and gives a future that is done when it is durable."""

    def __init__(
        self, conversation: str, submit: Callable[[Command], asyncio.Future[Any]], around: Surroundings
    ) -> None:
        self._conversation = conversation
        self._submit = submit
        self._around = around
        self._tasks: dict[Effect, asyncio.Task[None]] = {}
        self._works: dict[ToolCall, ToolWork] = {}
        self._places = asyncio.Semaphore(around.tools_parallel)
        self._taking = asyncio.Lock()
        self._has_place = False

    @property
    def busy(self) -> bool:
        """Whether anything still runs, wanted or not."""
        return bool(self._tasks)

    @property
    def under_way(self) -> list[Effect]:
        """What runs right now, wanted or not."""
        return list(self._tasks)

    @property
    def has_place(self) -> bool:
        """Whether this conversation's run is among those at work."""
        return self._has_place

    def settle(self, plan: Plan, state: State) -> None:
        """Brings what runs in line with the plan. `state` is read before this returns, never later."""
        for effect in [effect for effect in self._tasks if effect not in plan.effects]:
            self._stop(effect)
        for effect in plan.effects:
            if effect not in self._tasks:
                self._start(effect, self._effect(effect, state))
        if self._has_place and not any(isinstance(e, ModelCall | Summary | ToolCall | Admission) for e in plan.effects):
            self._has_place = False
            self._around.runs.release()

    def close(self) -> None:
        """Ends everything at once; what was under way is as after a crash."""
        for task in self._tasks.values():
            task.cancel()
        if self._has_place:
            self._has_place = False
            self._around.runs.release()

    def _stop(self, effect: Effect) -> None:
        work = self._works.get(effect) if isinstance(effect, ToolCall) else None
        if work is not None and work.started:
            work.stop()
        else:
            self._tasks[effect].cancel()

    def _start(self, effect: Effect, doing: Doing) -> None:
        task = asyncio.create_task(self._guarded(effect, doing))
        self._tasks[effect] = task
        self._around.begun[type(effect).__name__] += 1
        task.add_done_callback(lambda _: self._forget(effect, task))

    def _forget(self, effect: Effect, task: asyncio.Task[None]) -> None:
        if self._tasks.get(effect) is task:
            del self._tasks[effect]
            if isinstance(effect, ToolCall):
                self._works.pop(effect, None)

    async def _guarded(self, effect: Effect, doing: Doing) -> None:
        try:
            await doing()
        except Exception as error:
            logger.exception("an effect of %s failed: %s", self._conversation, type(effect).__name__)
            message = f"Holdfast itself failed here ({type(error).__name__})."
            if isinstance(effect, ModelCall):
                self._submit(AttemptFailed(effect, "internal", message, retryable=False))
            elif isinstance(effect, Summary):
                self._submit(SummaryFailed(effect, "internal", message, retryable=False))
            elif isinstance(effect, ToolCall):
                self._submit(ToolEnded(effect, 0, error=Failure(kind="error", message=message)))

    # --- one coroutine per kind of effect; what it needs of the state is read here and now

    def _effect(self, effect: Effect, state: State) -> Doing:
        match effect:
            case ModelCall():
                return self._model_effect(effect, state)
            case Summary():
                return partial(self._summary, effect, _summary_request(effect, state))
            case ToolCall():
                return self._tool_call(effect, state)
            case Admission():
                return partial(self._admission, effect)
            case ArchiveFlush():
                return partial(self._archive_flush, effect, due(self._conversation, state))

    async def _take_place(self) -> None:
        """One place for the whole run, however many of its levels ask for it at once."""
        async with self._taking:
            if not self._has_place:
                await self._around.runs.acquire()
                self._has_place = True

    async def _admission(self, effect: Admission) -> None:
        await self._take_place()
        await self._submit(Admitted(effect))

    def _model_effect(self, effect: ModelCall, state: State) -> Doing:
        """The call; where its agent is not served here, a failure that passes when it is: nobody else may answer."""
        assert state.run is not None
        level = state.run.levels[effect.path]
        if self._around.rules().agent(level) is None:
            message = f"There is no agent {level.place[-1]} on this server."
            return partial(self._fail, AttemptFailed(effect, "unknown_agent", message, retryable=True))
        return partial(self._model_call, effect, _request(effect, state))

    async def _fail(self, report: AttemptFailed) -> None:
        await self._submit(report)

    async def _model_call(self, effect: ModelCall, request: Request) -> None:
        await self._take_place()
        await call_model(
            effect,
            self._around.model,
            request,
            self._submit,
            idle_seconds=self._around.model_idle_seconds,
            pieces_per_second=self._around.pieces_per_second,
            keep=self._keep,
        )

    async def _summary(self, effect: Summary, request: Request) -> None:
        await self._take_place()
        await summarise(effect, self._around.model, request, self._submit, self._around.model_idle_seconds)

    async def _keep(self, ref: str, text: str) -> None:
        await until_stored(lambda: self._around.log.keep(self._conversation, ref, text))

    def _tool_call(self, effect: ToolCall, state: State) -> Doing:
        assert state.run is not None
        level = state.run.levels[effect.path]
        call = level.batch[effect.call]
        rules = self._around.rules()
        tool = rules.tool(level, call.tool)
        if tool is READ_RESULT:
            tool = reader(self._conversation, effect, level, self._around.log, rules)
        work = self._works[effect] = ToolWork(effect, self._conversation, self._submit, self._around)
        return partial(work.run, tool if isinstance(tool, Tool | McpTool) else None, call, self._places)

    async def _archive_flush(self, effect: ArchiveFlush, due: Due) -> None:
        flush = await until_stored(lambda: collect(self._around.log, self._conversation, due))
        await until_stored(lambda: self._around.archive.flush(flush))
        await until_stored(lambda: self._around.log.merge(self._conversation, due.since, flush.through))
        await self._submit(Flushed(effect, flush.through))


def _request(effect: ModelCall, state: State) -> Request:
    """What this attempt asks: the very request that its `step.started` has the digest of."""
    assert state.run is not None
    request = state.run.levels[effect.path].request
    assert request is not None
    return request


def _summary_request(effect: Summary, state: State) -> Request:
    assert state.run is not None
    level = state.run.levels[effect.path]
    assert level.compacting is not None
    return summary_request(level, level.compacting)
