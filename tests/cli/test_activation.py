"""The socket that a service manager passes is taken as sd_listen_fds(3) has it, and nothing else is."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from restpipe.cli.activation import ignored_bind, inherited_bind
from restpipe.config import TcpBind, UnixBind, load_client_settings, load_server_settings
from restpipe.exceptions import ConfigError

VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def passed(monkeypatch: pytest.MonkeyPatch, fd: int, **variables: str) -> None:
    """Let a descriptor be the first one that was passed to this process."""
    monkeypatch.setattr("restpipe.cli.activation.FIRST", fd)
    for name, value in ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"} | variables).items():
        monkeypatch.setenv(name, value)


def test_a_socket_that_was_passed_is_where_the_web_server_listens(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    passed(monkeypatch, listener.fileno())
    bind = inherited_bind()
    assert bind == TcpBind("127.0.0.1", listener.getsockname()[1], fd=listener.fileno())
    assert load_client_settings({"web_bind": "unix:/run/other"}, bind).web_bind == bind
    assert load_server_settings({"web_bind": ""}, bind).web_bind == bind
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)  # it is open


def test_a_unix_socket_that_was_passed_is_known_by_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "web"))
        listener.listen()
        passed(monkeypatch, listener.fileno())
        assert inherited_bind() == UnixBind(tmp_path / "web", fd=listener.fileno())


def test_neither_the_variables_nor_the_socket_reach_a_child(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    listener.set_inheritable(True)
    passed(monkeypatch, listener.fileno(), LISTEN_FDNAMES="web", LISTEN_PIDFDID="1")
    assert inherited_bind() is not None
    look = f"import os\nprint([v for v in os.environ if v.startswith('LISTEN_')])\nos.fstat({listener.fileno()})"
    command = [sys.executable, "-c", look]
    child = subprocess.run(command, capture_output=True, text=True, close_fds=False, timeout=30, check=False)
    assert child.stdout == "[]\n"
    assert "Bad file descriptor" in child.stderr


@pytest.mark.parametrize("variables", [{"LISTEN_PID": "1"}, {"LISTEN_PID": ""}, {"LISTEN_FDS": "0"}])
def test_what_was_passed_to_another_process_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket, variables: dict[str, str]
) -> None:
    passed(monkeypatch, listener.fileno(), **variables)
    assert inherited_bind() is None
    assert not [name for name in VARIABLES if name in os.environ]


@pytest.mark.parametrize("number", ["2", "-1", "x", "1x"])
def test_anything_but_one_socket_is_refused(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    passed(monkeypatch, 0, LISTEN_FDS=number, LISTEN_FDNAMES="web:pipe")
    with pytest.raises(ConfigError) as caught:
        inherited_bind()
    assert str(caught.value) == f"LISTEN_FDS={number!r}, named 'web:pipe': should be 1, the socket of the web server"


def test_what_does_not_listen_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here, there = socket.socketpair()
    with (
        (tmp_path / "file").open("w") as file,
        closing(socket.socket()) as idle,
        closing(socket.socket(type=socket.SOCK_DGRAM)) as datagrams,
        closing(here), closing(there),
        closing(socket.socket(socket.AF_UNIX)) as abstract,
    ):  # fmt: skip
        abstract.bind(f"\0restpipe-{os.getpid()}")
        abstract.listen()
        said = []
        for each in (file, idle, datagrams, here, abstract):
            passed(monkeypatch, each.fileno())
            with pytest.raises(ConfigError) as caught:
                inherited_bind()
            said.append(str(caught.value))
            os.fstat(each.fileno())  # it is open
    passed(monkeypatch, 10**6)
    with pytest.raises(ConfigError, match="Bad file descriptor"):
        inherited_bind()
    assert "should be a socket: " in said[0]
    assert all("should be a TCP or unix socket that listens: ListenStream=, Accept=no" in line for line in said[1:4])
    assert "should have a path" in said[4]
    assert not any("\n" in line for line in said)


def test_beyond_loopback_a_socket_that_was_passed_wants_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    bind = TcpBind("::", 8080, fd=3)
    with pytest.raises(ConfigError) as caught:
        load_server_settings({"web_bind": "127.0.0.1:80"}, bind)
    assert str(caught.value).startswith("the socket of LISTEN_FDS='[::]:8080': should be reachable from this machine")
    assert "RP_WEB_TOKEN" in str(caught.value)
    monkeypatch.setenv("RP_WEB_TOKEN", "sesame")
    assert load_server_settings({}, bind).web_bind == bind


def test_an_address_of_the_environment_that_is_not_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_CLIENT_WEB_BIND", "127.0.0.1:9")
    [line] = ignored_bind(load_client_settings({}, UnixBind(Path("/run/web.sock"), fd=3)))
    assert line.startswith("RP_CLIENT_WEB_BIND='127.0.0.1:9' is not used: ")
    assert "unix:/run/web.sock" in line
    assert ignored_bind(load_client_settings({}, TcpBind("127.0.0.1", 9, fd=3))) == ()
    assert ignored_bind(load_client_settings()) == ()
