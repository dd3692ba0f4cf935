"""What was answered to requests with an Idempotency-Key."""

from heapq import heappop, heappush
from itertools import count

from restpipe.exceptions import BadArgumentsError, KeyReusedError, PeerRefusedError

# The verbs that an Idempotency-Key makes repeatable; the others are repeatable, or are none of events.
KEYED = frozenset({"post", "patch"})
# Characters of a key; each is remembered for long.
MAX_KEY = 255

# Who asks, and the Idempotency-Key.
Key = tuple[str, str]


class Entry:
    """A request with a key, under way or answered.

    Attributes:
        peer: whose pipe it came by.
        key: its own.
        fingerprint: of the request.
        until: when the time of the one who sent it first is over.
        forgotten: the request was not executed, and its key is free again.
        answer: encoded; None while the request is under way, and where the answer was not kept.
    """

    __slots__ = ("answer", "fingerprint", "forgotten", "key", "peer", "until")

    def __init__(self, peer: str, key: Key, fingerprint: bytes, until: float) -> None:
        self.peer = peer
        self.key = key
        self.fingerprint = fingerprint
        self.until = until
        self.forgotten = False
        self.answer: bytes | None = None


class _Peer:
    """The requests from one peer: all by key, and the answered ones in the order in which they may be forgotten."""

    __slots__ = ("answered", "by_key", "size")

    def __init__(self) -> None:
        self.by_key: dict[Key, Entry] = {}
        self.answered: list[tuple[float, int, Entry]] = []
        self.size = 0

    def forget_first(self) -> None:
        _, _, entry = heappop(self.answered)
        del self.by_key[entry.key]
        self.size -= len(entry.answer or b"")


class AnswerMemory:
    """Remembers which keys each caller used, for what, and what the answer was.

    Its bounds are for each peer, at the other end of a pipe: all callers whose requests a server passes on have those
    of the server together, for it may name as many as it likes.

    As long as the one who sent a request may repeat it, its key is never forgotten: where there is no room without
    forgetting one, a request with another key is refused.

    Args:
        max_keys: keys from one peer that are remembered.
        max_bytes: bytes of the answers to one peer that are kept.
        lifetime: seconds for which a key is remembered after that, unless others need the room.
    """

    def __init__(
        self, *, max_keys: int = 10_000, max_bytes: int = 16 * 1024 * 1024, lifetime: float = 86_400.0
    ) -> None:
        self.max_bytes = max_bytes
        self._max_keys = max_keys
        self._lifetime = lifetime
        self._peers: dict[str, _Peer] = {}
        self._number = count()
        self._sweep_due = 0.0

    def begin(self, peer: str, key: Key, fingerprint: bytes, now: float, patience: float) -> tuple[Entry, bool]:
        """Look up a request with a key; return what is known of it, and whether that is nothing, so that it is to run.

        The caller of this method sees to it that what is to run is told to `finish` or to `forget`.

        Args:
            peer: whose pipe it came by.
            key: the caller's.
            fingerprint: differs where the request does.
            now: monotonic time in seconds.
            patience: seconds for which the one who sends it may repeat it.

        Raises:
            BadArgumentsError: the key is too long.
            KeyReusedError: the key was used for another request.
            PeerRefusedError: there is no room.
        """
        if len(key[1]) > MAX_KEY:
            raise BadArgumentsError(f"an Idempotency-Key has at most {MAX_KEY} characters")
        if now >= self._sweep_due:
            self._sweep(now)
        mine = self._peers.setdefault(peer, _Peer())
        entry = mine.by_key.get(key)
        if entry is not None:
            if entry.fingerprint != fingerprint:
                raise KeyReusedError("the Idempotency-Key was used for another request")
            return entry, False
        if len(mine.by_key) >= self._max_keys:
            if not self._may_forget(mine, now):
                raise PeerRefusedError(f"{self._max_keys} requests with an Idempotency-Key are remembered")
            mine.forget_first()
        entry = mine.by_key[key] = Entry(peer, key, fingerprint, now + patience)
        return entry, True

    def finish(self, entry: Entry, answer: bytes | None, now: float) -> None:
        """Note how a request was answered; None, or what there is no room for, is not kept."""
        mine = self._peers[entry.peer]
        if answer is not None and len(answer) <= self.max_bytes:
            while mine.size + len(answer) > self.max_bytes and self._may_forget(mine, now):
                mine.forget_first()
            if mine.size + len(answer) <= self.max_bytes:
                entry.answer = answer
                mine.size += len(answer)
        heappush(mine.answered, (entry.until, next(self._number), entry))

    def forget(self, entry: Entry) -> None:
        """Note that a request was not executed: another may have its key."""
        entry.forgotten = True
        del self._peers[entry.peer].by_key[entry.key]

    def _may_forget(self, mine: _Peer, now: float) -> bool:
        return bool(mine.answered) and mine.answered[0][0] <= now

    def _sweep(self, now: float) -> None:
        """Forget what is past its lifetime."""
        self._sweep_due = now + self._lifetime / 10
        for name, mine in list(self._peers.items()):
            while mine.answered and mine.answered[0][0] + self._lifetime <= now:
                mine.forget_first()
            if not mine.by_key:
                del self._peers[name]
