"""Figures reach a statsd server over UDP, and harm nothing when there is none."""

import asyncio
import select
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import pytest

from restpipe.stats import (
    MAX_DATAGRAM_BYTES,
    MAX_TIMINGS,
    Count,
    Gauge,
    NullStats,
    Stats,
    Statsd,
    Timing,
    handled_count,
    handled_timing,
    stats_to,
)

LONG_S = 3600.0  # an interval that does not end during a test


def resolving_of(statsd: Statsd) -> asyncio.Future[None]:
    """Return what is done once the name of the server has been looked up."""
    assert statsd._resolving
    return statsd._resolving


class Server:
    """A statsd server that keeps what it is sent."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.setblocking(False)
        self._socket.bind((host, port))
        self.port: int = self._socket.getsockname()[1]

    async def datagram(self) -> bytes:
        """Wait for the next datagram."""
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._socket, 65536), 10)

    def waiting(self) -> list[bytes]:
        """Return the datagrams that have arrived; on loopback a datagram has arrived once it was sent."""
        found = []
        try:
            while True:
                found.append(self._socket.recv(65536))
        except BlockingIOError:
            return found

    def lines(self) -> list[str]:
        return [line for datagram in self.waiting() for line in datagram.decode().split("\n")]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
async def statsd(server: Server) -> AsyncIterator[Statsd]:
    statsd = Statsd("127.0.0.1", server.port, flush_interval_s=LONG_S)
    statsd.start()
    await resolving_of(statsd)  # what is flushed before that waits for the name
    yield statsd
    await statsd.stop()


def test_the_documented_names_are_exact() -> None:
    names = {*Count, *Timing, *Gauge, handled_count("get_time"), handled_timing("get_time")}
    assert names == {
        "client.connect.new.tick",
        "client.connect.connected.tick",
        "client.connect.broken.tick",
        "client.connect.heartbeat.success.tick",
        "client.connect.heartbeat.fail.tick",
        "message.send.tick",
        "message.receive.tick",
        "message.received.handle.get_time.tick",
        "client.connect.new.attempt.timing",
        "client.connect.heartbeat.timing",
        "message.send.timing",
        "message.receive.handle.timing",
        "message.received.handle.get_time.timing",
        "identity.expires_in_days",
        "identity.ca.expires_in_days",
        "identity.peers.expires_in_days",
    }


async def test_of_a_gauge_the_last_value_is_sent_and_one_below_zero_is_set_not_subtracted(
    server: Server, statsd: Statsd
) -> None:
    statsd.gauge(Gauge.IDENTITY, 3.5)
    statsd.gauge(Gauge.IDENTITY, 2.25)
    statsd.gauge(Gauge.CA, -1.5)
    statsd._flush()
    assert server.lines() == [
        "identity.expires_in_days:2.250|g",
        "identity.ca.expires_in_days:0|g",
        "identity.ca.expires_in_days:-1.500|g",
    ]
    statsd._flush()
    assert server.lines() == []


async def test_counters_are_summed_and_timings_sent_in_milliseconds(server: Server, statsd: Statsd) -> None:
    statsd.count(Count.SEND)
    statsd.count("message.send.tick", 11)
    statsd.count(Count.CONNECT_NEW)
    statsd.timing(Timing.SEND, 0.001234)
    statsd.timing(Timing.SEND, 2)
    await statsd.stop()
    assert server.waiting() == [
        b"message.send.tick:12|c\nclient.connect.new.tick:1|c\nmessage.send.timing:1.234|ms\nmessage.send.timing:2000.000|ms"
    ]


async def test_every_interval_is_sent_for_itself_and_nothing_when_nothing_happened(server: Server) -> None:
    statsd = Statsd("127.0.0.1", server.port, flush_interval_s=0.001)
    statsd.start()
    for n in (1, 2, 3):
        statsd.count("a", n)
        statsd.timing("t", n)
        assert await server.datagram() == b"a:%d|c\nt:%d000.000|ms" % (n, n)
    await statsd.stop()
    assert server.waiting() == []


async def test_many_lines_share_datagrams_of_bounded_size(server: Server, statsd: Statsd) -> None:
    for n in range(500):
        statsd.count(f"name.{n}")
    statsd.count(MAX_DATAGRAM_BYTES * "x")  # fits none, and must not harm the others
    await statsd.stop()
    datagrams = server.waiting()
    assert all(MAX_DATAGRAM_BYTES / 2 < len(datagram) <= MAX_DATAGRAM_BYTES for datagram in datagrams[:-1])
    assert b"\n".join(datagrams).split(b"\n") == [b"name.%d:1|c" % n for n in range(500)]


@pytest.mark.parametrize("seen", [1, MAX_TIMINGS, MAX_TIMINGS + 1, 1000, 1_000_003])
async def test_of_many_timings_a_bounded_number_is_sent_spread_over_the_interval_with_its_sample_rate(
    seen: int, server: Server, statsd: Statsd
) -> None:
    for n in range(seen):
        statsd.timing("t", n / 1000)
    await statsd.stop()
    lines = server.lines()
    values = [float(line.removeprefix("t:").partition("|")[0]) for line in lines]
    suffixes = {line.partition("|ms")[2] for line in lines}
    assert min(seen, MAX_TIMINGS / 2) <= len(lines) <= MAX_TIMINGS
    assert len({after - before for before, after in pairwise(values)}) <= 1
    assert values[0] == 0
    assert values[-1] >= seen * (1 - 2 / len(lines)) - 1
    if seen <= MAX_TIMINGS:
        assert suffixes == {""}
    else:
        [suffix] = suffixes
        assert float(suffix.removeprefix("|@")) == pytest.approx(len(lines) / seen, rel=0.01)
        assert "e" not in suffix  # statsd's own parser reads digits and points


async def test_a_datagram_is_full_to_the_byte_and_no_further(server: Server, statsd: Statsd) -> None:
    half = MAX_DATAGRAM_BYTES // 2 - len(":1|c")
    for name in ("a" * half, "b" * (half - 1), "c" * half, "d" * half):
        statsd.count(name)
    await statsd.stop()
    assert [len(datagram) for datagram in server.waiting()] == [MAX_DATAGRAM_BYTES, *2 * [MAX_DATAGRAM_BYTES // 2]]


async def test_a_line_that_fills_a_datagram_alone_is_sent(server: Server, statsd: Statsd) -> None:
    statsd.count("a" * (MAX_DATAGRAM_BYTES - len(":1|c")))
    await statsd.stop()
    assert [len(datagram) for datagram in server.waiting()] == [MAX_DATAGRAM_BYTES]


def test_a_datagram_fits_an_ethernet_frame() -> None:
    assert 1024 <= MAX_DATAGRAM_BYTES <= 1500 - 40 - 8  # headers of IPv6 and UDP


async def test_what_would_end_a_name_is_replaced(server: Server, statsd: Statsd) -> None:
    statsd.count("a:b|c@d e\nf")
    await statsd.stop()
    assert server.lines() == ["a_b_c_d_e_f:1|c"]


async def test_ipv6_works() -> None:
    try:
        server = Server("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    statsd = Statsd("::1", server.port, flush_interval_s=LONG_S)
    statsd.start()
    statsd.count("a")
    await statsd.stop()
    assert server.lines() == ["a:1|c"]
    server.close()


async def test_what_was_counted_before_the_start_is_sent(server: Server) -> None:
    statsd = Statsd("127.0.0.1", server.port)
    statsd.count("a")
    statsd.start()
    await statsd.stop()
    assert server.lines() == ["a:1|c"]


async def test_a_server_that_starts_late_or_again_is_found(server: Server) -> None:
    server.close()
    statsd = Statsd("127.0.0.1", server.port, flush_interval_s=0.001)
    statsd.start()
    for _ in range(2):
        again = Server(port=server.port)
        arrived = asyncio.ensure_future(again.datagram())
        while not arrived.done():
            statsd.count("a")
            await asyncio.wait([arrived], timeout=0.001)
        assert arrived.result().startswith(b"a:")
        again.close()
        statsd.count("a")
    await statsd.stop()


async def test_the_next_address_of_a_name_is_tried_where_nobody_listens_on_the_first(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = Server("127.0.0.2", server.port)
    closed.close()

    def two_addresses(*_: object, **__: object) -> list[object]:
        kind = (socket.AF_INET, socket.SOCK_DGRAM, 17, "")
        return [(*kind, ("127.0.0.2", server.port)), (*kind, ("127.0.0.1", server.port))]

    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    statsd = Statsd("two.example", server.port, flush_interval_s=LONG_S)
    statsd.start()
    await asyncio.wait([resolving_of(statsd)])
    statsd.count("lost")
    statsd._flush()  # on loopback the refusal is here when this returns
    statsd.count("a")
    await statsd.stop()
    assert server.lines() == ["a:1|c"]


async def test_a_name_that_cannot_be_resolved_is_asked_for_again_and_nothing_is_lost_meanwhile(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    asked = 0

    def third_time_lucky(*arguments: object, **options: object) -> object:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve("127.0.0.1", server.port, type=socket.SOCK_DGRAM)

    monkeypatch.setattr(socket, "getaddrinfo", third_time_lucky)
    statsd = Statsd("late.example", server.port, flush_interval_s=0.001)
    statsd.count("a", 7)
    statsd.start()
    assert await server.datagram() == b"a:7|c"
    assert asked == 3
    await statsd.stop()


async def test_where_the_system_has_no_thread_to_give_nothing_is_raised_and_the_name_is_asked_for_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start
    refused = 0

    def third_time_lucky(thread: threading.Thread) -> None:
        nonlocal refused
        if refused < 2:
            refused += 1
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", third_time_lucky)
    statsd = Statsd("127.0.0.1", server.port, flush_interval_s=0.001)
    statsd.count("a", 7)
    statsd.start()
    assert await server.datagram() == b"a:7|c"
    assert refused == 2
    await statsd.stop()


async def test_the_end_raises_nothing_where_no_thread_can_be_started_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    statsd = Statsd("127.0.0.1", 8125, flush_interval_s=LONG_S)
    statsd.count("a")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    await statsd.stop()


@pytest.mark.parametrize("host", ["host.invalid", "a" * 64 + ".invalid", "255.255.255.255", "127.0.0.1"])
async def test_no_server_no_address_and_no_name_raise_nothing_and_delay_nothing(host: str) -> None:
    unused = Server()
    unused.close()
    statsd = Statsd(host, unused.port, flush_interval_s=0.0005)
    statsd.start()
    began = time.monotonic()
    for _ in range(50):
        statsd.count("a")
        statsd.timing("t", 1)
        await asyncio.sleep(0.001)  # lets the timer run
    await statsd.stop()
    assert time.monotonic() - began < 5
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A name server that answers once this event is set."""
    answer = threading.Event()

    def wait_for_answer(*_: object, **__: object) -> list[object]:
        answer.wait(60)
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", 9))]

    monkeypatch.setattr(socket, "getaddrinfo", wait_for_answer)
    monkeypatch.setattr("restpipe.stats.LAST_RESOLUTION_TIMEOUT_S", 0.01)
    yield answer
    answer.set()


