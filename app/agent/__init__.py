"""What the author of an agent needs, and nothing else: `from app.agent import Agent, ToolContext, tool`."""

from app.agent.agents import Agent
from app.agent.context import Cancelled, NoteRefused, ToolContext
from app.agent.mcp import McpServer
from app.agent.notes import checkpoint, save_note
from app.agent.tools import Tool, tool
from app.core.continuation_value import Continuation

__all__ = [
    "Agent",
    "Cancelled",
    "Continuation",
    "McpServer",
    "NoteRefused",
    "Tool",
    "ToolContext",
    "checkpoint",
    "save_note",
    "tool",
]
