"""What a node tells its operator's own code about its connections."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from restpipe.handlers.threads import HandlerThreads

log = logging.getLogger(__name__)


class ConnectionStateEvents:
    """Base of classes that are told of changes. Methods may be `async def`; exceptions are logged and harm nothing."""


class ClientConnectionStateEvents(ConnectionStateEvents):
    """What a client node tells. RestPipe 0.2 called these methods connection_success and connection_fail, too."""

    def connect_success(self, retry_attempts: int, last_disconnected_dt: datetime | None) -> Any:
        """Tell that the pipe is up.

        Args:
            retry_attempts: attempts that had failed before.
            last_disconnected_dt: when the last pipe ended, None where there was none; UTC.
        """
        return self.connection_success(retry_attempts, last_disconnected_dt)

    def connect_fail(self, retry_attempts: int, last_disconnected_dt: datetime | None) -> Any:
        """Tell that an attempt failed; more follow.

        Args:
            retry_attempts: attempts that had failed before this one.
            last_disconnected_dt: when the last pipe ended, None where there was none; UTC.
        """
        return self.connection_fail(retry_attempts, last_disconnected_dt)

    def connection_success(self, retry_attempts: int, last_disconnected_dt: datetime | None) -> Any:
        """Tell what `connect_success` tells, under its other name."""

    def connection_fail(self, retry_attempts: int, last_disconnected_dt: datetime | None) -> Any:
        """Tell what `connect_fail` tells, under its other name."""


class ServerConnectionStateEvents(ConnectionStateEvents):
    """What a server node tells."""

    def connection_added(self, ip: str, new_count: int) -> Any:
        """Tell that a client connected; `new_count` are connected now."""

    def connection_removed(self, ip: str, new_count: int) -> Any:
        """Tell that a client's connection ended; `new_count` are left."""

    def idle(self, waiting_since_dt: datetime, duration_s: float) -> Any:
        """Tell, every minute, that nothing is connected.

        Args:
            waiting_since_dt: since when; UTC.
            duration_s: for how many seconds.
        """


class Notifier:
    """Runs hooks beside everything else, in order, and survives them.

    Args:
        threads: for hooks that are not asynchronous.
    """

    def __init__(self, threads: HandlerThreads) -> None:
        self._threads = threads
        self._queue: asyncio.Queue[tuple[Callable[..., Any], tuple[object, ...]]] = asyncio.Queue()

    def notify(self, hook: Callable[..., Any], *arguments: object) -> None:
        """Have a hook called soon. The hooks of one notifier are called one after the other."""
        self._queue.put_nowait((hook, arguments))

    async def run(self) -> None:
        """Call hooks until cancelled."""
        while True:
            hook, arguments = await self._queue.get()
            try:
                call = partial(hook, *arguments)
                result = call() if inspect.iscoroutinefunction(hook) else await self._threads.run(call)
                if inspect.isawaitable(result):
                    await result
            except asyncio.CancelledError:
                raise
            except BaseException:
                log.exception("%s failed", getattr(hook, "__qualname__", hook))
            finally:
                self._queue.task_done()

    async def settle(self, patience: float) -> None:
        """Wait until the hooks that are due have been called, for at most `patience` seconds."""
        await asyncio.wait({asyncio.ensure_future(self._queue.join())}, timeout=patience)
