"""Tells a benchmark when the last client of a fleet has connected."""

import os
import time
from pathlib import Path

from restpipe.handlers.connection_events import ServerConnectionStateEvents


class Arrivals(ServerConnectionStateEvents):
    async def connection_added(self, _ip: str, new_count: int) -> None:
        if new_count == int(os.environ["FLEET_SIZE"]):
            Path(os.environ["FLEET_ARRIVED"]).write_text(f"{time.monotonic()}")  # noqa: ASYNC240
