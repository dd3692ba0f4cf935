"""A server and its clients as real processes, each client behind a proxy of its own, that can be hurt and healed."""

import asyncio
import signal
from pathlib import Path
from types import TracebackType

import httpx
from e2e_processes import Node, Site
from ledger import Ledger, copy_handlers
from tcp_proxy import Proxy
from traffic import SERVER


class Nodes:
    """All nodes of a run, by name. Their web servers listen on sockets that outlive them.

    Args:
        directory: empty; its path is short, for sockets are in it.
        clients: how many.
        settings: of every node.

    Attributes:
        proxies: between the server and each client, by the client's name.
        webs: callers of the nodes' web servers, by name.
    """

    def __init__(self, directory: Path, clients: int, **settings: str) -> None:
        self.ledger = Ledger(directory / "ledger")
        self.clients = [f"c{number:02}" for number in range(clients)]
        self.names = [SERVER, *self.clients]
        copy_handlers(directory)
        self._site = Site(directory, RP_METRICS="1", RP_HANDLER_THREADS="8", **settings)
        self._running: dict[str, Node] = {}
        # When which node was unable to answer its callers: from, to.
        self._disturbances: list[tuple[str, float, float]] = []
        self.proxies = {name: Proxy(0) for name in self.clients}
        self.webs = {name: self._caller_of(name) for name in self.names}

    async def __aenter__(self) -> "Nodes":
        try:
            for name in self.clients:
                self._site.identity("client", name)
                await self.proxies[name].start()
            await self.start(SERVER)
            # All at once, and each to its end: none is left behind where another fails.
            for failed in await asyncio.gather(*map(self.start, self.clients), return_exceptions=True):
                if failed is not None:
                    raise failed
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for web in self.webs.values():
            await web.aclose()
        try:
            await asyncio.to_thread(self._site.__exit__, kind, error, traceback)
        finally:
            for proxy in self.proxies.values():
                await proxy.stop()

    def pid(self, name: str) -> int:
        return self._running[name].pid

    def disturbed(self, node: str, begun: float, ended: float) -> bool:
        """Whether a node was killed or stood still at any time between two moments."""
        return any(name == node and since < ended and begun < until for name, since, until in self._disturbances)

    async def start(self, name: str) -> None:
        """Start a node, and wait until it is there; for its connection only where it is the first of a client's."""
        settings = self.ledger.settings_of(name)
        web = f"unix:{self._socket(name)}"
        if name == SERVER:
            settings |= {"RP_SERVER_WEB_BIND": web, "RP_RELAY": "*>*"}
            node = await asyncio.to_thread(lambda: self._site.server(port=0, **settings))
            for proxy in self.proxies.values():
                proxy.target = node.pipe_port
        else:
            node = await asyncio.to_thread(
                self._site.client, self.proxies[name].port,
                name=name, connected=name not in self._running, RP_CLIENT_WEB_BIND=web, **settings,
            )  # fmt: skip
        self._running[name] = node

    async def kill(self, name: str, pause: float) -> None:
        """Kill a node, and start it anew after a while."""
        since = asyncio.get_running_loop().time()
        await asyncio.to_thread(self._running[name].kill)
        await self._start_after(name, since, pause)

    async def end(self, name: str, pause: float) -> None:
        """Have a node stop as a service manager does, and start it anew after a while."""
        since = asyncio.get_running_loop().time()
        await asyncio.to_thread(self._running[name].end)
        await self._start_after(name, since, pause)

    async def freeze(self, name: str, seconds: float) -> None:
        """Let a node stand still for a while."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        self._running[name].send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._running[name].send(signal.SIGCONT)
        # What it was sent meanwhile is answered soon, but not at once.
        self._disturbances.append((name, since, loop.time() + 1.0))

    async def _start_after(self, name: str, since: float, pause: float) -> None:
        await asyncio.sleep(pause)
        await self.start(name)
        self._disturbances.append((name, since, asyncio.get_running_loop().time()))

    def _socket(self, name: str) -> Path:
        return self._site.directory / f"{name}.sock"

    def _caller_of(self, name: str) -> httpx.AsyncClient:
        # A connection for each request: what a node holds for its callers is theirs alone, and gone with them.
        limits = httpx.Limits(max_keepalive_connections=0)
        transport = httpx.AsyncHTTPTransport(uds=str(self._socket(name)), limits=limits)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60)
