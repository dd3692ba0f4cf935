"""What answers in the benchmarks, all with the same JSON: a FastAPI endpoint, and bare ASGI as the ceiling."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI

PATH = "/client/client/time"

plain = FastAPI()


@plain.get(PATH)
async def get_time() -> dict[str, float]:
    return {"time_from_client": time.time()}


async def bare(
    _scope: dict[str, Any], _receive: Callable[[], Awaitable[Any]], send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    body = b'{"time_from_client": %r}' % time.time()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
