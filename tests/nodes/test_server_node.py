"""The server node accepts clients, tells of them, lets a name be taken over, and drains before it stops."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from live_handlers import Told
from live_nodes import PATIENCE, connected, own_tasks, running_client, running_server, server_settings

from restpipe.exceptions import ConfigError, PeerAbsentError, PipeLostError
from restpipe.identity import Authority
from restpipe.nodes.client import ClientNode
from restpipe.nodes.exchanges import Patience, exchange
from restpipe.nodes.server import ServerNode
from restpipe_pb.v1.pipe_pb2 import Goaway, Request

PATIENT = Patience(PATIENCE, PATIENCE)


def told(node: Any) -> Told:
    events: Told = node._events
    return events


def ask(way: Any, verb: str, noun: str) -> "asyncio.Task[bytes]":
    async def asking() -> bytes:
        answer, _ = await exchange(way, lambda _pipe: Request(verb=verb, noun=noun), None, PATIENT)
        return await answer.body.read(1 << 20)

    return asyncio.create_task(asking())


async def entered(node: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        await node.handler.entered.wait()
    node.handler.entered.clear()


@contextlib.asynccontextmanager
async def _patient_client(identity_files: Path, server: ServerNode) -> AsyncIterator[ClientNode]:
    """Run a client that does not soon take its name back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("restpipe.nodes.client.TAKEOVER_BACKOFF", 60.0)
        async with running_client(identity_files, server.port) as client:
            await connected(server, client)
            yield client


async def test_both_sides_call_each_other_over_mutual_tls(identity_files: Path, leak_free: None) -> None:
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        await connected(server, client)

        async def to_client(wait: float) -> Any:
            return await server.pipe_to("alpha", wait)

        assert await ask(client.pipe_to_server, "get", "value") == b'{"value": 1}'
        assert await ask(to_client, "get", "value") == b'{"value": 1}'


async def test_clients_are_told_by_address_and_number_and_to_the_hooks_by_name(
    identity_files: Path, leak_free: None
) -> None:
    async with running_server(identity_files) as server:
        async with running_client(identity_files, server.port, "alpha") as alpha:
            await connected(server, alpha)
            async with running_client(identity_files, server.port, "beta") as beta:
                await connected(server, beta)
                assert {pipe.peer.name for pipe in server.pipes} == {"alpha", "beta"}
            await told(server).until("connection_removed")
        await told(server).until("connection_removed", 2)
        assert told(server).events == [
            ("connection_added", "127.0.0.1", 1),
            ("connection_added", "127.0.0.1", 2),
            ("connection_removed", "127.0.0.1", 1),
            ("connection_removed", "127.0.0.1", 0),
        ]
        await server.notifier.settle(PATIENCE)
        assert server.handler.hooks == [("start", "alpha"), ("start", "beta"), ("stop", "beta"), ("stop", "alpha")]
        assert server.pipes == ()


async def test_while_nothing_is_connected_idle_is_told_again_and_again(identity_files: Path, leak_free: None) -> None:
    server = ServerNode(server_settings(identity_files), idle_interval=0.02)
    await server.start()
    first, second = (await told(server).until("idle", 2))[:2]
    assert first[1] == second[1]  # since when
    assert 0 < first[2] < second[2] < PATIENCE
    async with running_client(identity_files, server.port) as client:
        await connected(server, client)
        await told(server).until("connection_added")
        assert server._idle_timer is None
    await told(server).until("connection_removed")
    again = (await told(server).until("idle", len(told(server).events)))[-1]
    assert again[1] > first[1]
    await server.stop(0)
    assert own_tasks() == []


async def test_after_the_stop_no_task_and_no_timer_is_left(identity_files: Path, leak_free: None) -> None:
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        await connected(server, client)
        await server.stop(PATIENCE)
        await client.stop(PATIENCE)
        gc.collect()
        assert own_tasks() == []


async def test_stopping_a_node_that_was_never_started_leaves_nothing(identity_files: Path, leak_free: None) -> None:
    await ServerNode(server_settings(identity_files)).stop(PATIENCE)
    assert own_tasks() == []


async def test_a_port_that_is_taken_is_a_clear_error_and_the_node_can_be_stopped(
    identity_files: Path, leak_free: None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = ServerNode(server_settings(identity_files, bind_port=port))
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port} for pipes: the port is taken"):
            await server.start()
        await server.stop(0)
    assert own_tasks() == []


async def test_two_server_nodes_never_share_a_port(identity_files: Path, leak_free: None) -> None:
    async with running_server(identity_files) as first:
        second = ServerNode(server_settings(identity_files, bind_port=first.port))
        with pytest.raises(ConfigError, match="the port is taken by another process"):
            await second.start()
        await second.stop(0)


