"""Nodes that run, while certificates are replaced, revoked, and expire."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from live_handlers import Told
from live_nodes import PATIENCE, connected, running_client, running_server

from restpipe.exceptions import ConnectError, EventError, IdentityError
from restpipe.identity import Authority
from restpipe.identity.authority import CA_KEY_FILENAME
from restpipe.nodes import client as client_node
from restpipe.nodes import node as nodes_node
from restpipe.nodes.client import ClientNode
from restpipe.nodes.exchanges import Patience, exchange
from restpipe.nodes.server import ServerNode
from restpipe.pipe import Pipe
from restpipe.stats import Gauge, NullStats
from restpipe.transport import grpc_client
from restpipe.transport.channel_options import METHOD, SERVICE
from restpipe_pb.v1.pipe_pb2 import Goaway, Request

SOON: dict[str, Any] = {"identity_interval_s": 0.02}
PATIENT = Patience(PATIENCE, PATIENCE)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Make a CA of the test's own, with a server and a client."""
    authority = Authority.create(tmp_path)
    authority.issue("server", "server")
    authority.issue("alpha", "client")
    return authority


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "restpipe"):
        yield


@pytest.fixture
def brief_retirement(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (client_node, nodes_node):
        monkeypatch.setattr(module, "RETIREMENT", 0.05)


@asynccontextmanager
async def pair(directory: Path, **changed: Any) -> AsyncIterator[tuple[ServerNode, ClientNode]]:
    async with (
        running_server(directory, **SOON | changed) as server,
        running_client(directory, server.port, **SOON | changed) as client,
    ):
        await connected(server, client)
        yield server, client


def told(node: Any) -> Told:
    events: Told = node._events
    return events


async def ended(pipe: Pipe) -> Any:
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait({pipe.ended})
    return pipe.ended.result()


async def until(true: Callable[[], object]) -> None:
    """Wait for what nothing tells of."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def ask(way: Any, noun: str = "value", verb: str = "get") -> bytes:
    request = Request(verb=verb, noun=noun, content_type="text/plain", body=b"some text")
    answer, attempts = await exchange(way, lambda _pipe: request, None, PATIENT)
    assert attempts == 1
    return await answer.body.read(1 << 20)


def way_to(server: ServerNode, name: str = "alpha") -> Callable[[float], Any]:
    return lambda wait: server.pipe_to(name, wait)


def lasting(directory: Path, name: str, lifetime: timedelta) -> datetime:
    """Sign the certificate of an identity again, to end soon."""
    key = serialization.load_pem_private_key((directory / CA_KEY_FILENAME).read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    path = directory / f"{name}.crt.pem"
    model = x509.load_pem_x509_certificate(path.read_bytes())
    end = datetime.now(UTC).replace(microsecond=0) + lifetime
    builder = x509.CertificateBuilder(
        model.issuer, model.subject, model.public_key(), x509.random_serial_number(), model.not_valid_before_utc, end
    )
    for extension in model.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return end


# Revocation


async def test_the_live_pipe_of_a_revoked_client_is_cut_with_the_reason_and_others_are_not(
    authority: Authority, caplog: pytest.LogCaptureFixture, leak_free: None
) -> None:
    authority.issue("beta", "client")
    directory = authority.directory
    async with pair(directory) as (server, client), running_client(directory, server.port, "beta") as other:
        await connected(server, other)
        at_server, at_client = await server.pipe_to("alpha", 0), await client.pipe_to_server(0)
        at_other = await other.pipe_to_server(0)
        authority.revoke([client.identity.certificate.serial_number])
        end = await ended(at_server)
        assert (end.reason, end.by_peer) == (Goaway.CERTIFICATE, False)
        end = await ended(at_client)
        assert (end.reason, end.by_peer) == (Goaway.CERTIFICATE, True)
        assert end.message.startswith("the certificate of alpha was revoked on 20")
        assert len(server.registry) == 1
        assert at_other.available
    assert "ended the pipe to alpha (127.0.0.1): the certificate of alpha was revoked on " in caplog.text
    assert "disconnected from the server: the certificate of alpha was revoked on " in caplog.text


async def test_a_revoked_client_is_not_let_in_and_both_sides_say_why(
    authority: Authority, caplog: pytest.LogCaptureFixture, leak_free: None
) -> None:
    directory = authority.directory
    async with running_server(directory) as server:
        elsewhere = directory / "elsewhere"
        elsewhere.mkdir()
        for name in ("alpha.key.pem", "alpha.crt.pem", "ca.crt.pem"):
            shutil.copy(directory / name, elsewhere)
        authority.revoke([authority.issued("alpha")[0].serial_number])
        server.reload()
        await until(lambda: server.custody.revocations)
        async with running_client(elsewhere, server.port) as client:
            await told(client).until("connect_fail")
            assert "the certificate of alpha was revoked on 20" in client._last_cause
            # A new identity is let in, under the same name.
            authority.renew("alpha")
            for name in ("alpha.key.pem", "alpha.crt.pem"):
                shutil.copy(directory / name, elsewhere)
            client.reload()
            await connected(server, client)
    assert "refused alpha at 127.0.0.1: the certificate of alpha was revoked on 20" in caplog.text


async def test_a_client_that_is_not_allowed_is_not_let_in_and_both_sides_say_why(
    authority: Authority, caplog: pytest.LogCaptureFixture, leak_free: None
) -> None:
    directory = authority.directory
    authority.issue("beta", "client")
    async with (
        running_server(directory, allowed_clients="beta, gam*") as server,
        running_client(directory, server.port, "beta") as allowed,
        running_client(directory, server.port) as refused,
    ):
        await connected(server, allowed)
        await told(refused).until("connect_fail")
        assert "'alpha' is none of the clients that the server allows" in refused._last_cause
        assert [pipe.peer.name for pipe in server.registry] == ["beta"]
    assert "refused alpha at 127.0.0.1: it is none of the allowed clients" in caplog.text


async def test_a_client_cuts_the_live_pipe_to_a_revoked_server_and_does_not_dial_it_again(
    authority: Authority, caplog: pytest.LogCaptureFixture, leak_free: None
) -> None:
    directory = authority.directory
    elsewhere = directory / "elsewhere"
    elsewhere.mkdir()
    for name in ("server.key.pem", "server.crt.pem", "ca.crt.pem"):
        shutil.copy(directory / name, elsewhere)
    async with (
        running_server(elsewhere, **SOON) as server,
        running_client(directory, server.port, **SOON) as client,
    ):
        await connected(server, client)
        pipe = await client.pipe_to_server(0)
        authority.revoke([authority.issued("server")[0].serial_number])
        end = await ended(pipe)
        assert (end.reason, end.by_peer) == (Goaway.CERTIFICATE, False)
        await told(client).until("connect_fail")
        assert "the server's certificate was revoked on 20" in client._last_cause
        # With a new one it is dialled again.
        authority.renew("server")
        for name in ("server.key.pem", "server.crt.pem"):
            shutil.copy(directory / name, elsewhere)
        await connected(server, client)


async def test_a_client_that_was_revoked_while_it_said_hello_is_not_registered(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, leak_free: None
) -> None:
    async with running_server(authority.directory) as server:
        monkeypatch.setattr(server._watch, "fault_of", lambda _peer: "the certificate of alpha was revoked")
        async with running_client(authority.directory, server.port) as client:
            end = await ended(await client.pipe_to_server(PATIENCE))
            assert (end.reason, end.message) == (Goaway.CERTIFICATE, "the certificate of alpha was revoked")
            assert not server.registry._known


async def test_a_list_that_is_damaged_while_the_node_runs_is_told_and_changes_nothing(
    authority: Authority, caplog: pytest.LogCaptureFixture, leak_free: None
) -> None:
    async with pair(authority.directory) as (server, client):
        authority.crl_path.write_bytes(b"nonsense")
        await until(lambda: "ca.crl.pem: is not a PEM file" in caplog.text)
        assert await ask(client.pipe_to_server) == b'{"value": 1}'
        assert server.registry._pipes
    assert "(what was there before stays in use)" in caplog.text


async def test_a_node_does_not_start_with_a_damaged_list(authority: Authority) -> None:
    authority.crl_path.write_bytes(b"nonsense")
    with pytest.raises(IdentityError, match=r"ca\.crl\.pem: is not a PEM file"):
        async with running_server(authority.directory):
            pass


# Replacement


async def traffic(way: Any, over: asyncio.Event, faults: list[Exception]) -> int:
    """Ask one thing after the other until it is over."""
    asked = 0
    while not over.is_set():
        try:
            assert await ask(way, "echo", "post") == b"some text"
        except (EventError, AssertionError) as error:
            faults.append(error)
            return asked
        asked += 1
        await asyncio.sleep(0)
    return asked


async def test_no_request_of_either_side_fails_while_the_client_s_identity_is_replaced_again_and_again(
    authority: Authority, brief_retirement: None, leak_free: None
) -> None:
    async with pair(authority.directory) as (server, client):
        over, faults = asyncio.Event(), []  # type: asyncio.Event, list[Exception]
        ways = [client.pipe_to_server, way_to(server)] * 4
        asking = [asyncio.create_task(traffic(way, over, faults)) for way in ways]
        for _ in range(5):
            before = await server.pipe_to("alpha", 0)
            authority.renew("alpha")
            await ended(before)
            after = await server.pipe_to("alpha", 0)
            assert after.peer.certificate == client.identity.certificate_pem != before.peer.certificate
        over.set()
        counts = await asyncio.gather(*asking)
        assert faults == []
        assert min(counts) > 10
        await until(lambda: len(client.pipes) == 1)


async def test_no_request_of_either_side_fails_while_the_server_s_identity_is_replaced_and_new_clients_see_the_new_one(
    authority: Authority, leak_free: None
) -> None:
    authority.issue("beta", "client")
    async with pair(authority.directory) as (server, client):
        over, faults = asyncio.Event(), []  # type: asyncio.Event, list[Exception]
        ways = [client.pipe_to_server, way_to(server)] * 4
        asking = [asyncio.create_task(traffic(way, over, faults)) for way in ways]
        pipe = await client.pipe_to_server(0)
        for _ in range(3):
            before = server.identity
            authority.renew("server")
            await until(lambda: server.identity != before)  # noqa: B023
            async with running_client(authority.directory, server.port, "beta") as newcomer:
                new = await newcomer.pipe_to_server(PATIENCE)
                assert new.peer.certificate == server.identity.certificate_pem != pipe.peer.certificate
        over.set()
        counts = await asyncio.gather(*asking)
        assert faults == []
        assert min(counts) > 10
        assert pipe.available


@pytest.mark.parametrize("direction", ["from the client", "from the server"])
async def test_what_is_in_flight_when_the_client_s_identity_is_replaced_finishes_on_the_old_pipe(
    authority: Authority, brief_retirement: None, leak_free: None, direction: str
) -> None:
    async with pair(authority.directory) as (server, client):
        old = await server.pipe_to("alpha", 0)
        serving: Any = server if direction == "from the client" else client
        way = client.pipe_to_server if direction == "from the client" else way_to(server)
        waiting = asyncio.create_task(ask(way, "wait", "post"))
        async with asyncio.timeout(PATIENCE):
            await serving.handler.entered.wait()
        authority.renew("alpha")
        await until(lambda: server.registry._pipes.get("alpha") not in (old, None))
        # The old one is told to end, and waits for what it has in flight.
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait({old.departing})
        assert not old.ended.done()
        assert len(server.pipes) == 2
        serving.handler.release.set()
        assert await waiting == b'{"waited": "post"}'
        assert (await ended(old)).reason == Goaway.SHUTDOWN
        assert len(server.pipes) == 1


async def test_a_pipe_that_its_client_never_ends_is_ended_by_the_server(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, leak_free: None
) -> None:
    monkeypatch.setattr("restpipe.nodes.server.RETIREMENT", 0.05)
    monkeypatch.setattr(client_node, "RETIREMENT", 3600.0)
    async with pair(authority.directory, drain_timeout_s=0) as (server, _client):
        old = await server.pipe_to("alpha", 0)
        authority.renew("alpha")
        assert (await ended(old)).reason == Goaway.TAKEOVER
        assert (await server.pipe_to("alpha", 0)).available


async def test_half_a_replacement_breaks_nothing_and_is_completed_by_the_other_half(
    authority: Authority, caplog: pytest.LogCaptureFixture, brief_retirement: None, leak_free: None
) -> None:
    directory = authority.directory
    async with pair(directory) as (server, client):
        pipe = await client.pipe_to_server(0)
        old = (directory / "alpha.crt.pem").read_bytes()
        staged = directory / "staged"
        staged.mkdir()
        new = Authority.load(directory).renew("alpha")
        (directory / "new.crt.pem").write_bytes(new.certificate_path.read_bytes())
        new.certificate_path.write_bytes(old)
        await until(lambda: "is not the key of" in caplog.text)
        assert pipe.available
        assert await ask(client.pipe_to_server) == b'{"value": 1}'
        assert await ask(way_to(server)) == b'{"value": 1}'
        (directory / "new.crt.pem").replace(new.certificate_path)
        await ended(pipe)
        at_server = await server.pipe_to("alpha", PATIENCE)
        assert at_server.peer.certificate == new.certificate_path.read_bytes()


async def test_a_new_identity_that_the_server_refuses_leaves_the_old_pipe(
    authority: Authority, caplog: pytest.LogCaptureFixture, tmp_path: Path, brief_retirement: None, leak_free: None
) -> None:
    other = Authority.create(tmp_path / "other")
    stranger = other.issue("alpha", "client")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("alpha.key.pem", "alpha.crt.pem", "ca.crt.pem"):
        shutil.copy(authority.directory / name, elsewhere)
    async with (
        running_server(authority.directory) as server,
        running_client(elsewhere, server.port, **SOON) as client,
    ):
        await connected(server, client)
        pipe = await client.pipe_to_server(0)
        both = authority.certificate_path.read_bytes() + other.certificate_path.read_bytes()
        (elsewhere / "ca.crt.pem").write_bytes(both)
        await until(lambda: "connected to the server anew" in caplog.text)
        await ended(pipe)
        pipe = await client.pipe_to_server(0)
        shutil.copy(stranger.key_path, elsewhere)
        shutil.copy(stranger.certificate_path, elsewhere)
        await until(lambda: "cannot connect to the server anew, and stay with the pipe of before" in caplog.text)
        assert "trusts another CA" in caplog.text
        assert pipe.available
        assert await ask(client.pipe_to_server) == b'{"value": 1}'


async def test_a_client_that_took_its_new_certificate_before_it_got_through_needs_no_second_pipe(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, leak_free: None
) -> None:
    dial, through = grpc_client.dial, asyncio.Event()
    got_through: list[bytes] = []

    async def dial_once_it_is_time(*arguments: Any, **options: Any) -> Any:
        if not through.is_set():
            raise ConnectError("no way through")
        got_through.append(arguments[2].certificate_pem)
        return await dial(*arguments, **options)

    monkeypatch.setattr(client_node, "dial", dial_once_it_is_time)
    async with (
        running_server(authority.directory) as server,
        running_client(authority.directory, server.port, **SOON, reconnect_max_s=0.05) as client,
    ):
        await until(lambda: "no way through" in caplog.text)
        renewed = authority.renew("alpha")
        await until(lambda: "took a new identity" in caplog.text)
        through.set()
        await connected(server, client)
        assert await ask(client.pipe_to_server) == b'{"value": 1}'
        assert got_through == [renewed.certificate_path.read_bytes()]


async def test_a_pipe_that_is_lost_while_its_successor_is_dialled_is_made_anew(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, brief_retirement: None, leak_free: None
) -> None:
    dialled, held = asyncio.Event(), [asyncio.Event()]
    dial = grpc_client.dial

    async def held_dial(*arguments: Any, **options: Any) -> Any:
        if held:
            dialled.set()
            await held.pop().wait()  # for ever
        return await dial(*arguments, **options)

    async with pair(authority.directory) as (server, client):
        monkeypatch.setattr(client_node, "dial", held_dial)
        authority.renew("alpha")
        async with asyncio.timeout(PATIENCE):
            await dialled.wait()
        (await server.pipe_to("alpha", 0)).close(Goaway.SHUTDOWN, "a test")
        await told(client).until("connect_success")
        await connected(server, client)
        assert (await server.pipe_to("alpha", 0)).peer.certificate == client.identity.certificate_pem


async def test_a_successor_that_comes_too_late_is_not_left_behind(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, brief_retirement: None, leak_free: None
) -> None:
    async with pair(authority.directory) as (server, client):
        make_pipe, late = client.make_pipe, []  # type: Any, list[Pipe]

        def make(*arguments: Any, **options: Any) -> Pipe:
            pipe: Pipe = make_pipe(*arguments, **options)
            if options["succeeds"]:
                late.append(pipe)
                monkeypatch.setattr(pipe, "wait_ready", asyncio.Event().wait)  # for ever
            return pipe

        monkeypatch.setattr(client, "make_pipe", make)
        old = await client.pipe_to_server(0)
        authority.renew("alpha")
        await until(lambda: late and late[0].ready.done())
        old.close(Goaway.SHUTDOWN, "a test")
        assert (await ended(late[0])).message == "no pipe is wanted any more"
        await told(client).until("connect_success", 2)
        await connected(server, client)
        await until(lambda: len(client.pipes) == 1)


async def test_sighup_or_an_operator_need_not_wait_for_the_interval(
    authority: Authority, caplog: pytest.LogCaptureFixture, leak_free: None
) -> None:
    async with running_server(authority.directory, identity_interval_s=3600.0) as server:
        server.reload()
        await until(lambda: "there is none" in caplog.text)
        authority.renew("server")
        server.reload()
        await until(lambda: "took a new identity: server, valid until 20" in caplog.text)
        authority.revoke([7])
        server.reload()
        await until(lambda: "took a new revocation list: 1 revoked" in caplog.text)


# Trust


@asynccontextmanager
async def pair_of_two_cas(
    authority: Authority, **changed: Any
) -> AsyncIterator[tuple[ServerNode, ClientNode, Authority]]:
    """Run a server of one CA and a client of another, each in its directory, that trust both."""
    other = Authority.create(authority.directory / "other", name="Other CA")
    other.issue("alpha", "client")
    other.issue("server", "server")
    both = authority.certificate_path.read_bytes() + other.certificate_path.read_bytes()
    for one in (authority, other):
        (one.directory / "trusted.pem").write_bytes(both)
    trusting: dict[str, Any] = SOON | {"ca_crt_filename": "trusted.pem"} | changed
    async with (
        running_server(authority.directory, **trusting) as server,
        running_client(other.directory, server.port, **trusting) as client,
    ):
        await connected(server, client)
        yield server, client, other


@asynccontextmanager
async def channel_of(client: ClientNode) -> AsyncIterator[grpc.aio.Channel]:
    """Yield a connection of the test's own, with the identity of a client."""
    identity = client.identity
    credentials = grpc.ssl_channel_credentials(identity.ca_pem, identity.key_pem, identity.certificate_pem)
    target = f"127.0.0.1:{client.settings.target_port}"
    async with grpc.aio.secure_channel(target, credentials) as channel:
        await channel.channel_ready()
        yield channel


def withdraw(authority: Authority, trusted: Authority) -> None:
    """Have the node in the directory of a CA trust one CA alone."""
    (authority.directory / "trusted.pem").write_bytes(trusted.certificate_path.read_bytes())


async def test_the_live_pipe_of_a_client_whose_ca_is_withdrawn_is_cut_and_it_is_not_let_in_again(
    authority: Authority, caplog: pytest.LogCaptureFixture, leak_free: None
) -> None:
    authority.issue("beta", "client")
    directory = authority.directory
    async with (
        pair_of_two_cas(authority) as (server, client, _),
        running_client(directory, server.port, "beta") as trusted,
        channel_of(client) as stranger,
    ):
        await connected(server, trusted)
        at_trusted, at_client = await trusted.pipe_to_server(0), await client.pipe_to_server(0)
        withdraw(authority, authority)
        end = await ended(at_client)
        assert (end.reason, end.by_peer) == (Goaway.CERTIFICATE, True)
        assert end.message == "the certificate of alpha is from no CA that is trusted any more"
        assert "ended the pipe to alpha (127.0.0.1): the certificate of alpha is from no CA" in caplog.text
        # Nor over a connection that TLS let in before.
        call: Any = stranger.stream_stream(f"/{SERVICE}/{METHOD}")()
        with pytest.raises(grpc.aio.AioRpcError, match="from no CA that is trusted any more; get a new one"):
            await call.read()
        assert [pipe.peer.name for pipe in server.registry] == ["beta"]
        assert at_trusted.available


async def test_a_client_leaves_a_server_whose_ca_it_does_not_trust_any_more_and_does_not_dial_it_again(
    authority: Authority, caplog: pytest.LogCaptureFixture, leak_free: None
) -> None:
    async with pair_of_two_cas(authority) as (server, client, other):
        pipe = await client.pipe_to_server(0)
        withdraw(other, other)
        end = await ended(pipe)
        assert (end.reason, end.by_peer) == (Goaway.CERTIFICATE, False)
        assert end.message == "the certificate of 127.0.0.1 is from no CA that is trusted any more"
        await told(client).until("connect_fail")
        assert "the server's certificate is not from this node's CA" in client._last_cause
        # It is dialled again once it shows one that is.
        for name in ("server.key.pem", "server.crt.pem"):
            shutil.copy(other.directory / name, authority.directory / f"new.{name}")
        for name in ("server.key.pem", "server.crt.pem"):
            (authority.directory / f"new.{name}").replace(authority.directory / name)
        await connected(server, client)


async def test_a_client_whose_server_has_a_certificate_of_the_new_ca_already_changes_over_without_a_failed_request(
    authority: Authority, caplog: pytest.LogCaptureFixture, brief_retirement: None, leak_free: None
) -> None:
    async with pair_of_two_cas(authority) as (server, client, other):
        pipe, serving = await client.pipe_to_server(0), server
        waiting = asyncio.create_task(ask(client.pipe_to_server, "wait", "post"))
        async with asyncio.timeout(PATIENCE):
            await serving.handler.entered.wait()
        for name in ("server.key.pem", "server.crt.pem"):
            shutil.copy(other.directory / name, authority.directory)
        await until(lambda: "took a new identity: server" in caplog.text)
        withdraw(other, other)
        await until(lambda: client._pipe is not pipe)
        assert not pipe.ended.done()
        serving.handler.release.set()
        assert await waiting == b'{"waited": "post"}'
        assert (await ended(pipe)).reason == Goaway.SHUTDOWN


# Expiry


async def test_a_pipe_whose_client_s_certificate_expires_is_cut_with_the_reason(
    authority: Authority, caplog: pytest.LogCaptureFixture, leak_free: None
) -> None:
    end = lasting(authority.directory, "alpha", timedelta(seconds=2))
    async with pair(authority.directory) as (server, client):
        pipe, at_client = await server.pipe_to("alpha", 0), await client.pipe_to_server(0)
        assert pipe.peer.not_after == end
        assert (await ended(pipe)).reason == Goaway.CERTIFICATE
        assert datetime.now(UTC) >= end
        assert (await ended(at_client)).message.startswith("the certificate of alpha expired on 20")
        await told(client).until("connect_fail")
        assert "this node's certificate expired on 20" in client._last_cause
        authority.renew("alpha")
        await connected(server, client)
    assert "the certificate of alpha expires in " in caplog.text


async def test_a_server_whose_certificate_is_replaced_before_it_expires_loses_no_client_and_no_request(
    authority: Authority, brief_retirement: None, leak_free: None
) -> None:
    end = lasting(authority.directory, "server", timedelta(seconds=3))
    async with pair(authority.directory) as (server, client):
        pipe = await client.pipe_to_server(0)
        assert pipe.peer.not_after == end
        over, faults = asyncio.Event(), []  # type: asyncio.Event, list[Exception]
        asking = [asyncio.create_task(traffic(way, over, faults)) for way in (client.pipe_to_server, way_to(server))]
        authority.renew("server")
        await until(lambda: server.identity.not_after != end)
        assert (await ended(pipe)).reason == Goaway.SHUTDOWN
        assert (await client.pipe_to_server(0)).peer.certificate == server.identity.certificate_pem
        over.set()
        await asyncio.gather(*asking)
        assert faults == []


async def test_a_client_cuts_a_pipe_whose_server_s_certificate_expired(authority: Authority, leak_free: None) -> None:
    lasting(authority.directory, "server", timedelta(seconds=2))
    async with (
        running_server(authority.directory) as server,
        running_client(authority.directory, server.port, **SOON) as client,
    ):
        await connected(server, client)
        pipe = await client.pipe_to_server(0)
        end = await ended(pipe)
        assert (end.reason, end.by_peer) == (Goaway.CERTIFICATE, False)
        await told(client).until("connect_fail")
        assert "the server's certificate has expired" in client._last_cause


async def test_what_expires_within_14_days_is_warned_of_once_and_what_lasts_longer_is_not(
    authority: Authority, caplog: pytest.LogCaptureFixture, leak_free: None
) -> None:
    lasting(authority.directory, "alpha", timedelta(days=13, hours=1))
    async with pair(authority.directory) as (server, _client):
        await until(lambda: "the certificate of alpha expires in 13 days" in caplog.text)
        server.reload()
        await until(lambda: "there is none" in caplog.text)
    assert caplog.text.count("the certificate of alpha expires in") == 1
    assert caplog.text.count("alpha.crt.pem: expires in 13 days") == 1
    assert "server.crt.pem: expires" not in caplog.text


async def test_warnings_are_repeated_after_a_day(
    authority: Authority, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, leak_free: None
) -> None:
    monkeypatch.setattr("restpipe.nodes.watch.WARNING_INTERVAL", 0.0)
    lasting(authority.directory, "alpha", timedelta(days=10))
    async with pair(authority.directory):
        await until(lambda: caplog.text.count("the certificate of alpha expires in 9 days") > 1)
        await until(lambda: caplog.text.count("alpha.crt.pem: expires in 9 days") > 1)


async def test_the_days_that_certificates_last_are_gauged(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, leak_free: None
) -> None:
    seen: dict[str, float] = {}

    class Gauges(NullStats):
        def gauge(self, name: str, value: float) -> None:
            seen[name] = value

    lasting(authority.directory, "alpha", timedelta(days=10))
    monkeypatch.setattr("restpipe.nodes.node.stats_to", lambda *_: Gauges())
    async with running_server(authority.directory, **SOON) as server:
        assert set(seen) == {Gauge.IDENTITY, Gauge.CA}
        assert 824 < seen[Gauge.IDENTITY] < 825
        assert 3649 < seen[Gauge.CA] < 3650
        seen.clear()
        monkeypatch.undo()
        async with running_client(authority.directory, server.port):
            await until(lambda: Gauge.PEERS in seen)
            assert 9 < seen[Gauge.PEERS] < 10
