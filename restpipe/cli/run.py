"""Running a node as a process: its log, its first screen, its signals, its exit code."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime

import typer
import uvloop

from restpipe.cli.activation import ignored_bind
from restpipe.cli.logs import configure_logging
from restpipe.cli.notify import notify
from restpipe.cli.process import set_up_process, spare_the_garbage_collector
from restpipe.config import ClientSettings, ServerSettings, UnixBind, unknown_settings
from restpipe.config.binds import host_port
from restpipe.exceptions import IdentityError
from restpipe.handlers.blocked import LoopWatch
from restpipe.nodes.client import ClientNode
from restpipe.nodes.server import ServerNode
from restpipe.version import __version__
from restpipe.web.server import WebServer
from restpipe.web.serving import stop_serving, web_server_of

log = logging.getLogger("restpipe")

Settings = ServerSettings | ClientSettings


def run(settings: Settings, load: Callable[[], Settings]) -> None:
    """Run a node until SIGTERM or SIGINT; a second one ends it at once.

    SIGHUP has it look for new certificates, and for new settings that say who may do what.

    Args:
        settings: of the node.
        load: loads them anew.

    Raises:
        ConfigError: a setting is wrong, or an address cannot be bound.
        typer.Exit: the identity cannot be used, and standard error says why.
    """
    set_up_process()
    configure_logging(debug=settings.debug, log_format=settings.log_format)
    try:
        uvloop.run(_run(settings, load))
    except IdentityError as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from None


async def _run(settings: Settings, load: Callable[[], Settings]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _on_signal, stop)
    for warning in (*unknown_settings(settings), *ignored_bind(settings)):
        log.warning(warning)
    node = ServerNode(settings) if isinstance(settings, ServerSettings) else ClientNode(settings)
    loop.add_signal_handler(signal.SIGHUP, node.reload, load)
    watch = LoopWatch(node.methods, loop)
    web = web_server_of(node)
    if web is not None:
        await web.start()
    try:
        if not await _started(node, stop):
            return
        spare_the_garbage_collector()
        watch.start()
        _show(first_screen(node, web))
        notify("READY=1")
        await stop.wait()
        notify("STOPPING=1")
        log.info("stopping: what is in flight has %g s to finish", settings.drain_timeout_s)
    finally:
        await stop_serving(node, web, settings.drain_timeout_s)
        watch.stop()
    if node.threads.busy:
        log.warning("%d handler threads did not return and are left behind", node.threads.busy)
    log.info("stopped")


async def _started(node: ServerNode | ClientNode, stop: asyncio.Event) -> bool:
    """Start a node; return whether it was, for an application that starts up slowly may be told to stop before."""
    starting, stopping = asyncio.create_task(node.start()), asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if starting.done():
        starting.result()
        return True
    log.info("stopping before it was started")
    starting.cancel()
    await asyncio.wait({starting})
    return False


def _show(text: str) -> None:
    """Write what nobody may be there to read: a full disk keeps no node from starting."""
    try:
        typer.echo(text)
    except OSError as error:
        log.warning("the first screen could not be shown: %s", error)


def _on_signal(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(1)
    stop.set()


def first_screen(node: ServerNode | ClientNode, web: WebServer | None) -> str:
    """Say who this node is, where it is reached, and what it serves."""
    settings, identity = node.settings, node.identity
    days = (identity.not_after - datetime.now(UTC)).days
    if isinstance(node, ServerNode):
        pipes = f"clients connect to {host_port(node.settings.bind_interface, node.port)}"
        route = "/client/NAME/NOUN"
    else:
        pipes = f"connects to {node.settings.target_address}"
        route = "/server/NOUN"
    lines = [
        f"RestPipe {__version__}, {settings.node} node {identity.name!r}",
        f"  identity  {settings.crt_path}, valid until {identity.not_after:%Y-%m-%d} ({days} days)",
        f"  pipe      {pipes}",
        f"  web       {_web_line(settings, web, route)}",
        f"  handler   {settings.upstream or settings.asgi or settings.event_handler}",
        *([f"  files     {settings.files_shown}"] if settings.files else []),
        *_relays(node),
        f"  serves    {_events(node)}",
    ]
    return "\n".join(lines)


def _web_line(settings: Settings, web: WebServer | None, route: str) -> str:
    if web is None:
        return "none"
    held = "" if settings.web_bind is None or settings.web_bind.fd is None else ", a socket of the service manager"
    if isinstance(settings.web_bind, UnixBind):
        return f"{web.address}, {route}{held}"
    return f"{web.address}{route}, status at {web.address}/, docs at {web.address}/docs{held}"


def _relays(node: ServerNode | ClientNode) -> list[str]:
    rules = node.settings.relay if isinstance(node, ServerNode) else ()
    return [f"  relays    {', '.join(rules)}"] if rules else []


def _events(node: ServerNode | ClientNode) -> str:
    if node.service.forwards:
        return "every request, by passing it on"
    nouns: dict[str, list[str]] = {}
    for event in node.service.manifest:
        nouns.setdefault(event.noun, []).append(event.verb.upper())
    return ", ".join(f"{'/'.join(verbs)} {noun}" for noun, verbs in nouns.items()) or "no events"
