"""The commands."""

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
    app()
