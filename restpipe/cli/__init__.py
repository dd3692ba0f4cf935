"""The commands."""

import errno
import inspect
import os
import sys

import typer

from restpipe.cli import ca, call, check, demo, install_service, nodes, status, top
from restpipe.version import __version__

app = typer.Typer(
    name="restpipe",
    help="Link sites, servers and devices behind NAT: a durable pipe to one server, a REST surface on every node.",
    epilog="A first look: restpipe demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("server")(nodes.server)
app.command("client")(nodes.client)
app.command("call", help=call.HELP)(call.call)
app.command("status", help=status.HELP)(status.status)
app.command("top", help=top.HELP)(top.top)
app.command("demo")(demo.demo)
app.command("install-service", help=install_service.HELP)(install_service.install_service)
app.add_typer(ca.app, name="ca")
app.add_typer(check.app, name="check")


def _let_help_flow(commands: typer.Typer) -> None:
    r"""Have the paragraphs of every help be as wide as the terminal: typer keeps the line breaks of the source.

    The lines of a paragraph that begins with click's mark for it, \b, stay lines.
    """
    for command in commands.registered_commands:
        command.help = _flowing(command.help or inspect.getdoc(command.callback) or "")
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            group.typer_instance.info.help = _flowing(group.typer_instance.info.help or "")
            _let_help_flow(group.typer_instance)


def _flowing(text: str) -> str:
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        paragraph.removeprefix("\b\n") if paragraph.startswith("\b") else paragraph.replace("\n", " ")
        for paragraph in paragraphs
    )


_let_help_flow(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"restpipe {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: bool = typer.Option(
        False,
        "--version",
        callback=_show_version,
        is_eager=True,
        help="Show the version and exit.",
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    try:
        app()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # What is left in the buffer would fail once more as Python ends, and be the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        typer.echo(f"restpipe: cannot write: {error.strerror}", err=True)
        sys.exit(1)
