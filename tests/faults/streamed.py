"""Calls whose bodies are streamed, up or down, and what became of each."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
from bodies import Sum, pieces_of
from calls import Ask, Call, Told, attempts_of


class _LeftError(Exception):
    """The caller went away in the midst of its own body."""


async def make_streamed_call(
    web: httpx.AsyncClient, ask: Ask, *, seconds: float, leave_at: int | None, patience: float
) -> Call:
    """Stream a body, and tell what became of it.

    Args:
        web: calls the web server of the node that is asked.
        ask: what is asked.
        seconds: that it takes at least.
        leave_at: bytes after which the caller goes away.
        patience: seconds without a piece, beyond the time-out, after which the caller gives up.
    """
    streamed = _Streamed(ask, seconds, leave_at)
    begun = streamed.moved = streamed.now()
    facts: dict[str, Any] = {"told": "none"}
    try:
        facts = await (streamed.up if ask.kind.streams == "up" else streamed.down)(web, ask.timeout + patience)
    except _LeftError:
        facts = {"told": "left"}
    except httpx.TransportError:
        pass
    return ask.over(begun, streamed.now(), moved=streamed.moved, **facts)


class _Streamed:
    """One of them, under way.

    Attributes:
        moved: when a piece moved last.
    """

    def __init__(self, ask: Ask, seconds: float, leave_at: int | None) -> None:
        self.now = asyncio.get_running_loop().time
        self.moved = 0.0
        self._ask = ask
        self._seconds = seconds
        self._leave_at = leave_at

    async def up(self, web: httpx.AsyncClient, patience: float) -> dict[str, Any]:
        answer = await web.post(self._ask.path, headers=self._ask.headers, content=self._pieces(), timeout=patience)
        if answer.status_code != 200:
            return _failed(answer)
        body = answer.json()
        return {
            "told": "done", "status": 200, "attempts": attempts_of(answer), "nonce_answered": body["nonce"],
            "node_answered": body["node"], "size_answered": body["size"], "sum_answered": body["sum"],
        }  # fmt: skip

    async def _pieces(self) -> AsyncIterator[bytes]:
        sent = 0
        for piece in pieces_of(self._ask.nonce, self._ask.size):
            if self._leave_at is not None and sent >= self._leave_at:
                raise _LeftError
            yield piece
            self.moved = self.now()
            sent += len(piece)
            await asyncio.sleep(self._seconds * len(piece) / self._ask.size)

    async def down(self, web: httpx.AsyncClient, patience: float) -> dict[str, Any]:
        path = f"{self._ask.path}/{self._ask.size}/{self._seconds:g}"
        async with web.stream("GET", path, headers=self._ask.headers, timeout=patience) as answer:
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
