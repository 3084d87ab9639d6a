"""SEMANTICS.md §7, ACCEPTANCE 003-1, 003-2, 003-3, 003-4, 003-5, FAULTS 85, FAULTS 92: a window of 8,000 tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from .conftest import Launch
from .harness import Client, Server, settled
from .history import Json
from .parts import agent_of, asked_at, at, decision
from .readers import is_summary, page_text, reached, reading, summary, tokens
from .stub import Answer, Call, Story, Use, refuse, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

WINDOW = 8_000
SERVED = tuple(f"tests.acceptance.readers:{name}" for name in ("scholar", "librarian"))
SETTINGS = {"HOLDFAST_CONTEXT_TOKENS": str(WINDOW), "HOLDFAST_STEPS_MAX": "500"}
LONG = 60
TOO_LONG = "This model's maximum context length is 2000 tokens. (context_length_exceeded)"


async def begin(server: Server, story: Story, text: str = "Read", agent: str = "scholar") -> Client:
    tab = await server.open(agent=agent)
    await tab.do("prompt", text=story.says(text))
    return tab


def steps(story: Story) -> list[Call]:
    return [call for call in story.calls if not is_summary(call)]


def summaries(story: Story) -> list[Call]:
    return [call for call in story.calls if is_summary(call)]


def fits(calls: Sequence[Call], window: int = WINDOW) -> None:
    sizes = [tokens(call) for call in calls]
    assert max(sizes) <= window, sizes


def holding(story: Story, pages: int = 40) -> None:
    """Reads on; whoever asks for a summary waits for the test."""
    brain = reading(pages)

    async def held(call: Call) -> None:
        story._held.put_nowait(call)

    story.brain = lambda call: held if is_summary(call) else brain(call)


async def test_003_1_a_task_larger_than_the_window(server: Server, story: Story) -> None:
    """003-1: 60 pages, some 70,000 tokens: finishes; no request exceeds the window; the log has every page whole."""
    story.brain = reading(LONG)
    tab = await begin(server, story)
    assert (await tab.ended(within=90))["type"] == "run.completed"
    fits(story.calls)
    log = await settled(server, tab)
    pages = [record.event["result"] for record in log if record.type == "tool.returned"]
    assert pages == [page_text(number) for number in range(1, LONG + 1)], "people always see everything"
    assert sum(map(len, pages)) / 4 > 60_000
    done = tab.all("context.compacted")
    assert {"references", "summary"} <= {event.get("kind", "summary") for event in done}
    assert all(event["after"] < event["before"] <= WINDOW for event in done)
    assert len(summaries(story)) == len(tab.all("compaction.started")) < LONG / 4, "not at every step"
    assert tab.all("run.completed")[0]["steps"] == LONG + 1, "a summary is no step"


async def test_003_3_003_4_why_and_what_failed_stay(server: Server, story: Story) -> None:
    """003-3, 003-4: a decision with its reason, and what was tried and failed, are in the context after compaction;
    003-8: what the summariser cost is the run's."""
    story.brain = reading(40)
    tab = await begin(server, story)
    await tab.ended(within=90)
    assert summaries(story)
    last = str(steps(story)[-1].messages)
    assert "Decision: SQL, because the data is relational." in last and "Failed: the index at the back" in last
    written = [event for event in tab.all("context.compacted") if event.get("kind", "summary") == "summary"]
    assert [event["usage"]["input"] for event in written] == [call.usage[0] for call in summaries(story) if call.usage]
    total = sum(call.usage[0] for call in story.calls if call.usage)
    assert tab.all("run.completed")[0]["usage"]["input"] == total
    await settled(server, tab)


async def test_003_2_what_was_said_at_first(server: Server, story: Story) -> None:
    """003-2: a fact of the first prompt is in the request of the fortieth, though the summariser forgets it."""
    answers = 0

    def brain(call: Call) -> Answer:
        nonlocal answers
        call.usage = tokens(call), 10
        if is_summary(call):
            return say("They talked.")
        answers += 1
        return say(f"Answer {answers}. " + "And so on, at length. " * 80)

    story.brain = brain
    tab = await begin(server, story, "My boat is called Ada-4711.")
    await tab.ended(1)
    for number in range(2, 41):
        await tab.do("prompt", text=story.says(f"Question {number}?"))
        await tab.ended(number, within=30)
    fits(story.calls)
    assert summaries(story)
    last = steps(story)[-1]
    assert any("Ada-4711" in words for words in last.words) and "Question 40?" in last.words[-1]
    assert "Answer 1." not in str(last.messages) and "They talked." in str(last.messages)


