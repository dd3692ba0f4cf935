"""The load: requests between all nodes, every way, each with a nonce, and streamed bodies beside, at steady rates."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import httpx
from calls import KINDS, STREAMED, Ask, Call, Kind, Told, attempts_of
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

    def _ask(self, kinds: Sequence[Kind]) -> Ask:
        """Choose what is asked, who is asked, who is to answer, and the path there that leads to it."""
        chance = self._chance
        one, other = chance.sample(self._clients, 2)
        asked, serving, prefix = chance.choice(
            ((SERVER, one, f"/client/{one}"), (one, SERVER, "/server"), (one, other, f"/client/{other}"))
        )
        kind = chance.choice(kinds)
        return Ask(
            kind, asked, serving, prefix,
            size=chance.choice(kind.sizes), timeout=chance.choice(TIMEOUTS), wait=chance.choice(WAITS),
        )  # fmt: skip

    async def _call(self) -> None:
        ask = self._ask(KINDS)
        # Long enough for a fault to come between the ledger and the answer, now and then.
        seconds = self._chance.choice((0, 0.02, 0.5, 1.0))
        self.calls.append(await make_call(self._webs[ask.asked], ask, seconds))

    async def _stream(self) -> None:
        ask = self._ask(STREAMED)
        seconds = self._chance.choice((0, 0.5, 3.0))
        leave_at = ask.size // 2 if self._chance.random() < 0.1 else None
        web = self._webs[ask.asked]
        self.calls.append(await make_streamed_call(web, ask, seconds=seconds, leave_at=leave_at, patience=PATIENCE))


async def make_call(web: httpx.AsyncClient, ask: Ask, seconds: float) -> Call:
    """Make a request, and tell what became of it.

    Args:
        web: calls the web server of the node that is asked.
        ask: what is asked.
        seconds: that the handler takes.
    """
    now = asyncio.get_running_loop().time
    begun = now()
    facts: dict[str, Any] = {"told": "none"}
    try:
        answer = await web.request(
            ask.kind.verb, f"{ask.path}/{seconds:g}",
            headers=ask.headers, content=bytes(ask.size) or None, timeout=ask.timeout + PATIENCE,
        )  # fmt: skip
        facts = _told(answer)
    except httpx.TransportError:
        pass
    return ask.over(begun, now(), **facts)


def _told(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    facts: dict[str, Any] = {"status": answer.status_code, "attempts": attempts_of(answer)}
    if answer.status_code == 200:
        told: Told = "done"
        facts |= {"nonce_answered": body["nonce"], "node_answered": body["node"], "size_answered": body["size"]}
    else:
        told = body["executed"]
    return facts | {"told": told}
