"""Agents with the rude MCP server (tests/agent/mcp_server.py), through the product's public interface alone.

`TEST_MCP` is the server's directory, `TEST_MCP_HOW` how it is reached: old or new (stdio), or its address, and
`TEST_MCP_CANARY` what lets us in.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from app.agent import Agent, McpServer, tool


def rude(**options: Any) -> McpServer:
    how, canary = os.environ["TEST_MCP_HOW"], os.environ["TEST_MCP_CANARY"]
    if how.startswith("http"):
        return McpServer("files", url=how, headers={"Authorization": f"Bearer {canary}"}, **options)
    command = [sys.executable, "-m", "tests.agent.mcp_server", how, os.environ["TEST_MCP"]]
    return McpServer("files", command=command, env={"LETS_IN_TOKEN": canary}, **options)


@tool(rerun="safe")
def tick(number: int) -> str:
    """Count."""
    return f"tick {number}"


def asks(name: str) -> bool:
    return name.endswith("-asked")


never = Agent("never", "You are never.", tools=[tick, rude(approval=asks)])
safe = Agent("safe", "You are safe.", tools=[tick, rude(approval=asks, rerun="safe")])
hurried = Agent("hurried", "You are hurried.", tools=[rude(approval=False, timeout=1.5)])
inside = Agent("inside", "You are inside.", tools=[rude(approval=asks).only("echo", "echo-asked")])
outside = Agent("outside", "You are outside.", tools=[tick, inside.as_tool("Works with files.")])