async def test_003_5_a_reference_gives_the_original_bytes(server: Server, story: Story) -> None:
    """003-5: an old result is a reference with first and last lines; reading it returns what the tool had returned."""
    read: dict[int, str] = {}
    shown: list[str] = []

    def brain(call: Call) -> Answer:
        if is_summary(call) or "read_result" not in call.tools:
            return reading(99)(call)
        if not shown:
            shown.append(next(text for text in call.results.values() if "kept as " in text))
        found = re.search(r"kept as (\S+), from offset", shown[0])
        assert found
        header, _, body = list(call.results.values())[-1].partition("\n")
        where = re.match(r"\[characters (\d+) to (\d+) of (\d+)", header)
        if where is None:
            return use(Use("read_result", {"reference": found[1]}))
        offset, end, total = map(int, where.groups())
        read[offset] = body
        return say("Read.") if end == total else use(Use("read_result", {"reference": found[1], "offset": end}))

    story.brain = brain
    tab = await begin(server, story)
    assert (await tab.ended(within=60))["type"] == "run.completed"
    assert "".join(read[offset] for offset in sorted(read)) == page_text(1)
    assert shown[0].startswith("page 1 line 0 ") and shown[0].endswith(page_text(1)[-20:])
    assert "read_result" not in story.calls[0].tools
    await settled(server, tab)


async def test_003_5_one_huge_result(server: Server, story: Story) -> None:
    """003-5, FAULTS 92: a result of 400,000 characters: told in part; the end of it is read from what was kept."""
    whole = page_text(1, 10_000)

    def brain(call: Call) -> Answer:
        call.usage = tokens(call), 10
        if not call.results:
            return use(Use("read_page", {"number": 1, "lines": 10_000}, id="huge"))
        if len(call.results) == 1:
            found = re.search(r"kept as (\S+), from offset", call.results["huge"])
            assert found
            return use(Use("read_result", {"reference": found[1], "offset": len(whole) - 1_000}, id="again"))
        return say("Seen.")

    story.brain = brain
    tab = await begin(server, story)
    await tab.ended()
    fits(story.calls)
    assert story.calls[-1].results["again"].partition("\n")[2] == whole[-1_000:]
    await settled(server, tab)


async def test_a_sub_agent_has_a_context_of_its_own(server: Server, story: Story) -> None:
    """§5, §7: `path` on its compactions; the level above keeps its history whole."""

    def brain(call: Call) -> Answer:
        if is_summary(call) or agent_of(call) == "scholar":
            return reading(25)(call)
        return say("Told.") if call.results else use(Use("scholar", {"prompt": story.says("Read")}, id="s1"))

    story.brain = brain
    tab = await begin(server, story, agent="librarian")
    assert (await tab.ended(within=60))["type"] == "run.completed"
    fits(story.calls)
    assert tab.all("context.compacted") == at(tab.all("context.compacted"), "s1") != []
    assert story.calls[-1].results == {"s1": "Read 25 pages."}
    await settled(server, tab)


async def test_hints_are_given_after_it(server: Server, story: Story) -> None:
    """§3, §7: a hint that comes while a summary is written is in the very next request, as its last message."""
    holding(story)
    tab = await begin(server, story)
    call = await story.call(30)
    await tab.do("hint", text=story.says("Skip the poems"))
    assert "Skip the poems" not in str(call.messages)
    story.brain = None
    await summary(call)(call)
    after = await story.call(30)
    assert after.messages[-1]["role"] == "user" and "Skip the poems" in after.words[-1]
    await tab.event("step.started", step=tab.all("hint.applied")[0]["step"])
    types = [event["type"] for event in tab.events]
    assert types[-3:] == ["context.compacted", "hint.applied", "step.started"]
    await tab.do("cancel")
    await tab.ended()


async def test_killed_in_the_middle_of_it(launch: Launch, story: Story) -> None:
    """§7, FAULTS 85: kill -9 while the summary is written, and right after: written again, once."""
    server = await launch(agents=SERVED, **SETTINGS)
    holding(story)
    tab = await begin(server, story)
    first = await story.call(30)
    await server.restart()
    second = await story.call(30)
    assert second.messages == first.messages
    tab = await server.again(tab)
    assert len(tab.all("compaction.started")) == 1
    story.brain = None
    await summary(second)(second)
    third = await story.call(30)
    await server.restart()
    fourth = await story.call(30)
    assert fourth.messages == third.messages, "what is in the log is not done again: the same context"
    story.brain = reading(40)
    await story.brain(fourth)(fourth)
    tab = await server.again(tab)
    assert (await tab.ended(within=60))["type"] == "run.completed"
    fits(story.calls)
    froms = [event["from"] for event in tab.all("context.compacted") if event.get("kind", "summary") == "summary"]
    assert len(set(froms)) == len(froms)
    log = await settled(server, tab)
    assert [r.event["result"] for r in log if r.type == "tool.returned"] == [page_text(n) for n in range(1, 41)]


