"""Calls whose bodies are streamed, up or down, and what became of each."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
from bodies import Sum, pieces_of
from calls import Call, Kind, Told, attempts_of


class _LeftError(Exception):
    """The caller went away in the midst of its own body."""


async def make_streamed_call(
    web: httpx.AsyncClient,
    kind: Kind,
    *,
    asked: str,
    serving: str,
    prefix: str,
    size: int,
    seconds: float = 0,
    leave_at: int | None = None,
    timeout: float = 10.0,  # noqa: ASYNC109 - it is sent
    wait: str = "20",
    patience: float = 30.0,
) -> Call:
    """Stream a body, and tell what became of it.

    Args:
        web: calls the web server of the node that is asked.
        kind: of request.
        asked: name of the node that is asked.
        serving: name of the node that is to answer.
        prefix: of the path that leads to it.
        size: bytes of the body.
        seconds: that it takes at least.
        leave_at: bytes after which the caller goes away.
        timeout: seconds that may pass from one piece to the next.
        wait: seconds that it may wait for an absent peer.
        patience: seconds without a piece, beyond `timeout`, after which the caller gives up.
    """
    streamed = _Streamed(uuid.uuid4().hex, size, seconds, leave_at)
    headers = {"X-Event-Timeout": f"{timeout:g}", "Prefer": f"wait={wait}"}
    begun = streamed.moved = streamed.now()
    facts: dict[str, Any] = {"told": "none"}
    path = f"{prefix}/{kind.noun}//{streamed.nonce}"
    try:
        if kind.streams == "up":
            facts = await streamed.up(web, path, headers, timeout + patience)
        else:
            facts = await streamed.down(web, f"{path}/{size}/{seconds:g}", headers, timeout + patience)
    except _LeftError:
        facts = {"told": "left"}
    except httpx.TransportError:
        pass
    return Call(
        nonce=streamed.nonce, kind=kind, asked=asked, serving=serving, size=size, timeout=timeout,
        begun=begun, ended=streamed.now(), moved=streamed.moved, **facts,
    )  # fmt: skip


class _Streamed:
    """One of them, under way.

    Attributes:
        nonce: its own.
        moved: when a piece moved last.
    """

    def __init__(self, nonce: str, size: int, seconds: float, leave_at: int | None) -> None:
        self.nonce = nonce
        self.now = asyncio.get_running_loop().time
        self.moved = 0.0
        self._size = size
        self._seconds = seconds
        self._leave_at = leave_at

    async def up(self, web: httpx.AsyncClient, path: str, headers: dict[str, str], patience: float) -> dict[str, Any]:
        answer = await web.post(path, headers=headers, content=self._pieces(), timeout=patience)
        if answer.status_code != 200:
            return _failed(answer)
        body = answer.json()
        return {
            "told": "done", "status": 200, "attempts": attempts_of(answer), "nonce_answered": body["nonce"],
            "node_answered": body["node"], "size_answered": body["size"], "sum_answered": body["sum"],
        }  # fmt: skip

    async def _pieces(self) -> AsyncIterator[bytes]:
        sent = 0
        for piece in pieces_of(self.nonce, self._size):
            if self._leave_at is not None and sent >= self._leave_at:
                raise _LeftError
            yield piece
            self.moved = self.now()
            sent += len(piece)
            await asyncio.sleep(self._seconds * len(piece) / self._size)

    async def down(self, web: httpx.AsyncClient, path: str, headers: dict[str, str], patience: float) -> dict[str, Any]:
        async with web.stream("GET", path, headers=headers, timeout=patience) as answer:
            if answer.status_code != 200:
                await answer.aread()
                return _failed(answer)
            told: Told = "done"
            got = Sum()
            try:
                async for piece in answer.aiter_raw():
                    got.add(piece)
                    self.moved = self.now()
                    if self._leave_at is not None and got.size >= self._leave_at:
                        told = "left"
                        break
            except httpx.TransportError:
                told = "broken"
        return {
            "told": told, "status": 200, "attempts": attempts_of(answer),
            "nonce_answered": answer.headers["x-ledger-nonce"], "node_answered": answer.headers["x-ledger-node"],
            "size_answered": got.size, "sum_answered": got.text,
        }  # fmt: skip


def _failed(answer: httpx.Response) -> dict[str, Any]:
    return {"told": answer.json()["executed"], "status": answer.status_code, "attempts": attempts_of(answer)}
