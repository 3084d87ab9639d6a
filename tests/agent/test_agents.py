"""Agents, and how the setting finds them: every mistake is one clear sentence without values."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.agent import Agent, tool
from app.agent.agents import ConfigError, load
from app.core.bounds import DESCRIPTION_BYTES_MAX
from app.core.catalogue import AgentSpec, ToolSpec


@tool
async def send(text: str) -> None:
    """Send a text."""


def count(things: list[str]) -> int:
    """Count things."""
    return len(things)


def test_an_agent_satisfies_its_specification() -> None:
    agent = Agent("hr", "Be kind.", [send, count], model="large", end_on_denial=True)
    spec: AgentSpec = agent
    tools: dict[str, ToolSpec] = dict(spec.tools)
    assert (spec.name, spec.instructions, spec.model, spec.end_on_denial) == ("hr", "Be kind.", "large", True)
    assert list(tools) == ["send", "count"] and tools["send"] is send
    assert tools["count"].schema["function"]["description"] == "Count things."
    assert Agent("bare").tools == {} and Agent("bare").instructions == ""


def test_wrong_agents_are_refused() -> None:
    @tool(name="send")
    async def another() -> None: ...

    for name, tools, words in (
        ("hr", [send, another], "two tools named send"),
        ("no spaces", [], "name"),
        ("hr", ["send"], "str is none"),
    ):
        with pytest.raises(ConfigError, match=words):
            Agent(name, tools=tools)  # type: ignore[arg-type]  # a wrong one is what is tested


MODULES = {
    "good_agents": """
from app.agent import Agent
one = Agent("one")
several = [Agent("two"), Agent("three")]
empty = []
number = 42
""",
    "typo_agents": "from app.agent import Agent\n\nagent = Agent(",
    "raising_agents": "import os\n\nraise ValueError('key is ' + os.environ['HOLDFAST_TEST_SECRET'])",
    "exiting_agents": "\nraise SystemExit('canary-secret')",
    "missing_agents": "import there_is_no_such_library",
    "double_agents": "from app.agent import Agent\ndef f(a): ...\nagent = Agent('x', tools=[f, f])",
    "lazy_agents": "def __getattr__(name):\n    raise RuntimeError('canary-secret')",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLDFAST_TEST_SECRET", "canary-secret")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


def test_load(here: Path) -> None:
    assert list(load("good_agents:one")) == ["one"]
    assert list(load(" good_agents:several , good_agents:one,")) == ["two", "three", "one"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "names no agent"),
        (" , ", "names no agent"),
        ("canary-secret", "entry 1 is not of the form module:attribute"),
        ("good_agents:one,good_agents", "entry 2 is not of the form"),
        ("good_agents:a.b", "not of the form"),
        (".good_agents:one", "not of the form"),
        ("canary_secret:one", "entry 1: there is no such module"),
        ("canary_secret.inner:one", "there is no such module"),
        ("good_agents:nothing", "an Agent or a list of them, but there is none"),
        ("good_agents:number", "but it is int"),
        ("good_agents:empty", "but it is list"),
        ("good_agents:one,good_agents:one", "entry 2: there are two agents named one"),
        ("typo_agents:agent", "SyntaxError in line 3 of typo_agents.py"),
        ("raising_agents:agent", "ValueError in line 3 of raising_agents.py"),
        ("exiting_agents:agent", "SystemExit in line 2 of exiting_agents.py"),
        ("missing_agents:agent", "needs the module there_is_no_such_library"),
        ("double_agents:agent", "entry 1: Agent x: there are two tools named f"),
        ("lazy_agents:agent", "RuntimeError in line 2 of lazy_agents.py"),
    ],
)
def test_every_mistake_is_one_sentence_without_values(here: Path, spec: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(spec)
    told = str(caught.value)
    assert words in told and told.endswith(".") and "\n" not in told
    assert "canary" not in told
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "no traceback of what was behind it"


def test_what_cannot_be_described_in_an_event_is_refused_at_start() -> None:
    """003-17: the log describes an agent word for word, so its description has to be JSON and to fit."""
    too_long = "x" * DESCRIPTION_BYTES_MAX
    with pytest.raises(
        ConfigError, match=r"^Agent a: its instructions and tools take 400,0\d\d bytes; 400,000 is most"
    ):
        Agent("a", too_long)
    with pytest.raises(ConfigError, match="cannot be written as JSON"):
        Agent("a", "half of a pair: \ud800")
    assert Agent("a", too_long[:-10]).instructions
