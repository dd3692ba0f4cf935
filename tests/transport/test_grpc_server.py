"""Accepting: who gets in, under which name, and what else the port answers."""

import asyncio
import contextlib
import ctypes
import dataclasses
import functools
import gc
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import forge
import grpc
import grpc.aio
import pytest
from carriers import CONNECT_TIMEOUT, Identities, connections, listening
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from raw_http2 import HEADERS, INITIAL_WINDOW_SIZE, raw_http2

from restpipe.exceptions import ConfigError
from restpipe.identity import Identity, certificate_name, parse_certificate
from restpipe.protocol.limits import Limits
from restpipe.transport.calls import MAX_CALLS, Calls
from restpipe.transport.carrier import CarrierLostError, Peer
from restpipe.transport.channel_options import METHOD, SERVICE
from restpipe.transport.grpc_client import dial
from restpipe.transport.grpc_server import GrpcServerCarrier, PipeListener, peer_address

pytestmark = pytest.mark.usefixtures("leak_free")


async def nobody(_carrier: GrpcServerCarrier) -> None:
    raise AssertionError("accepted")


@contextlib.asynccontextmanager
async def secure_channel(identity: Identity, port: int) -> AsyncIterator[grpc.aio.Channel]:
    """Connect as any gRPC program would."""
    credentials = grpc.ssl_channel_credentials(identity.ca_pem, identity.key_pem, identity.certificate_pem)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        yield channel


def connect(channel: grpc.aio.Channel) -> Any:
    return channel.stream_stream(f"/{SERVICE}/{METHOD}")()


# Who gets in


@pytest.mark.parametrize("who", ["without a certificate", "in plain text"])
async def test_nobody_gets_in(identities: Identities, who: str) -> None:
    async with listening(identities.server, nobody) as port:
        target = f"127.0.0.1:{port}"
        channel = (
            grpc.aio.insecure_channel(target)
            if who == "in plain text"
            else grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(identities.server.ca_pem))
        )
        async with channel, asyncio.timeout(CONNECT_TIMEOUT):
            call = connect(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("service", ["health", "reflection"])
async def test_nothing_answers_without_a_certificate(identities: Identities, service: str) -> None:
    async with listening(identities.server, nobody) as port:
        credentials = grpc.ssl_channel_credentials(identities.server.ca_pem)
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await (serving(channel, "") if service == "health" else services(channel))


# Who it is


async def met(identities: Identities, client: Identity, host: str) -> Peer:
    """Dial a server at `host`; return who it takes the client for."""
    peers: list[Peer] = []

    async def accept(carrier: GrpcServerCarrier) -> None:
        peers.append(carrier.peer)
        await carrier.write(b"first")

    async with listening(identities.server, accept, host) as port:
        carrier = await dial(host, port, client, Limits(), CONNECT_TIMEOUT)
        assert [await carrier.read(), await carrier.read()] == [b"first", None]
        await carrier.close()
    return peers[0]


async def test_a_client_is_who_its_certificate_says(identities: Identities) -> None:
    peer = await met(identities, identities.client, "127.0.0.1")
    assert (peer.name, peer.address) == ("client-1", "127.0.0.1")
    assert certificate_name(parse_certificate(peer.certificate)) == "client-1"
    assert peer.not_after == identities.client.not_after


def ipv6_works() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not ipv6_works(), reason="needs IPv6")
async def test_a_client_is_met_by_ipv6(identities: Identities) -> None:
    assert (await met(identities, identities.client, "::1")).address == "::1"


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:56570", "127.0.0.1"),
        ("ipv6:%5B::1%5D:38440", "::1"),
        ("ipv6:[2001:db8::7]:1", "2001:db8::7"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:443", "192.0.2.1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:443", "fe80::1"),
    ],
)
def test_an_address_is_the_same_however_grpc_spells_it(peer: str, address: str) -> None:
    assert peer_address(peer) == address


