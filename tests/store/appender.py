"""A process that appends until it is killed: each line that it prints names what is durable (see test_kill.py).

python -m tests.store.appender DIRECTORY
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from app.store.event_log import Append
from app.store.log_sqlite import SqliteLog
from app.store.sqlite import Database
from tests.store.builders import make, row

CONVERSATIONS = 8


async def follow(log: SqliteLog, name: str) -> None:
    """Two rows of pieces, then the row that supersedes them, for ever."""
    try:
        head = await log.head(name)
    except KeyError:
        await make(log, name)
        head = await log.head(name)
    after, epoch = head.head, head.epoch + 1
    await log.append(Append(name, after, epoch, (row([after + 1]),)))
    acknowledge(name, after + 1, lasting=True)
    after += 1
    while True:
        owner = str(after)
        for _ in range(2):
            await log.append(Append(name, after, epoch, (row([after + 1, after + 2], owner=owner),)))
            after += 2
            acknowledge(name, after, lasting=False)
        await log.append(Append(name, after, epoch, (row([after + 1]),), superseded=(owner,)))
        after += 1
        acknowledge(name, after, lasting=True)


def acknowledge(name: str, seq: int, *, lasting: bool) -> None:
    print(name, seq, int(lasting), flush=True)


async def main(directory: Path) -> None:
    database = await Database.open(directory)
    log = SqliteLog(database)
    await log.start()
    async with asyncio.TaskGroup() as tasks:
        for number in range(CONVERSATIONS):
            tasks.create_task(follow(log, f"c{number}"))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
