"""A node within a program: its life, its settings, and what it leaves alone."""

import asyncio
import logging
import signal
import warnings
from pathlib import Path
from typing import Any

import httpx
import pytest
from embedded import PATIENCE, Serves, client_options, joined, server_node
from fastapi import FastAPI

import restpipe
from restpipe.exceptions import ConfigError, IdentityError, PeerAbsentError, PeerUnknownError

pytestmark = pytest.mark.usefixtures("leak_free")


async def test_each_side_calls_the_other_in_plain_asyncio(identity_files: Path) -> None:
    async with joined(identity_files, server=Serves("server"), client=Serves) as (server, client):
        assert (await client.call("get", "name")).data == {"name": "server", "caller": "alpha"}
        assert (await server.client("alpha").call("get", "name")).data == {"name": "nobody", "caller": "127.0.0.1"}
        assert (server.name, client.name, server.clients, client.connected) == ("server", "alpha", ("alpha",), True)


async def test_a_node_serves_nothing_unless_it_is_told_what(identity_files: Path) -> None:
    async with joined(identity_files) as (server, _):
        with pytest.raises(restpipe.EventError) as caught:
            await server.client("alpha").call("get", "time")
        assert caught.value.return_code == 255


async def test_a_class_that_the_settings_name_serves(identity_files: Path) -> None:
    examples = "restpipe.handlers.examples.ServerExamples"  # the default of a server node that is a process
    async with (
        server_node(identity_files, event_handler=examples) as server,
        restpipe.ClientNode(**client_options(identity_files, server.port)) as client,
    ):
        assert (await client.call("get", "cat", "a", "b")).data == {"result_from_server": "ab"}


async def test_an_application_of_the_program_serves_in_place_of_a_handler(identity_files: Path) -> None:
    app = FastAPI()

    @app.get("/time")
    def time() -> float:
        return 1.5

    async with (
        server_node(identity_files) as server,
        restpipe.ClientNode(asgi=app, **client_options(identity_files, server.port)),
    ):
        box = server.client("alpha")
        assert (await box.call("get", "time")).data == 1.5
        missing = await box.call("get", "nothing")
        assert (missing.status, missing.data) == (404, {"detail": "Not Found"})


async def test_a_node_may_run_again_and_not_twice_at_once(identity_files: Path) -> None:
    node = server_node(identity_files)
    for _ in range(2):
        async with node:
            assert node.port
            with pytest.raises(RuntimeError, match="running already"):
                await node.start()
        with pytest.raises(RuntimeError, match="is not running"):
            _ = node.port


@pytest.mark.parametrize("turns", [1, 20])
@pytest.mark.parametrize("side", ["server", "client"])
async def test_a_stop_that_is_cancelled_ends_what_is_in_flight_and_leaves_nothing_behind(
    identity_files: Path, side: str, turns: int
) -> None:
    serves = Serves()
    nodes = joined(identity_files, server=serves, drain_timeout_s=PATIENCE)
    async with asyncio.timeout(PATIENCE), nodes as (server, client):
        call = asyncio.create_task(client.call("get", "forever", timeout=3600.0))
        await serves.arrived.wait()
        node = server if side == "server" else client
        stop = asyncio.create_task(node.stop())
        for _ in range(turns):
            await asyncio.sleep(0)
        stop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stop
        await serves.cancelled.wait()
        if side == "server":
            await client.stop()
        with pytest.raises(restpipe.EventError):
            await call


async def test_a_node_belongs_to_the_event_loop_that_it_was_started_in(identity_files: Path) -> None:
    async with server_node(identity_files) as node:

        async def elsewhere() -> None:
            await node.client("alpha").call("get", "name")

        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, elsewhere())


async def test_a_start_that_fails_leaves_nothing_behind(identity_files: Path) -> None:
    async with server_node(identity_files) as first:
        second = server_node(identity_files, bind_port=first.port)
        with pytest.raises(ConfigError, match="cannot listen"):
            await second.start()
        with pytest.raises(RuntimeError, match="is not running"):
            _ = second.port
        await second.stop()


async def test_a_program_handles_its_own_signals_and_its_own_log(identity_files: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    loggers = [logging.getLogger(), logging.getLogger("restpipe")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of Python 3.14
        policy = asyncio.get_event_loop_policy()
    async with joined(identity_files):
        assert [signal.getsignal(number) for number in numbers] == handlers
        assert [(logger.level, list(logger.handlers)) for logger in loggers] == before
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            assert asyncio.get_event_loop_policy() is policy


def test_a_variable_of_the_program_that_restpipe_has_too_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBUG", "app:*")
    monkeypatch.setenv("RP_SERVER_WEB_BIND", "127.0.0.1:9999")
    monkeypatch.setenv("RP_SERVER_BIND_PORT", "4321")
    settings = restpipe.ServerNode(bind_interface="127.0.0.1").settings
    assert (settings.web_bind, settings.bind_port, settings.bind_interface) == (None, 4321, "127.0.0.1")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_port": 0}, "target_port=0: "),
        ({"heartbeat_interval_s": 20}, "should exceed RP_CLIENT_HEARTBEAT_INTERVAL_S"),
        ({"handler": Serves, "upstream": "http://127.0.0.1:9"}, "handler and RP_UPSTREAM: one of them serves"),
        ({"asgi": print, "handler": Serves}, "handler and asgi: one of them serves"),
        ({"asgi": "shop:app", "handler": Serves}, "handler and RP_ASGI: one of them serves"),
        ({"asgi": print, "files": "."}, "asgi and RP_FILES: one of them serves"),
        ({"asgi": "shop"}, "asgi='shop': should name an ASGI application"),
        ({"target_prot": 1}, "target_prot: there is no such setting; did you mean target_port?"),
    ],
)
def test_a_wrong_keyword_is_named_as_it_was_written(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        restpipe.ClientNode(**settings)
    assert message in str(caught.value)


async def test_an_identity_that_is_missing_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"key\.pem"):
        await restpipe.ClientNode(cert_path=tmp_path).start()


async def test_a_web_server_of_its_own_comes_where_it_is_asked_for(identity_files: Path, tmp_path: Path) -> None:
    socket = tmp_path / "web"
    async with server_node(identity_files, web_bind=f"unix:{socket}"):
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://node", timeout=PATIENCE) as http:
            assert (await http.get("/readyz")).json() == {"status": "ready"}
    assert not socket.exists()


async def test_a_peer_that_is_absent_is_waited_for_and_told(identity_files: Path) -> None:
    async with server_node(identity_files) as server:
        async with restpipe.ClientNode(**client_options(identity_files, server.port)):
            await server.client("alpha").wait_connected()
        with pytest.raises(PeerAbsentError):
            await server.client("alpha").wait_connected(0)
        with pytest.raises(PeerUnknownError):
            await server.client("beta.invalid").call("get", "name", wait=0)
