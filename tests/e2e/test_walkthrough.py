"""The walkthrough of RestPipe 0.2, line by line: its commands, its nginx configuration, its curl lines, its answers."""

import os
import re
import shutil
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e_curl import curl
from e2e_processes import Process, Site, clean_environment, free_port

from restpipe.identity import Role

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")

# What the walkthrough says of one name, but for the port, and for where the socket is.
OF_ONE_NAME = """
    upstream rp_{node} {{ server unix:{socket} fail_timeout=0; }}
    server {{
        listen 127.0.0.1:{port};
        server_name rp{node}.local;
        keepalive_timeout 5;
        location /favicon.ico {{ return 404; }}
        location / {{
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header Host $http_host;
            proxy_redirect off;
            proxy_pass http://rp_{node};
        }}
    }}
"""
AROUND = """
{user}
daemon off;
pid {directory}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{names}
}}
"""


class Walk:
    """A fresh machine: nothing is installed, and a user types."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = directory / "output"
        self.output.mkdir()
        self.installed = directory / "installed"
        self.pipe_port, self.http_port = free_port(), free_port()
        self.sockets = {node: directory / f"rp{node}.gunicorn.sock" for node in ("server", "client")}
        self.environment = clean_environment(
            RP_SERVER_CERT_PATH=str(self.installed),
            RP_CLIENT_CERT_PATH=str(self.installed),
            RP_SERVER_BIND_PORT=str(self.pipe_port),
            RP_CLIENT_TARGET_PORT=str(self.pipe_port),
            RP_SERVER_WEB_BIND=f"unix:{self.sockets['server']}",
            RP_CLIENT_WEB_BIND=f"unix:{self.sockets['client']}",
        )

    def type(self, line: str) -> Process:
        """Type a command in output/."""
        return Process(*line.split(), directory=self.output, environment=self.environment)

    def make_identities(self) -> None:
        self.type("restpipe ca init").wait()
        self.type("restpipe ca issue server --server").wait()
        self.type("restpipe ca issue client").wait()

    def install_identities(self) -> None:
        self.type("rp_server_set_identity server.key.pem server.crt.pem ca.crt.pem").wait()
        self.type("rp_client_set_identity client.key.pem client.crt.pem").wait()

    @contextmanager
    def nginx(self) -> Iterator[Process]:
        names = "".join(
            OF_ONE_NAME.format(node=node, socket=socket, port=self.http_port) for node, socket in self.sockets.items()
        )
        # Its workers would leave the user who owns this directory, where that is root.
        user = "user root;" if os.geteuid() == 0 else ""
        configuration = self.directory / "nginx.conf"
        configuration.write_text(AROUND.format(user=user, directory=self.directory, names=names))
        assert NGINX is not None
        process = Process(
            NGINX,
            "-p",
            self.directory,
            "-c",
            configuration,
            "-g",
            "error_log stderr notice;",
            directory=self.directory,
            environment=self.environment,
        )
        try:
            process.wait_for("start worker processes")
            yield process
            process.end()
        finally:
            if process.running:
                process.kill()

    def curl(self, url: str) -> str:
        """Make a request to a name that /etc/hosts would have at 127.0.0.1, and port 80 of which is ours."""
        host = url.split("/")[2]
        answer = curl(url, "--connect-to", f"{host}:80:127.0.0.1:{self.http_port}")
        assert (answer.status, answer.code) == (200, 0), answer.text
        return answer.text


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    return Walk(tmp_path)


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.parametrize("first", ["server", "client"])
def test_every_line_of_the_walkthrough_does_what_it_says(walk: Walk, first: str) -> None:
    walk.make_identities()
    walk.install_identities()
    order = ["server", "client"] if first == "server" else ["client", "server"]
    nodes = {}
    with walk.nginx():
        try:
            for node in order:
                nodes[node] = walk.type(f"rp_{node}_start_gunicorn_dev")
                nodes[node].wait_for(rf"^  web +unix:{walk.sockets[node]}, ")
            nodes["client"].wait_for("connected to the server at localhost")
            assert re.fullmatch(r'\{"time_from_server": \d+\.\d+\}', walk.curl("http://rpclient.local/server/time"))
            assert re.fullmatch(
                r'\{"time_from_client": \d+\.\d+\}', walk.curl("http://rpserver.local/client/localhost/time")
            )
            assert (
                walk.curl("http://rpclient.local/server/cat//hello%20/world") == '{"result_from_server": "hello world"}'
            )
            assert (
                walk.curl("http://rpserver.local/client/localhost/cat//hello%20/world")
                == '{"result_from_client": "hello world"}'
            )
            for node in order:
                nodes[node].end(signal.SIGINT)
        finally:
            for process in nodes.values():
                if process.running:
                    process.kill()
    assert not any(socket.exists() for socket in walk.sockets.values())


def test_the_client_finds_the_ca_that_was_installed_before(walk: Walk) -> None:
    walk.make_identities()
    refused = walk.type("rp_client_set_identity client.key.pem client.crt.pem").wait(code=1)
    assert "no CA certificate is installed yet" in refused
    assert not walk.installed.exists()
    walk.install_identities()
    assert sorted(path.name for path in walk.installed.iterdir()) == [
        "ca.crt.pem",
        "restpipe.client.crt.pem",
        "restpipe.client.key.pem",
        "restpipe.server.crt.pem",
        "restpipe.server.key.pem",
    ]


@pytest.mark.parametrize(("node", "kind"), [("server", "dev"), ("client", "prod")])
def test_the_sockets_of_the_old_commands_are_where_they_were(tmp_path: Path, node: Role, kind: str) -> None:
    socket = Path(f"/tmp/rp{node}.gunicorn.sock")
    if socket.exists():
        pytest.skip(f"{socket} exists: a node may be running")
    with Site(tmp_path, RP_SERVER_BIND_PORT="0") as site:
        settings = site.identity(node, node)
        del site.settings[f"RP_{node.upper()}_WEB_BIND"]
        process = site.run(f"rp_{node}_start_gunicorn_{kind}", **settings)
        process.wait_for(rf"^  web +unix:{socket}, ")
        assert stat.S_IMODE(socket.stat().st_mode) == 0o666
        assert curl("http://localhost/docs", "--unix-socket", str(socket)).status == 200
    assert not socket.exists()
