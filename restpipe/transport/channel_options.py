"""gRPC options of both sides, each with the reason for it."""

from restpipe.protocol.limits import FIRST_FRAME_BYTES, Limits

SERVICE = "restpipe.v1.Pipe"
METHOD = "Connect"

# Seconds that a TLS handshake may take on a server, so that who says nothing is gone within five. Where one or two
# thousand clients come back at once, the last wait for the handshakes of many: ten seconds brought none back sooner.
HANDSHAKE_TIMEOUT = 4.5
# Seconds after which a connection on which there is no call is closed, or twice as many: one of a client that dials
# has its call at once.
IDLE_TIMEOUT = 10.0
# Calls on one connection.
MAX_STREAMS = 16
# Seconds by which gRPC's pings come later than the pipe's own, which make them needless.
_BEHIND_HEARTBEAT = 1.0
# Seconds that the answer to one of gRPC's pings, or to a write, may take at least: machines pause.
_LEAST_PING_TIMEOUT = 3.0


def common_options(limits: Limits) -> list[tuple[str, int]]:
    """Return the options of either side."""
    keepalive = limits.heartbeat_interval + _BEHIND_HEARTBEAT
    timeout_ms = round(1000 * max(_LEAST_PING_TIMEOUT, limits.heartbeat_timeout - keepalive))
    return [
        # A backstop below the pipe's own heartbeat: it ends connections whose writes are stuck. `keepalive_timeout_ms`
        # alone never fires, gRPC relies on the ping time-out (grpc/grpc#39239); pings without data are throttled to one
        # a minute unless that is lifted.
        ("grpc.keepalive_time_ms", round(1000 * keepalive)),
        ("grpc.keepalive_timeout_ms", timeout_ms),
        ("grpc.http2.ping_timeout_ms", timeout_ms),
        ("grpc.http2.max_pings_without_data", 0),
        # What gRPC holds before it is read: bounded, which it is not while gRPC probes for it, but above what a body
        # may have on its way. A pipe always reads, and the credit of its bodies bounds what there is to read.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 2 * limits.max_window),
        ("grpc.max_receive_message_length", max(limits.max_frame_bytes, FIRST_FRAME_BYTES)),
        ("grpc.max_send_message_length", -1),
    ]


def server_options(limits: Limits) -> list[tuple[str, int]]:
    """Return the options of the accepting side."""
    return [
        *common_options(limits),
        # The default of five minutes would answer the client's keepalive with GOAWAY too_many_pings.
        ("grpc.http2.min_ping_interval_without_data_ms", 1000),
        # By default a second server binds the same port silently.
        ("grpc.so_reuseport", 0),
        # A pipe is one call; health and reflection take a few. Calls beyond wait.
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        # A connection that never completes its handshake; the default is two minutes.
        ("grpc.server_handshake_timeout_ms", round(1000 * HANDSHAKE_TIMEOUT)),
        # A connection that never brings a call, from a client with a certificate; the default is to keep it for ever.
        ("grpc.max_connection_idle_ms", round(1000 * IDLE_TIMEOUT)),
    ]


def client_options(limits: Limits, connect_timeout: float) -> list[tuple[str, int]]:
    """Return the options of the dialling side; `connect_timeout` in seconds."""
    return [
        *common_options(limits),
        # Despite its name, the time-out of connecting and of the handshake.
        ("grpc.min_reconnect_backoff_ms", int(connect_timeout * 1000)),
        # Every attempt is a connection of its own: nothing of a broken one may be shared.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    ]
