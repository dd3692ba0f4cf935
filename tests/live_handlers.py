"""Event handlers that tests steer and watch."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import date
from enum import Enum
from typing import Any

from pydantic import BaseModel

from restpipe import ClientEventHandler, EventContext, Reply, ServerEventHandler, at_most_once
from restpipe.handlers.payload import PostData


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    """A place in the plane."""

    x: int
    y: int = 0


class Line(BaseModel):
    """From one point to another: a schema with definitions."""

    begin: Point
    end: Point


class Events:
    """The same events on both sides.

    Attributes:
        runs: how often each event began.
        entered: set once an event waits.
        release: lets events that wait finish.
        cancelled: set once an event that waited was cancelled.
        remaining: seconds that the last event that waited had.
    """

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.remaining = 0.0

    async def _wait(self, ctx: EventContext) -> dict[str, str]:
        self.runs[f"{ctx.verb} {ctx.noun}"] += 1
        self.remaining = ctx.remaining
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return {"waited": ctx.verb}

    async def get_value(self, _ctx: EventContext, _post_data: PostData) -> dict[str, int]:
        """Return a value.

        The same each time.
        """
        return {"value": 1}

    async def get_code(self, _ctx: EventContext, _post_data: PostData) -> tuple[str, int, str]:
        return "text/plain", 7, "seven"

    async def get_nothing(self, _ctx: EventContext, _post_data: PostData) -> None:
        return None

    async def get_reply(self, _ctx: EventContext, _post_data: PostData, status: int = 201) -> Reply:
        return Reply(None if status == 204 else {"made": True}, status=status, code=3, headers={"X-Made": "yes"})

    async def get_raise(self, _ctx: EventContext, _post_data: PostData) -> None:
        raise LookupError("there is none")

    async def get_unusable(self, _ctx: EventContext, _post_data: PostData) -> object:
        return object()

    async def get_cat(self, _ctx: EventContext, _post_data: PostData, *texts: str) -> list[str]:
        return list(texts)

    async def get_typed(
        self,
        _ctx: EventContext,
        _post_data: PostData,
        number: int,
        day: date = date(2000, 1, 1),
        colour: Colour = Colour.RED,
        line: Line | None = None,
    ) -> dict[str, Any]:
        """Show what typed arguments became."""
        return {"number": number, "day": day, "colour": colour, "line": line}

    async def get_caller(self, ctx: EventContext, _post_data: PostData) -> dict[str, Any]:
        return {"caller": ctx.caller, "headers": dict(ctx.headers)}

    async def get_pieces(self, _ctx: EventContext, _post_data: PostData, count: int = 3) -> AsyncIterator[bytes]:
        """Stream pieces."""
        for i in range(count):
            yield b"%d " % i

    async def get_endless(self, _ctx: EventContext, _post_data: PostData) -> AsyncIterator[bytes]:
        self.entered.set()
        try:
            while True:
                yield bytes(1024)
                await asyncio.sleep(0)
        finally:
            self.cancelled.set()

    async def get_broken(self, ctx: EventContext, post_data: PostData) -> AsyncIterator[bytes]:
        yield b"a beginning"
        await self.release.wait()
        raise RuntimeError("in the midst of the body")

    async def post_echo(self, _ctx: EventContext, post_data: PostData) -> tuple[str, int, Any]:
        mime_type, data = post_data
        self.runs["post echo"] += 1
        return mime_type or "application/octet-stream", 0, data or b""

    async def post_point(self, _ctx: EventContext, point: Point) -> Point:
        return point

    async def get_wait(self, ctx: EventContext, _post_data: PostData) -> dict[str, str]:
        return await self._wait(ctx)

    async def put_wait(self, ctx: EventContext, _post_data: PostData) -> dict[str, str]:
        return await self._wait(ctx)

    async def delete_wait(self, ctx: EventContext, _post_data: PostData) -> dict[str, str]:
        return await self._wait(ctx)

    async def post_wait(self, ctx: EventContext, _post_data: PostData) -> dict[str, str]:
        return await self._wait(ctx)

    async def patch_wait(self, ctx: EventContext, _post_data: PostData) -> dict[str, str]:
        return await self._wait(ctx)

    @at_most_once
    async def get_once(self, ctx: EventContext, _post_data: PostData) -> dict[str, str]:
        return await self._wait(ctx)

    @at_most_once
    async def put_once_more(self, ctx: EventContext, _post_data: PostData) -> dict[str, str]:
        return await self._wait(ctx)


class ServerEvents(Events, ServerEventHandler):
    """Of a server node."""

    def __init__(self) -> None:
        super().__init__()
        self.hooks: list[tuple[str, str]] = []

    def start_hook(self, ctx: Any) -> None:
        self.hooks.append(("start", ctx.caller))

    def stop_hook(self, ctx: Any) -> None:
        self.hooks.append(("stop", ctx.caller))


class ClientEvents(Events, ClientEventHandler):
    """Of a client node."""


class Told:
    """Keeps what a node tells of its connections, and wakes who waits for it."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self._changed = asyncio.Condition()

    async def _note(self, *event: Any) -> None:
        async with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    async def until(self, name: str, times: int = 1) -> list[tuple[Any, ...]]:
        """Wait until an event was told so often; return all of that name."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: sum(event[0] == name for event in self.events) >= times)
        return [event for event in self.events if event[0] == name]

    async def connect_success(self, *arguments: Any) -> None:
        await self._note("connect_success", *arguments)

    async def connect_fail(self, *arguments: Any) -> None:
        await self._note("connect_fail", *arguments)

    async def connection_added(self, *arguments: Any) -> None:
        await self._note("connection_added", *arguments)

    async def connection_removed(self, *arguments: Any) -> None:
        await self._note("connection_removed", *arguments)

    async def idle(self, *arguments: Any) -> None:
        await self._note("idle", *arguments)
