"""Fixtures of the browser tests: one Chromium per module, tabs that remember what went wrong in them, real servers.

Loops are the module's, since its browser and its servers are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.acceptance.harness import Server
from tests.acceptance.stub import Story, Stub

from .tab import Tab
from .wire import CONVERSATION, Wire

ARGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
ARGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
DEMO = {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": "", "HOLDFAST_DEMO_PACE": "0"}
AGENT = "tests.acceptance.agents:desk"

OpenTab = Callable[..., Awaitable[Tab]]
Scripted = Callable[..., Awaitable[tuple[Tab, Wire]]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """The machine's Chromium, or Playwright's own. Without any these tests are skipped, except where CI is set."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    async with async_playwright() as playwright:
        if path is None and not Path(playwright.chromium.executable_path).exists() and "CI" not in os.environ:
            pytest.skip("there is no Chromium here; `playwright install chromium` brings one")
        chromium = await playwright.chromium.launch(executable_path=path, args=ARGS)
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="module")
async def open_tab(browser: Browser) -> AsyncIterator[OpenTab]:
    """`await open_tab(url)`: a new tab of a new browser profile; at the end nothing may have gone wrong in any."""
    tabs: list[Tab] = []

    async def open_one(url: str, **options: object) -> Tab:
        context = await browser.new_context(**options)  # type: ignore[arg-type]
        tab = Tab(await context.new_page())
        tabs.append(tab)
        await tab.prepare()
        await tab.page.goto(url)
        return tab

    yield open_one
    for tab in tabs:
        await tab.page.context.close()
    assert [fault for tab in tabs for fault in tab.faults] == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub() -> AsyncIterator[Stub]:
    """The provider, answered by the test."""
    provider = await Stub().start()
    yield provider
    await provider.close()


@pytest_asyncio.fixture(loop_scope="module")
async def story(stub: Stub) -> AsyncIterator[Story]:
    told = stub.story()
    yield told
    await told.release()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(stub: Stub, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server whose model is the stub."""
    process = Server(tmp_path_factory.mktemp("server"), stub.url, agents=(AGENT,))
    yield await process.start()
    await process.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server as it is without any key: the embedded model, at once."""
    process = Server(tmp_path_factory.mktemp("demo"), "", DEMO, agents=())
    yield await process.start()
    await process.close()


@pytest_asyncio.fixture(loop_scope="module")
async def scripted(demo: Server, open_tab: OpenTab) -> Scripted:
    """A tab on the scripted conversation, and the wire that it hangs on; with `clock`, in the test's own time."""

    async def start(clock: bool = False) -> tuple[Tab, Wire]:
        tab, wire = await open_tab("about:blank"), Wire()
        await wire.hold(tab)
        if clock:
            await tab.page.clock.install()
        await tab.page.goto(f"{demo.url}/c/{CONVERSATION}")
        return tab, wire

    return start
