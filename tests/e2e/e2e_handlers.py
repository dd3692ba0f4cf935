"""Event handlers that the nodes of the end-to-end tests are given. They are copied to where a node is started."""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

from restpipe import (
    ClientConnectionStateEvents,
    EventContext,
    HostnameResolver,
    PeerContext,
    Reply,
    ServerConnectionStateEvents,
    ServerEventHandler,
    at_most_once,
)

PostData = tuple[str, Any]


def tell(text: str) -> None:
    """Write a line to the node's output, where tests wait for it."""
    print(f"{text}\n", end="", flush=True)  # in one write: those of two threads never share a line


def note(nonce: str) -> None:
    """Write a line to the ledger, which processes share."""
    with Path("ledger").open("a") as ledger:
        ledger.write(f"{nonce}\n")


class Handler(ServerEventHandler):
    """Serves on either node, and tells of what the tests wait for."""

    def __init__(self) -> None:
        self._gates: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._thread_gates: dict[str, threading.Event] = defaultdict(threading.Event)

    def start_hook(self, ctx: PeerContext) -> None:
        tell(f"start_hook {ctx.caller} {ctx.peer.address}")

    async def stop_hook(self, ctx: PeerContext) -> None:
        tell(f"stop_hook {ctx.caller} {ctx.peer.address}")

    # Arguments

    def get_sum(self, ctx: EventContext, post_data: PostData, x: int, y: int = 0) -> dict[str, int]:
        """Add two numbers."""
        return {"sum": x + y}

    async def get_weekday(self, ctx: EventContext, post_data: PostData, day: date) -> str:
        return day.strftime("%A")

    async def get_deep_noun(self, ctx: EventContext, post_data: PostData, *parts: str) -> list[str]:
        return list(parts)

    # Results

    def get_data(self, ctx: EventContext, post_data: PostData) -> dict[str, list[int]]:
        return {"data": [1, 2]}

    def get_nothing(self, ctx: EventContext, post_data: PostData) -> None:
        return None

    def get_triple(self, ctx: EventContext, post_data: PostData) -> tuple[str, int, str]:
        return "text/plain", 7, "seven, süß"

    def get_empty_triple(self, ctx: EventContext, post_data: PostData) -> tuple[str, int, None]:
        return "text/plain", 9, None

    def get_bytes(self, ctx: EventContext, post_data: PostData) -> bytes:
        return bytes(range(256))

    def get_reply(self, ctx: EventContext, post_data: PostData) -> Reply:
        return Reply({"made": True}, code=3, status=201, headers={"Location": "/made/1"})

    def post_echo(self, ctx: EventContext, post_data: PostData) -> tuple[str, int, Any]:
        mime_type, data = post_data
        return mime_type, 0, data

    async def get_lines(self, ctx: EventContext, post_data: PostData, gate: str) -> AsyncIterator[str]:
        yield "first\n"
        await self._gates[gate].wait()
        yield "last\n"

    def get_steps(self, ctx: EventContext, post_data: PostData, gate: str) -> Iterator[str]:
        yield "first\n"
        self._thread_gates[gate].wait()
        yield "last\n"

    async def get_broken_lines(self, ctx: EventContext, post_data: PostData, gate: str) -> AsyncIterator[str]:
        yield "first\n"
        await self._gates[gate].wait()
        raise RuntimeError("no more lines")

    async def get_events(self, ctx: EventContext, post_data: PostData, gate: str) -> Reply:
        return Reply(self._events(gate), mime_type="text/event-stream")

    async def _events(self, gate: str) -> AsyncIterator[str]:
        yield "data: 1\n\n"
        await self._wait("get_events", gate)

    async def post_ledger(self, ctx: EventContext, post_data: PostData, nonce: str) -> str:
        """Note a nonce, take a moment, and answer with it."""
        note(nonce)
        await asyncio.sleep(0.05)
        return nonce

    # The other side

    async def get_whoami(self, ctx: EventContext, post_data: PostData) -> dict[str, str]:
        return {"caller": ctx.caller, "address": ctx.peer.address}

    async def get_ask_back(self, ctx: EventContext, post_data: PostData) -> Any:
        return (await ctx.call("get", "whoami")).data

    def get_ask_back_sync(self, ctx: EventContext, post_data: PostData) -> Any:
        return ctx.call_sync("get", "sum", 20, y=22).data

    # Failures

    def get_boom(self, ctx: EventContext, post_data: PostData) -> None:
        raise ValueError("it went boom, süß")

    # Time

    async def post_gate(self, ctx: EventContext, post_data: PostData, gate: str) -> None:
        """Let those go on that wait at a gate."""
        self._gates[gate].set()
        self._thread_gates[gate].set()

    async def get_wait(self, ctx: EventContext, post_data: PostData, gate: str) -> str:
        return await self._wait("get_wait", gate)

    async def post_wait(self, ctx: EventContext, post_data: PostData, gate: str) -> str:
        return await self._wait("post_wait", gate)

    @at_most_once
    async def get_once(self, ctx: EventContext, post_data: PostData, gate: str) -> str:
        return await self._wait("get_once", gate)

    async def _wait(self, name: str, gate: str) -> str:
        tell(f"{name} begins")
        try:
            await self._gates[gate].wait()
        except asyncio.CancelledError:
            tell(f"{name} is cancelled")
            raise
        return "waited"

    def get_fifo(self, ctx: EventContext, post_data: PostData) -> str:
        """Wait until somebody writes to a named pipe: a way in that needs no node."""
        return Path("fifo").read_text()

    def get_nap(self, ctx: EventContext, post_data: PostData, seconds: float) -> str:
        """Keep a thread."""
        time.sleep(seconds)
        return "rested"

    def get_busy(self, ctx: EventContext, post_data: PostData, seconds: float) -> str:
        """Keep a thread busy, and the interpreter's lock with it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return "busy"

    async def get_block(self, ctx: EventContext, post_data: PostData, seconds: float) -> str:
        """Block the event loop, as no handler should."""
        time.sleep(seconds)  # noqa: ASYNC251 - that is the fault
        return "blocked"


class Alpha(Handler):
    async def get_name(self, ctx: EventContext, post_data: PostData) -> str:
        return "alpha"


class Beta(Handler):
    async def get_name(self, ctx: EventContext, post_data: PostData) -> str:
        return "beta"


class OnClient(ClientConnectionStateEvents):
    """Tells what a client is told of its connection."""

    def connect_success(self, retry_attempts: int, last_disconnected_dt: datetime | None) -> None:
        tell(f"connect_success {retry_attempts} {last_disconnected_dt}")

    async def connect_fail(self, retry_attempts: int, last_disconnected_dt: datetime | None) -> None:
        tell(f"connect_fail {retry_attempts} {last_disconnected_dt}")


class OnClientOfOld:
    """The same under the names of RestPipe 0.2's README, and no base class."""

    def connection_success(self, retry_attempts: int, last_disconnected_dt: datetime | None) -> None:
        tell(f"connection_success {retry_attempts} {last_disconnected_dt}")

    def connection_fail(self, retry_attempts: int, last_disconnected_dt: datetime | None) -> None:
        tell(f"connection_fail {retry_attempts} {last_disconnected_dt}")


class OnServer(ServerConnectionStateEvents):
    """Tells what a server is told of its connections."""

    def connection_added(self, ip: str, new_count: int) -> None:
        tell(f"connection_added {ip} {new_count}")

    def connection_removed(self, ip: str, new_count: int) -> None:
        tell(f"connection_removed {ip} {new_count}")


class Resolver(HostnameResolver):
    """Knows one host name."""

    def resolve(self, hostname: str) -> str | list[str]:
        return "127.0.0.1" if hostname == "files.example.com" else []
