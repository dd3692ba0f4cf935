"""The first part of a path on a server node, and the client that it leads to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_curl import Answer, curl
from e2e_processes import Node, Site, site_with_handlers

NOW = ("-H", "Prefer: wait=0")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server that listens where it does by default, and to which one client is connected: `alpha`."""
    with site_with_handlers(tmp_path_factory.mktemp("one")) as site:
        server = site.server(RP_SERVER_BIND_INTERFACE="0.0.0.0", CLIENT_HOSTNAME_RESOLVER_CLS="e2e_handlers.Resolver")
        site.client(server.pipe_port, name="alpha", RP_EVENT_HANDLER_FQ_CLASS="e2e_handlers.Alpha")
        yield server


@pytest.fixture(scope="module")
def server_of_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server to which two clients of one host are connected: `alpha` and `beta`."""
    with site_with_handlers(tmp_path_factory.mktemp("two")) as site:
        server = site.server(CLIENT_HOSTNAME_RESOLVER_CLS="e2e_handlers.Resolver")
        for name in ("alpha", "beta"):
            site.client(server.pipe_port, name=name, RP_EVENT_HANDLER_FQ_CLASS=f"e2e_handlers.{name.title()}")
        yield server


def ask(server: Node, name: str, *options: str) -> Answer:
    return curl(f"{server.web}/client/{name}/name", *NOW, *options)


@pytest.mark.parametrize("name", ["alpha", "127.0.0.1", "[::1]", "files.example.com"])
def test_one_client_is_reached_by_its_name_its_address_and_its_host_name(server: Node, name: str) -> None:
    assert ask(server, name, "--globoff").json == "alpha"


def test_a_name_that_leads_to_no_client_is_told_apart_from_one_that_is_not_connected(server: Node) -> None:
    assert ask(server, "nobody.example.com").outcome == (404, 254, "no")
    assert ask(server, "192.0.2.1").outcome == (503, 245, "no")


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_two_clients_of_one_host_are_reached_by_the_names_of_their_certificates(server_of_two: Node, name: str) -> None:
    assert ask(server_of_two, name).json == name


@pytest.mark.parametrize("name", ["127.0.0.1", "files.example.com"])
def test_an_address_of_two_clients_is_refused_with_their_names(server_of_two: Node, name: str) -> None:
    answer = ask(server_of_two, name)
    assert answer.outcome == (409, 254, "no")
    assert "alpha, beta" in answer.json["detail"]


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_default_resolver_finds_a_client_of_this_host(tmp_path: Path, name: str) -> None:
    with Site(tmp_path, RP_SERVER_BIND_INTERFACE="0.0.0.0") as site:
        server, _ = site.pair()
        assert "time_from_client" in curl(f"{server.web}/client/{name}/time", *NOW).json