async def test_a_class_of_the_settings_that_does_not_exist_is_named_with_its_variable(identity_files: Path) -> None:
    with pytest.raises(ConfigError, match="RP_EVENT_HANDLER_FQ_CLASS"):
        ServerNode(server_settings(identity_files, event_handler="live_handlers.Nonesuch"))
    with pytest.raises(ConfigError, match="RP_SERVER_CLIENT_HOSTNAME_RESOLVER_CLS"):
        ServerNode(server_settings(identity_files, client_hostname_resolver="live_handlers.Nonesuch"))


async def test_the_same_name_takes_over_and_what_the_old_pipe_had_in_flight_is_lost(
    identity_files: Path, leak_free: None
) -> None:
    async with running_server(identity_files) as server, _patient_client(identity_files, server) as older:
        task = ask(lambda wait: server.pipe_to("alpha", wait), "post", "wait")
        await entered(older)
        old_pipe = await server.pipe_to("alpha", 0)
        async with running_client(identity_files, server.port) as newer:
            await told(newer).until("connect_success")
            with pytest.raises(PipeLostError, match="connected again"):
                await task
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait({old_pipe.ended})
            assert old_pipe.ended.result().reason == Goaway.TAKEOVER
            # The removal of the old one does not remove the new one.
            await told(server).until("connection_removed")
            assert await ask(lambda wait: server.pipe_to("alpha", wait), "get", "value") == b'{"value": 1}'
            assert len(server.pipes) == 1
            assert newer.handler.runs.total() == 0
            assert older.handler.cancelled.is_set()


async def test_an_idempotent_request_follows_the_name_to_the_pipe_that_takes_over(
    identity_files: Path, leak_free: None
) -> None:
    async with running_server(identity_files) as server, _patient_client(identity_files, server) as older:
        task = ask(lambda wait: server.pipe_to("alpha", wait), "get", "wait")
        await entered(older)
        async with running_client(identity_files, server.port) as newer:
            await entered(newer)
            newer.handler.release.set()
            assert await task == b'{"waited": "get"}'


@pytest.mark.parametrize("direction", ["from the client", "from the server"])
async def test_what_is_in_flight_finishes_when_the_server_stops(
    identity_files: Path, leak_free: None, direction: str
) -> None:
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        await connected(server, client)
        if direction == "from the client":
            serving: Any = server
            task = ask(client.pipe_to_server, "post", "wait")
        else:
            serving = client
            task = ask(lambda wait: server.pipe_to("alpha", wait), "post", "wait")
        await entered(serving)
        stopping = asyncio.create_task(server.stop(PATIENCE))
        # The client is told to leave and dials again at once: it must not take over from its own pipe.
        await told(client).until("connect_fail")
        assert not stopping.done()
        serving.handler.release.set()
        assert await task == b'{"waited": "post"}'
        async with asyncio.timeout(PATIENCE / 2):
            await stopping
        assert serving.handler.runs.total() == 1


async def test_what_does_not_finish_within_the_grace_is_ended(identity_files: Path, leak_free: None) -> None:
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        await connected(server, client)
        task = ask(client.pipe_to_server, "post", "wait")
        await entered(server)
        async with asyncio.timeout(PATIENCE / 2):
            await server.stop(0.05)
        with pytest.raises(PipeLostError):
            await task
        assert server.handler.cancelled.is_set()


async def test_who_waits_for_a_client_is_answered_when_the_server_stops(identity_files: Path, leak_free: None) -> None:
    async with running_server(identity_files) as server:
        async with running_client(identity_files, server.port) as client:
            await connected(server, client)
        await told(server).until("connection_removed")
        task = ask(lambda wait: server.pipe_to("alpha", wait), "get", "value")
        await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE / 2):
            await server.stop(PATIENCE)
            with pytest.raises(PeerAbsentError, match="stopping"):
                await task


async def test_a_connection_that_never_says_hello_does_not_keep_the_server_from_stopping(
    identity_files: Path, leak_free: None
) -> None:
    async with running_server(identity_files) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with asyncio.timeout(PATIENCE / 2):
            await server.stop(1)
        writer.close()


async def test_a_client_of_another_ca_is_nobody(identity_files: Path, tmp_path: Path, leak_free: None) -> None:
    authority = Authority.create(tmp_path)
    authority.issue("alpha", "client")
    async with running_server(identity_files) as server, running_client(tmp_path, server.port) as stranger:
        await told(stranger).until("connect_fail")
        assert server.pipes == ()
        assert told(server).events == []
