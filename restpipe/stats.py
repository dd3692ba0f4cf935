"""Statistics for statsd: counters, timings and gauges, gathered here and sent over UDP once a second.

What happens between two flushes costs a dict lookup; a statsd that is slow, absent or not to be found costs its
figures and nothing else.
"""

import asyncio
import contextlib
import re
import socket
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Protocol

# Payload that fits an Ethernet frame, IPv6 and a tunnel's header allowed for.
MAX_DATAGRAM_BYTES = 1432
# Of one timing and one interval, from half of this to all of it is sent, with the sample rate that says so.
MAX_TIMINGS = 64
# How long `stop` waits for a name that is still being resolved.
LAST_RESOLUTION_TIMEOUT_S = 1.0

_Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]

RESERVED = re.compile(r"[:|@\s]")


class Count(StrEnum):
    """Names of the counters. `handled_count` names one more for each handler method."""

    CONNECT_NEW = "client.connect.new.tick"
    """A client node began an attempt to connect."""
    CONNECTED = "client.connect.connected.tick"
    """An attempt succeeded: the pipe is open."""
    BROKEN = "client.connect.broken.tick"
    """An open pipe was lost."""
    HEARTBEAT_SUCCESS = "client.connect.heartbeat.success.tick"
    """The peer answered a ping."""
    HEARTBEAT_FAIL = "client.connect.heartbeat.fail.tick"
    """The peer was silent for the heartbeat timeout."""
    SEND = "message.send.tick"
    """An event was sent to the peer."""
    RECEIVE = "message.receive.tick"
    """An event was received from the peer."""


class Timing(StrEnum):
    """Names of the timings. `handled_timing` names one more for each handler method."""

    CONNECT_ATTEMPT = "client.connect.new.attempt.timing"
    """An attempt to connect, from its start to the open pipe or the failure."""
    HEARTBEAT = "client.connect.heartbeat.timing"
    """A ping, from its sending to its answer."""
    SEND = "message.send.timing"
    """An event that was sent, from its sending to its answer."""
    HANDLE = "message.receive.handle.timing"
    """An event that was received, from its arrival to its answer, whatever the method."""


class Gauge(StrEnum):
    """Names of the gauges."""

    IDENTITY = "identity.expires_in_days"
    """Days until the certificate of this node expires; negative afterwards."""
    CA = "identity.ca.expires_in_days"
    """Days until the CA's certificate expires."""
    PEERS = "identity.peers.expires_in_days"
    """Days until the first of the certificates of those connected expires."""


def handled_count(method: str) -> str:
    """Name the counter of events that a handler method, such as `get_time`, was called for."""
    return f"message.received.handle.{method}.tick"


def handled_timing(method: str) -> str:
    """Name the timing of the calls of a handler method, such as `get_time`."""
    return f"message.received.handle.{method}.timing"


class Stats(Protocol):
    """Where figures go. None of its methods ever raises or waits for the network, `stop` for a moment excepted."""

    def count(self, name: str, n: int = 1) -> None:
        """Add `n` to a counter."""

    def timing(self, name: str, seconds: float) -> None:
        """Note that something took `seconds`."""

    def gauge(self, name: str, value: float) -> None:
        """Note what a figure is now; of one interval the last counts."""

    def start(self) -> None:
        """Begin to send. Called once, in a running event loop."""

    async def stop(self) -> None:
        """Send what is left, and send no more."""


class NullStats:
    """Statistics that are turned off."""

    def count(self, name: str, n: int = 1) -> None:
        """Do nothing."""

    def timing(self, name: str, seconds: float) -> None:
        """Do nothing."""

    def gauge(self, name: str, value: float) -> None:
        """Do nothing."""

    def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""


