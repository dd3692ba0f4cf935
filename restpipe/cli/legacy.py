"""The commands of RestPipe 0.2, under their old names."""

import os
import sys

from restpipe.cli import app, set_identity

server_set_identity = set_identity.server_set_identity
client_set_identity = set_identity.client_set_identity


def server_start_dev() -> None:
    """Run a server node behind the unix socket of old."""
    _start("server")


def client_start_dev() -> None:
    """Run a client node behind the unix socket of old."""
    _start("client")


server_start_prod = server_start_dev
client_start_prod = client_start_dev


def _start(node: str) -> None:
    os.environ.setdefault(f"RP_{node.upper()}_WEB_BIND", f"unix:/tmp/rp{node}.gunicorn.sock")
    # As of old, a web server of any user may connect. Its user and its group are not known here.
    os.environ.setdefault("RP_WEB_SOCKET_MODE", "0666")
    app([node, *sys.argv[1:]])
