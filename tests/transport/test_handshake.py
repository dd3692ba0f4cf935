"""Which certificate a server showed: gRPC does not tell a client, and is held to it all the same."""

import asyncio
import errno
import ssl
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime

import forge
import pytest
from carriers import CONNECT_TIMEOUT, listening

from restpipe.exceptions import ConnectError
from restpipe.identity import Identity, Revocations, parse_certificate
from restpipe.protocol.limits import Limits
from restpipe.transport import grpc_client
from restpipe.transport.carrier import Peer
from restpipe.transport.grpc_client import GrpcClientCarrier, dial
from restpipe.transport.grpc_server import GrpcServerCarrier, PipeListener
from restpipe.transport.handshake import shown_certificate

pytestmark = pytest.mark.usefixtures("leak_free")


async def greet(carrier: GrpcServerCarrier) -> None:
    await carrier.write(b"first")
    while (frame := await carrier.read()) is not None:
        await carrier.write(frame)


async def nobody(_carrier: GrpcServerCarrier) -> None:
    raise AssertionError("accepted")


async def closed(carrier: GrpcClientCarrier) -> None:
    closing = asyncio.ensure_future(carrier.close())
    while await carrier.read() is not None:
        pass
    await closing


def revoking(*identities: Identity) -> Revocations:
    now = datetime.now(UTC)
    return Revocations(
        {(one.certificate.issuer.public_bytes(), one.certificate.serial_number): now for one in identities}
    )


async def look_in_vain(*_: object) -> bytes:
    raise AssertionError("looked")


async def test_the_look_returns_the_certificate_itself_and_verifies_it() -> None:
    server, client = forge.ca().make("server"), forge.ca().make("client")
    async with listening(server, nobody) as port:
        assert await shown_certificate("127.0.0.1", port, client) == server.certificate_pem
        with pytest.raises(ssl.SSLCertVerificationError, match=r"self.signed certificate|unable to get local issuer"):
            await shown_certificate("127.0.0.1", port, forge.ca().make("client", trusts=forge.other_ca()))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has files in memory")
async def test_the_look_needs_no_room_on_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    server = forge.ca().make("server")
    async with listening(server, nobody) as port:
        assert await shown_certificate("127.0.0.1", port, forge.ca().make("client")) == server.certificate_pem


async def test_a_carrier_knows_the_certificate_that_the_server_showed() -> None:
    server = forge.ca().make("server")
    async with listening(server, greet) as port:
        carrier = await dial("127.0.0.1", port, forge.ca().make("client"), Limits(), CONNECT_TIMEOUT)
        assert carrier.peer.certificate == server.certificate_pem
        assert carrier.peer.not_after == server.not_after
        await closed(carrier)


async def test_a_server_that_shows_what_it_showed_before_is_not_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_client, "shown_certificate", look_in_vain)
    server, client = forge.ca().make("server"), forge.ca().make("client")
    async with listening(server, greet) as port:
        carrier = await dial("127.0.0.1", port, client, Limits(), CONNECT_TIMEOUT, expected=server.certificate_pem)
        assert carrier.peer.certificate == server.certificate_pem
        await closed(carrier)


async def test_a_server_that_has_another_certificate_than_before_is_looked_at_and_accepted() -> None:
    before, server, client = forge.ca().make("server"), forge.ca().make("server"), forge.ca().make("client")
    async with listening(server, greet) as port:
        carrier = await dial("127.0.0.1", port, client, Limits(), CONNECT_TIMEOUT, expected=before.certificate_pem)
        assert carrier.peer.certificate == server.certificate_pem
        await closed(carrier)


async def test_a_server_that_shows_grpc_another_certificate_than_was_looked_at_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at, server = forge.ca().make("server"), forge.ca().make("server")

    async def look(*_: object) -> bytes:
        return looked_at.certificate_pem

    monkeypatch.setattr(grpc_client, "shown_certificate", look)
    async with listening(server, nobody) as port:
        with pytest.raises(ConnectError, match="the server showed another certificate than a moment before"):
            await dial("127.0.0.1", port, forge.ca().make("client"), Limits(), CONNECT_TIMEOUT)


