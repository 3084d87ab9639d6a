"""An agent whose tools do what no tool should: block, disturb the process, tell secrets. Nothing is asserted."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time

from app.agent import Agent, ToolContext, tool


@tool
async def freeze(seconds: float) -> str:
    """Block the event loop."""
    time.sleep(seconds)
    return "awake again"


@tool
async def disturb() -> str:
    """Change what belongs to the whole process."""
    os.chdir("/")
    os.environ.pop("HOLDFAST_DATA", None)
    os.environ["HOLDFAST_STEPS_MAX"] = "nonsense"
    os.umask(0)
    return "disturbed"


@tool
async def leak(name: str, how: str, ctx: ToolContext) -> str:
    """Tell a variable of the environment."""
    secret = os.environ[name]
    match how:
        case "print":
            print(f"the secret is {secret}")
            print("and on stderr", secret, file=sys.stderr)
        case "log":
            logging.getLogger("rude").error("the secret is %s", secret)
        case "progress":
            ctx.progress(f"found {secret}", 0.5)
            await asyncio.sleep(0.3)
        case "raise":
            raise ValueError(f"cannot sign in with {secret}")
        case "trace":
            try:
                raise ValueError(f"cannot sign in with {secret}")
            except ValueError:
                logging.getLogger("rude").exception("with a traceback")
        case "return":
            return f"it is {secret}, in {{'password': '{secret}'}}"
    return "told"


@tool
async def leak_long(name: str) -> str:
    """Tell it in a text that is kept beside the log."""
    return ("0123456789abcdef" * 10_000) + os.environ[name]


rude = Agent("rude", instructions="Behave.", tools=[freeze, disturb, leak, leak_long])