@pytest.mark.parametrize("name", ["..", "-x", "a b", "a/b", "x\ny", "ünicode"])
async def test_a_name_that_no_node_can_have_is_refused(name: str) -> None:
    server, client = forge.ca().make("server"), forge.ca().make("client", name=name)
    async with listening(server, nobody) as port, secure_channel(client, port) as channel:
        call = connect(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert str(caught.value.details()).startswith("the client's certificate names no node: ")


# How a call ends


async def end_of_call(identities: Identities, accept_ends_with: BaseException) -> bytes | None:
    async def accept(carrier: GrpcServerCarrier) -> None:
        await carrier.write(b"first")
        raise accept_ends_with

    async with listening(identities.server, accept) as port, asyncio.timeout(CONNECT_TIMEOUT):
        carrier = await dial("127.0.0.1", port, identities.client, Limits(), CONNECT_TIMEOUT)
        assert await carrier.read() == b"first"
        end = await carrier.read()
        await carrier.close()
        return end


async def test_a_call_whose_pipe_was_cancelled_ends(identities: Identities) -> None:
    assert await end_of_call(identities, asyncio.CancelledError()) is None


async def test_a_call_whose_pipe_failed_ends(identities: Identities) -> None:
    assert await end_of_call(identities, RuntimeError("a bug")) is None


async def test_a_carrier_whose_call_is_over_can_be_asked_and_holds_no_connection(identities: Identities) -> None:
    kept: list[GrpcServerCarrier] = []

    async def accept(carrier: GrpcServerCarrier) -> None:
        kept.append(carrier)
        await carrier.write(b"first")

    async with listening(identities.server, accept) as port, asyncio.timeout(CONNECT_TIMEOUT):
        client = await dial("127.0.0.1", port, identities.client, Limits(), CONNECT_TIMEOUT)
        assert [await client.read(), await client.read()] == [b"first", None]
        await client.close()
        while connections(port):  # noqa: ASYNC110  (the kernel tells nobody)
            await asyncio.sleep(0.01)
        assert await kept[0].read() is None
        with pytest.raises(CarrierLostError):
            await kept[0].write(b"late")
        assert kept[0].peer.name == "client-1"


async def test_a_client_that_gives_up_at_any_moment_harms_nobody(
    identities: Identities, caplog: pytest.LogCaptureFixture
) -> None:
    async def accept(carrier: GrpcServerCarrier) -> None:
        with contextlib.suppress(CarrierLostError):
            await carrier.write(b"first")
        while await carrier.read() is not None:
            pass

    async with listening(identities.server, accept) as port, secure_channel(identities.client, port) as channel:
        await channel.channel_ready()
        for turns in range(60):
            call = connect(channel)
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
        async with asyncio.timeout(30):
            assert await first_message(channel) == b"first"
    assert not caplog.records


async def first_message(channel: grpc.aio.Channel) -> object:
    """Read what the server says first; REFUSED_STREAM says that it is busy with those that ended, and to ask again."""
    while True:
        try:
            return await connect(channel).read()
        except grpc.aio.AioRpcError as error:
            if "error code 7" not in str(error.details()):
                raise


# The port


async def start_in_vain(identity: Identity, host: str, port: int) -> str:
    with pytest.raises(ConfigError) as caught:
        await PipeListener(identity, Limits(), nobody).start(host, port)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_port_that_another_program_holds_is_told(identities: Identities) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        message = await start_in_vain(identities.server, "127.0.0.1", port)
    assert message.startswith(f"cannot listen on 127.0.0.1:{port} for pipes: the port is taken by another process; end")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_two_restpipe_servers_do_not_share_a_port(identities: Identities, host: str) -> None:
    async with listening(identities.server, nobody) as port:
        message = await start_in_vain(identities.server, host, port)
    assert (
        message
        == f"cannot listen on {host}:{port} for pipes: the port is taken by another process; end that, or set another"
    )


async def test_an_address_of_another_machine_is_told(identities: Identities) -> None:
    message = await start_in_vain(identities.server, "203.0.113.9", 0)
    assert message == "cannot listen on 203.0.113.9:0 for pipes: Cannot assign requested address"


async def test_a_host_name_that_nobody_has_is_told_by_the_server(identities: Identities) -> None:
    message = await start_in_vain(identities.server, "nobody.invalid", 0)
    assert message.startswith("cannot listen on nobody.invalid:0 for pipes: ")


async def test_a_key_of_another_certificate_keeps_the_server_from_starting(identities: Identities) -> None:
    server, client = identities.server, identities.client
    mixed = Identity(
        name=server.name,
        key_pem=client.key_pem,
        certificate_pem=server.certificate_pem,
        ca_pem=server.ca_pem,
        not_before=server.not_before,
        not_after=server.not_after,
        hosts=server.hosts,
    )
    message = await start_in_vain(mixed, "127.0.0.1", 0)
    assert message == "cannot listen on 127.0.0.1:0 for pipes: gRPC refused it; its own message stands above"


async def test_a_stopped_listener_frees_its_port_and_ends_its_calls(identities: Identities) -> None:
    async def accept(carrier: GrpcServerCarrier) -> None:
        await carrier.write(b"first")
        while await carrier.read() is not None:
            pass

    async with listening(identities.server, accept) as port:
        carrier = await dial("127.0.0.1", port, identities.client, Limits(), CONNECT_TIMEOUT)
        assert await carrier.read() == b"first"
    async with asyncio.timeout(CONNECT_TIMEOUT):
        assert await carrier.read() is None
    await carrier.close()
    again = PipeListener(identities.server, Limits(), nobody)
    assert await again.start("127.0.0.1", port) == port
    await again.stop(0)


# Health and reflection


async def serving(channel: grpc.aio.Channel, service: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


def reflect(channel: grpc.aio.Channel) -> Any:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
    return stub.ServerReflectionInfo()


async def reflected(channel: grpc.aio.Channel, request: reflection_pb2.ServerReflectionRequest) -> Any:
    call = reflect(channel)
    await call.write(request)
    await call.done_writing()
    return await call.read()


async def services(channel: grpc.aio.Channel) -> set[str]:
    answer = await reflected(channel, reflection_pb2.ServerReflectionRequest(list_services=""))
    return {service.name for service in answer.list_services_response.service}


def watch(channel: grpc.aio.Channel, service: str) -> Any:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=service))


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_the_health_of_the_server_can_be_asked(identities: Identities, service: str) -> None:
    async with listening(identities.server, nobody) as port, secure_channel(identities.client, port) as channel:
        assert await serving(channel, service) == health_pb2.HealthCheckResponse.SERVING


