"""From a host name to IP addresses, for names that no client's certificate bears."""

import asyncio
import inspect
import socket
from collections.abc import Awaitable, Iterable, Sequence
from functools import partial
from typing import Any

from restpipe.handlers.threads import HandlerThreads

# A name is looked up again after this many seconds.
CACHE_TIME = 5.0
# Names that are remembered.
CACHE_SIZE = 1024
# Names that are looked up at once. A look-up goes on when nobody waits for it any more, and may hold a thread: where
# names are asked for that no name server answers, the next ones wait.
LOOKUPS = 16


class HostnameResolver:
    """Base of resolvers: override `resolve`."""

    def resolve(self, hostname: str) -> "str | Iterable[str] | Awaitable[str | Iterable[str]]":
        """Return the IP address or addresses of a host name, as the server sees the client; none where it has none.

        May be `async def`; otherwise it runs in a thread.
        """
        raise NotImplementedError


class DnsResolver(HostnameResolver):
    """Resolves as the system does: /etc/hosts, DNS."""

    async def resolve(self, hostname: str) -> list[str]:
        """Return the addresses of a host name, IPv4 and IPv6."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(hostname, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return []
        return [str(address[0]) for *_, address in found]


class CachedResolver:
    """Asks a resolver, and remembers its answers for a few seconds: they are needed for each request.

    Args:
        resolver: the user's, or `DnsResolver`.
        threads: for one that is not asynchronous.
    """

    def __init__(self, resolver: HostnameResolver, threads: HandlerThreads) -> None:
        self._resolver = resolver
        self._threads = threads
        self._cache: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._asking: dict[str, asyncio.Task[tuple[str, ...]]] = {}
        self._lookups = asyncio.Semaphore(LOOKUPS)

    async def resolve(self, hostname: str) -> Sequence[str]:
        """Return the addresses of a host name.

        Raises:
            Exception: what the user's resolver raises.

        Cancelling leaves those who asked for the same name, and the cache, their answer.
        """
        if not self._is_known(hostname):
            await self._lookups.acquire()
            if self._is_known(hostname):  # another asked while this one waited
                self._lookups.release()
            else:
                asking = self._asking[hostname] = asyncio.create_task(self._ask(hostname))
                asking.add_done_callback(partial(self._asked, hostname))
        if hostname in self._asking:
            return await asyncio.shield(self._asking[hostname])
        return self._cache[hostname][1]

    async def close(self) -> None:
        """End all look-ups. Whoever still waits for one is cancelled."""
        asking = set(self._asking.values())
        for each in asking:
            each.cancel()
        if asking:
            await asyncio.wait(asking)

    def _is_known(self, hostname: str) -> bool:
        """Whether a name is being looked up, or was a moment ago."""
        return hostname in self._asking or self._cache.get(hostname, (0.0,))[0] > asyncio.get_running_loop().time()

    def _asked(self, hostname: str, asking: asyncio.Task[tuple[str, ...]]) -> None:
        del self._asking[hostname]
        self._lookups.release()
        if not asking.cancelled():
            asking.exception()  # whoever still wants to know is told; it is no error if nobody does

    async def _ask(self, hostname: str) -> tuple[str, ...]:
        now = asyncio.get_running_loop().time()
        call = partial(self._resolver.resolve, hostname)
        found: Any = call() if inspect.iscoroutinefunction(call.func) else await self._threads.run(call)
        if inspect.isawaitable(found):
            found = await found
        several = (found,) if isinstance(found, str) else found or ()
        addresses = tuple(dict.fromkeys(filter(None, several)))
        while len(self._cache) >= CACHE_SIZE:
            del self._cache[next(iter(self._cache))]
        self._cache[hostname] = (now + CACHE_TIME, addresses)
        return addresses
