"""Nodes joined in memory behave as nodes do, and their links break as one wants them to."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI

import restpipe
import restpipe.testing
from restpipe.exceptions import ConfigError, DeadlineError, ForbiddenError, PeerAbsentError, PipeLostError
from restpipe_pb.v1.pipe_pb2 import Goaway

pytestmark = pytest.mark.usefixtures("leak_free")
PATIENCE = 30.0
MIB = 1 << 20


class Box(restpipe.ClientEventHandler):
    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.go = asyncio.Event()
        self.times = 0

    async def get_caller(self, ctx: restpipe.EventContext, post_data: Any) -> dict[str, str]:
        return {"caller": ctx.caller, "address": ctx.peer.address}

    async def get_back(self, ctx: restpipe.EventContext, post_data: Any) -> Any:
        return (await ctx.call("get", "caller")).data

    async def get_wait(self, ctx: restpipe.EventContext, post_data: Any) -> int:
        return await self.post_wait(ctx, post_data)

    async def post_wait(self, ctx: restpipe.EventContext, post_data: Any) -> int:
        self.times += 1
        self.arrived.set()
        await self.go.wait()
        return self.times

    async def post_size(self, ctx: restpipe.EventContext, body: AsyncIterator[bytes]) -> int:
        return sum([len(piece) async for piece in body])


class Shop(restpipe.ServerEventHandler):
    def get_caller(self, ctx: restpipe.EventContext, post_data: Any) -> dict[str, str]:
        return {"caller": ctx.caller, "address": ctx.peer.address}


async def test_both_sides_call_each_other_by_name() -> None:
    async with restpipe.testing.join(server=Shop, clients={"box": Box, "till": Box}) as nodes:
        assert nodes.names == nodes.server.clients == ("box", "till")
        assert (await nodes.server.client("box").call("get", "caller")).data["caller"] == "server"
        assert (await nodes.server.client("till").call("get", "back")).data == {
            "caller": "till", "address": "192.0.2.3",
        }  # fmt: skip
        assert (await nodes.client("box").call("get", "caller")).data == {"caller": "box", "address": "192.0.2.2"}
        assert (await nodes.server.client("192.0.2.3").call("get", "caller")).status == 200


def handler_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("handler-")}


async def test_nodes_that_ended_leave_no_threads_of_handlers_behind() -> None:
    before = handler_threads()
    async with restpipe.testing.join(server=Shop, clients={"box": Box}) as nodes:
        await nodes.client("box").call("get", "caller")
        assert handler_threads() - before
    async with asyncio.timeout(PATIENCE):
        while handler_threads() - before:  # noqa: ASYNC110 - threads tell nobody
            await asyncio.sleep(0.01)


async def test_clients_call_each_other_where_the_server_permits_it() -> None:
    nodes = restpipe.testing.join(server={"relay": "till>box"}, clients={"box": Box, "till": Box})
    async with nodes as joined, asyncio.timeout(PATIENCE):
        assert (await joined.client("till").client("box").call("get", "caller")).data["caller"] == "till"
        with pytest.raises(ForbiddenError):
            await joined.client("box").client("till").call("get", "caller")
        async with joined.link("box").down():
            waiting = asyncio.create_task(joined.client("till").client("box").call("get", "caller"))
            with pytest.raises(PeerAbsentError):
                await joined.client("till").client("box").call("get", "caller", wait=0)
        assert (await waiting).data["caller"] == "till"


async def test_bodies_of_any_length_pass() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield bytes(MIB)

    async with restpipe.testing.join(clients={"box": Box}) as nodes:
        assert (await nodes.server.client("box").call("post", "size", data=pieces())).data == 8 * MIB


async def test_the_rest_surface_of_each_node_is_called_by_httpx() -> None:
    async with restpipe.testing.join(server=Shop, clients={"box": Box}) as nodes:
        async with restpipe.testing.http(nodes.server) as http:
            answer = await http.get("/client/box/caller")
            assert (answer.json()["caller"], answer.headers["x-event-return-code"]) == ("server", "0")
            assert (await http.get("/status")).status_code == 200
        async with restpipe.testing.http(nodes.client("box")) as http:
            assert (await http.get("/server/caller")).json()["caller"] == "box"


async def test_a_client_may_be_told_all_that_a_node_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI()

    @app.get("/time")
    def time() -> float:
        return 1.5

    async with restpipe.testing.join(clients={"box": {"asgi": app, "max_exchanges": 7}}, request_timeout_s=3) as nodes:
        assert (await nodes.server.client("box").call("get", "time")).data == 1.5
        assert nodes.client("box").settings.max_exchanges == 7
        assert nodes.client("box").settings.request_timeout_s == nodes.server.settings.request_timeout_s == 3


async def test_variables_of_the_machine_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_MAX_EXCHANGES", "none")
    monkeypatch.setenv("RP_EVENT_HANDLER_FQ_CLASS", "no.such.Class")
    async with restpipe.testing.join() as nodes:
        assert nodes.server.settings.max_exchanges == 4096
    with pytest.raises(ConfigError, match=r"^max_exchanges='none'"):
        async with restpipe.testing.join(max_exchanges="none"):
            raise AssertionError("it is wrong")


async def test_a_client_that_the_server_does_not_let_in_does_not_connect() -> None:
    with pytest.raises(PeerAbsentError, match="does not let box in"):
        async with restpipe.testing.join(
            server={"allowed_clients": "shop-*"}, clients={"box": None}, connection_wait_timeout_s=0.05
        ):
            raise AssertionError("it was let in")


async def test_a_link_that_is_cut_loses_what_it_carries_and_is_made_again() -> None:
    box = Box()
    async with restpipe.testing.join(clients={"box": box}) as nodes, asyncio.timeout(PATIENCE):
        paying = asyncio.create_task(nodes.server.client("box").call("post", "wait"))
        await box.arrived.wait()
        await nodes.link("box").cut()
        with pytest.raises(PipeLostError) as caught:
            await paying
        assert caught.value.executed == "unknown"
        assert (await nodes.server.client("box").call("get", "caller")).data["caller"] == "server"


async def test_what_may_be_repeated_is_repeated_by_the_next_connection() -> None:
    box = Box()
    async with restpipe.testing.join(clients={"box": box}) as nodes, asyncio.timeout(PATIENCE):
        asking = asyncio.create_task(nodes.server.client("box").call("get", "wait"))
        await box.arrived.wait()
        box.go.set()  # for the second time: the first is cancelled before it may go on
        await nodes.link("box").cut()
        assert (await asking).data in (1, 2)
        assert box.times == (await asking).data


async def test_a_handler_may_cut_its_own_link() -> None:
    class Cuts(restpipe.ClientEventHandler):
        async def post_pay(self, ctx: restpipe.EventContext, post_data: Any) -> None:
            await links[0].cut()

    links: list[restpipe.testing.Link] = []
    async with restpipe.testing.join(clients={"box": Cuts}) as nodes, asyncio.timeout(PATIENCE):
        links.append(nodes.link("box"))
        with pytest.raises(PipeLostError):
            await nodes.server.client("box").call("post", "pay")
        await nodes.server.client("box").wait_connected()


async def test_a_link_that_is_down_stays_so_until_the_block_ends() -> None:
    async with restpipe.testing.join(server=Shop, clients={"box": Box}) as nodes, asyncio.timeout(PATIENCE):
        async with nodes.link("box").down():
            assert nodes.server.clients == ()
            with pytest.raises(PeerAbsentError):
                await nodes.server.client("box").call("get", "caller", wait=0.05)
            waiting = asyncio.create_task(nodes.client("box").call("get", "caller"))
            await asyncio.sleep(0)
            assert not waiting.done()
        assert (await waiting).data["caller"] == "box"


async def test_what_is_sent_over_a_link_that_stalls_arrives_afterwards() -> None:
    async with restpipe.testing.join(clients={"box": Box}) as nodes, asyncio.timeout(PATIENCE):
        box = nodes.server.client("box")
        async with nodes.link("box").stalled():
            with pytest.raises(DeadlineError):
                await box.call("get", "caller", timeout=0.05)
            asking = asyncio.create_task(box.call("get", "caller"))
            await asyncio.sleep(0)
        assert (await asking).status == 200


async def test_a_link_that_stalls_for_long_is_noticed_by_its_heartbeats() -> None:
    heartbeats = {"heartbeat_interval_s": 0.02, "heartbeat_timeout_s": 0.1}
    async with (
        restpipe.testing.join(clients={"box": Box}, **heartbeats) as nodes,
        asyncio.timeout(PATIENCE),
        nodes.link("box").stalled(),
    ):
        (pipe,) = nodes.server._running().pipes
        await asyncio.wait({pipe.ended})
        assert pipe.ended.result().reason == Goaway.HEARTBEAT


async def test_a_delay_is_that_of_each_way() -> None:
    async with restpipe.testing.join(clients={"box": Box}) as nodes, asyncio.timeout(PATIENCE):
        nodes.link("box").delay = 0.05
        started = asyncio.get_running_loop().time()
        await nodes.server.client("box").call("get", "caller")
        assert asyncio.get_running_loop().time() - started >= 0.1


async def test_what_is_on_its_way_when_a_link_is_cut_does_not_arrive() -> None:
    box = Box()
    async with restpipe.testing.join(clients={"box": box}) as nodes, asyncio.timeout(PATIENCE):
        link, remote = nodes.link("box"), nodes.server.client("box")
        (pipe,) = nodes.server._running().pipes
        link.delay = 1000
        paying = asyncio.create_task(remote.call("post", "wait"))
        while not pipe.in_flight or pipe.queued:  # noqa: ASYNC110 - nobody tells that it has left
            await asyncio.sleep(0)
        await link.cut()
        with pytest.raises(PipeLostError):
            await paying
        link.delay = 0.0
        await remote.call("get", "caller")
        assert box.times == 0


async def test_nodes_that_end_tell_each_other_over_the_slowest_link() -> None:
    async with asyncio.timeout(PATIENCE):
        async with restpipe.testing.join(clients={"box": Box}, drain_timeout_s=0) as nodes:
            (pipe,) = nodes.server._running().pipes
            nodes.link("box").delay = 1000
            await nodes.link("box").stalled().__aenter__()
        assert pipe.ended.result().reason == Goaway.SHUTDOWN
        assert pipe.ended.result().by_peer
