"""Ways to the same JSON: RestPipe, and what people use today, each configured here, encrypted and authenticated.

Every tunnel stands in front of the plain FastAPI endpoint, in the direction of RestPipe's client nodes: the side of the
endpoint dials, and requests arrive at the other side.
"""

import contextlib
import getpass
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from e2e_processes import Process
from endpoints import PATH
from processes import HERE, free_port, need, nodes, running, uvicorn
from workload import Run, UnavailableError

from restpipe.identity import Authority

PIPE, PLAIN, BARE, SSH = "RestPipe", "plain FastAPI", "bare ASGI", "ssh -R"
START_TIMEOUT = 15.0


@dataclass(frozen=True)
class Contender:
    """Something that answers at a URL, and the processes that take part in it."""

    url: str
    processes: tuple[Process, ...]


Start = Callable[[Run, int], AbstractContextManager[Contender]]
# Yields another port that leads to a port.
Way = Callable[[int], AbstractContextManager[int]]


@contextlib.contextmanager
def standing(run: Run, names: Mapping[str, Start]) -> Iterator[dict[str, Contender]]:
    """Run contenders side by side; one that cannot be had here is skipped, with the reason."""
    with ExitStack() as stack:
        plain, port = stack.enter_context(uvicorn("endpoints:plain", "--lifespan", "off"))
        contenders = {}
        for name, start in names.items():
            try:
                with ExitStack() as own:
                    contender = own.enter_context(start(run, port))
                    _wait_for_answer(contender.url)
                    stack.push(own.pop_all())
            except UnavailableError as reason:
                run.skip(name, str(reason))
                continue
            shared = (plain,) if name in TUNNELS or name == PLAIN else ()
            contenders[name] = Contender(contender.url, (*contender.processes, *shared))
        yield contenders


def _wait_for_answer(url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            with urllib.request.urlopen(url, timeout=START_TIMEOUT) as answer:
                answer.read()
                return
        except (OSError, urllib.error.URLError) as error:
            if time.monotonic() > deadline:
                raise UnavailableError(f"{url} gave no answer: {error}") from None
            time.sleep(0.05)


def _directory(run: Run, name: str) -> Path:
    directory = run.scratch / f"{name}-{free_port()}"
    directory.mkdir()
    return directory


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}{PATH}"


@contextlib.contextmanager
def restpipe(run: Run, _port: int) -> Iterator[Contender]:
    with nodes(run) as pair:
        yield Contender(pair.server.web + PATH, (pair.server, pair.client))


@contextlib.contextmanager
def plain_fastapi(_run: Run, port: int) -> Iterator[Contender]:
    yield Contender(_url(port), ())


@contextlib.contextmanager
def bare_asgi(_run: Run, _port: int) -> Iterator[Contender]:
    with uvicorn("endpoints:bare", "--lifespan", "off") as (process, port):
        yield Contender(_url(port), (process,))


@contextlib.contextmanager
def ssh_reverse(run: Run, port: int, way: Way = contextlib.nullcontext) -> Iterator[Contender]:
    """Run `ssh -R`; it dials a port that `way` yields, and that leads to the one of sshd."""
    need("sshd", "apt-get install openssh-server")
    need("ssh", "apt-get install openssh-client")
    directory, ssh_port, public = _directory(run, "ssh"), free_port(), free_port()
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / key], check=True)
    (directory / "authorized_keys").write_text((directory / "user.pub").read_text())
    host_key = (directory / "host.pub").read_text()
    (directory / "known_hosts").write_text(f"bench {host_key}")
    (directory / "sshd_config").write_text(f"""\
ListenAddress 127.0.0.1:{ssh_port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/authorized_keys
AuthenticationMethods publickey
AllowTcpForwarding remote
PidFile none
StrictModes no
UsePAM no
""")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd gives its privileges up there; its service would make it
    sshd = ("/usr/sbin/sshd", "-D", "-e", "-f", directory / "sshd_config")
    with running(*sshd, until="Server listening") as server, way(ssh_port) as dialled:
        ssh = (
            "ssh", "-F", "none", "-N", "-v", "-p", str(dialled), "-i", directory / "user", "-l", getpass.getuser(),
            "-o", f"UserKnownHostsFile={directory}/known_hosts", "-o", "HostKeyAlias=bench", "-o", "BatchMode=yes",
            "-o", "ExitOnForwardFailure=yes", "-R", f"127.0.0.1:{public}:127.0.0.1:{port}", "127.0.0.1",
        )  # fmt: skip
        with running(*ssh, until="remote forward success") as client:
            yield Contender(_url(public), (server, client))


