"""Agents: a name, instructions and tools; and how the setting HOLDFAST_AGENT finds them.

Only declarations: an agent does nothing by itself, the runner and core do. Errors are one sentence, name the entry of
the setting and never repeat its value or anything else of the environment.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from app.agent.mcp import OFFER_BYTES_MAX, McpServer
from app.agent.tools import ConfigError, Tool, ToolError, contained
from app.core.bounds import DESCRIPTION_BYTES_MAX
from app.core.calls import NAME
from app.core.catalogue import Rerun
from app.core.codec import canonical
from app.core.events import Json

__all__ = ["Agent", "ConfigError", "load"]


class Agent:
    """Instructions and tools under a name. Satisfies `core.catalogue.AgentSpec`.

    `tools` may be tools, plain typed functions, which become tools with the default options, and MCP servers, whose
    tools come and go (`servers`). `model` names a model
    other than the setting's. `end_on_denial`: a denied approval ends the run instead of being told to the model. Raises
    ConfigError.
    """

    def __init__(
        self,
        name: str,
        instructions: str = "",
        tools: Iterable[Tool | SubAgent | McpServer | Callable[..., Any]] = (),
        model: str | None = None,
        end_on_denial: bool = False,
    ) -> None:
        if not NAME.fullmatch(name):
            raise ConfigError(f"An agent's name has 1 to 64 letters, digits, _ or -; {name[:80]!r} has not.")
        self.name = name
        self.instructions = instructions
        self.model = model
        self.end_on_denial = end_on_denial
        given = list(tools)
        self.servers = MappingProxyType(_servers(name, [one for one in given if isinstance(one, McpServer)]))
        own = _by_name(name, [one for one in given if not isinstance(one, McpServer)])
        self.tools: Mapping[str, Tool | SubAgent] = MappingProxyType(own)
        self._check_names()
        self._check_description()

    def as_tool(self, description: str, approval: bool = False) -> SubAgent:
        """This agent as a tool of another one: it is called with a `prompt`, works on a level of its own, and its final
        text is the result. `approval`: a person decides before it begins.
        """
        return SubAgent(self, description, approval)

    def __repr__(self) -> str:
        return f"<agent {self.name}>"

    def _check_names(self) -> None:
        """What a server will call its tools one day is its own."""
        for tool in self.tools:
            if (server := tool.partition("_")[0]) in self.servers and "_" in tool:
                raise ConfigError(f"Agent {self.name}: {tool} is named like a tool of its server {server}.")

    def _check_description(self) -> None:
        """Its description goes into an event, word for word: it has to be JSON, and to fit."""
        try:
            size = len(canonical([self.instructions, *(tool.schema for tool in self.tools.values())]))
        except (TypeError, ValueError, OverflowError):
            raise ConfigError(f"Agent {self.name}: its instructions and tools cannot be written as JSON.") from None
        size += len(self.servers) * OFFER_BYTES_MAX
        if size > DESCRIPTION_BYTES_MAX:
            servers = f" ({OFFER_BYTES_MAX:,} for each MCP server)" if self.servers else ""
            raise ConfigError(
                f"Agent {self.name}: its instructions and tools take {size:,} bytes{servers}; "
                f"{DESCRIPTION_BYTES_MAX:,} is most."
            )


class SubAgent:
    """An agent as a tool, named like its agent. Satisfies `core.catalogue.ToolSpec`; nobody runs it: it is a level."""

    rerun: Rerun = "safe"
    interruptible = False
    timeout: float | None = None
    expires_in: float | None = None

    def __init__(self, agent: Agent, description: str, approval: bool) -> None:
        self.name = agent.name
        self.agent = agent
        self._approval = approval
        prompt = {"type": "string", "description": "What this agent is asked to do, with all that it needs to know."}
        parameters = {"type": "object", "properties": {"prompt": prompt}, "required": ["prompt"]}
        function = {
            "name": agent.name,
            "description": description,
            "parameters": {**parameters, "additionalProperties": False},
        }
        self.schema: Json = {"type": "function", "function": function}

    def check(self, arguments: Json) -> str | None:
        """None when there is a `prompt` and nothing else."""
        if set(arguments) != {"prompt"} or not isinstance(arguments["prompt"], str) or not arguments["prompt"].strip():
            return "The only argument is `prompt`, a text."
        return None

    def needs_approval(self, arguments: Json) -> bool:
        return self._approval


def load(spec: str) -> dict[str, Agent]:
    """The agents named by `module:attribute`, comma-separated; an attribute may be an agent or a list of agents.

    The current directory is importable. Raises ConfigError with one sentence: no traceback, no value.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    agents: dict[str, Agent] = {}
    entries = [entry.strip() for entry in spec.split(",") if entry.strip()]
    for number, entry in enumerate(entries, start=1):
        for agent in _load_entry(entry, f"HOLDFAST_AGENT, entry {number}"):
            if agent.name in agents:
                raise ConfigError(f"HOLDFAST_AGENT, entry {number}: there are two agents named {agent.name}.")
            agents[agent.name] = agent
    if not agents:
        raise ConfigError("HOLDFAST_AGENT names no agent; it wants module:attribute, comma-separated for several.")
    return agents


