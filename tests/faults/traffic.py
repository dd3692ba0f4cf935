"""The load: requests between all nodes, every way, each with a nonce, and streamed bodies beside, at steady rates."""

import asyncio
import random
import uuid
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import httpx
from calls import KINDS, STREAMED, Call, Kind, Told, attempts_of
from streamed import make_streamed_call

SERVER = "server"
# Seconds that a call may take, and that it may wait for an absent peer.
TIMEOUTS = (2.0, 5.0, 10.0)
WAITS = ("0", "20", "20")
# Seconds beyond a call's deadline after which the caller gives up, long after the answer was due.
PATIENCE = 30.0
# Seconds between two looks at the clock; what is missing of them is no fault of the nodes.
TICK = 0.05


class Traffic:
    """Makes calls, and keeps what became of them.

    Args:
        webs: the web servers of all nodes, by name of the node.
        rate: calls a second.
        streams: of those with streamed bodies, beside them.
        chance: decides what is asked of whom.

    Attributes:
        calls: those that are over.
    """

    def __init__(
        self, webs: Mapping[str, httpx.AsyncClient], rate: float, streams: float, chance: random.Random
    ) -> None:
        self.calls: list[Call] = []
        self._webs = webs
        self._clients = [name for name in webs if name != SERVER]
        self._rate = rate
        self._streams = streams
        self._chance = chance
        self._under_way: set[asyncio.Task[None]] = set()
        self._stalls: list[tuple[float, float]] = []

    async def run(self, over: asyncio.Event) -> None:
        """Make calls, whatever becomes of those before, until it is over; return once each has its end."""
        watching = asyncio.create_task(self._watch_the_clock())
        await asyncio.gather(self._make(self._call, self._rate, over), self._make(self._stream, self._streams, over))
        if self._under_way:
            await asyncio.wait(self._under_way)
        watching.cancel()

    async def _make(self, call: Callable[[], Coroutine[Any, Any, None]], rate: float, over: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        begun, made = loop.time(), 0
        while not over.is_set():
            await asyncio.sleep(max(0.0, begun + made / rate - loop.time()))
            made += 1
            task = loop.create_task(call())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    def stalled(self, begun: float, ended: float) -> float:
        """Return the seconds between two moments for which this process could not run."""
        return sum(lag for at, lag in self._stalls if begun <= at <= ended)

    async def _watch_the_clock(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(TICK)
            now = loop.time()
            if now - last > 2 * TICK:
                self._stalls.append((now, now - last - TICK))
            last = now

    def _way(self) -> tuple[str, str, str]:
        """Choose who is asked, who is to answer, and the path there that leads to it."""
        one, other = self._chance.sample(self._clients, 2)
        return self._chance.choice(
            ((SERVER, one, f"/client/{one}"), (one, SERVER, "/server"), (one, other, f"/client/{other}"))
        )

    async def _call(self) -> None:
        chance = self._chance
        asked, serving, prefix = self._way()
        kind = chance.choice(KINDS)
        # Long enough for a fault to come between the ledger and the answer, now and then.
        seconds = chance.choice((0, 0.02, 0.5, 1.0))
        self.calls.append(await make_call(
            self._webs[asked], kind, asked=asked, serving=serving, prefix=prefix, seconds=seconds,
            size=chance.choice(kind.sizes), timeout=chance.choice(TIMEOUTS), wait=chance.choice(WAITS),
        ))  # fmt: skip

    async def _stream(self) -> None:
        chance = self._chance
        asked, serving, prefix = self._way()
        kind = chance.choice(STREAMED)
        size = chance.choice(kind.sizes)
        self.calls.append(await make_streamed_call(
            self._webs[asked], kind, asked=asked, serving=serving, prefix=prefix, size=size,
            seconds=chance.choice((0, 0.5, 3.0)), leave_at=size // 2 if chance.random() < 0.1 else None,
            timeout=chance.choice(TIMEOUTS), wait=chance.choice(WAITS), patience=PATIENCE,
        ))  # fmt: skip


async def make_call(
    web: httpx.AsyncClient,
    kind: Kind,
    *,
    asked: str,
    serving: str,
    prefix: str,
    seconds: float = 0,
    size: int = 0,
    timeout: float = 10.0,  # noqa: ASYNC109 - it is sent
    wait: str = "20",
) -> Call:
    """Make a request, and tell what became of it.

    Args:
        web: calls the web server of the node that is asked.
        kind: of request.
        asked: name of the node that is asked.
        serving: name of the node that is to answer.
        prefix: of the path that leads to it.
        seconds: that the handler takes.
        size: bytes of the body.
        timeout: seconds that all of it may take.
        wait: seconds that it may wait for an absent peer.
    """
    loop = asyncio.get_running_loop()
    nonce = uuid.uuid4().hex
    headers = {"X-Event-Timeout": f"{timeout:g}", "Prefer": f"wait={wait}"}
    if kind.keyed:
        headers["Idempotency-Key"] = nonce
    begun = loop.time()
    facts: dict[str, Any] = {"told": "none"}
    try:
        answer = await web.request(
            kind.verb, f"{prefix}/{kind.noun}//{nonce}/{seconds:g}",
            headers=headers, content=bytes(size) or None, timeout=timeout + PATIENCE,
        )  # fmt: skip
        facts = _told(answer)
    except httpx.TransportError:
        pass
    return Call(
        nonce=nonce, kind=kind, asked=asked, serving=serving, size=size, timeout=timeout,
        begun=begun, ended=loop.time(), **facts,
    )  # fmt: skip


def _told(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    facts: dict[str, Any] = {"status": answer.status_code, "attempts": attempts_of(answer)}
    if answer.status_code == 200:
        told: Told = "done"
        facts |= {"nonce_answered": body["nonce"], "node_answered": body["node"], "size_answered": body["size"]}
    else:
        told = body["executed"]
    return facts | {"told": told}
