"""The site of nginx that is shipped, in front of a real node: whom it lets in, and what it adds."""

import os
import re
import shutil
from collections.abc import Iterator

import pytest
from e2e_curl import Answer, curl
from e2e_processes import Process, Site, clean_environment, free_port

from restpipe.cli.install_service import shipped

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return where nginx listens in front of a server node, whose client is connected."""
    directory = tmp_path_factory.mktemp("nginx")
    socket, port = directory / "web.sock", free_port()
    site_file = shipped("nginx-server.conf").replace("/run/restpipe-server/web.sock", str(socket))
    assert str(socket) in site_file
    site_file = site_file.replace("127.0.0.1:80;", f"127.0.0.1:{port};")
    configuration = directory / "nginx.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)
    # As root, nginx's workers are those of nobody, who may not reach a directory of ours.
    configuration.write_text(
        f"error_log stderr notice; daemon off; pid {directory}/pid; {'user root;' if os.geteuid() == 0 else ''}\n"
        f"events {{}} http {{ access_log off; {temporary} {site_file} }}"
    )
    with Site(directory) as site:
        server = site.server(RP_SERVER_WEB_BIND=f"unix:{socket}")
        site.client(server.pipe_port)
        nginx = Process(
            "nginx", "-p", directory, "-c", configuration, "-e", "stderr",
            directory=directory, environment=clean_environment(),
        )  # fmt: skip
        site.adopt(nginx)
        nginx.wait_for("start worker process ")
        yield port


def ask(port: int, path: str, *options: str, host: str = "rpserver.local") -> Answer:
    return curl(f"http://{host}:{port}{path}", "--resolve", f"{host}:{port}:127.0.0.1", *options)


def test_events_pass_it(port: int) -> None:
    assert ask(port, "/client/client/cat//hello%20/world").json == {"result_from_client": "hello world"}


def test_a_name_that_was_made_to_lead_here_gets_nothing(port: int) -> None:
    assert ask(port, "/client/client/time", host="evil.example").status == 421


def test_a_request_gets_an_id_unless_it_has_one(port: int) -> None:
    given = ask(port, "/client/client/nowhere", "-H", "X-Request-ID: order-17")
    assert given.json["instance"] == "urn:restpipe:request:order-17"
    made = ask(port, "/client/client/nowhere")
    assert re.fullmatch("urn:restpipe:request:[0-9a-f]{32}", made.json["instance"])
