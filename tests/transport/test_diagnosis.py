"""What gRPC reports, in words. Causes that can be brought about are tested where they occur, in `test_grpc_client`."""

import forge
import grpc
import grpc.aio
import pytest
from grpc.aio import AioRpcError, Metadata

from restpipe.transport.diagnosis import explain


def failed(details: str | None, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), details=details)


async def said(error: AioRpcError) -> str:
    return await explain(error, "server.example", 1234, forge.ca().make("client"), 0.1)


@pytest.mark.parametrize(
    ("details", "meaning"),
    [
        ("UNKNOWN: ipv4:192.0.2.1:1: Failed to connect to remote host: No route to host", "there is no route"),
        ("UNKNOWN: ipv4:192.0.2.1:1: Failed to connect to remote host: Network is unreachable", "the network is unre"),
        ("UNKNOWN: ipv4:192.0.2.1:1: getsockopt(SO_ERROR): Connection timed out", "no answer; check host and port"),
        ("DNS resolution failed for server.example:1: C-ares status is not ARES_SUCCESS", "the host name does not "),
        ("UNAVAILABLE: ipv4:192.0.2.1:1: Handshake read failed (Endpoint closing)", "what listens there does not "),
        ("SSL_ERROR_SSL: error:10000410:SSL routines:OPENSSL_internal:SSLV3_ALERT_BAD_CERTIFICATE", "the server refu"),
        ("SSL_ERROR_SSL: error:1000042e:SSL routines:OPENSSL_internal:SSLV3_ALERT_CERTIFICATE_EXPIRED", "the server f"),
    ],
)
async def test_a_cause_that_a_test_cannot_bring_about_has_words_too(details: str, meaning: str) -> None:
    assert (await said(failed(details))).startswith(meaning)


async def test_what_is_unknown_is_said_as_it_is_in_one_line() -> None:
    assert await said(failed("never\nheard")) == r"never\nheard"


@pytest.mark.parametrize("details", [None, ""])
async def test_a_failure_without_details_is_named_by_its_code(details: str | None) -> None:
    assert await said(failed(details, grpc.StatusCode.INTERNAL)) == "INTERNAL"


async def test_a_server_that_is_gone_when_it_is_asked_again_is_not_accused() -> None:
    message = await explain(failed("Socket closed"), "127.0.0.1", 1, forge.ca().make("client"), 1.0)
    assert message == "the server closed the connection; it may be starting or stopping"
