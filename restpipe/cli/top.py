"""`restpipe top`: how the node on this machine does, again and again, until it is left."""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from restpipe.cli.status import CLIENTS, NODE, ROLE, NoStatusError, Sort, Watched, failed, find
from restpipe.cli.status_view import StatusView
from restpipe.exceptions import ConfigError

HELP = """Show how the node on this machine does, as `restpipe status` does, again and again.

q or Ctrl-C leaves, s sorts by something else. Exits with 0 where it was left, and otherwise as `restpipe status`.
"""


def top(
    role: ROLE = None,
    clients: CLIENTS = "",
    sort: Annotated[Sort, typer.Option("--sort", help="What peers are sorted by.")] = Sort.RATE,
    interval: Annotated[float, typer.Option("--interval", metavar="SECONDS", min=0.2, help="Between two looks.")] = 2.0,
    node: NODE = None,
) -> None:
    """Show it until it is left."""
    console = Console()
    try:
        if not console.is_terminal:
            raise ConfigError("this needs a terminal; `restpipe status` does not")
        watched, _ = find(role, node, {"limit": 0, "events": 0})
        # The terminal is given back as it was, whatever ends this.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with _keys() as key_within:
            Top(watched, console, clients=clients, sort=sort, interval=interval).run(key_within)
    except (ConfigError, NoStatusError) as error:
        raise failed("top", error) from None
    except KeyboardInterrupt:
        pass


class Top:
    """What is on the screen.

    Args:
        watched: the node.
        console: the screen.
        clients: see `/status`.
        sort: likewise.
        interval: seconds between two looks.
    """

    def __init__(self, watched: Watched, console: Console, *, clients: str, sort: Sort, interval: float) -> None:
        self._watched = watched
        self._console = console
        self._clients = clients
        self._sort = sort
        self._interval = interval
        self._document: dict[str, Any] | None = None

    def run(self, key_within: Callable[[float], str]) -> None:
        """Look and show until somebody leaves.

        Args:
            key_within: returns the key that is pressed within some seconds, "" for none.
        """
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(self._look(), refresh=True)
                key = key_within(self._interval)
                if key == "q":
                    return
                if key == "s":
                    each = list(Sort)
                    self._sort = each[(each.index(self._sort) + 1) % len(each)]

    def _look(self) -> StatusView | str:
        width, height = self._console.size
        query = {"clients": self._clients, "sort": self._sort.value, "limit": height, "events": height}
        alert = ""
        try:
            self._document = self._watched.ask(**query)
        except NoStatusError as error:
            alert = f"{error}; trying on"
        if self._document is None:
            return alert
        note = f"by {self._sort.value.replace('_', ' ')} (s: by another)  q: leave"
        return StatusView(self._document, width=width, height=height, note=note, alert=alert)


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Read keys as they are pressed, where there is a keyboard."""
    if not sys.stdin.isatty():

        def wait(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield wait
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def key_within(seconds: float) -> str:
        readable, _, _ = select.select([fd], [], [], seconds)
        return os.read(fd, 1).decode(errors="replace") if readable else ""

    try:
        tty.setcbreak(fd)
        yield key_within
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