async def test_a_server_that_drains_is_not_healthy_and_its_pipes_go_on(identities: Identities) -> None:
    async def accept(carrier: GrpcServerCarrier) -> None:
        await carrier.write(b"first")
        frame = await carrier.read()
        assert frame is not None
        await carrier.write(frame)

    listener = PipeListener(identities.server, Limits(), accept)
    port = await listener.start("127.0.0.1", 0)
    carrier = await dial("127.0.0.1", port, identities.client, Limits(), CONNECT_TIMEOUT)
    async with secure_channel(identities.client, port) as channel:
        await listener.drain()
        for service in ("", SERVICE):
            assert await serving(channel, service) == health_pb2.HealthCheckResponse.NOT_SERVING
    await carrier.write(b"still there")
    assert [await carrier.read(), await carrier.read(), await carrier.read()] == [b"first", b"still there", None]
    await carrier.close()
    await listener.stop(0)


async def test_who_watches_the_health_of_the_server_hears_that_it_drains(identities: Identities) -> None:
    listener = PipeListener(identities.server, Limits(), nobody)
    port = await listener.start("127.0.0.1", 0)
    async with secure_channel(identities.client, port) as channel, asyncio.timeout(CONNECT_TIMEOUT):
        watching, unknown = watch(channel, SERVICE), watch(channel, "unknown")
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        await listener.drain()
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await watching.read() is grpc.aio.EOF
        await listener.stop(2 * CONNECT_TIMEOUT)  # for which nothing waits any more