def _by_name(agent: str, tools: Iterable[Tool | SubAgent | Callable[..., Any]]) -> dict[str, Tool | SubAgent]:
    found: dict[str, Tool | SubAgent] = {}
    for given in tools:
        if not callable(given) and not isinstance(given, SubAgent):
            raise ConfigError(f"Agent {agent}: a tool is a function, and {type(given).__name__} is none.")
        tool = given if isinstance(given, Tool | SubAgent) else Tool(given)
        if tool.name in found:
            raise ConfigError(f"Agent {agent}: there are two tools named {tool.name}.")
        if isinstance(tool, Tool) and tool.place is not None:
            tool.place.check(tool, tool.function)
        found[tool.name] = tool
    return found


def _servers(agent: str, servers: Iterable[McpServer]) -> dict[str, McpServer]:
    found: dict[str, McpServer] = {}
    for server in servers:
        if server.name in found:
            raise ConfigError(f"Agent {agent}: there are two MCP servers named {server.name}.")
        found[server.name] = server
    return found


def servers_of(agents: Iterable[Agent]) -> list[McpServer]:
    """Every server that these agents, and those inside them, have; once for each declaration."""
    found: dict[int, McpServer] = {}
    known, to_see = set[int](), list(agents)
    while to_see:
        agent = to_see.pop()
        if id(agent) not in known:
            known.add(id(agent))
            found.update((id(server.link), server) for server in agent.servers.values())
            to_see += [tool.agent for tool in agent.tools.values() if tool.agent is not None]
    return list(found.values())


def _load_entry(entry: str, where: str) -> list[Agent]:
    module_name, colon, attribute = entry.partition(":")
    if not (colon and attribute.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise ConfigError(f"{where} is not of the form module:attribute.")
    module = _import(module_name, where)
    try:
        with contained():
            value = getattr(module, attribute, None)
    except ToolError as error:
        raise ConfigError(f"{where}: reading the attribute failed: {_place(error)}.") from None
    agents = [value] if isinstance(value, Agent) else value
    if not isinstance(agents, list | tuple) or not agents or not all(isinstance(agent, Agent) for agent in agents):
        found = "there is none" if value is None else f"it is {type(value).__name__}"
        raise ConfigError(f"{where}: the attribute should be an Agent or a list of them, but {found}.")
    return list(agents)


def _import(name: str, where: str) -> ModuleType:
    try:
        with contained():
            return importlib.import_module(name)
    except ToolError as error:
        if isinstance(error.__cause__, ConfigError):  # a tool or an agent is declared wrongly: it says how
            raise ConfigError(f"{where}: {error.__cause__}") from None
        missing = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise ConfigError(f"{where}: there is no such module, here or installed.") from None
        raise ConfigError(f"{where}: importing the module failed: {_place(error)}.") from None


def _place(error: ToolError) -> str:
    """The type and the line of what went wrong. Its message is left out: it may repeat a value of the environment."""
    cause = error.__cause__
    if isinstance(cause, ModuleNotFoundError) and cause.name:
        return f"it needs the module {cause.name}, which is not installed"
    if isinstance(cause, SyntaxError) and cause.filename:
        return f"{type(cause).__name__} in line {cause.lineno} of {Path(cause.filename).name}"
    frames = traceback.extract_tb(cause.__traceback__) if cause is not None else []
    if not frames:
        return type(cause).__name__
    return f"{type(cause).__name__} in line {frames[-1].lineno} of {Path(frames[-1].filename).name}"