@contextlib.contextmanager
def frp(run: Run, port: int) -> Iterator[Contender]:
    need("frps", "github.com/fatedier/frp")
    need("frpc", "github.com/fatedier/frp")
    directory, bind, public = _directory(run, "frp"), free_port(), free_port()
    (directory / "frps.toml").write_text(f"""\
bindAddr = "127.0.0.1"
bindPort = {bind}
proxyBindAddr = "127.0.0.1"
auth.token = "secret"
transport.tls.force = true
""")
    (directory / "frpc.toml").write_text(f"""\
serverAddr = "127.0.0.1"
serverPort = {bind}
auth.token = "secret"
transport.tls.enable = true
[[proxies]]
name = "endpoint"
type = "tcp"
localIP = "127.0.0.1"
localPort = {port}
remotePort = {public}
""")
    with (
        running("frps", "-c", directory / "frps.toml", until="started successfully") as server,
        running("frpc", "-c", directory / "frpc.toml", until="start proxy success") as client,
    ):
        yield Contender(_url(public), (server, client))


@contextlib.contextmanager
def chisel(_run: Run, port: int) -> Iterator[Contender]:
    """Chisel encrypts by SSH within its web socket."""
    need("chisel", "github.com/jpillora/chisel")
    bind, public = free_port(), free_port()
    server_command = ("chisel", "server", "--host", "127.0.0.1", "--port", str(bind), "--reverse", "--auth", "user:pw")
    reverse = f"R:127.0.0.1:{public}:127.0.0.1:{port}"
    with (
        running(*server_command, until="Listening on") as server,
        running("chisel", "client", "--auth", "user:pw", f"127.0.0.1:{bind}", reverse, until="Connected") as client,
    ):
        yield Contender(_url(public), (server, client))


@contextlib.contextmanager
def rathole(run: Run, port: int) -> Iterator[Contender]:
    need("rathole", "cargo install rathole")
    directory, bind, public = _directory(run, "rathole"), free_port(), free_port()
    told = subprocess.run(["rathole", "--genkey"], capture_output=True, text=True, check=True).stdout.split()
    private_key, public_key = (told[told.index("Key:", start) + 1] for start in (0, told.index("Key:") + 1))
    (directory / "server.toml").write_text(f"""\
[server]
bind_addr = "127.0.0.1:{bind}"
default_token = "secret"
[server.transport]
type = "noise"
[server.transport.noise]
local_private_key = "{private_key}"
[server.services.endpoint]
bind_addr = "127.0.0.1:{public}"
""")
    (directory / "client.toml").write_text(f"""\
[client]
remote_addr = "127.0.0.1:{bind}"
default_token = "secret"
[client.transport]
type = "noise"
[client.transport.noise]
remote_public_key = "{public_key}"
[client.services.endpoint]
local_addr = "127.0.0.1:{port}"
""")
    start = partial(running, "rathole", environment={"RUST_LOG": "info"})
    with (
        start(directory / "server.toml", until="Listening at") as server,
        start(directory / "client.toml", until="established") as client,
    ):
        yield Contender(_url(public), (server, client))


@contextlib.contextmanager
def nats(run: Run, _port: int) -> Iterator[Contender]:
    need("nats-server", "apt-get install nats-server")
    _need_package("nats")
    directory, bind = _identities(run, "nats"), free_port()
    (directory / "nats.conf").write_text(f"""\
listen: "127.0.0.1:{bind}"
tls {{
  cert_file: "{directory}/server.crt.pem"
  key_file: "{directory}/server.key.pem"
  ca_file: "{directory}/ca.crt.pem"
  verify: true
}}
""")
    environment = {"BENCH_IDENTITIES": str(directory), "BENCH_NATS": f"tls://localhost:{bind}"}
    with (
        running("nats-server", "-c", directory / "nats.conf", until="Server is ready") as broker,
        running(sys.executable, HERE / "over_nats.py", until="subscribed", environment=environment) as client,
        uvicorn("over_nats:app", environment=environment) as (server, port),
    ):
        yield Contender(_url(port), (broker, client, server))


@contextlib.contextmanager
def websocket_rpc(run: Run, _port: int) -> Iterator[Contender]:
    _need_package("fastapi_websocket_rpc")
    directory, web, pipe = _identities(run, "websocket-rpc"), free_port(), free_port()
    start = partial(
        running, sys.executable, HERE / "over_websocket_rpc.py", environment={"BENCH_IDENTITIES": str(directory)}
    )
    with (
        start("server", str(web), str(pipe), until=f"running on https.*:{pipe}") as server,
        start("client", str(pipe), until="dialled") as client,
    ):
        server.wait_for("connected")
        yield Contender(_url(web), (server, client))


def _identities(run: Run, name: str) -> Path:
    directory = _directory(run, name)
    authority = Authority.create(directory)
    authority.issue("server", "server")
    authority.issue("client", "client")
    return directory


def _need_package(name: str) -> None:
    try:
        __import__(name)
    except ImportError:
        raise UnavailableError(f"{name} is not installed (pip install --group bench)") from None


TUNNELS: dict[str, Start] = {SSH: ssh_reverse, "frp": frp, "chisel": chisel, "rathole": rathole}
ALL: dict[str, Start] = {
    PIPE: restpipe,
    PLAIN: plain_fastapi,
    **TUNNELS,
    "NATS behind FastAPI": nats,
    "websocket_rpc behind FastAPI": websocket_rpc,
    BARE: bare_asgi,
}
