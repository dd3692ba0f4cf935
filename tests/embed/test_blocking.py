"""The blocking client: any thread may use it, Ctrl-C ends what it waits for, and it ends with its interpreter."""

import asyncio
import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from embedded import Serves, client_options, server_node

import restpipe
from restpipe.embed.loop_thread import LoopThread
from restpipe.exceptions import HandlerError, IdentityError, PeerAbsentError

MIB = 1 << 20


class Server:
    """A server node in a thread."""

    def __init__(self, identity_files: Path) -> None:
        self.handler = Serves("server")
        self.thread = LoopThread(lambda: server_node(identity_files, handler=self.handler), "server")
        self.port = self.thread.run(self._port())

    async def _port(self) -> int:
        return self.thread.entered.port

    def wait(self, event: str) -> None:
        """Wait until an event of the handler has happened."""
        self.thread.run(_within_patience(getattr(self.handler, event)))

    def call(self, *arguments: Any) -> Any:
        return self.thread.run(self.thread.entered.client("alpha").call(*arguments)).data


async def _within_patience(event: Any) -> None:
    async with asyncio.timeout(60):  # an interpreter may have to start first
        await event.wait()


@pytest.fixture(scope="module")
def server(identity_files: Path) -> Iterator[Server]:
    server = Server(identity_files)
    yield server
    server.thread.close()


@pytest.fixture(scope="module")
def node(identity_files: Path, server: Server) -> Iterator[restpipe.BlockingClientNode]:
    with restpipe.connect(**client_options(identity_files, server.port, handler=Serves("script"))) as node:
        yield node


def test_a_script_calls_and_is_called(node: restpipe.BlockingClientNode, server: Server) -> None:
    assert node.call("get", "name").data == {"name": "server", "caller": "alpha"}
    assert server.call("get", "name")["name"] == "script"
    with pytest.raises(HandlerError, match="the shelf is empty"):
        node.call("get", "boom")


def test_bodies_are_streamed_both_ways(node: restpipe.BlockingClientNode, tmp_path: Path) -> None:
    with node.stream("get", "count", 3) as stream:
        assert b"".join(stream) == b"0,1,2,"
    with node.stream("get", "count", 3) as stream:
        assert (stream.length, stream.read()) == (None, b"0,1,2,")
    assert node.call("put", "size", data=(bytes(MIB) for _ in range(3))).data["size"] == 3 * MIB
    path = tmp_path / "large"
    path.write_bytes(bytes(MIB))
    assert node.call("put", "file", data=path).data == MIB


def test_leaving_a_stream_early_ends_it_and_what_is_raised_there_is_raised_on(
    node: restpipe.BlockingClientNode, server: Server
) -> None:
    server.handler.closed.clear()

    def reads_a_little() -> None:
        with node.stream("get", "count", 10**9) as stream:
            assert next(iter(stream))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        reads_a_little()
    server.wait("closed")


def test_many_threads_call_at_once(node: restpipe.BlockingClientNode) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda x: node.call("get", "sum", x, y=1).data, range(200))) == list(range(1, 201))


