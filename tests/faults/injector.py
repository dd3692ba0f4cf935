"""The faults: one at random, every few seconds, from a seed."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nodes_under_test import Nodes
from traffic import SERVER

# Does a fault to a node for so many seconds, and undoes it.
Fault = Callable[[Nodes, str, float], Awaitable[None]]


async def kill(nodes: Nodes, name: str, seconds: float) -> None:
    await nodes.kill(name, seconds / 4)


async def terminate(nodes: Nodes, name: str, seconds: float) -> None:
    await nodes.end(name, seconds / 4)


async def freeze(nodes: Nodes, name: str, seconds: float) -> None:
    await nodes.freeze(name, seconds)


async def reset(nodes: Nodes, name: str, _seconds: float) -> None:
    nodes.proxies[name].reset()


async def reset_often(nodes: Nodes, name: str, seconds: float) -> None:
    for _ in range(round(seconds / 0.2)):
        nodes.proxies[name].reset()
        await asyncio.sleep(0.2)


async def hold(nodes: Nodes, name: str, seconds: float) -> None:
    nodes.proxies[name].hold()
    await asyncio.sleep(seconds)
    nodes.proxies[name].release()


async def delay(nodes: Nodes, name: str, seconds: float) -> None:
    nodes.proxies[name].delay = 0.15
    await asyncio.sleep(seconds)
    nodes.proxies[name].delay = 0.0


async def throttle(nodes: Nodes, name: str, seconds: float) -> None:
    nodes.proxies[name].rate = 100_000
    await asyncio.sleep(seconds)
    nodes.proxies[name].rate = None


async def reset_all(nodes: Nodes, _server: str, _seconds: float) -> None:
    for proxy in nodes.proxies.values():
        proxy.reset()


async def hold_all(nodes: Nodes, _server: str, seconds: float) -> None:
    await asyncio.gather(*(hold(nodes, name, seconds) for name in nodes.clients))


OF_A_CLIENT: dict[str, Fault] = {
    "kill -9": kill,
    "SIGTERM": terminate,
    "SIGSTOP, SIGCONT": freeze,
    "connection reset": reset,
    "a reset every 200 ms": reset_often,
    "nothing passes": hold,
    "150 ms later": delay,
    "100 kB/s": throttle,
}
OF_THE_SERVER: dict[str, Fault] = {
    "kill -9": kill,
    "SIGTERM": terminate,
    "SIGSTOP, SIGCONT": freeze,
    "all connections reset": reset_all,
    "nothing passes, to anyone": hold_all,
}


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that was done: when, since the beginning, to whom, what, and for how long; times in seconds."""

    at: float
    node: str
    fault: str
    seconds: float


class Injector:
    """Does faults to nodes that nothing else is being done to.

    Args:
        nodes: to be hurt.
        interval: seconds from one fault to the next.
        longest: seconds that one may last.
        chance: decides.

    Attributes:
        injected: the faults so far.
    """

    def __init__(self, nodes: Nodes, interval: float, longest: float, chance: random.Random) -> None:
        self.injected: list[Injected] = []
        self._nodes = nodes
        self._interval = interval
        self._longest = longest
        self._chance = chance
        self._hurt: dict[str, asyncio.Task[None]] = {}

    async def run(self, seconds: float) -> None:
        """Do a fault at every interval for so long; return when all are undone."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while loop.time() - begun < seconds:
            self._inject(loop.time() - begun)
            await asyncio.sleep(self._interval)
        await asyncio.gather(*self._hurt.values())

    def _inject(self, at: float) -> None:
        # Chosen before it is known who is free: the same seed gives the same faults, whatever the machine's mood.
        of_server = self._chance.random() < 0.3
        node = SERVER if of_server else self._chance.choice(self._nodes.clients)
        faults = OF_THE_SERVER if of_server else OF_A_CLIENT
        name = self._chance.choice(list(faults))
        seconds = self._chance.uniform(0.2, self._longest)
        before = self._hurt.get(node)

        async def hurt() -> None:
            if before is not None:
                await before
            await faults[name](self._nodes, node, seconds)

        self._hurt[node] = asyncio.create_task(hurt())
        self.injected.append(Injected(at, node, name, seconds))
