"""What a node tells its operator's own code about its connections."""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from restpipe.handlers.threads import HandlerThreads

log = logging.getLogger(__name__)

Hook = TypeVar("Hook", bound=Callable[..., Any])

# Hooks that wait for one that takes long: two for each client, when all that a restarted server had come back at once.
MOST_HOOKS = 10_000

_DOES_NOTHING = "__restpipe_does_nothing__"


def does_nothing(hook: Hook) -> Hook:
    """Mark a hook that is there to be overridden: it need not be called."""
    setattr(hook, _DOES_NOTHING, True)
    return hook


class ClientConnectionStateEvents:
    """What a client node tells. Methods may be `async def`; exceptions are logged and harm nothing.

    RestPipe 0.2 called these methods connection_success and connection_fail, too.
    """

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

    @does_nothing
    def connection_success(self, retry_attempts: int, last_disconnected_dt: datetime | None) -> Any:
        """Tell what `connect_success` tells, under its other name."""

    @does_nothing
    def connection_fail(self, retry_attempts: int, last_disconnected_dt: datetime | None) -> Any:
        """Tell what `connect_fail` tells, under its other name."""


# Its name in the README of RestPipe 0.2.
ConnectionStateEvents = ClientConnectionStateEvents


class ServerConnectionStateEvents:
    """What a server node tells. Methods may be `async def`; exceptions are logged and harm nothing."""

    @does_nothing
    def connection_added(self, ip: str, new_count: int) -> Any:
        """Tell that a client connected; `new_count` are connected now."""

    @does_nothing
    def connection_removed(self, ip: str, new_count: int) -> Any:
        """Tell that a client's connection ended; `new_count` are left."""

    @does_nothing
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
        self._queue: asyncio.Queue[tuple[Callable[..., Any], tuple[object, ...]]] = asyncio.Queue(MOST_HOOKS)

    def notify(self, hook: Callable[..., Any], *arguments: object) -> None:
        """Have a hook called soon. The hooks of one notifier are called one after the other."""
        if hasattr(hook, _DOES_NOTHING):
            return
        if self._queue.full():
            log.error("%s is not called: %d hooks wait for one that does not return", _name(hook), MOST_HOOKS)
            return
        self._queue.put_nowait((hook, arguments))

    async def run(self) -> None:
        """Call hooks until cancelled."""
        me = asyncio.current_task()
        while True:
            hook, arguments = await self._queue.get()
            try:
                call = partial(hook, *arguments)
                result = call() if inspect.iscoroutinefunction(hook) else await self._threads.run(call)
                if inspect.isawaitable(result):
                    await result
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError) and me is not None and me.cancelling():
                    raise
                log.exception("%s failed", _name(hook))
            finally:
                self._queue.task_done()

    async def settle(self, patience: float) -> None:
        """Wait until the hooks that are due have been called, for at most `patience` seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._queue.join(), patience)


def _name(hook: Callable[..., Any]) -> str:
    return getattr(hook, "__qualname__", None) or repr(hook)
