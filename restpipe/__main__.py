"""The commands: `restpipe`, which is `python -m restpipe` as well, and those of RestPipe 0.2."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator


def main() -> None:
    """Run the command line."""
    with _ended_by_ctrl_c():
        from restpipe.cli import main as run
    run()


def server_set_identity() -> None:
    """Run `rp_server_set_identity`."""
    with _ended_by_ctrl_c():
        from restpipe.cli.set_identity import server_set_identity as run
    run()


def client_set_identity() -> None:
    """Run `rp_client_set_identity`."""
    with _ended_by_ctrl_c():
        from restpipe.cli.set_identity import client_set_identity as run
    run()


def server_start() -> None:
    """Run a server node behind the unix socket of old."""
    with _ended_by_ctrl_c():
        from restpipe.cli.legacy import start
    start("server")


def client_start() -> None:
    """Run a client node behind the unix socket of old."""
    with _ended_by_ctrl_c():
        from restpipe.cli.legacy import start
    start("client")


@contextlib.contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Have Ctrl-C end the process without a word while modules are imported, which takes seconds on a small machine."""
    _open_standard_streams()
    interrupted = signal.getsignal(signal.SIGINT)
    if interrupted is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, interrupted)


def _open_standard_streams() -> None:
    """Let nothing be written where a standard stream was closed, nor read.

    Python has None for it, and the next socket would get its number: libuv ends the process when that is closed.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            lowest = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(lowest, "r" if name == "stdin" else "w"))


if __name__ == "__main__":
    main()
