"""`restpipe demo`: a server and a client, two processes joined by mutual TLS, and curl lines to try."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from restpipe.config import TcpBind
from restpipe.config.binds import parse_web_bind
from restpipe.identity import Authority

# Seconds for both nodes to start and for the pipe to be up.
START_TIMEOUT = 30
# Seconds that nodes have to end before they are killed.
STOP_TIMEOUT = 15.0

console = Console(highlight=False, soft_wrap=True, emoji=False)


def _checked(address: str) -> str:
    """Refuse what could not stand in the lines that are printed."""
    try:
        _tcp_address(address)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return address


def _tcp_address(text: str) -> TcpBind:
    with contextlib.suppress(ValueError):
        bind = parse_web_bind(text)
        if isinstance(bind, TcpBind) and bind.port:
            return bind
    raise ValueError("should be host:port, or [ipv6]:port")


def demo(
    server_web: Annotated[
        str, typer.Option(help="Address of the server node's web server.", callback=_checked)
    ] = "127.0.0.1:8080",
    client_web: Annotated[
        str, typer.Option(help="Address of the client node's web server.", callback=_checked)
    ] = "127.0.0.1:8081",
    port: Annotated[int, typer.Option(help="Port of the pipe.", min=1, max=65535)] = 1234,
) -> None:
    """Run a server node and a client node here, with identities made for the occasion, until Ctrl-C.

    Nothing is left behind.
    """
    with tempfile.TemporaryDirectory(prefix="restpipe-demo-") as directory, _own_foreground():
        authority = Authority.create(Path(directory), name="RestPipe demo CA")
        authority.issue("server", "server")
        authority.issue("client", "client")
        code = asyncio.run(_Demo(Path(directory), server_web, client_web, port).run())
    raise typer.Exit(code)


class _Demo:
    def __init__(self, directory: Path, server_web: str, client_web: str, port: int) -> None:
        self._server_web = server_web
        self._client_web = client_web
        self._commands = {
            "server": ("--bind-interface", "127.0.0.1", "--bind-port", str(port), "--web", server_web),
            "client": ("--target-hostname", "localhost", "--target-port", str(port), "--web", client_web),
        }
        # The nodes are told everything here: what the environment says is for another one.
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(("RP_", "BIND_"))}
        for node in self._commands:
            self._environment |= {
                f"RP_{node.upper()}_CERT_PATH": str(directory),
                f"RP_{node.upper()}_KEY_FILENAME": f"{node}.key.pem",
                f"RP_{node.upper()}_CRT_FILENAME": f"{node}.crt.pem",
                "RP_STATSD_HOST": "",
            }
        self._nodes: dict[str, asyncio.subprocess.Process] = {}
        self._pumps: list[asyncio.Task[None]] = []
        self._server_listens = asyncio.Event()

    async def run(self) -> int:
        """Run until a signal, or until a node ends; return the exit code."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        try:
            for node in self._commands:
                await self._start(node)
            stopped = asyncio.create_task(stop.wait())
            ended = {asyncio.create_task(process.wait()): name for name, process in self._nodes.items()}
            ready = asyncio.create_task(self._wait_ready())
            done, _ = await asyncio.wait({stopped, ready, *ended}, return_when=asyncio.FIRST_COMPLETED)
            if ready in done and ready.result():
                console.print(self._screen())
                done, _ = await asyncio.wait({stopped, *ended}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            if stopped in done:
                return 0
            stopped.cancel()
            failed = [name for task, name in ended.items() if task in done]
            console.print(f"The {' and the '.join(failed)} node ended." if failed else "The pipe did not come up.")
            console.print("`restpipe demo --help` tells how to choose other ports.")
            return 1
        finally:
            await self._stop()

    async def _start(self, node: str) -> None:
        # A session of its own: Ctrl-C is for this process, which then ends the nodes.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "restpipe", node, *self._commands[node],
            env=self._environment, start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        self._nodes[node] = process
        self._pumps.append(asyncio.create_task(self._pump(node, process)))

    async def _stop(self) -> None:
        running = [process for process in self._nodes.values() if process.returncode is None]
        for process in running:
            process.terminate()
        ends = [asyncio.create_task(process.wait()) for process in running]
        if ends:
            _, late = await asyncio.wait(ends, timeout=STOP_TIMEOUT)
            if late:
                for process in running:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                await asyncio.wait(ends)
        await asyncio.gather(*self._pumps)

    async def _wait_ready(self) -> bool:
        """Ask the client through the server: the answer tells that all of it works."""
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._server_listens.wait()  # before that, another demo might answer at its address
                while True:
                    with contextlib.suppress(OSError):
                        return await _is_answered(_tcp_address(self._server_web), "/client/client/time")
                    await asyncio.sleep(0.05)  # the web server does not listen yet
        except TimeoutError:
            return False

    async def _pump(self, node: str, process: asyncio.subprocess.Process) -> None:
        """Show a node's output, line by line."""
        if process.stdout is None:
            raise AssertionError("the output is a pipe")
        async for line in process.stdout:
            if node == "server" and line.startswith(b"RestPipe "):  # the first screen of a node that listens
                self._server_listens.set()
            console.print(f"{node:6} | {line.decode(errors='replace').rstrip()}", markup=False)

    def _screen(self) -> str:
        client, server = f"http://{self._client_web}", f"http://{self._server_web}"
        return f"""
[bold]Two nodes, one pipe.[/bold] Paste these into another terminal:

  curl {client}/server/time
  curl {server}/client/client/time
  curl {client}/server/cat//hello%20/world
  curl {server}/client/client/cat//hello%20/world

The same in a browser: {server}/docs and {client}/docs
Ctrl-C stops everything.
"""


async def _is_answered(address: TcpBind, path: str) -> bool:
    """Whether a GET succeeds. Not by urllib: its thread would keep this process from ending."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nPrefer: wait={START_TIMEOUT}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        return (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    finally:
        writer.transport.abort()


@contextlib.contextmanager
def _own_foreground() -> Iterator[None]:
    """Take Ctrl-C of the terminal for this process alone, as a shell does for its jobs.

    Without that `make demo` would be interrupted too, and call an orderly end an error.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
        before = os.tcgetpgrp(terminal)
    except OSError:
        yield
        return
    ignored = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        if before == os.getpgrp() != os.getpid():
            os.setpgid(0, 0)
            os.tcsetpgrp(terminal, os.getpid())
        yield
    finally:
        if os.tcgetpgrp(terminal) != before:
            os.tcsetpgrp(terminal, before)
        os.close(terminal)
        signal.signal(signal.SIGTTOU, ignored)
