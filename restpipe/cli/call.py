"""`restpipe call`: make a request through the node on this machine."""

import os
import re
import sys
from enum import IntEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from restpipe.cli.local import listens, node_at, node_of
from restpipe.config import WebBind, load_client_settings, load_server_settings
from restpipe.exceptions import ConfigError

_METHOD = re.compile(r"[A-Z]+")
# A name and a value that an HTTP/1.1 head can carry (RFC 9110 sections 5.1 and 5.5).
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
# What stands for itself in a path and its query; "%" because what is encoded already stays as it is.
_SAFE = "/?%:@!$&'()*+,;=-._~"


class Outcome(IntEnum):
    """Exit codes."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NEVER_SENT = 3
    UNKNOWN = 4
    REFUSED = 5
    BROKEN = 6
    INTERRUPTED = 130  # as a shell has it of SIGINT
    NO_READER = 141  # as a shell has it of SIGPIPE


HELP = """Call an event of another node, through the node on this machine.

\b
restpipe call client/fileserver time
restpipe call server POST order -d '{"item": "tea"}'

The words are a path, joined by slashes: "client", a client's name and an event where this machine runs the server,
"server" and an event where it runs a client; there "client" and a name is another client, if the server permits that.
Arguments follow "//", as in cat//hello/world. An HTTP method may stand
among the words; otherwise it is GET, or POST with --data. Bodies are streamed, both ways. The node's token comes from
RP_WEB_TOKEN.

Exits with

\b
0: done.
1: the handler failed, or returned a code other than 0.
2: the command line, or a setting, is wrong.
3: never sent. It is safe to repeat.
4: the outcome is unknown: it may have been executed.
5: refused (4xx): repeating will not help.
6: the answer broke off, or could not be written.
130: interrupted; the handler was cancelled.
141: whoever read the output left.
"""


def call(
    words: Annotated[list[str], typer.Argument(metavar="PATH", help="Path of the event, and an HTTP method.")],
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", metavar="DATA|@FILE|@-", help="Body: the text, a file's, or standard input's."),
    ] = None,
    headers: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="Header; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the answer's body there.", dir_okay=False),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", min=0.001, help="For the whole exchange (X-Event-Timeout)."),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(
            "--node",
            metavar="URL",
            help="Web server of the node: http://HOST:PORT or unix:/PATH. By default that of RP_CLIENT_WEB_BIND for "
            "server/..., of RP_SERVER_WEB_BIND for client/..., or of RP_CLIENT_WEB_BIND where no server listens there.",
        ),
    ] = None,
) -> None:
    """Make a request, and exit as `HELP` says."""
    from restpipe.cli.caller import Asked, perform

    try:
        method, target = _method_and_target(words, data)
        address, token = _node_of(target, node)
        asked = Asked(
            method=method,
            target=target,
            headers=[_header(line) for line in headers or ()],
            data=data,
            timeout=timeout,
            token=token,
        )
        outcome = perform(address, asked, output)
    except ConfigError as error:
        typer.echo(f"restpipe call: {error}", err=True)
        outcome = Outcome.USAGE
    except KeyboardInterrupt:
        outcome = Outcome.INTERRUPTED
    except BrokenPipeError:
        # Python would complain when it flushes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        outcome = Outcome.NO_READER
    raise typer.Exit(outcome)


def _method_and_target(words: list[str], data: str | None) -> tuple[str, str]:
    methods = [word for word in words if _METHOD.fullmatch(word)]
    if len(methods) > 1:
        raise ConfigError(f"{' and '.join(methods)} are two methods; one is wanted")
    # One slash joins two words, whether or not one of them has it; "//" is the user's.
    path = ""
    for word in words:
        if word not in methods:
            path = f"{path.removesuffix('/')}/{word.removeprefix('/')}"
    path = path.removeprefix("/")
    if not path:
        raise ConfigError("which event? Such as client/NAME/time, or server/time")
    target = "/" + quote(path, safe=_SAFE, errors="surrogateescape")
    return methods[0] if methods else "GET" if data is None else "POST", target


def _header(line: str) -> tuple[str, str]:
    try:
        found = _HEADER.fullmatch(line.encode().decode("latin-1"))
    except UnicodeError:
        found = None
    if found is None:
        raise ConfigError(f"-H {line!r} should be 'Name: value'")
    return found[1], found[2]


def _node_of(target: str, url: str | None) -> tuple[WebBind, str]:
    """Return where the node's web server listens, and its token.

    Raises:
        ConfigError: it is not told.
    """
    if url is not None:
        return node_at(url)
    if target.startswith("/client/"):
        server, client = load_server_settings(), load_client_settings()
        return node_of(client if not listens(server) and listens(client) else server)
    if target.startswith("/server/"):
        return node_of(load_client_settings())
    raise ConfigError(f"{target[1:]!r} begins neither with client/ nor with server/, so --node has to name the node")