async def start_count_stop(host: str) -> threading.Thread:
    """Run a short life, and return the thread that still looks up the name."""
    others = set(threading.enumerate())
    statsd = Statsd(host, 8125, flush_interval_s=0.001)
    statsd.start()
    [thread] = set(threading.enumerate()) - others
    statsd.count("a")
    await statsd.stop()
    return thread


def test_a_name_server_that_does_not_answer_delays_neither_the_loop_nor_the_end_of_the_process(
    name_server: threading.Event,
) -> None:
    began = time.monotonic()
    thread = asyncio.run(start_count_stop("slow.example"))
    assert time.monotonic() - began < 5
    assert thread.daemon
    name_server.set()  # must do no harm, although the loop is closed
    thread.join()


async def test_an_answer_that_comes_after_the_stop_is_ignored(name_server: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    complaints: list[object] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    thread = await start_count_stop("slow.example")
    name_server.set()
    await loop.run_in_executor(None, thread.join)
    await asyncio.sleep(0)  # one turn of the loop: the answer is delivered
    assert complaints == []


async def test_a_server_that_reads_nothing_does_not_block(server: Server) -> None:
    statsd = Statsd("127.0.0.1", server.port, flush_interval_s=LONG_S)
    statsd.start()
    await asyncio.wait([resolving_of(statsd)])
    for n in range(50_000):
        statsd.count(f"{n}.{'x' * 100}")
    assert statsd._socket
    assert not statsd._socket.getblocking()
    await asyncio.wait_for(statsd.stop(), 10)


async def test_a_full_buffer_costs_figures_and_not_the_way_to_the_server(statsd: Statsd) -> None:
    # On loopback UDP drops what is not read, so a socket takes its place whose buffer does become full.
    await asyncio.wait([resolving_of(statsd)])
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        near.setblocking(False)
        assert statsd._socket
        statsd._socket.close()
        statsd._socket = near
        for n in range(50_000):
            statsd.count(f"{n}.{'x' * 100}")
        statsd._flush()
        with pytest.raises(BlockingIOError):
            near.send(b"x" * MAX_DATAGRAM_BYTES)
        assert statsd._socket is near
        while far in select.select([far], [], [], 0)[0]:
            far.recv(65536)
        statsd.count("a")
        statsd._flush()
        assert far.recv(65536) == b"a:1|c"


async def test_nothing_is_sent_after_the_stop(server: Server) -> None:
    statsd = Statsd("127.0.0.1", server.port, flush_interval_s=0.001)
    statsd.start()
    await statsd.stop()
    statsd.count("a")
    idle = asyncio.ensure_future(server.datagram())
    await asyncio.wait([idle], timeout=0.02)
    assert not idle.done()
    idle.cancel()


@pytest.mark.parametrize(("host", "port"), [("", 8125), ("localhost", None), ("", None)])
async def test_an_empty_host_or_port_turns_statistics_off(host: str, port: int | None) -> None:
    stats = stats_to(host, port)
    assert isinstance(stats, NullStats)
    stats.count("a")
    stats.timing("t", 1)
    stats.start()
    await stats.stop()


def test_a_host_and_a_port_turn_statistics_on() -> None:
    stats: Stats = stats_to("localhost", 8125)
    assert isinstance(stats, Statsd)
