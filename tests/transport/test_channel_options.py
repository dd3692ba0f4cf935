"""The options of gRPC follow from the limits of a node."""

import pytest

from restpipe.protocol.limits import Limits
from restpipe.transport.channel_options import HANDSHAKE_TIMEOUT, client_options, server_options


@pytest.mark.parametrize(("interval", "timeout"), [(0.1, 0.3), (5.0, 10.0), (5.0, 60.0), (30.0, 31.0)])
def test_grpc_pings_only_a_peer_that_missed_the_pipes_own_ping_and_waits_no_less_than_the_pipe(
    interval: float, timeout: float
) -> None:
    limits = Limits(heartbeat_interval=interval, heartbeat_timeout=timeout)
    server, client = dict(server_options(limits)), dict(client_options(limits, 1.0))
    for options in (server, client):
        assert options["grpc.keepalive_time_ms"] > 1000 * interval
        assert options["grpc.http2.ping_timeout_ms"] == options["grpc.keepalive_timeout_ms"]
        assert options["grpc.keepalive_time_ms"] + options["grpc.keepalive_timeout_ms"] >= 1000 * timeout
    # Otherwise the server would close the connection for too many pings.
    assert client["grpc.keepalive_time_ms"] >= server["grpc.http2.min_ping_interval_without_data_ms"]


def test_a_server_leaves_no_connection_open_for_five_seconds_that_says_nothing() -> None:
    assert HANDSHAKE_TIMEOUT < 5
    assert dict(server_options(Limits()))["grpc.server_handshake_timeout_ms"] == 1000 * HANDSHAKE_TIMEOUT