def own_threads(before: list[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread not in before and thread.name == "restpipe"]


def test_a_node_that_was_closed_says_so(identity_files: Path, server: Server) -> None:
    before = threading.enumerate()
    node = restpipe.connect(**client_options(identity_files, server.port, "beta"))
    node.close()
    node.close()
    with pytest.raises(RuntimeError, match="was closed"):
        node.call("get", "name")
    assert not own_threads(before)


def test_a_call_that_begins_as_another_thread_ends_the_node_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    submit = asyncio.run_coroutine_threadsafe
    closing, done = threading.Event(), threading.Event()

    class Ordering:
        """Tells that the other thread waits to close the node."""

        def __init__(self, lock: Any) -> None:
            self._lock = lock

        def __enter__(self) -> None:
            if threading.current_thread() is closer:
                closing.set()
            self._lock.acquire()

        def __exit__(self, *raised: object) -> None:
            self._lock.release()

    @contextlib.asynccontextmanager
    async def entered() -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        shut_down = loop.shutdown_default_executor

        async def held_up(*arguments: Any) -> None:
            closing.set()
            await loop.run_in_executor(None, done.wait, 1)
            await shut_down(*arguments)

        monkeypatch.setattr(loop, "shutdown_default_executor", held_up)
        yield

    def late(coroutine: Any, loop: asyncio.AbstractEventLoop) -> Any:
        closer.start()
        assert closing.wait(10)
        future = submit(coroutine, loop)
        done.set()
        return future

    thread = LoopThread(entered, "ends meanwhile")
    thread._ordering = Ordering(thread._ordering)  # type: ignore[assignment]
    closer = threading.Thread(target=thread.close)
    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", late)
    said = queue.SimpleQueue[str]()

    def call() -> None:
        with pytest.raises(RuntimeError) as raised:
            thread.run(asyncio.sleep(3600))
        said.put(str(raised.value))

    threading.Thread(target=call, daemon=True).start()
    assert said.get(timeout=10) == "the node was closed meanwhile"
    closer.join()


def test_a_server_that_does_not_come_is_told_and_leaves_no_thread(identity_files: Path) -> None:
    before = threading.enumerate()
    options = client_options(identity_files, 1, "beta", connection_wait_timeout_s=0.1)
    with pytest.raises(PeerAbsentError, match="no pipe to the server within"):
        restpipe.connect(**options)
    with restpipe.connect(**options | {"connection_wait_timeout_s": 0}) as node, pytest.raises(PeerAbsentError):
        node.call("get", "name")
    assert not own_threads(before)


def test_what_keeps_a_node_from_starting_is_raised(tmp_path: Path) -> None:
    with pytest.raises(IdentityError):
        restpipe.connect(cert_path=tmp_path)


def test_a_handler_that_would_wait_for_itself_is_told(identity_files: Path, server: Server) -> None:
    class Waits(restpipe.ClientEventHandler):
        async def get_itself(self, ctx: restpipe.EventContext, post_data: Any) -> None:
            made[0].call("get", "name")

    made: list[restpipe.BlockingClientNode] = []
    with restpipe.connect(**client_options(identity_files, server.port, "beta", handler=Waits)) as node:
        made.append(node)
        call = server.thread.entered.client("beta").call("get", "itself")
        with pytest.raises(HandlerError, match="would block the event loop"):
            server.thread.run(call)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_is_told_that_the_node_is_not_its_own(node: restpipe.BlockingClientNode) -> None:
    process = node._thread._process
    try:
        node._thread._process = -1  # a fork of this very process could hang in what its threads held
        with pytest.raises(RuntimeError, match="before a fork"):
            node.call("get", "name")
    finally:
        node._thread._process = process


def script(identity_files: Path, port: int, body: str) -> list[str]:
    options = client_options(identity_files, port, "beta")
    options["cert_path"] = str(options["cert_path"])
    return [sys.executable, "-W", "error", "-c", f"import restpipe\nnode = restpipe.connect(**{options!r})\n{body}"]


class Lines(logging.Handler):
    """Puts what is logged into a queue."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: queue.Queue[str] = queue.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.queue.put(record.getMessage())


def test_an_interpreter_ends_though_its_node_was_left_open_and_the_server_is_told(
    identity_files: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    lines = Lines()
    log = logging.getLogger("restpipe.nodes.server")
    log.addHandler(lines)
    try:
        with caplog.at_level(logging.INFO, log.name):
            command = script(identity_files, server.port, "print(node.call('get', 'sum', 1, y=2).data)")
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")
            while not (line := lines.queue.get(timeout=60)).startswith("client beta disconnected: "):
                pass
    finally:
        log.removeHandler(lines)
    assert line == "client beta disconnected: the node is shutting down"


def test_ctrl_c_cancels_the_handler_and_ends_the_script(identity_files: Path, server: Server) -> None:
    server.handler.arrived.clear()
    server.handler.cancelled.clear()
    body = """
with node:
    try:
        node.call("get", "forever")
    except KeyboardInterrupt:
        print("interrupted", node.call("get", "sum", 1).data)
"""
    command = script(identity_files, server.port, body)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            server.wait("arrived")
            process.send_signal(signal.SIGINT)
            server.wait("cancelled")
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, output, errors) == (0, "interrupted 1\n", "")
