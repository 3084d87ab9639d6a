"""One tab as a person sees it: what it shows, what one can do in it, and everything that went wrong in it."""

from __future__ import annotations

import re
from typing import Any

from playwright.async_api import ConsoleMessage, Locator, Page, expect

WITHIN_MS = 15_000
REPORT_VIOLATIONS = (
    "document.addEventListener('securitypolicyviolation', (v) => console.error('CSP', v.violatedDirective))"
)
GONE = re.compile(
    r"ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|WebSocket connection to .* failed|Failed to load resource"
)
"""What Chromium itself says when a server is away; the page cannot prevent it."""


class Tab:
    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        self.server_may_go = False
        page.set_default_timeout(WITHIN_MS)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))

    async def prepare(self) -> None:
        await self.page.add_init_script(REPORT_VIOLATIONS)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not (self.server_may_go and GONE.search(message.text)):
            self.faults.append(f"console: {message.text}")

    # --- what it shows

    def find(self, selector: str, text: str | re.Pattern[str] | None = None) -> Locator:
        return self.page.locator(selector, has_text=text) if text is not None else self.page.locator(selector)

    async def shows(self, selector: str, text: str | re.Pattern[str] | None = None, times: int | None = None) -> None:
        """Waits until this is to be seen (so many times)."""
        found = self.find(selector, text)
        if times is None:
            await expect(found.first).to_be_visible(timeout=WITHIN_MS)
        else:
            await expect(found).to_have_count(times, timeout=WITHIN_MS)

    async def connection(self, phase: str) -> None:
        """Waits until the page says that its connection is this."""
        await self.shows(f"#connection[data-phase={phase}]")

    async def ended(self, outcome: str = "completed", times: int = 1) -> None:
        await self.shows(f".end[data-outcome={outcome}]", times=times)

    async def transcript(self) -> str:
        """The whole transcript as it stands, once every finished text is rendered and every decision armed."""
        await self.shows(".prose > .plain", times=0)
        await self.shows(".decision button[disabled]", times=0)
        return str(await self.page.evaluate("document.getElementById('transcript').innerHTML"))

    async def evaluate(self, script: str, argument: Any = None) -> Any:
        return await self.page.evaluate(script, argument)

    # --- what one can do

    async def say(self, text: str) -> None:
        """Writes and presses Enter: a prompt, or during a run a hint."""
        await self.page.fill("#words", text)
        await self.page.press("#words", "Enter")

    async def click(self, selector: str, text: str | None = None) -> None:
        await self.find(selector, text).first.click(timeout=WITHIN_MS)

    async def reload(self) -> None:
        await self.page.reload()
        await self.connection("live")
