"""Real processes: started as a user starts them, read as they write, ended by signals, and proved to be gone."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from restpipe.identity import Authority, Role

# Beside the interpreter stand the console scripts of the installed project.
SCRIPTS = Path(sys.executable).parent
# Seconds for what takes a moment; reached only where a test fails.
PATIENCE = 30.0
# Runs a command as systemd does that listens for it: the socket, here standard input, is the first passed descriptor.
ACTIVATED = ("sh", "-c", 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&0 </dev/null', "sh")
# What a process that does its work never writes.
UNSOUND = re.compile(r"Traceback|never retrieved|never awaited|Exception ignored|Warning:|was destroyed|Unclosed")


def clean_environment(**settings: str) -> dict[str, str]:
    """Return an environment that tells a node nothing but `settings`, and in which warnings are errors."""
    of_others = re.compile(r"(RP_|BIND_|DEBUG$|COVERAGE)|.*_proxy$", re.IGNORECASE)
    inherited = {name: value for name, value in os.environ.items() if not of_others.match(name)}
    scripts = f"{SCRIPTS}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    return inherited | {"PATH": scripts, "PYTHONWARNINGS": "error", "RP_STATSD_HOST": ""} | settings


class Process:
    """A process whose output, both streams of it, is read as it is written.

    Args:
        command: what to run; found beside the interpreter first.
        directory: its current directory.
        environment: all of its environment.
        listener: a socket that it is passed, and that stays open.
    """

    def __init__(
        self, *command: str | Path, directory: Path, environment: Mapping[str, str],
        listener: socket.socket | None = None,
    ) -> None:  # fmt: skip
        self.command = [str(word) for word in command]
        if (SCRIPTS / self.command[0]).is_file():
            self.command[0] = str(SCRIPTS / self.command[0])
        if listener is not None:
            self.command[:0] = ACTIVATED
        # A session of its own, whose processes are this one and its children.
        self._popen = subprocess.Popen(
            self.command, cwd=directory, env=dict(environment), start_new_session=True,
            stdin=subprocess.DEVNULL if listener is None else listener.fileno(), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        self.may_raise = False
        self._output = ""
        self._over = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if self._popen.stdout is None:
            raise AssertionError("the output is a pipe")
        with self._popen.stdout as lines:
            for line in lines:
                with self._changed:
                    self._output += line
                    self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def memory(self) -> int:
        """Bytes of memory that it has now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])

    @property
    def output(self) -> str:
        """What it has written so far."""
        with self._changed:
            return self._output

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def wait_for(self, pattern: str, *, times: int = 1, within: float = PATIENCE) -> re.Match[str]:
        """Wait until it has written what matches `pattern`, so many times; return the last match."""
        wanted = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + within

        def found() -> list[re.Match[str]]:
            return list(wanted.finditer(self._output))

        with self._changed:
            self._changed.wait_for(
                lambda: len(found()) >= times or self._over, timeout=max(0.0, deadline - time.monotonic())
            )
            matches = found()
            if len(matches) < times:
                state = "ended" if self._over else f"did not within {within:g} s"
                raise AssertionError(f"{self._told()}\nshould have written {pattern!r} {times} times, and {state}")
            return matches[times - 1]

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        """Kill it and its children, such as nginx's workers, and see it gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait(PATIENCE)
        self._reader.join(PATIENCE)

    def wait(self, code: int = 0) -> str:
        """Wait for its end, which leaves nothing behind; return all that it wrote."""
        try:
            ended = self._popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self._told()}\nshould have ended") from None
        self._reader.join(PATIENCE)
        assert ended == code, f"{self._told()}\nended with {ended}, should have ended with {code}"
        assert not group_exists(self.pid), f"{self._told()}\nleft processes behind"
        unsound = UNSOUND.search(self.output)
        assert self.may_raise or unsound is None, f"{self._told()}\nshould not have written {unsound}"
        return self.output

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """End it by a signal; it exits with 0, and leaves nothing behind. Return all that it wrote."""
        self.send(number)
        return self.wait()

    def _told(self) -> str:
        return f"{' '.join(self.command)}\n{self.output}"


class Node(Process):
    """A server or a client node."""

    def wait_started(self) -> None:
        """Wait until it has shown its first screen."""
        self.wait_for(r"^  serves  ")

    @property
    def web(self) -> str:
        """Address of its web server, as a URL without a path."""
        return self.wait_for(r"^  web +(http://[^/]+)/")[1]

    @property
    def pipe_port(self) -> int:
        """Port that clients of this server connect to."""
        return int(self.wait_for(r"clients connect to \S+:(\d+)$")[1])

    def wait_connected(self, times: int = 1) -> None:
        """Wait until this client has had a pipe to its server so many times."""
        self.wait_for("connected to the server at", times=times)


class Site:
    """A directory with a CA, identities, and the nodes that are started there; all of them end with it.

    Args:
        directory: empty.
        settings: of every node, by variable.
    """

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.authority = Authority.create(directory)
        self.settings = {
            "RP_SERVER_CERT_PATH": str(directory),
            "RP_CLIENT_CERT_PATH": str(directory),
            "RP_SERVER_WEB_BIND": "127.0.0.1:0",
            "RP_CLIENT_WEB_BIND": "127.0.0.1:0",
            "RP_CLIENT_RECONNECT_MAX_S": "0.2",
            **settings,
        }
        self._processes: list[Process] = []

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        running = [process for process in reversed(self._processes) if process.running]
        if kind is not None:
            for process in running:
                process.kill()
            return
        for process in running:
            process.send(signal.SIGTERM)
        try:
            for process in running:
                process.wait()
        finally:
            for process in running:
                if process.running:
                    process.kill()

    def run(self, *command: str | Path, **settings: str) -> Process:
        """Run any command of the project here."""
        environment = clean_environment(**self.settings | settings)
        process = Process(*command, directory=self.directory, environment=environment)
        self._processes.append(process)
        return process

    def adopt(self, process: Process) -> None:
        """See to the end of a process that was started beside it."""
        self._processes.append(process)

    def server(self, *, port: int = 0, **settings: str) -> Node:
        """Start a server node, and wait for its first screen."""
        server = self._server(port, settings)
        server.wait_started()
        return server

    def activated_server(self, listener: socket.socket, /, *, port: int = 0, **settings: str) -> Node:
        """Start a server node likewise, and pass it the socket of its web server."""
        server = self._server(port, settings, listener)
        server.wait_started()
        return server

    def client(self, port: int, *, name: str = "client", connected: bool = True, **settings: str) -> Node:
        """Start a client node, and wait until it is connected unless told otherwise."""
        client = self._client(port, name, settings)
        client.wait_started()
        if connected:
            client.wait_connected()
        return client

    def pair(self, **settings: str) -> tuple[Node, Node]:
        """Start a server and a client at once, told the same; wait until they are connected."""
        port = free_port()
        server, client = self._server(port, settings), self._client(port, "client", settings)
        server.wait_started()
        client.wait_connected()
        return server, client

    def _server(self, port: int, settings: dict[str, str], listener: socket.socket | None = None) -> Node:
        address = {"RP_SERVER_BIND_INTERFACE": "127.0.0.1", "RP_SERVER_BIND_PORT": str(port)}
        return self._start("server", self.identity("server", "server") | address | settings, listener)

    def _client(self, port: int, name: str, settings: dict[str, str]) -> Node:
        return self._start("client", self.identity("client", name) | {"RP_CLIENT_TARGET_PORT": str(port)} | settings)

    def _start(self, role: Role, settings: dict[str, str], listener: socket.socket | None = None) -> Node:
        environment = clean_environment(**self.settings | settings)
        node = Node("restpipe", role, directory=self.directory, environment=environment, listener=listener)
        self._processes.append(node)
        return node

    def identity(self, role: Role, name: str, *hosts: str) -> dict[str, str]:
        """Return the settings that give a node an identity of this name, which is issued where there is none yet."""
        key, certificate = f"{name}.key.pem", f"{name}.crt.pem"
        if not (self.directory / key).exists():
            self.authority.issue(name, role, hosts)
        return {f"RP_{role.upper()}_KEY_FILENAME": key, f"RP_{role.upper()}_CRT_FILENAME": certificate}


def site_with_handlers(directory: Path, **settings: str) -> Site:
    """Return a site in whose directory lies the module `e2e_handlers`, which serves the events of its nodes."""
    shutil.copy(Path(__file__).with_name("e2e_handlers.py"), directory)
    return Site(directory, **{"RP_EVENT_HANDLER_FQ_CLASS": "e2e_handlers.Handler"} | settings)


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def group_exists(pid: int) -> bool:
    """Whether any process of the group that `pid` leads, or led, is there."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@contextmanager
def stopped(process: Process) -> Iterator[None]:
    """Let a process stand still, as one whose machine is suspended."""
    process.send(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send(signal.SIGCONT)
