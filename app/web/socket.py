"""The WebSocket: `/ws/{conversation}` follows a conversation and takes commands, `/ws` follows the list.

Two tasks per socket, one that listens and one that follows; they end together and nobody else notices. The actor never
awaits a socket: a peer that does not read within the limit is aborted and comes back with its cursor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.websockets import WebSocket, WebSocketDisconnect

from app.actor.listing import Watcher, item_json
from app.core.commands import ClientCommand, FromClient
from app.core.errors import Corrupt, Rejected
from app.store.event_log import Item, Unavailable
from app.web.access import Principal, authorize, principal_of
from app.web.answers import parse_integer, refused, unavailable
from app.web.context import House
from app.web.follow import Follower, bounded
from app.web.protocols import ABORT
from app.wire import close_codes
from app.wire.frames import (
    accepted_frame,
    conversation_deleted_frame,
    conversation_frame,
    draining_frame,
    heartbeat_frame,
    rejected_frame,
)
from app.wire.inbound import Close, Ear, Ping, Refused

RETRY_AFTER_MS = 1_000
"""What `draining` tells a reader: about the time of a restart."""

LIST_MAX = 100


class Socket:
    """One accepted WebSocket with bounded sends."""

    def __init__(self, websocket: WebSocket, house: House) -> None:
        self.websocket = websocket
        self._house = house
        self._abort: Callable[[], None] = websocket.scope["state"].get(ABORT, lambda: None)
        self._ear = Ear(house.limits, time.monotonic())

    async def send(self, frame: str) -> None:
        await bounded(self.websocket.send_text(frame), self._house.send_seconds, self._abort)

    async def close(self, code: int) -> None:
        await bounded(self.websocket.close(code), self._house.send_seconds, self._abort)

    async def listen(
        self, on_command: Callable[[FromClient], Awaitable[None]], on_ping: Callable[[], Awaitable[None]]
    ) -> int:
        """Hears frames one after the other until a close code comes of one."""
        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1006))
            match self._ear.hear(message.get("text"), time.monotonic()):
                case Close(code):
                    return code
                case Ping():
                    await on_ping()
                case Refused(id, refusal):
                    await self.send(rejected_frame(id, refusal))
                case ClientCommand() as command:
                    await on_command(command)


async def conversation_socket(websocket: WebSocket) -> None:
    """`GET /ws/{conversation}?after=N&log=L`."""
    house: House = websocket.app.state.house
    try:
        after = parse_integer("after", websocket.query_params.get("after", "0"))
    except Rejected as refusal:
        await websocket.send_denial_response(refused(refusal))
        return
    await _serve(websocket, house, lambda socket: _converse(socket, house, after))


async def list_socket(websocket: WebSocket) -> None:
    """`GET /ws`: the live list."""
    house: House = websocket.app.state.house
    await _serve(websocket, house, lambda socket: _watch(socket, house))


async def _serve(websocket: WebSocket, house: House, work: Callable[[Socket], Awaitable[int]]) -> None:
    """Accepts, works, closes; whatever ends the socket ends here and touches nobody."""
    await websocket.accept()
    socket = Socket(websocket, house)
    try:
        viewer = principal_of(websocket.scope).id
    except Rejected:
        await socket.close(close_codes.NOT_SIGNED_IN)
        return
    house.sockets[viewer] = house.sockets.get(viewer, 0) + 1
    try:
        crowded = house.sockets[viewer] > house.limits.sockets
        house.refused["viewer"] += crowded
        code = close_codes.TOO_MANY_FRAMES if crowded else await _code(work(socket))
        await socket.close(code)
    except (WebSocketDisconnect, TimeoutError, RuntimeError):
        return  # gone, or aborted; starlette says RuntimeError for a send after the end
    finally:
        house.sockets[viewer] -= 1


async def _code(work: Awaitable[int]) -> int:
    """The close code of a socket's work, also of a refusal."""
    try:
        return await work
    except Rejected as refusal:
        return close_codes.NO_ACCESS if refusal.code == "forbidden" else close_codes.NO_SUCH_CONVERSATION
    except Unavailable:
        return close_codes.OVERLOADED
    except Corrupt:
        return close_codes.DAMAGED


async def _converse(socket: Socket, house: House, after: int) -> int:
    conversation = socket.websocket.path_params["conversation"]
    viewer = principal_of(socket.websocket.scope)
    try:
        item, _ = await house.log.item(conversation)
        authorize(viewer, "read", item.owner)
        if (await house.log.head(conversation)).deleted:
            return close_codes.DELETED
        follower = house.follower()
        follow = follower.run(conversation, viewer, after, socket.websocket.query_params.get("log"), socket.send)

        async def hear() -> int:
            await follower.attached.wait()
            return await socket.listen(
                lambda command: _command(socket, house, follower, item, viewer, command),
                lambda: follower.pong(socket.send),
            )

        return await _first(follow, hear(), _drained(socket, house, follower.attached))
    except KeyError:
        return close_codes.NO_SUCH_CONVERSATION


async def _command(
    socket: Socket, house: House, follower: Follower, item: Item, viewer: Principal, command: FromClient
) -> None:
    try:
        authorize(viewer, "command", item.owner)
        decision = await house.directory.submit(item.conversation, command, viewer.id)
        await socket.send(accepted_frame(command.id, decision.seq, decision.duplicate))
    except Rejected as refusal:
        await socket.send(rejected_frame(command.id, refusal))
    except Unavailable:
        await socket.send(rejected_frame(command.id, unavailable(house.leaving.is_set())))
    follower.sent()


async def _drained(socket: Socket, house: House, attached: asyncio.Event | None = None) -> int:
    """Tells a reader that the server goes down on purpose; the following ends by itself when the actor has."""
    await house.leaving.wait()
    if attached is not None:
        await attached.wait()
    await socket.send(draining_frame(RETRY_AFTER_MS))
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


async def _watch(socket: Socket, house: House) -> int:
    principal = principal_of(socket.websocket.scope)
    authorize(principal, "list", None)
    watcher = Watcher(principal.id)
    house.directory.listing.join(watcher)

    async def refuse(command: FromClient) -> None:
        refusal = Rejected("bad_command", "The list takes no commands; connect to a conversation.")
        await socket.send(rejected_frame(command.id, refusal))

    async def beat() -> None:
        await socket.send(heartbeat_frame(0, house.clock()))

    try:
        return await _first(_tell(socket, house, watcher), socket.listen(refuse, beat), _drained(socket, house))
    finally:
        house.directory.listing.leave(watcher)


async def _tell(socket: Socket, house: House, watcher: Watcher) -> int:
    items = await house.log.items(watcher.owner, limit=LIST_MAX)
    for item, head in items:
        await socket.send(conversation_frame(item_json(item, head)))
    await socket.send('{"type":"live"}')
    while True:
        try:
            async with asyncio.timeout(house.limits.heartbeat_seconds):
                await watcher.changed.wait()
        except TimeoutError:
            await socket.send(heartbeat_frame(0, house.clock()))
        if watcher.closed is not None:
            return watcher.closed
        for conversation, changed in watcher.take().items():
            if changed is None:
                await socket.send(conversation_deleted_frame(conversation))
            else:
                await socket.send(conversation_frame(changed))


async def _first(*works: Awaitable[int]) -> int:
    """The result of whatever ends first; the others are cancelled and waited for."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
