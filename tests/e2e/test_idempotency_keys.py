"""A payment with an Idempotency-Key is made once, whatever happens to the pipe."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_curl import Curl, curl
from e2e_processes import Site, site_with_handlers

POST = ("-X", "POST")
KEY = ("-H", "Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324")


class Proxy:
    """Passes TCP connections on, and resets those that it has.

    Attributes:
        port: that it listens on.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pass_on, args=(source, sink))
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Reset every connection, on both sides."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RD)  # wakes the thread that reads it
            each.close()

    def close(self) -> None:
        """End it, and its threads."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        self.reset()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_with_handlers(tmp_path) as site:
        yield site


@contextlib.contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()


def test_a_payment_whose_pipe_is_reset_before_its_answer_is_made_once_and_answered(site: Site) -> None:
    server = site.server()
    with proxy_to(server.pipe_port) as proxy:
        client = site.client(proxy.port)
        for way, handling in ((f"{server.web}/client/client", client), (f"{client.web}/server", server)):
            with Curl(f"{way}/wait//paid", *KEY, "-d", "100 EUR") as payment:
                handling.wait_for("^post_wait begins")
                proxy.reset()
                # The gate is opened over the next pipe, though this one's end may not have been seen yet.
                assert curl(f"{way}/gate//paid", *POST, "-H", "Idempotency-Key: opened").status == 200
                answer = payment.answer()
            assert (answer.status, answer.json) == (200, "waited")
            assert answer.headers["x-event-attempts"] == "2"
            again = curl(f"{way}/wait//paid", *KEY, "-d", "100 EUR")
            assert (again.status, again.body) == (200, answer.body)
            assert curl(f"{way}/wait//paid", *KEY, "-d", "200 EUR").outcome == (422, 252, "no")
            assert handling.output.count("post_wait begins") == 1
            assert "post_wait is cancelled" not in handling.output
        client.end()
    server.end()


def test_a_payment_whose_pipe_is_reset_without_a_key_has_an_unknown_outcome(site: Site) -> None:
    server = site.server()
    with proxy_to(server.pipe_port) as proxy:
        client = site.client(proxy.port)
        with Curl(f"{server.web}/client/client/wait//paid", "-d", "100 EUR") as payment:
            client.wait_for("^post_wait begins")
            proxy.reset()
            assert payment.answer().outcome == (502, 246, "unknown")
        client.wait_for("^post_wait is cancelled")
        client.end()
    server.end()


def test_a_payment_whose_node_is_killed_is_not_made_again_and_its_outcome_is_unknown(site: Site) -> None:
    server, client = site.pair()
    with Curl(f"{server.web}/client/client/wait//paid", *KEY, "-d", "100 EUR") as payment:
        client.wait_for("^post_wait begins")
        client.kill()
        successor = site.client(server.pipe_port)
        answer = payment.answer()
    assert answer.outcome == (502, 246, "unknown")
    assert "was started anew" in answer.json["detail"]
    assert "post_wait begins" not in successor.output


def test_a_key_that_is_empty_or_too_long_or_given_twice_is_refused(site: Site) -> None:
    server, _ = site.pair()
    way = f"{server.web}/client/client/echo"
    for headers in (
        ("-H", "Idempotency-Key;"),
        ("-H", f"Idempotency-Key: {256 * 'k'}"),
        (*KEY, "-H", "Idempotency-Key: another"),
    ):
        assert curl(way, *headers, data=b"x").outcome == (400, 252, "no")
