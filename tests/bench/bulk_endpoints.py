"""A large file, a place that takes one, and something small: as handlers of both nodes, and as a plain endpoint."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from endpoints import PATH
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse

from restpipe.handlers.base import EventContext, EventHandler

FILE = Path(os.environ["BULK_FILE"])
FILE_PATH = PATH.removesuffix("time") + "file"


class Bulk(EventHandler):
    """Served by both nodes."""

    async def get_file(self, _ctx: EventContext, _post_data: Any) -> Path:
        return FILE

    async def post_file(self, _ctx: EventContext, body: AsyncIterator[bytes]) -> dict[str, int]:
        return {"bytes": sum([len(piece) async for piece in body])}

    async def get_time(self, _ctx: EventContext, _post_data: Any) -> dict[str, float]:
        return {"time": time.time()}


plain = FastAPI()


@plain.get(FILE_PATH)
async def get_file() -> FileResponse:
    return FileResponse(FILE)


@plain.post(FILE_PATH)
async def post_file(request: Request) -> dict[str, int]:
    return {"bytes": sum([len(piece) async for piece in request.stream()])}


@plain.get(PATH)
async def get_time() -> dict[str, float]:
    return {"time": time.time()}