@pytest.mark.parametrize("expected", [True, False])
async def test_a_revoked_server_is_refused_and_a_replaced_one_is_not(expected: bool) -> None:
    revoked, client = forge.ca().make("server"), forge.ca().make("client")
    options = {"expected": revoked.certificate_pem} if expected else {}
    async with listening(revoked, nobody) as port:
        with pytest.raises(ConnectError, match="the server's certificate was revoked on 20"):
            await dial("127.0.0.1", port, client, Limits(), CONNECT_TIMEOUT, revocations=revoking(revoked), **options)
    async with listening(forge.ca().make("server"), greet) as port:
        carrier = await dial(
            "127.0.0.1", port, client, Limits(), CONNECT_TIMEOUT, revocations=revoking(revoked), **options
        )
        await closed(carrier)


async def test_a_listener_shows_a_replaced_identity_to_newcomers_and_keeps_who_is_there() -> None:
    first, second, client = forge.ca().make("server"), forge.ca().make("server"), forge.ca().make("client")
    listener = PipeListener(first, Limits(), greet)
    port = await listener.start("127.0.0.1", 0)
    try:
        carriers = [await dial("127.0.0.1", port, client, Limits(), CONNECT_TIMEOUT)]
        listener.replace(second)
        carriers += [await dial("127.0.0.1", port, client, Limits(), CONNECT_TIMEOUT) for _ in range(2)]
        certificates = [carrier.peer.certificate for carrier in carriers]
        assert certificates == [first.certificate_pem, second.certificate_pem, second.certificate_pem]
        for carrier in carriers:
            await carrier.write(b"hello")
            assert [await carrier.read(), await carrier.read()] == [b"first", b"hello"]
            await closed(carrier)
    finally:
        await listener.stop(0)


async def test_a_listener_trusts_the_cas_of_the_identity_that_replaced_another() -> None:
    client = forge.other_ca().make("client", trusts=forge.ca())
    listener = PipeListener(forge.ca().make("server"), Limits(), greet)
    port = await listener.start("127.0.0.1", 0)
    try:
        with pytest.raises(ConnectError):
            await dial("127.0.0.1", port, client, Limits(), CONNECT_TIMEOUT)
        listener.replace(forge.ca().make("server", trusts=forge.other_ca()))
        await closed(await dial("127.0.0.1", port, client, Limits(), CONNECT_TIMEOUT))
    finally:
        await listener.stop(0)


@pytest.mark.parametrize("many", [False, True])
async def test_a_listener_tells_the_intermediates_that_a_client_brought_along(many: bool) -> None:
    between = forge.Forge.new("Between", forge.ca())
    alpha = (between if many else forge.ca()).make("client", trusts=forge.ca())
    if many:
        alpha = replace(alpha, certificate_pem=alpha.certificate_pem + between.pem)
    told: list[Peer] = []

    def fault_of(peer: Peer) -> None:
        told.append(peer)

    listener = PipeListener(forge.ca().make("server"), Limits(), greet)
    listener.fault_of = fault_of
    port = await listener.start("127.0.0.1", 0)
    try:
        await closed(await dial("127.0.0.1", port, alpha, Limits(), CONNECT_TIMEOUT))
    finally:
        await listener.stop(0)
    assert [(peer.certificate + (peer.intermediates or b""), peer.not_after) for peer in told] == [
        (alpha.certificate_pem, alpha.not_after)
    ]


async def test_a_listener_refuses_who_has_a_fault_and_says_it_on_both_sides(caplog: pytest.LogCaptureFixture) -> None:
    alpha, beta = (forge.ca().make("client", name=name) for name in ("alpha", "beta"))
    listener = PipeListener(forge.ca().make("server"), Limits(), greet)
    listener.fault_of = lambda peer: "the certificate was revoked" if peer.name == "alpha" else None
    port = await listener.start("127.0.0.1", 0)
    try:
        with pytest.raises(ConnectError, match=r"the certificate was revoked; get a new one"):
            await dial("127.0.0.1", port, alpha, Limits(), CONNECT_TIMEOUT)
        assert "refused alpha at 127.0.0.1: the certificate was revoked" in caplog.text
        carrier = await dial("127.0.0.1", port, beta, Limits(), CONNECT_TIMEOUT)
        assert parse_certificate(carrier.peer.certificate)
        await closed(carrier)
    finally:
        await listener.stop(0)
