"""The limit of a replay: a bare WebSocket server that sends the same frames; `raw PORT FILE`, run by load.py."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import websockets
from websockets.asyncio.server import ServerConnection


async def main(port: int, frames: list[str]) -> None:
    async def send(connection: ServerConnection) -> None:
        for frame in frames:
            await connection.send(frame)

    async with websockets.serve(send, "127.0.0.1", port, compression=None):
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    os.sched_setaffinity(0, {0})
    asyncio.run(main(int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())))
