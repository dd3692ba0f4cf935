"""The start-up and the shutdown of an ASGI application."""

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any

from restpipe.exceptions import ConfigError

log = logging.getLogger(__name__)

# Seconds that an application may take to start up, and to shut down.
STARTUP_TIMEOUT = 300.0
SHUTDOWN_TIMEOUT = 10.0


class Lifespan:
    """The lifespan of an application: one call of it, from the start of its node to the end.

    Args:
        app: the application. One that does not know of lifespans, and raises, has none.
        name: of it, for messages.

    Attributes:
        state: what the application keeps from its start-up on; each request is given a copy.
    """

    def __init__(self, app: Any, name: str) -> None:
        self._app = app
        self._name = name
        self._told: asyncio.Queue[str] = asyncio.Queue()
        self._started: asyncio.Future[str] | None = None
        self._task: asyncio.Task[None] | None = None
        self.state: dict[str, Any] = {}

    async def start(self) -> None:
        """Wait until the application has started up.

        Raises:
            ConfigError: it failed to, or did not within five minutes.
        """
        loop = asyncio.get_running_loop()
        self._started = loop.create_future()
        self._task = loop.create_task(self._run(), name=f"lifespan of {self._name}")
        self._told.put_nowait("lifespan.startup")
        try:
            async with asyncio.timeout(STARTUP_TIMEOUT):
                fault = await asyncio.shield(self._started)
        except TimeoutError:
            fault = f"it took more than {STARTUP_TIMEOUT:g} s"
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if fault:
            self._task.cancel()
            raise ConfigError(f"{self._name} did not start up: {fault}")

    async def stop(self) -> None:
        """Let the application shut down; what takes longer than ten seconds is cancelled."""
        if self._task is None:
            return
        self._told.put_nowait("lifespan.shutdown")
        _, late = await asyncio.wait({self._task}, timeout=SHUTDOWN_TIMEOUT)
        if late:
            log.warning("%s did not shut down within %g s", self._name, SHUTDOWN_TIMEOUT)
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=SHUTDOWN_TIMEOUT)
        self._task = None

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as error:
            if self._began():
                log.exception("the lifespan of %s failed", self._name)
            else:
                log.debug("%s has no lifespan: %r", self._name, error)
        except BaseException as error:
            self._begin(repr(error))
            raise
        self._begin("")

    async def _receive(self) -> MutableMapping[str, Any]:
        return {"type": await self._told.get()}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._begin("")
            case "lifespan.startup.failed":
                lines = message.get("message", "").strip().splitlines()
                self._begin(lines[-1] if lines else "it does not say why")
            case "lifespan.shutdown.failed":
                log.error("%s did not shut down: %s", self._name, message.get("message", ""))

    def _began(self) -> bool:
        return self._started is not None and self._started.done()

    def _begin(self, fault: str) -> None:
        if self._started is not None and not self._started.done():
            self._started.set_result(fault)
