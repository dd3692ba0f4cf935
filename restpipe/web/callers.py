"""Callers that hang up before they have their answer."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# Callers are watched from one to two of these intervals, in seconds, after they began to wait.
WATCH_INTERVAL = 0.1


class CallerGone(Exception):  # noqa: N818 - not an error: the caller may leave
    """The HTTP client hung up."""


class Unasked(Protocol):
    """A caller that waits to be asked for its body (RFC 9110 section 10.1.1): what is known of it without asking.

    `receive` would ask it.

    Attributes:
        disconnected: it hung up.
        body: what it sent nevertheless.
    """

    disconnected: bool
    body: bytes


class CallerWatch:
    """Notices callers that hang up.

    ASGI tells only who asks, which takes a task. Most requests are answered before theirs is due: one timer for all of
    them starts it for those that are not.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._young: set[Watched] = set()
        self._old: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watching(self, receive: Receive) -> "Watched":
        """Return a context manager within which a caller that hangs up cancels the current task.

        The cancellation leaves the block as `CallerGone`.

        Args:
            receive: of the ASGI request; where something else calls that, `Upload.watch`.
        """
        return Watched(self, self._loop, receive)

    def add(self, watched: "Watched") -> None:
        """Begin to count the time of a caller."""
        self._young.add(watched)
        if self._timer is None:
            self._timer = self._loop.call_later(WATCH_INTERVAL, self._tick)

    def discard(self, watched: "Watched") -> None:
        """Forget a caller."""
        self._young.discard(watched)
        self._old.discard(watched)

    def _tick(self) -> None:
        for watched in self._old:
            watched.begin()
        self._old, self._young = self._young, set()
        self._timer = self._loop.call_later(WATCH_INTERVAL, self._tick) if self._old else None


class Watched:
    """One caller, while it waits."""

    __slots__ = ("_gone", "_loop", "_receive", "_task", "_watch", "_watcher")

    def __init__(self, watch: CallerWatch, loop: asyncio.AbstractEventLoop, receive: Receive) -> None:
        self._watch = watch
        self._loop = loop
        self._receive = receive
        self._gone = False
        self._task: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task(self._loop)
        self._watch.add(self)

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self._watch.discard(self)
        if self._watcher is not None:
            self._watcher.cancel()
        if self._gone and isinstance(error, asyncio.CancelledError):
            if self._task is not None:
                self._task.uncancel()
            raise CallerGone from None

    def begin(self) -> None:
        """Begin to watch."""
        self._watcher = self._loop.create_task(self._until_gone(), name="caller watch")

    async def _until_gone(self) -> None:
        while not (await self._receive())["type"].endswith(".disconnect"):
            pass
        self._gone = True
        if self._task is not None:
            self._task.cancel()
