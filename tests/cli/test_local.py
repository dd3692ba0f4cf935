"""The commands that ask the node on this machine find it, also where it is a service."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from restpipe.cli import local
from restpipe.config import NodeSettings, TcpBind, UnixBind, load_client_settings, load_server_settings
from restpipe.exceptions import ConfigError


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands for /run, with the sockets of both services; nothing listens at the default ports."""
    monkeypatch.setattr(local, "SERVICES", tmp_path)
    monkeypatch.setattr(socket, "create_connection", _refuse)
    sockets = []
    for role in ("server", "client"):
        (tmp_path / f"restpipe-{role}").mkdir()
        sockets.append(socket.socket(socket.AF_UNIX))
        sockets[-1].bind(str(tmp_path / f"restpipe-{role}/web.sock"))
        sockets[-1].listen()
    yield tmp_path
    for listening in sockets:
        listening.close()


def _refuse(*_: object, **__: object) -> socket.socket:
    raise ConnectionRefusedError


@pytest.mark.parametrize("load", [load_server_settings, load_client_settings])
def test_a_service_is_found_where_nothing_listens_at_the_default(
    services: Path, load: Callable[[], NodeSettings]
) -> None:
    settings = load()
    address = UnixBind(services / f"restpipe-{settings.node}/web.sock")
    assert local.node_of(settings) == (address, "")
    assert local.listens(settings)


def test_what_is_set_is_asked_though_there_is_a_service(services: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_CLIENT_WEB_BIND", "127.0.0.1:8081")
    assert local.node_of(load_client_settings()) == (TcpBind("127.0.0.1", 8081), "")
    assert not local.listens(load_client_settings())


def test_a_node_at_the_default_is_asked_though_there_is_a_service(
    services: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_accepts", lambda address: isinstance(address, TcpBind))
    assert local.node_of(load_client_settings()) == (TcpBind("127.0.0.1", 8081), "")


def test_without_a_service_it_is_the_default(services: Path) -> None:
    (services / "restpipe-client/web.sock").unlink()
    assert local.node_of(load_client_settings()) == (TcpBind("127.0.0.1", 8081), "")


def test_who_may_not_ask_is_told_who_may() -> None:
    told = local.refusal(UnixBind(Path("/run/restpipe-client/web.sock")), PermissionError(13, "Permission denied"))
    assert told == (
        "no node answers at unix:/run/restpipe-client/web.sock: Permission denied: "
        "ask as root, or as one of the socket's group"
    )


@pytest.mark.parametrize("token", ["a\nb", "süß", "a b"])
def test_a_token_that_no_header_can_carry_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("RP_WEB_TOKEN", token)
    with pytest.raises(ConfigError, match="RP_WEB_TOKEN: should consist of"):
        local.node_at("http://127.0.0.1:8080")
