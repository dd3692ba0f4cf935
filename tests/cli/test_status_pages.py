"""`restpipe status` lists every client, however many answers that takes."""

import asyncio
from pathlib import Path

import pytest
from live_nodes import connected, running_client, running_server, web_of

from restpipe.cli import status
from restpipe.config import TcpBind


async def test_all_clients_are_told_whatever_one_answer_holds(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "PAGE", 1)
    async with (
        running_server(identity_files) as server,
        running_client(identity_files, server.port) as alpha,
        running_client(identity_files, server.port, "beta") as beta,
        web_of(server) as http,
    ):
        await connected(server, alpha)
        await connected(server, beta)
        address = TcpBind(http.base_url.host, http.base_url.port or 0)
        watched = status.Watched(address, "")
        told = await asyncio.to_thread(watched.ask_all, sort="name")
        assert [peer["name"] for peer in told["peers"]["list"]] == ["alpha", "beta"]
        told = await asyncio.to_thread(watched.ask_all, sort="name", clients="bet")
        assert [peer["name"] for peer in told["peers"]["list"]] == ["beta"]
