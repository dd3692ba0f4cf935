"""Which clients are connected, by name and by address."""

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Iterator
from typing import Any

from restpipe.exceptions import PeerAbsentError, PeerAmbiguousError, PeerUnknownError
from restpipe.nodes.resolver import CachedResolver
from restpipe.pipe import Pipe

# Addresses of this machine to itself. A client that dials "localhost" may come from either.
_LOOPBACK = frozenset({"127.0.0.1", "::1"})
# Seconds that resolving a name may take, even for who does not wait for clients.
RESOLVE_TIME = 1.0


class Registry:
    """The live pipes of a server node: one for each certificate name.

    Args:
        resolver: for host names.
        grace: seconds after the start for which a name that nobody has borne yet is waited for like a known one: the
            clients of a server that was restarted are on their way.

    Attributes:
        expected: names that the node's settings have: their clients are known before they come for the first time.
        closed: the node is stopping.
    """

    def __init__(self, resolver: CachedResolver, grace: float) -> None:
        self._resolver = resolver
        self._loop = asyncio.get_running_loop()
        self._grace_ends = self._loop.time() + grace
        self._pipes: dict[str, Pipe] = {}
        self._known: set[str] = set()
        self.expected: frozenset[str] = frozenset()
        self._added: asyncio.Future[None] = self._loop.create_future()
        self.closed = False

    def __len__(self) -> int:
        return len(self._pipes)

    def __iter__(self) -> Iterator[Pipe]:
        return iter(list(self._pipes.values()))

    def add(self, pipe: Pipe) -> Pipe | None:
        """Make a pipe the one of its name; return the one that it replaces."""
        name = pipe.peer.name
        replaced = self._pipes.get(name)
        self._pipes[name] = pipe
        self._known.add(name)
        self._wake()
        return replaced

    def remove(self, pipe: Pipe) -> bool:
        """Forget a pipe, unless another took its place; say whether it was there."""
        if self._pipes.get(pipe.peer.name) is not pipe:
            return False
        del self._pipes[pipe.peer.name]
        return True

    def knows(self, name: str) -> bool:
        """Whether a client of this name is, was, or should be connected."""
        return name in self._known or name in self.expected

    def close(self) -> None:
        """Let nobody find a client, or wait for one, any longer."""
        self.closed = True
        self._wake()

    async def pipe_to(self, target: str, wait: float) -> Pipe:
        """Return the pipe to a client.

        Args:
            target: certificate name; or IP address, or host name that resolves to one, of a client.
            wait: seconds to wait for a client that is not connected.

        Raises:
            PeerAbsentError: it did not connect in time, or the node is stopping.
            PeerUnknownError: nothing suggests that such a client exists.
            PeerAmbiguousError: several clients have that address.
        """
        pipe = self._pipes.get(target)
        if pipe is not None and pipe.available and not self.closed:
            return pipe
        return await self.permitted_pipe_to(target, wait, lambda _name: True)

    async def permitted_pipe_to(self, target: str, wait: float, permits: Callable[[str], bool]) -> Pipe:
        """Return the pipe to a client, as if there were none but those of permitted names.

        Args:
            target: as in `pipe_to`.
            wait: likewise.
            permits: whether a name is permitted.

        Raises:
            PeerAbsentError: as in `pipe_to`.
            PeerUnknownError: likewise.
            PeerAmbiguousError: likewise.
        """
        begun = self._loop.time()
        deadline = begun + wait
        while True:
            if self.closed:
                raise PeerAbsentError(f"no pipe to {target!r}: this node is stopping")
            # Taken first, so that a client that comes while the name is resolved is not missed.
            added = self._added
            known = self.knows(target) and permits(target)
            if known:
                pipe = self._pipes.get(target)
            else:
                addresses = await self._addresses_in_time(target, added, max(deadline, begun + RESOLVE_TIME))
                if addresses is None:
                    continue
                pipe = self._by_address(target, addresses, permits)
                known = bool(addresses)
            if pipe is not None and pipe.available:
                return pipe
            ends = deadline if known else min(deadline, self._grace_ends)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(ends):
                    await asyncio.shield(added)
                    continue
            if known:
                raise PeerAbsentError(f"client {target!r} is not connected, and did not connect within {wait:g} s")
            raise PeerUnknownError(f"{_nobody(target)} resolves to no address")

    def _wake(self) -> None:
        added, self._added = self._added, self._loop.create_future()
        added.set_result(None)

    async def _addresses_in_time(self, target: str, added: asyncio.Future[None], ends: float) -> frozenset[str] | None:
        """Return what a target resolves to; None where a client came before that is known: perhaps it is the one.

        Raises:
            PeerAbsentError: it takes too long.
        """
        resolving = self._loop.create_task(self._addresses(target))
        waiters: set[asyncio.Future[Any]] = {resolving, added}
        try:
            await asyncio.wait(waiters, timeout=ends - self._loop.time(), return_when=asyncio.FIRST_COMPLETED)
            if resolving.done():
                return resolving.result()
        finally:
            resolving.cancel()
        if added.done():
            return None
        raise PeerAbsentError(f"{_nobody(target)} was not resolved to an address in time")

    async def _addresses(self, target: str) -> frozenset[str]:
        try:
            addresses = frozenset({str(ipaddress.ip_address(target.strip("[]")))})
        except ValueError:
            addresses = frozenset(await self._resolver.resolve(target))
        return addresses if addresses.isdisjoint(_LOOPBACK) else addresses | _LOOPBACK

    def _by_address(self, target: str, addresses: frozenset[str], permits: Callable[[str], bool]) -> Pipe | None:
        pipes = [
            pipe
            for pipe in self._pipes.values()
            if pipe.peer.address in addresses and pipe.available and permits(pipe.peer.name)
        ]
        if len(pipes) > 1:
            names = ", ".join(sorted(pipe.peer.name for pipe in pipes))
            raise PeerAmbiguousError(f"{target!r} is the address of several clients: {names}")
        return pipes[0] if pipes else None


def _nobody(target: str) -> str:
    return f"no client named {target!r} has connected since this server was started, and the name"
