"""Turns at a node's event loop."""

# Seconds after which another one that asked is no longer thought of.
RECENT = 0.1
# Envelopes that are taken at once of a pipe while others ask, too: about a millisecond of work.
SHARED_ENVELOPES = 16


class Turns:
    """Tells whether more than one asks of a node.

    The event loop lets everything that is ready have a turn, and a frame may bring so many requests that a turn takes
    milliseconds. Who asks alone has long ones, for what is done together costs less. While others ask, all have short
    ones: somebody's flood of requests does not become the others' wait.
    """

    __slots__ = ("_asked_last", "_changed_at")

    def __init__(self) -> None:
        self._asked_last = ""
        self._changed_at = 0.0

    def asked(self, by: str, now: float) -> None:
        """Note a request.

        Args:
            by: name of the peer, "" for programs of this machine.
            now: monotonic time in seconds.
        """
        if by != self._asked_last:
            self._asked_last = by
            self._changed_at = now

    def shared(self, now: float) -> bool:
        """Whether others asked besides the one that asked last, a moment ago."""
        return now - self._changed_at < RECENT
