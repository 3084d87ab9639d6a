"""Source 2, the Convex issue on runs longer than their time limit: rows 002-7 and 002-8 (the others need slices)."""

from __future__ import annotations

import time

import pytest

from .harness import Server, fresh, settled
from .stub import Story, say

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]


async def test_002_7_the_id_at_once_and_the_pieces_for_another_client(server: Server, story: Story) -> None:
    """002-7: the start returns with the ids while the model has said nothing; another client reads the pieces."""
    began = time.monotonic()
    made = await server.create(prompt=story.says("Start"))
    assert time.monotonic() - began < 1
    tab = await server.attach(made["conversation"])
    call = await story.call()
    await call.text("piece ")
    await tab.shows("piece ")
    await call.text("by piece")
    await tab.shows("piece by piece")
    assert tab.run == made["run"]
    await call.end()
    await tab.ended()
    await settled(server, tab)


async def test_002_8_without_an_id_a_new_conversation_with_one_the_same(server: Server, story: Story) -> None:
    """002-8: no conversation named: a new one each time; one named: its history goes on."""
    story.brain = lambda _: say("Yes.")
    first, second = [await server.create(prompt=story.says("Are you there?")) for _ in range(2)]
    assert first["conversation"] != second["conversation"] and first["run"] != second["run"]
    await server.outcome(first["run"])
    assert (await server.command(first["conversation"], "prompt", text=story.says("Still?"))).status_code == 202
    tab = await server.attach(first["conversation"])
    await tab.ended(2)
    roles = [message["role"] for message in story.calls[-1].messages if message["role"] != "system"]
    assert roles == ["user", "assistant", "user"]
    assert (await server.command(fresh("none"), "prompt", text="Hello")).status_code == 404
