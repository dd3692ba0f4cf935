"""The command `restpipe`, and `python -m restpipe`."""

import signal


def main() -> None:
    """Run the command line."""
    # Ctrl-C ends it without a word while modules are imported, which takes seconds on a small machine.
    interrupted = signal.getsignal(signal.SIGINT)
    if interrupted is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from restpipe.cli import main as run

    signal.signal(signal.SIGINT, interrupted)
    run()


if __name__ == "__main__":
    main()
