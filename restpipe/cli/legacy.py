"""How RestPipe 0.2 started a node."""

import os
import sys

from restpipe.cli import app


def start(node: str) -> None:
    """Run a node with the options of the command line, behind the unix socket of old."""
    os.environ.setdefault(f"RP_{node.upper()}_WEB_BIND", f"unix:/tmp/rp{node}.gunicorn.sock")
    # As of old, a web server of any user may connect. Its user and its group are not known here.
    os.environ.setdefault("RP_WEB_SOCKET_MODE", "0666")
    app([node, *sys.argv[1:]])
