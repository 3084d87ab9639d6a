"""`GET /metrics`: the figures of what goes on, and nothing else."""

from __future__ import annotations

import re

import pytest

from .conftest import Launch
from .harness import Server, eventually, fresh, settled
from .stub import Story, Use, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

LINE = re.compile(r"# (HELP|TYPE) holdfast_[a-z_]+ [^\n]+|holdfast_[a-z_]+(\{[a-z]+=\"[a-z_]+\"\})? \d+")


async def metrics(server: Server) -> dict[str, int]:
    """Every sample, after a look at the format: each metric is described once, no word in it is anybody's."""
    answer = await server.http.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert answer.text.endswith("\n") and all(LINE.fullmatch(line) for line in lines), answer.text
    described = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(described) == len(set(described))
    return {name: int(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


async def test_what_goes_on_is_counted(launch: Launch, story: Story) -> None:
    """FAULTS 16, 19, security-secrets: store, sockets, runs, models, tools, commands; no contents, ids or names."""
    server = await launch(HOLDFAST_SOCKETS_MAX="2")
    before = await metrics(server)
    assert before["holdfast_store_writable"] == 1 and before["holdfast_store_failures_total"] == 0
    assert before["holdfast_store_wal_bytes"] > 0 and before["holdfast_event_loop_stalls_total"] == 0
    assert before["holdfast_readers"] == 0 and before["holdfast_connections"] >= 1
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("once", {"line": line, "gate": line})), say("Done."))
    await tab.do("prompt", "a1", text=story.says("Work"))
    await tab.do("prompt", "a1", text=story.says("Work"))
    await tab.refused("text_empty", "prompt", text="")
    await server.wrote(line)
    second = await server.again(tab)
    over = await server.attach(tab.attached["conversation"])
    assert await over.closed() == 4429
    during = await metrics(server)
    assert during["holdfast_readers"] == 2 and during['holdfast_connections_refused_total{reason="viewer"}'] == 1
    assert during['holdfast_runs{status="running"}'] == 1 and during["holdfast_actors"] == 1
    assert during['holdfast_effects{kind="tool_call"}'] == 1 and during['holdfast_effects{kind="model_call"}'] == 0
    assert during['holdfast_effects_begun_total{kind="model_call"}'] == 1
    assert during['holdfast_commands_total{outcome="accepted"}'] == 1
    assert during['holdfast_commands_total{outcome="duplicate"}'] == 1
    assert during['holdfast_commands_total{outcome="text_empty"}'] == 1
    server.let(line)
    await tab.ended()
    await second.close()

    async def is_over() -> bool:
        after = await metrics(server)
        left = [after["holdfast_readers"] - 1, *(count for name, count in after.items() if "effects{" in name)]
        return not any(left) and not after['holdfast_runs{status="running"}']

    await eventually(is_over, "nothing is counted that is over")
    assert (await metrics(server))['holdfast_effects_begun_total{kind="model_call"}'] == 2
    await settled(server, tab)


async def test_who_may_not_ask_is_counted(server: Server) -> None:
    """FAULTS security-origin: the Host is checked as everywhere."""
    refused = await server.http.get("/metrics", headers={"host": "evil.example"})
    assert refused.status_code == 403 and "holdfast_" not in refused.text
    assert (await metrics(server))['holdfast_connections_refused_total{reason="origin"}'] == 1
