"""Fixtures of the acceptance tests: one provider and one server per module, and what must hold after every test.

A module says with `SETTINGS` how its server is configured and with `SERVED` which agents it serves. Loops are the
module's, since its server is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from .harness import AGENTS, API_KEY, Server
from .stub import Story, Stub

Launch = Callable[..., Awaitable[Server]]
Configured = Callable[..., Awaitable[Server]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub() -> AsyncIterator[Stub]:
    """The provider."""
    provider = await Stub().start()
    yield provider
    await provider.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    stub: Stub, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """The module's server."""
    settings: dict[str, str] = getattr(request.module, "SETTINGS", {})
    agents: tuple[str, ...] = getattr(request.module, "SERVED", AGENTS)
    process = Server(tmp_path_factory.mktemp("server"), stub.url, settings, agents)
    try:
        yield await process.start()
    finally:
        await process.close()
    _said_nothing_wrong(process)


@pytest_asyncio.fixture(loop_scope="module")
async def launch(stub: Stub, tmp_path: Path) -> AsyncIterator[Launch]:
    """Start a server of the test's own: `await launch(HOLDFAST_STEPS_MAX="3")`."""
    launched: list[Server] = []

    async def start(ready: bool = True, agents: tuple[str, ...] = AGENTS, **settings: str) -> Server:
        process = Server(tmp_path / f"server{len(launched)}", stub.url, settings, agents)
        launched.append(process)
        return await process.start(ready)

    yield start
    for process in launched:
        await process.close()
    for process in launched:
        _said_nothing_wrong(process)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def configured(
    stub: Stub, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Configured]:
    """The module's server with these settings, started when it is first asked for: `await configured(TURNS="2")`."""
    agents: tuple[str, ...] = getattr(request.module, "SERVED", AGENTS)
    started: dict[tuple[tuple[str, str], ...], Server] = {}

    async def start(**settings: str) -> Server:
        key = tuple(sorted(settings.items()))
        if key not in started:
            named = {f"HOLDFAST_{name}": value for name, value in settings.items()}
            started[key] = Server(tmp_path_factory.mktemp("server"), stub.url, named, agents)
            await started[key].start()
        return started[key]

    yield start
    for process in started.values():
        await process.close()
    for process in started.values():
        _said_nothing_wrong(process)


@pytest.fixture
def story(stub: Stub) -> Story:
    """The model's part in this test."""
    return stub.story()


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _what_must_hold_after_every_test(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """The server lives, and every request that it made is one that a strict provider takes."""
    yield
    if "server" in request.fixturenames:
        process: Server = request.getfixturevalue("server")
        await process.leave()
        assert process.alive, f"the server died:\n{process.said()[-3000:]}"
    if "stub" in request.fixturenames:
        provider: Stub = request.getfixturevalue("stub")
        for told in provider.stories.values():
            await told.release()
        violations, provider.violations = provider.violations, []
        assert violations == [], "a strict provider refuses this"


def _said_nothing_wrong(process: Server) -> None:
    said = process.said()
    assert API_KEY not in said, "the key is in the log"
    for sign in ("Traceback (most recent call last)", "was never retrieved", "was never awaited"):
        assert sign not in said, said[max(0, said.find(sign) - 500) :][:4000]