async def test_who_watches_the_health_of_the_server_and_does_not_read_keeps_it_from_nothing(
    identities: Identities,
) -> None:
    listener = PipeListener(identities.server, Limits(), nobody)
    port = await listener.start("127.0.0.1", 0)
    async with (
        asyncio.timeout(CONNECT_TIMEOUT),
        secure_channel(identities.client, port) as channel,
        raw_http2(identities.client, port) as mute,
    ):
        mute.settings({INITIAL_WINDOW_SIZE: 0})
        mute.call(1, "/grpc.health.v1.Health/Watch", b"")
        await mute.until(HEADERS)  # it is being answered
        reading = watch(channel, "")
        assert (await reading.read()).status == health_pb2.HealthCheckResponse.SERVING
        await listener.drain()
        assert (await reading.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await listener.stop(0)


async def test_the_services_of_the_port_can_be_listed_and_described(identities: Identities) -> None:
    async with listening(identities.server, nobody) as port, secure_channel(identities.client, port) as channel:
        assert await services(channel) == {
            SERVICE,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        answer = await reflected(channel, reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE))
        assert b"restpipe_pb/v1/pipe.proto" in answer.file_descriptor_response.file_descriptor_proto[0]


# How many


async def wait_until(over: asyncio.Event, carrier: GrpcServerCarrier) -> None:
    await carrier.write(b"first")
    await over.wait()


@contextlib.asynccontextmanager
async def two_clients(
    identities: Identities, over: asyncio.Event
) -> AsyncIterator[tuple[grpc.aio.Channel, grpc.aio.Channel]]:
    """Connect two clients to a server whose pipes last until it is over."""
    other = dataclasses.replace(forge.ca().make("client", name="other"), ca_pem=identities.server.ca_pem)
    server = dataclasses.replace(identities.server, ca_pem=identities.server.ca_pem + forge.ca().pem)
    async with (
        listening(server, functools.partial(wait_until, over)) as port,
        secure_channel(identities.client, port) as channel,
        secure_channel(other, port) as others,
    ):
        yield channel, others


async def test_a_client_has_no_more_calls_open_than_it_may_and_another_is_not_affected(
    identities: Identities, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("restpipe.transport.calls.MAX_CALLS", 4)
    monkeypatch.setattr("restpipe.transport.calls.REFUSAL_DELAY", 0)
    over = asyncio.Event()
    async with two_clients(identities, over) as (channel, others):
        calls = [connect(channel), connect(channel)]
        assert [await call.read() for call in calls] == [b"first", b"first"]
        watching, reflecting = watch(channel, ""), reflect(channel)
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        await reflecting.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        assert (await reflecting.read()).HasField("list_services_response")
        for another in (connect, reflect, functools.partial(watch, service=""), connect):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await another(channel).read()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caplog.text.count("4 calls open") == 1
        assert await connect(others).read() == b"first"
        over.set()
        for call in calls:
            assert await call.read() is grpc.aio.EOF
        assert await connect(channel).read() == b"first"


async def first_word(channel: grpc.aio.Channel) -> None:
    assert await connect(channel).read() == b"first"


async def health_of(channel: grpc.aio.Channel) -> None:
    assert await serving(channel, "") == health_pb2.HealthCheckResponse.SERVING


async def watched_health_of(channel: grpc.aio.Channel) -> None:
    assert (await watch(channel, "").read()).status == health_pb2.HealthCheckResponse.SERVING


async def services_of(channel: grpc.aio.Channel) -> None:
    assert SERVICE in await services(channel)


async def nothing_of(channel: grpc.aio.Channel) -> None:
    disconnect: Any = channel.unary_unary(f"/{SERVICE}/Disconnect")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await disconnect(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("ask", [first_word, health_of, watched_health_of, services_of, nothing_of])
async def test_a_client_that_calls_again_and_again_waits_for_its_turn_and_another_does_not(
    identities: Identities, monkeypatch: pytest.MonkeyPatch, ask: Callable[[grpc.aio.Channel], Awaitable[None]]
) -> None:
    waits = asyncio.Event()

    def turn(calls: Calls, client: bytes, interval: float) -> float:
        wait = in_turn(calls, client, 1000 * interval)
        if wait:
            waits.set()
        return wait

    in_turn = Calls.turn
    monkeypatch.setattr(Calls, "turn", turn)
    over = asyncio.Event()
    async with two_clients(identities, over) as (channel, others), asyncio.timeout(CONNECT_TIMEOUT):
        await ask(channel)
        again = asyncio.ensure_future(ask(channel))
        await waits.wait()
        await ask(others)
        assert not again.done()
        again.cancel()
        await asyncio.wait({again})
        over.set()


class Heap(ctypes.Structure):
    """What `mallinfo2` tells (malloc.h of glibc)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "used", "free", "keepcost")
    )


def bytes_in_use() -> int:
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Heap
    used: int = mallinfo().used
    return used


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="this C library does not tell what is in use")
@pytest.mark.parametrize(
    "path",
    [
        f"/{SERVICE}/{METHOD}",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/none.Such/Method",
    ],
)
async def test_calls_that_are_reset_before_their_turn_leave_no_memory_behind(
    identities: Identities, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    calls = Calls()
    monkeypatch.setattr("restpipe.transport.grpc_server.Calls", lambda: calls)
    monkeypatch.setattr(calls, "turn", lambda client, interval: 3600.0)
    number = 1000
    async with (
        asyncio.timeout(60),
        listening(identities.server, nobody) as port,
        raw_http2(identities.client, port) as client,
    ):
        client.settings({})
        answers = asyncio.ensure_future(client.answer())
        streams = itertools.count(1, 2)

        async def open_are(number: int) -> None:
            while calls.open.total() != number:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)

        async def reset_many() -> int:
            for stream in itertools.islice(streams, number):
                client.call(stream, path)
                await open_are(1)
                client.reset(stream)
                await open_are(0)
            return bytes_in_use()

        before = await reset_many()
        assert await reset_many() - before < 20 * number
        answers.cancel()
        await asyncio.wait({answers})


async def test_who_cancels_its_calls_does_not_wait_for_their_turns_for_ever() -> None:
    calls = Calls()
    assert max(calls.turn(b"client", 1.0) for _ in range(1000)) <= MAX_CALLS


async def test_clients_that_called_once_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restpipe.transport.calls._SWEEP_INTERVAL", -1)
    calls = Calls()
    calls.turn(b"one that waits", 1000)
    for number in range(100):
        calls.turn(b"%d" % number, 0)
    assert len(calls._turns) == 2
    assert calls.turn(b"one that waits", 1000)


async def test_a_connection_that_brings_no_call_is_closed_and_one_with_a_call_is_not(
    identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restpipe.transport.channel_options.IDLE_TIMEOUT", 0.2)
    over = asyncio.Event()
    async with (
        listening(identities.server, functools.partial(wait_until, over)) as port,
        secure_channel(identities.client, port) as channel,
        asyncio.timeout(CONNECT_TIMEOUT),
    ):
        call = connect(channel)
        assert await call.read() == b"first"
        async with raw_http2(identities.client, port) as idle:
            idle.settings({})
            await idle.end()
        over.set()
        assert await call.read() is grpc.aio.EOF
