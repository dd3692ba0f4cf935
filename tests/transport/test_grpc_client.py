"""Dialling: who is refused, what is said, and what is left behind."""

import asyncio
import contextlib
import gc
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any
from unittest.mock import MagicMock

import forge
import grpc
import grpc.aio
import pytest
from carriers import Identities, connections, listening

from restpipe.exceptions import ConnectError
from restpipe.identity import Identity
from restpipe.protocol.limits import Limits
from restpipe.transport import grpc_client
from restpipe.transport.carrier import CarrierLostError
from restpipe.transport.channel_options import METHOD, SERVICE
from restpipe.transport.grpc_client import GrpcClientCarrier, dial
from restpipe.transport.grpc_server import GrpcServerCarrier

pytestmark = pytest.mark.usefixtures("leak_free")

# The other has, or has not, the same name: CAs that were made by the same command do.
OTHER_CAS = pytest.mark.parametrize("name", ["CA", "Other CA"])


async def refused(identity: Identity, port: int, *, host: str = "127.0.0.1", connect_timeout: float = 3.0) -> str:
    """Dial in vain; return what is said, without the address in front of it."""
    with pytest.raises(ConnectError) as caught:
        async with asyncio.timeout(2 * connect_timeout):
            await dial(host, port, identity, Limits(), connect_timeout)
    address, _, message = str(caught.value).partition(": ")
    assert address == (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    assert "\n" not in message
    return message


async def refused_by(server: Identity, client: Identity, host: str = "127.0.0.1") -> str:
    """Dial a RestPipe server in vain, and make sure that nothing reached its accepting side."""

    async def accept(_carrier: GrpcServerCarrier) -> None:
        raise AssertionError("a client that is to be refused was accepted")

    async with listening(server, accept) as port:
        return await refused(client, port, host=host)


async def echo(carrier: GrpcServerCarrier) -> None:
    await carrier.write(b"first")
    while (frame := await carrier.read()) is not None:
        await carrier.write(frame)


# Certificates


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_nodes_of_one_ca_meet_under_every_name_of_the_server(identities: Identities, host: str) -> None:
    async with listening(identities.server, echo) as port:
        carrier = await dial(host, port, identities.client, Limits(), 5.0)
        assert carrier.peer.name == host
        await carrier.write(b"second")
        assert [await carrier.read(), await carrier.read()] == [b"first", b"second"]
        await closed(carrier)


async def closed(carrier: GrpcClientCarrier) -> None:
    closing = asyncio.ensure_future(carrier.close())
    while await carrier.read() is not None:
        pass
    await closing


@OTHER_CAS
async def test_a_client_of_another_ca_is_told_that_its_certificate_is_refused(name: str) -> None:
    client = forge.other_ca(name).make("client", trusts=forge.ca())
    message = await refused_by(forge.ca().make("server"), client)
    assert message == (
        "the server closed the connection when it saw this node's certificate; "
        "it trusts another CA, or its clock is wrong: its log says which"
    )


@OTHER_CAS
async def test_a_server_of_another_ca_is_not_trusted(name: str) -> None:
    server = forge.other_ca(name).make("server", trusts=forge.ca())
    message = await refused_by(server, forge.ca().make("client"))
    assert message.startswith("the server's certificate is not from this node's CA; ")


async def test_a_client_whose_certificate_expired_since_it_was_loaded_says_so() -> None:
    message = await refused_by(forge.ca().make("server"), forge.ca().make("client", valid=forge.PAST))
    assert message.startswith("this node's certificate expired on 20")


async def test_a_client_whose_certificate_is_not_yet_valid_says_so() -> None:
    message = await refused_by(forge.ca().make("server"), forge.ca().make("client", valid=forge.FUTURE))
    assert message.startswith("this node's certificate is not valid before 20")


async def test_a_server_s_certificate_is_no_client_s() -> None:
    message = await refused_by(forge.ca().make("server"), forge.ca().make("server"))
    assert message == "this node's certificate is not a client's; issue one with `restpipe ca issue NAME`"


async def test_a_server_whose_certificate_expired_is_refused() -> None:
    message = await refused_by(forge.ca().make("server", valid=forge.PAST), forge.ca().make("client"))
    assert message.startswith("the server's certificate has expired, or this machine's clock is ahead; ")


async def test_a_server_whose_certificate_is_not_yet_valid_is_refused() -> None:
    message = await refused_by(forge.ca().make("server", valid=forge.FUTURE), forge.ca().make("client"))
    assert message.startswith("the server's certificate is not yet valid, or this machine's clock is behind; ")


async def test_a_client_s_certificate_is_no_server_s() -> None:
    message = await refused_by(forge.ca().make("client"), forge.ca().make("client"))
    assert message.startswith("the server shows a certificate that is not a server's; issue one with `restpipe ca ")


@pytest.mark.parametrize("hosts", [("elsewhere.example",), ()])
async def test_a_server_that_is_not_who_was_dialled_is_refused(hosts: tuple[str, ...]) -> None:
    message = await refused_by(forge.ca().make("server", name="localhost", hosts=hosts), forge.ca().make("client"))
    assert message == (
        "the server's certificate does not name '127.0.0.1'; "
        "issue one with `restpipe ca issue NAME --server --host 127.0.0.1`"
    )


async def test_a_name_that_no_node_can_have_is_refused_on_both_sides(caplog: pytest.LogCaptureFixture) -> None:
    message = await refused_by(forge.ca().make("server"), forge.ca().make("client", name="../etc"))
    assert message.startswith("the client's certificate names no node: '../etc' cannot be the name of a node: ")
    assert [record.getMessage().split(": '")[0] for record in caplog.records] == [
        "refused a client at 127.0.0.1: its certificate names no node"
    ]


async def test_a_key_of_another_certificate_is_named_as_the_fault(identities: Identities) -> None:
    mixed = Identity(
        name="client-1",
        key_pem=identities.server.key_pem,
        certificate_pem=identities.client.certificate_pem,
        ca_pem=identities.client.ca_pem,
        not_before=identities.client.not_before,
        not_after=identities.client.not_after,
        hosts=(),
    )
    message = await refused_by(identities.server, mixed)
    assert message == "this node's key, certificate and CA cannot be used; install them anew"


# What else may listen there


@contextlib.asynccontextmanager
async def stranger(answer: bytes | None) -> AsyncIterator[int]:
    """Run a TCP server that sends `answer` to the first bytes and closes; one that says nothing where it is None."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(1000)
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def openssl_server(identity: Identity, directory: str, *options: str) -> AsyncIterator[int]:
    """Run OpenSSL's server, which sends TLS alerts, as those of Go, Envoy and nginx do, and gRPC's does not."""
    for name, pem in (("key", identity.key_pem), ("crt", identity.certificate_pem), ("ca", identity.ca_pem)):
        with open(f"{directory}/{name}.pem", "wb") as file:  # noqa: ASYNC230, PTH123
            file.write(pem)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["-accept", f"127.0.0.1:{port}", "-key", f"{directory}/key.pem", "-cert", f"{directory}/crt.pem"]
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_server", *arguments, "-CAfile", f"{directory}/ca.pem", *options,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    while (await process.stdout.readline()).strip() != b"ACCEPT":
        pass
    drained = asyncio.ensure_future(process.stdout.read())
    try:
        yield port
    finally:
        process.kill()
        await drained
        await process.wait()


async def test_a_port_where_nothing_listens_is_told(identities: Identities) -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        message = await refused(identities.client, bound.getsockname()[1])
    assert message == "nothing listens there; start the server node, or check its host and port"


async def test_a_host_name_that_nobody_has_is_told(identities: Identities) -> None:
    message = await refused(identities.client, 1234, host="nobody.invalid")
    assert message.startswith(("the host name does not resolve; check the name", "no answer within"))


async def test_a_server_that_says_nothing_is_given_up_in_time(identities: Identities) -> None:
    async with stranger(None) as port, asyncio.timeout(2):
        assert await refused(identities.client, port, connect_timeout=0.5) in {
            "no answer within 0.5 s; check host and port, and the firewalls in between",
            "what listens there does not answer; check host and port",
        }


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"])
async def test_a_server_without_tls_is_told(identities: Identities, answer: bytes) -> None:
    async with stranger(answer) as port:
        message = await refused(identities.client, port)
    assert message == "what listens there does not speak TLS; check host and port"


async def test_a_server_that_closes_at_once_is_not_mistaken_for_one_that_refuses(identities: Identities) -> None:
    async with stranger(b"") as port:
        message = await refused(identities.client, port)
    assert message == "the server closed the connection; it may be starting or stopping"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
async def test_a_web_server_is_no_restpipe_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = str(tmp_path_factory.mktemp("web"))
    async with openssl_server(forge.ca().make("server"), directory, "-www") as port:
        message = await refused(forge.ca().make("client"), port)
    assert message == "what listens there is no RestPipe server; check host and port"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
@OTHER_CAS
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_the_alert_of_a_server_that_sends_one_is_put_in_words(
    version: str, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = str(tmp_path_factory.mktemp("alert"))
    options = (version, "-alpn", "h2", "-Verify", "1", "-verify_return_error")
    client = forge.other_ca(name).make("client", trusts=forge.ca())
    async with openssl_server(forge.ca().make("server"), directory, *options) as port:
        message = await refused(client, port)
    assert message == "the server trusts another CA than this node's; give both nodes the certificate of the same CA"


@contextlib.asynccontextmanager
async def grpc_server(identity: Identity, code: grpc.StatusCode | None, details: str = "") -> AsyncIterator[int]:
    """Run a gRPC server that is none of ours: without our call, or one that ends it with a status."""
    server = grpc.aio.server()
    if code is not None:

        async def connect(_requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            if code is not grpc.StatusCode.OK:
                await context.abort(code, details)

        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(connect)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    keys = [(identity.key_pem, identity.certificate_pem)]
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials(keys, identity.ca_pem, require_client_auth=True)
    )
    await server.start()
    yield port
    await server.stop(0)


async def test_a_grpc_server_without_our_call_is_no_restpipe_server(identities: Identities) -> None:
    async with grpc_server(identities.server, None) as port:
        message = await refused(identities.client, port)
    assert message == "what listens there is no RestPipe server; check host and port"


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_what_a_server_says_as_it_refuses_is_one_line(identities: Identities, code: grpc.StatusCode) -> None:
    async with grpc_server(identities.server, code, "come\nback \x1b[2J later") as port:
        message = await refused(identities.client, port)
    assert message == r"come\nback \x1b[2J later"


async def test_a_status_without_words_is_named(identities: Identities) -> None:
    async with grpc_server(identities.server, grpc.StatusCode.RESOURCE_EXHAUSTED) as port:
        assert await refused(identities.client, port) == "RESOURCE_EXHAUSTED"


async def test_a_server_that_ends_the_call_without_a_frame_did_not_accept_it(identities: Identities) -> None:
    async with grpc_server(identities.server, grpc.StatusCode.OK) as port:
        assert await refused(identities.client, port) == "the server ended the call before its first frame"


async def test_a_server_that_takes_the_call_and_says_nothing_is_given_up_in_time(identities: Identities) -> None:
    async def accept(carrier: GrpcServerCarrier) -> None:
        assert await carrier.read() is None

    async with listening(identities.server, accept) as port, asyncio.timeout(2):
        assert (await refused(identities.client, port, connect_timeout=0.5)).startswith("no answer within 0.5 s; check")


async def test_a_call_that_tells_of_its_own_time_out_as_a_status_is_given_up_like_any_other(
    identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Call:
        async def read(self) -> bytes:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                metadata = grpc.aio.Metadata()
                raise grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, metadata, metadata) from None
            raise AssertionError

    def without_network(*_target: object, **_options: object) -> Any:
        channel = MagicMock()
        channel.__aenter__.return_value = channel
        channel.stream_stream.return_value = Call
        return channel

    monkeypatch.setattr(grpc.aio, "secure_channel", without_network)
    with pytest.raises(ConnectError, match=r"^somewhere:1: no answer within 0\.05 s; check host"):
        await dial("somewhere", 1, identities.client, Limits(), 0.05, expected=identities.server.certificate_pem)


async def test_the_reason_of_a_refusal_is_sought_within_the_time_of_the_attempt(
    identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []

    async def explain(_error: object, _host: str, _port: int, _identity: Identity, patience: float) -> str:
        given.append(patience)
        return "so it is"

    monkeypatch.setattr(grpc_client, "explain", explain)
    async with stranger(b"") as port:
        assert await refused(identities.client, port) == "so it is"
    assert 0 < given[0] < 3.0


# What is left behind


async def gone(port: int) -> None:
    """Wait until no connection to the port is left."""
    while connections(port):  # noqa: ASYNC110  (the kernel tells nobody)
        await asyncio.sleep(0.01)


async def test_a_closed_carrier_holds_no_connection_while_it_is_referred_to(
    identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_client, "_GOODBYE_TIMEOUT", 60.0)  # not needed where the server says goodbye, too
    async with listening(identities.server, echo) as port, asyncio.timeout(5):
        carrier = await dial("127.0.0.1", port, identities.client, Limits(), 5.0)
        assert connections(port)
        await closed(carrier)
        await gone(port)
        assert carrier.peer.name == "127.0.0.1"


async def test_closing_that_is_cancelled_closes(identities: Identities) -> None:
    ended = asyncio.Event()

    async def accept(carrier: GrpcServerCarrier) -> None:
        await carrier.write(b"first")
        while await carrier.read() is not None:
            pass
        ended.set()
        await asyncio.Event().wait()  # so that the client would wait for its whole second

    async with listening(identities.server, accept) as port, asyncio.timeout(5):
        carrier = await dial("127.0.0.1", port, identities.client, Limits(), 5.0)
        closing = asyncio.ensure_future(carrier.close())
        await ended.wait()
        closing.cancel()
        await asyncio.wait({closing})
        await gone(port)


async def test_dialling_that_is_cancelled_leaves_no_connection(identities: Identities) -> None:
    reached = asyncio.Event()

    async def accept(carrier: GrpcServerCarrier) -> None:
        reached.set()
        assert await carrier.read() is None

    async with listening(identities.server, accept) as port, asyncio.timeout(5):
        dialling = asyncio.ensure_future(dial("127.0.0.1", port, identities.client, Limits(), 5.0))
        await reached.wait()
        dialling.cancel()
        await asyncio.wait({dialling})
        assert dialling.cancelled()
        del dialling  # what gRPC raised in it refers to the call
        await gone(port)


class CancelledAsItFails(contextlib.AbstractAsyncContextManager[None]):
    """A channel and its call. A cancellation and the status arrive at once: grpc.aio tells of the status only."""

    def stream_stream(self, _method: str) -> "Callable[[], CancelledAsItFails]":
        return lambda: self

    async def read(self) -> bytes:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "Connection refused")

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


async def test_dialling_that_is_cancelled_as_it_fails_is_cancelled(
    identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc.aio, "secure_channel", lambda *_, **__: CancelledAsItFails())
    dialling = asyncio.create_task(
        dial("127.0.0.1", 1, identities.client, Limits(), 5.0, expected=identities.server.certificate_pem)
    )
    await asyncio.wait({dialling})
    assert dialling.cancelled()


async def test_a_cause_that_is_kept_keeps_no_connection(identities: Identities) -> None:
    async with grpc_server(identities.server, grpc.StatusCode.OK) as port, asyncio.timeout(5):
        with pytest.raises(ConnectError) as kept:
            await dial("127.0.0.1", port, identities.client, Limits(), 5.0)
        gc.disable()
        try:
            await gone(port)
        finally:
            gc.enable()
        assert kept.value.__traceback__ is not None


# What breaks later


@contextlib.asynccontextmanager
async def breakable(port: int) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """Pass connections on to a port; return the port for that, and what breaks them."""
    writers: list[asyncio.StreamWriter] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    async def splice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, onward[1]))
        await asyncio.gather(forward(reader, onward[1]), forward(onward[0], writer))

    def break_() -> None:
        for writer in writers:
            writer.transport.abort()

    async with await asyncio.start_server(splice, "127.0.0.1", 0) as proxy:
        yield proxy.sockets[0].getsockname()[1], break_


async def test_both_sides_see_a_connection_that_breaks(identities: Identities) -> None:
    accepted: asyncio.Future[GrpcServerCarrier] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def accept(carrier: GrpcServerCarrier) -> None:
        await carrier.write(b"first")
        accepted.set_result(carrier)
        await over.wait()

    async with listening(identities.server, accept) as port, breakable(port) as (near, break_), asyncio.timeout(10):
        client = await dial("127.0.0.1", near, identities.client, Limits(), 5.0)
        server = await accepted
        assert await client.read() == b"first"
        break_()
        assert await client.read() is None
        assert await server.read() is None
        over.set()
        await client.close()


async def test_closing_is_done_though_the_connection_breaks_meanwhile(identities: Identities) -> None:
    over = asyncio.Event()

    async def accept(carrier: GrpcServerCarrier) -> None:
        await carrier.write(b"first")
        await over.wait()

    async with listening(identities.server, accept) as port, breakable(port) as (near, break_), asyncio.timeout(10):
        client = await dial("127.0.0.1", near, identities.client, Limits(), 5.0)
        write = asyncio.ensure_future(client.write(bytes(64 * 1024 * 1024)))  # more than anybody takes unread
        closing = asyncio.ensure_future(client.close())
        await asyncio.sleep(0)  # both have begun
        break_()
        await closing
        over.set()
        with pytest.raises(CarrierLostError):
            await write
