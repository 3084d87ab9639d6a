"""Agents inside agents, through the product's public interface alone; their tools write the ledger of agents.py.

Every agent's instructions say who it is, so that the stub knows whose part to play (parts.py). `agents` is all of them.
Nothing is asserted here.
"""

from __future__ import annotations

from app.agent import Agent, ToolContext, tool
from app.agent.tools import Tool

from .agents import (
    _act,
    ask,
    attentive,
    endless,
    endless_stubborn,
    hurry,
    once,
    reserve,
    safe,
    stubborn,
    tick,
    unmarked,
)

# --- the example of source 4: an HR agent and its account agent


@tool
async def send_email(name: str, ctx: ToolContext) -> str:
    """Send a welcome e-mail."""
    return await _act("send_email", name, "", ctx)


@tool
async def create_account(name: str, ctx: ToolContext) -> str:
    """Create an account."""
    return await _act("create_account", name, "", ctx)


@tool(approval=True)
async def authorize_account(name: str, ctx: ToolContext) -> str:
    """Give an account its rights."""
    return await _act("authorize_account", name, "", ctx)


account = Agent("account", "You are account.", tools=[create_account, authorize_account])
hr = Agent("hr", "You are hr.", tools=[send_email, account.as_tool("Creates and authorises accounts")])

# --- one who asks others, several at a time

_work = [once, safe, ask, unmarked, tick, stubborn, attentive, endless, endless_stubborn, reserve, hurry]

worker = Agent("worker", "You are worker.", tools=_work)
stern = Agent("stern_worker", "You are stern_worker.", tools=[reserve, once, hurry], end_on_denial=True)
guarded = Agent("guarded", "You are guarded.", tools=[once, reserve])
lead = Agent(
    "lead",
    "You are lead.",
    tools=[
        *_work,
        worker.as_tool("Works"),
        stern.as_tool("Works, and takes no for an answer"),
        guarded.as_tool("Works once a person has let it begin", approval=True),
    ],
)

# --- nests: nest1 asks worker, nest2 asks nest1, and so on

_nests = [worker]
for _depth in range(1, 11):
    _inner = _nests[-1]
    _nests.append(Agent(f"nest{_depth}", f"You are nest{_depth}.", tools=[once, _inner.as_tool("Goes deeper")]))


# --- equal names at several levels, each with a tool `sign` of its own


def _signing(who: str) -> Tool:
    @tool(name="sign", approval=True)
    async def sign(paper: str, ctx: ToolContext) -> str:
        """Sign a paper."""
        return await _act(f"{who}_sign", paper, "", ctx)

    return sign


clerk = Agent("clerk", "You are clerk.", tools=[_signing("clerk")])
deputy = Agent("deputy", "You are deputy.", tools=[_signing("deputy"), clerk.as_tool("Signs, too")])
chief = Agent("chief", "You are chief.", tools=[_signing("chief"), deputy.as_tool("Signs, too")])

_twin_below = Agent("twin", "You are twin_below.", tools=[_signing("below")])
twin = Agent("twin", "You are twin_above.", tools=[_signing("above"), _twin_below.as_tool("Of the same name")])

# --- a long way: repeatable steps, some of which a person approves, one that is not repeatable, and legs


@tool(approval=True, rerun="safe")
async def stamp(line: str, ctx: ToolContext, seconds: float = 0.0) -> str:
    """Do something that may be repeated, once a person has approved it."""
    return await _act("stamp", line, "", ctx, seconds)


SURVEY_LINES = 16


@tool(rerun="safe")
async def survey(line: str, ctx: ToolContext, seconds: float = 0.0) -> str:
    """Do something that may be repeated, and tell at length what came of it."""
    done = await _act("survey", line, "", ctx, seconds)
    return "\n".join(
        [done, *(f"{line} saw milestone {number} of the long way round" for number in range(SURVEY_LINES))]
    )


leg = Agent("leg", "You are leg.", tools=[safe, stamp])
marathon = Agent("marathon", "You are marathon.", tools=[survey, stamp, once, leg.as_tool("Runs a leg")])

agents = [marathon, hr, account, lead, worker, chief, twin, *(_nests[depth] for depth in (1, 2, 3, 5, 10))]