async def test_stopped_in_the_middle_of_it(server: Server, story: Story) -> None:
    """§10: the provider's connection is closed within 1 s; one end; nothing more is asked."""
    holding(story)
    tab = await begin(server, story)
    call = await story.call(30)
    assert (await server.get(f"/api/runs/{tab.run}"))["status"] == "running"
    await tab.do("cancel")
    await call.aborted(1)
    assert (await tab.ended())["type"] == "run.cancelled"
    asked = len(story.calls)
    await settled(server, tab)
    assert len(story.calls) == asked and tab.events[-1]["type"] in ("run.cancelled", "archive.flushed")


async def test_too_long_twice(server: Server, story: Story) -> None:
    """FAULTS 85, §7: compacted harder, at most twice for a step; then suspended with `context`, and no loop; `resume`
    tries again."""
    limit = [10**9]

    def brain(call: Call) -> Answer:
        if is_summary(call):
            return summary(call)
        return refuse(400, TOO_LONG) if reached(call) >= 3 and tokens(call) > limit[0] else reading(6)(call)

    story.brain, limit[0] = brain, 0
    tab = await begin(server, story)
    parked = await tab.event("run.suspended")
    assert parked["reason"] == "context" and "until" not in parked
    refused = [event for event in tab.all("model.failed") if event["error"]["kind"] == "context"]
    assert [event["attempt"] for event in refused] == [1, 2, 3]
    sizes = [tokens(call) for call in steps(story)[-3:]]
    assert sizes[0] > sizes[1] > sizes[2]
    asked = len(story.calls)
    await tab.do("hint", text=story.says("Shorter, please"))
    assert (await server.get(f"/api/runs/{tab.run}"))["status"] == "suspended"
    assert len(story.calls) == asked, "a hint is kept and does not resume"
    limit[0] = 10**9
    await tab.do("resume")
    assert (await tab.ended(within=30))["type"] == "run.completed"
    assert tab.all("run.completed")[0]["steps"] == 7, "no step was spent"
    await settled(server, tab)


async def test_too_long_once(server: Server, story: Story) -> None:
    """FAULTS 85: a model with a smaller window than was set: compacted and asked again; what was learnt is kept."""

    def brain(call: Call) -> Answer:
        return refuse(400, TOO_LONG) if tokens(call) > 3_500 else reading(20)(call)

    story.brain = brain
    tab = await begin(server, story)
    assert (await tab.ended(within=60))["type"] == "run.completed"
    assert 1 <= len(tab.all("model.failed")) <= 2, "not step after step"
    await settled(server, tab)


@pytest.mark.parametrize("takes", [2_000, 0])
async def test_a_summariser_that_overflows(server: Server, story: Story, takes: int) -> None:
    """§7: in chunks where that helps, else mechanically; either way the run goes on within the window."""

    def brain(call: Call) -> Answer:
        if is_summary(call) and tokens(call) > takes:
            return refuse(400, TOO_LONG)
        return reading(25)(call)

    story.brain = brain
    tab = await begin(server, story)
    assert (await tab.ended(within=60))["type"] == "run.completed"
    fits(story.calls)
    kinds = {event.get("kind", "summary") for event in tab.all("context.compacted")}
    assert ("mechanical" in kinds) == (takes == 0) and ("summary" in kinds) == (takes > 0)
    assert all(event["error"]["kind"] == "context" for event in tab.all("compaction.failed"))
    assert tab.all("compaction.failed")
    await settled(server, tab)


async def test_trouble_while_summarising(server: Server, story: Story) -> None:
    """§9: retried in the open like a step's model call; no step is spent."""
    refusals = iter([refuse(503), refuse(429, retry_after="1")])

    def brain(call: Call) -> Answer:
        return next(refusals, summary(call)) if is_summary(call) else reading(40)(call)

    story.brain = brain
    tab = await begin(server, story)
    assert (await tab.ended(within=60))["type"] == "run.completed"
    failed = tab.all("compaction.failed")
    assert [event["error"]["kind"] for event in failed] == ["overloaded", "rate_limited"]
    assert all(event["retry_at"] > event["at"] for event in failed)
    assert tab.all("run.completed")[0]["steps"] == 41
    await settled(server, tab)


async def test_a_continuation_after_it(server: Server, story: Story) -> None:
    """004-8, §6: its `messages` are what the model gets next, summary and references included."""
    brain = reading(15)

    def then_reserve(call: Call) -> Answer:
        if is_summary(call) or reached(call) < 15:
            return brain(call)
        reserved = any("a table at" in text for text in call.results.values())
        return say("Done.") if reserved else use(Use("reserve", {"place": "Da Enzo", "people": 2}, id="res"))

    story.brain = then_reserve
    tab = await begin(server, story)
    request = await asked_at(tab)
    await tab.event("run.suspended")
    copy = await server.get(f"/api/conversations/{tab.attached['conversation']}/continuation")
    told: list[Json] = copy["continuation"]["messages"]
    await tab.do("approve", **decision(request))
    await tab.ended()
    assert tab.all("context.compacted") and steps(story)[-1].messages[: len(told)] == told
    assert [message["role"] for message in steps(story)[-1].messages[len(told) :]] == ["tool"]
    await settled(server, tab)
