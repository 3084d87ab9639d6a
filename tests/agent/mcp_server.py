"""A real MCP server to be rude with: `python -m tests.agent.mcp_server {old,new,PORT} DIRECTORY`.

`old` and `new` are the two eras of the protocol over stdio, a port means streamable HTTP. What it offers is in
`tools.json` of the directory, and may be changed there at any time: it says so by itself. What a tool does is decided
by the word before the first dash of its name. Each start is a line of `starts` (the process id), each deed a line of
`ledger`; a file in `gates` lets a waiting tool go on. Nothing is asserted here.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged

OPEN: dict[str, Any] = {"type": "object"}


class Rude:
    """The server's tools, and whom it tells of changes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.bus = InMemorySubscriptionBus()
        self.sessions: list[Any] = []

    def write(self, file: str, line: str) -> None:
        handle = os.open(self.home / file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{line}\n".encode())
        os.close(handle)

    def offered(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.home / "tools.json").read_text())
        return found

    async def list(self, ctx: Any, params: Any) -> types.ListToolsResult:
        while (self.home / "gates" / "silent").exists():
            await asyncio.sleep(0.02)
        if ctx.session not in self.sessions:
            self.sessions.append(ctx.session)
        tools = [
            types.Tool(
                name=tool["name"], description=tool.get("description", ""), input_schema=tool.get("schema", OPEN)
            )
            for tool in self.offered()
        ]
        start = int((params and params.cursor) or 0)
        more = str(start + 50) if len(tools) > start + 50 else None
        self.write("lists", str(len(tools)))
        return types.ListToolsResult(tools=tools[start : start + 50], next_cursor=more)

    async def call(self, ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        name, arguments = params.name, params.arguments or {}
        line = arguments.get("line", "")
        self.write("ledger", f"{name} begin {line} {(params.meta or {}).get('holdfast/key')}")
        try:
            return await self.deed(name.partition("-")[0], arguments, ctx)
        except asyncio.CancelledError:
            self.write("ledger", f"{name} cancelled {line}")
            raise
        finally:
            self.write("ledger", f"{name} end {line}")

    async def deed(self, what: str, arguments: dict[str, Any], ctx: Any) -> types.CallToolResult:
        content: list[Any] = [types.TextContent(type="text", text=f"{arguments.get('line', '')} is done")]
        match what:
            case "die":
                os._exit(1)
            case "hang":
                await asyncio.Event().wait()
            case "wait":
                while not (self.home / "gates" / str(arguments["gate"])).exists():
                    await asyncio.sleep(0.01)
            case "block":
                while not (self.home / "gates" / str(arguments["gate"])).exists():
                    time.sleep(0.01)
            case "fail":
                content = [types.TextContent(type="text", text="No such \u0000file. " + "x" * 10_000)]
                return types.CallToolResult(content=content, is_error=True)
            case "leak":
                content = [types.TextContent(type="text", text=os.environ.get("LETS_IN_TOKEN", "nothing"))]
            case "flood":
                for number in range(300):
                    await ctx.session.report_progress(number, 300, f"part {number}")
                content = [types.TextContent(type="text", text="y" * 300_000)]
            case "drown":
                content = [types.TextContent(type="text", text="z" * 17_000_000)]
            case "garble":
                os.write(1, b"Hello, I am no JSON.\n{}\n[1, 2\n")
            case "picture":
                content += [types.ImageContent(type="image", data="AAAA" * 100, mime_type="image/png")]
            case "twist":
                return types.CallToolResult(content=[], structured_content={"b": 1, "a": [2]})
        return types.CallToolResult(content=content)

    async def watch(self) -> None:
        """Tells of every change of what is offered."""
        before = (self.home / "tools.json").stat().st_mtime_ns
        while True:
            await asyncio.sleep(0.02)
            if (now := (self.home / "tools.json").stat().st_mtime_ns) != before:
                before = now
                await self.bus.publish(ToolsListChanged())
                for session in self.sessions:
                    await session.send_tool_list_changed()


async def main(how: str, home: Path) -> None:
    os.dup2(os.open(home / "stderr", os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)  # its dying words are its own
    rude = Rude(home)
    server: Server[Any] = Server(
        "rude", on_list_tools=rude.list, on_call_tool=rude.call, on_subscriptions_listen=ListenHandler(rude.bus)
    )
    rude.write("starts", str(os.getpid()))
    if (home / "gates" / "broken").exists():
        sys.exit(3)
    watching = asyncio.create_task(rude.watch())
    if how.isdigit():
        import uvicorn  # over stdio nobody waits for it

        app = server.streamable_http_app()
        await uvicorn.Server(uvicorn.Config(app, port=int(how), log_level="critical")).serve()
    else:
        async with stdio_server() as (reading, writing):
            if how == "old":
                await serve_loop(server, reading, writing, lifespan_state={})
            else:
                await server.run(reading, writing, server.create_initialization_options())
    watching.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
