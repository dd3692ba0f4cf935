"""Nodes that are joined in memory: all of them, but for the network and the certificates."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from restpipe.config import ClientSettings, ServerSettings
from restpipe.embed import nodes
from restpipe.exceptions import ConnectError
from restpipe.identity import Custody, Identity, News
from restpipe.identity.names import EVERYONE
from restpipe.identity.revocation import NOTHING_REVOKED
from restpipe.nodes import client, server
from restpipe.testing.links import Accept, Link, LinkedCarrier
from restpipe.transport.carrier import Peer

SERVER_ADDRESS = "192.0.2.1"
# What a node of a test is told unless the test tells it otherwise: to fail soon, and to be back at once.
TEST_SETTINGS: dict[str, Any] = {
    "connection_wait_timeout_s": 5.0,
    "drain_timeout_s": 1.0,
    "request_timeout_s": 10.0,
    "statsd_host": "",
}
CLIENT_TEST_SETTINGS: dict[str, Any] = {"reconnect_min_s": 0.001, "reconnect_max_s": 0.01}


class _Alone:
    """Settings without the variables of the machine that the tests run on."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


class _ServerSettings(_Alone, ServerSettings):
    """Those of a server node."""


class _ClientSettings(_Alone, ClientSettings):
    """Those of a client node."""


class _NamedIdentity(Identity):
    """A name without a certificate."""

    @property
    def ca_not_after(self) -> datetime:
        return self.not_after


class _NamedCustody(Custody):
    """A name without files."""

    def __init__(self, name: str) -> None:
        now = datetime.now(UTC)
        self.identity = _NamedIdentity(name, b"", b"", b"", now, now + timedelta(days=3650), ())
        self.revocations = NOTHING_REVOKED
        self.faults = ()

    def look(self) -> News | None:
        return None

    def examine(self) -> News:
        return News(identity=False, revocations=False, faults=())


class _Listener:
    """Accepts the connections of links."""

    def __init__(self, accept: Accept) -> None:
        self.fault_of: Callable[[Peer], str | None] = lambda _: None
        self.allowed = EVERYONE
        self._accept = accept
        self._listens = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, _host: str, _port: int) -> int:
        self._listens = True
        return 1

    def replace(self, identity: Identity) -> None:
        raise NotImplementedError("in memory there are no certificates to be replaced")

    def connect(self, carrier: LinkedCarrier) -> None:
        """Accept a connection.

        Raises:
            ConnectError: the server does not run, or does not let clients of that name in.
        """
        if not self._listens:
            raise ConnectError("the server does not run")
        if not self.allowed.include(carrier.peer.name):
            raise ConnectError(f"the server does not let {carrier.peer.name} in")
        task = asyncio.get_running_loop().create_task(self._run(carrier), name=f"connection of {carrier.peer.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, carrier: LinkedCarrier) -> None:
        await self._accept(carrier)

    async def drain(self) -> None:
        self._listens = False

    async def stop(self, grace: float) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)


class _MemoryServer(server.ServerNode):
    def _take_custody(self) -> Custody:
        return _NamedCustody("server")

    def _make_listener(self) -> _Listener:
        self.door = _Listener(self._accept)
        return self.door


class _MemoryClient(client.ClientNode):
    def __init__(self, embedded: "ClientNode", handler: object | None, application: Any) -> None:
        self._embedded = embedded
        super().__init__(embedded.settings, handler, application)

    def _take_custody(self) -> Custody:
        return _NamedCustody(self._embedded.own_name)

    async def _dial(self) -> LinkedCarrier:
        embedded = self._embedded
        return embedded.link.connect(
            Peer(embedded.own_name, embedded.address), Peer("server", SERVER_ADDRESS), embedded.to.accept
        )


class ServerNode(nodes.ServerNode):
    """A server node that accepts what comes by links."""

    _settings_class = _ServerSettings

    def __init__(self, **settings: Any) -> None:
        super().__init__(**TEST_SETTINGS | settings)

    def _make(self) -> _MemoryServer:
        return _MemoryServer(self.settings, self._handler, self._application)

    def accept(self, carrier: LinkedCarrier) -> None:
        """Accept a connection.

        Raises:
            ConnectError: it does not run, or does not let that client in.
        """
        node = self._node
        if not isinstance(node, _MemoryServer):
            raise ConnectError("the server does not run")
        node.door.connect(carrier)


class ClientNode(nodes.ClientNode):
    """A client node that is joined to a server by a link.

    Attributes:
        link: to the server.
        to: the server.
        own_name: its name.
        address: its address, as the server sees it.
    """

    _settings_class = _ClientSettings

    def __init__(self, to: ServerNode, name: str, address: str, **settings: Any) -> None:
        super().__init__(**TEST_SETTINGS | CLIENT_TEST_SETTINGS | settings)
        self.to = to
        self.link = Link()
        self.own_name = name
        self.address = address

    def _make(self) -> _MemoryClient:
        return _MemoryClient(self, self._handler, self._application)
