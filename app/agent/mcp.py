"""Tools over MCP: what a developer declares of a server, and each of its tools as the runner calls it.

A server's tools are not known before it has told of them, and may be others a moment later. So an agent has servers
beside its own tools (core/servers.py says what holds when), and a tool is bound to the definition that a model was
told: one that reads otherwise by now is not called. The connection lives in mcp_link.py; importing this costs nothing.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Self

from app.agent.context import ConfigError, ToolContext, ToolError
from app.agent.mcp_link import Link, Where
from app.agent.tools import contained
from app.core.catalogue import Rerun
from app.core.events import Json
from app.core.state import Told

SERVER_NAME = re.compile(r"[A-Za-z0-9-]{1,32}")
"""No underscore: it ends the server's name in the names of its tools, so no two servers' tools ever meet."""

OFFER_BYTES_MAX = 64_000
"""Of all tools of one server, as a model is told of them; the rest is left out."""

MADE_MAX = 1_024
"""Tools, of all definitions that runs still go by, that are kept made."""

AsksFor = bool | Collection[str] | Callable[[str], object]


class McpServer:
    """A server of tools: `command` is started as a process of ours, or `url` is spoken to (streamable HTTP).

    `env` is added to the few variables that such a process gets (PATH, HOME, …); `headers` go with every request.
    `approval`: whether a person decides before a call, for all tools, for those named, or as a function of the tool's
    name there; strangers' tools ask unless told otherwise. `rerun`, `timeout` and `expires_in` (seconds) as for `tool`,
    for all of them. Raises ConfigError. Satisfies `core.catalogue.ServerSpec`.
    """

    def __init__(
        self,
        name: str,
        *,
        command: Sequence[str] | None = None,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        approval: AsksFor = True,
        rerun: Rerun = "never",
        timeout: float | None = None,
        expires_in: float | None = None,
    ) -> None:
        if not SERVER_NAME.fullmatch(name):
            raise ConfigError(f"An MCP server's name has 1 to 32 letters, digits or -; {name[:80]!r} has not.")
        if (command is None) == (url is None) or isinstance(command, str) or (command is not None and not command):
            raise ConfigError(f"MCP server {name}: it has either a command, a list of texts, or a url.")
        if url is not None and not url.startswith(("http://", "https://")):
            raise ConfigError(f"MCP server {name}: its url begins with http:// or https://.")
        if rerun not in ("never", "safe", "ask"):
            raise ConfigError(f"MCP server {name}: rerun is 'never', 'safe' or 'ask'.")
        for option, seconds in (("timeout", timeout), ("expires_in", expires_in)):
            if seconds is not None and not seconds > 0:
                raise ConfigError(f"MCP server {name}: {option} is a number of seconds above 0, or None.")
        if isinstance(approval, str) or inspect.iscoroutinefunction(approval):
            raise ConfigError(f"MCP server {name}: approval is a bool, names of tools, or a plain function of a name.")
        self.name = name
        self.rerun: Rerun = rerun
        self.timeout = timeout
        self.expires_in = expires_in
        self.link = Link(Where(name, tuple(command or ()), url, dict(env or {}), dict(headers or {}), cwd))
        self._approval = approval
        self._only: frozenset[str] | None = None
        self._made: dict[str, McpTool] = {}

    def only(self, *tools: str) -> Self:
        """The same server, of which an agent gets just these tools, by their names there."""
        narrowed = copy.copy(self)
        narrowed._only = frozenset(tools)
        narrowed._made = {}
        return narrowed

    def offers(self) -> Sequence[Told]:
        """What it offers now, or offered last; nothing before it has answered for the first time."""
        return self.link.offers(self._only, OFFER_BYTES_MAX)

    def tool(self, told: Told) -> McpTool | None:
        """The tool of a definition that was told, whether or not the server is there."""
        if self._only is not None and told.origin.tool not in self._only:
            return None
        if (made := self._made.get(told.digest)) is None:
            if len(self._made) >= MADE_MAX:
                self._made.clear()
            made = self._made[told.digest] = McpTool(self, told)
        return made

    def asks(self, tool: str) -> bool:
        """Whether the developer wants a person to decide; yes where the function raises."""
        approval = self._approval
        if isinstance(approval, bool):
            return approval
        if not callable(approval):
            return tool in approval
        try:
            with contained():
                return bool(approval(tool))
        except ToolError:
            return True

    def __repr__(self) -> str:
        return f"<MCP server {self.name}>"


class McpTool:
    """One tool of a server, as a model was told of it. Satisfies `core.catalogue.ToolSpec`."""

    interruptible = True
    killable = False
    agent = None

    def __init__(self, server: McpServer, told: Told) -> None:
        self.name = told.name
        self.schema: Json = told.schema
        self.rerun: Rerun = server.rerun
        self.timeout = server.timeout
        self.expires_in = server.expires_in
        self._server = server
        self._told = told

    def __repr__(self) -> str:
        return f"<tool {self.name} of {self._server!r}>"

    def check(self, arguments: Json) -> str | None:
        """None when the arguments fit the definition, otherwise a sentence that the model can act on."""
        from app.agent.mcp_schema import problem  # who has no servers does not wait for its libraries

        return problem(self.name, self.schema["function"]["parameters"], arguments)

    def needs_approval(self, arguments: Json) -> bool:
        return self._server.asks(self._told.origin.tool)

    async def run(self, arguments: Json, context: ToolContext) -> str:
        """Calls the server and returns the text for the model, as `Tool.run` does.

        Raises ToolError: `error` where the server is away, its definition has changed (nothing was called then), or it
        says so; `in_doubt` where it ended or was told to stop in the middle of a call that is not `safe`: that it did
        stop, it has no way to confirm. A `safe` call that is cancelled just ends.
        """
        if (wrong := self.check(arguments)) is not None:
            raise ToolError("bad_arguments", wrong)
        return await self._server.link.call(self._told, arguments, context, repeatable=self.rerun == "safe")