class Statsd:
    """Statistics sent to a statsd server. Used from the thread of its event loop alone.

    What is counted before `start`, or while the name cannot be resolved, is kept and sent later.

    Args:
        host: host name or IP address, IPv4 or IPv6.
        port: UDP port.
        flush_interval_s: seconds between two flushes.
    """

    def __init__(self, host: str, port: int, flush_interval_s: float = 1.0) -> None:
        self._host = host
        self._port = port
        self._flush_interval_s = flush_interval_s
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._samples: defaultdict[str, _Samples] = defaultdict(_Samples)
        self._gauges: dict[str, float] = {}
        self._addresses: list[_Address] = []
        self._socket: socket.socket | None = None
        self._resolving: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def count(self, name: str, n: int = 1) -> None:
        """Add `n` to a counter."""
        self._counts[name] += n

    def timing(self, name: str, seconds: float) -> None:
        """Note that something took `seconds`."""
        self._samples[name].add(seconds)

    def gauge(self, name: str, value: float) -> None:
        """Note what a figure is now; of one interval the last counts."""
        self._gauges[name] = value

    def start(self) -> None:
        """Begin to send. Called once, in a running event loop."""
        self._connect()
        self._timer = asyncio.get_running_loop().call_later(self._flush_interval_s, self._tick)

    async def stop(self) -> None:
        """Send what is left, and send no more. Waits for the name to be resolved, a second at most."""
        if self._timer:
            self._timer.cancel()
        if self._resolving:
            await asyncio.wait([self._resolving], timeout=LAST_RESOLUTION_TIMEOUT_S)
        self._flush()
        self._disconnect()
        if self._resolving:
            self._resolving.cancel()

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._flush_interval_s, self._tick)
        self._flush()

    def _flush(self) -> None:
        """Send everything gathered since the last flush, or keep it where there is no socket yet."""
        if not (self._counts or self._samples or self._gauges):
            return
        if self._socket is None:
            self._connect()
        if self._socket is None:
            return
        counts, self._counts = self._counts, defaultdict(int)
        samples, self._samples = self._samples, defaultdict(_Samples)
        gauges, self._gauges = self._gauges, {}
        for datagram in _datagrams(_lines(counts, samples, gauges)):
            self._send(datagram)

    def _send(self, datagram: bytes) -> None:
        while self._socket is not None:
            try:
                self._socket.send(datagram)
            except BlockingIOError:
                return  # the buffer is full: figures are not worth waiting for
            except OSError:
                # Most often nobody listened when the datagram before this one arrived. statsd may listen on another
                # address of its name (`localhost` is two), or have moved.
                self._disconnect()
                self._connect()
            else:
                return

    def _connect(self) -> None:
        """Open a socket to the next address that takes one; begin to resolve the name anew where none is left."""
        self._open()
        if self._socket is None and (self._resolving is None or self._resolving.done()):
            self._resolve()

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _resolve(self) -> None:
        """Begin to look up the name; the next flush tries again where that fails."""
        loop = asyncio.get_running_loop()
        resolving = self._resolving = loop.create_future()

        def look_up() -> None:
            addresses = _addresses(self._host, self._port)
            with contextlib.suppress(RuntimeError):  # the loop was closed: the node has ended
                loop.call_soon_threadsafe(self._resolved, resolving, addresses)

        # Not in the loop's own threads: the loop would not end before a name server answers or is given up.
        try:
            threading.Thread(target=look_up, name="restpipe-statsd-lookup", daemon=True).start()
        except RuntimeError:  # the system has no thread to give, or the interpreter ends
            resolving.set_result(None)

    def _resolved(self, resolving: asyncio.Future[None], addresses: list[_Address]) -> None:
        if resolving.cancelled():  # stopped meanwhile
            return
        self._addresses = addresses
        self._open()
        resolving.set_result(None)

    def _open(self) -> None:
        while self._addresses and self._socket is None:
            self._socket = _connected(self._addresses.pop(0))


def stats_to(host: str, port: int | None) -> Stats:
    """Return statistics sent to a statsd server, or turned off where host or port are empty."""
    return Statsd(host, port) if host and port else NullStats()


class _Samples:
    """Timings of one name in one interval: all of them, or every second, fourth, eighth ... as they become too many."""

    __slots__ = ("kept", "seen", "stride")

    def __init__(self) -> None:
        self.kept: list[float] = []
        self.seen = 0
        self.stride = 1

    def add(self, seconds: float) -> None:
        """Keep every `stride`-th value: evenly spread over the interval, whose beginning may differ from its end."""
        if self.seen % self.stride == 0:
            if len(self.kept) == MAX_TIMINGS:
                del self.kept[1::2]
                self.stride *= 2
            self.kept.append(seconds)
        self.seen += 1

    @property
    def rate(self) -> float:
        """Share of the timings that was kept."""
        return len(self.kept) / self.seen


def _lines(counts: dict[str, int], samples: dict[str, _Samples], gauges: dict[str, float]) -> Iterator[bytes]:
    for name, n in counts.items():
        yield f"{_clean(name)}:{n}|c".encode()
    for name, sampled in samples.items():
        suffix = f"|@{sampled.rate:.8f}" if sampled.rate < 1 else ""
        for seconds in sampled.kept:
            yield f"{_clean(name)}:{seconds * 1000:.3f}|ms{suffix}".encode()
    for name, value in gauges.items():
        if value < 0:  # a gauge with a sign is changed by as much, not set
            yield f"{_clean(name)}:0|g".encode()
        yield f"{_clean(name)}:{value:.3f}|g".encode()


def _clean(name: str) -> str:
    """Replace what would end a name in statsd's notation."""
    return RESERVED.sub("_", name)


def _datagrams(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines to datagrams of bounded size. A line that exceeds one alone is dropped."""
    datagram = b""
    for line in lines:
        if len(line) > MAX_DATAGRAM_BYTES:
            continue
        if datagram and len(datagram) + 1 + len(line) > MAX_DATAGRAM_BYTES:
            yield datagram
            datagram = b""
        datagram = datagram + b"\n" + line if datagram else line
    if datagram:
        yield datagram


def _addresses(host: str, port: int) -> list[_Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):  # unknown, unreachable, or no name at all
        return []
    return [(family, address) for family, _, _, _, address in found]


def _connected(address: _Address) -> socket.socket | None:
    """Open a UDP socket to an address; None where this machine has no way there, such as no IPv6."""
    family, endpoint = address
    try:
        opened = socket.socket(family, socket.SOCK_DGRAM)
    except OSError:
        return None
    try:
        opened.setblocking(False)
        opened.connect(endpoint)
    except OSError:
        opened.close()
        return None
    return opened
