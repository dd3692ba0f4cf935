"""What a running node does about certificates: it takes new ones, and lets no pipe outlive those that it rests on."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from restpipe.identity import Custody, Fault, News
from restpipe.identity.certificates import parse_certificate
from restpipe.identity.files import EXPIRY_WARNING
from restpipe.identity.wording import moment, span
from restpipe.pipe import Pipe
from restpipe.stats import Gauge, Stats
from restpipe.transport.carrier import Peer
from restpipe_pb.v1.pipe_pb2 import Goaway

log = logging.getLogger(__name__)

# Seconds between two warnings of the same.
WARNING_INTERVAL = 86400.0
UNTRUSTED = "the certificate of {} is from no CA that is trusted any more"


class Watch:
    """Looks at a node's files, and at the certificates of its peers, again and again.

    Certificates go by the wall clock. So that is looked at, too, and no timer is set: a clock that was put right, and a
    machine that was suspended, are noticed at the next look.

    Args:
        custody: of the node's files.
        interval: seconds between two looks.
        stats: gauges.
        pipes: returns the live pipes.
        taken: called after a look that took something new.
    """

    def __init__(
        self,
        custody: Custody,
        interval: float,
        stats: Stats,
        pipes: Callable[[], Iterable[Pipe]],
        taken: Callable[[News], None],
    ) -> None:
        self._custody = custody
        self._interval = interval
        self._stats = stats
        self._pipes = pipes
        self._taken = taken
        self._loop = asyncio.get_running_loop()
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._files_warned = 0.0
        self._peers_warned: dict[str, float] = {}

    def start(self) -> None:
        """Begin; what is to be warned of already is."""
        self._warn_of_files(self._custody.faults)
        self._gauge()
        self._task = self._loop.create_task(self._run(), name="certificates")

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def look_now(self) -> None:
        """Look at once, and warn of all that is wrong, whether or not it is new."""
        self._asked.set()

    def fault_of(self, peer: Peer) -> str | None:
        """Return what keeps a node from having a pipe: a certificate that is not good any more. None where it is."""
        if peer.not_after is not None and peer.not_after <= datetime.now(UTC):
            return f"the certificate of {peer.name} expired on {moment(peer.not_after)}"
        if peer.certificate and self._custody.revocations:
            date = self._custody.revocations.date(parse_certificate(peer.certificate))
            if date is not None:
                return f"the certificate of {peer.name} was revoked on {moment(date)}"
        if peer.intermediates is not None and not self._custody.trusts(peer.certificate, peer.intermediates):
            return UNTRUSTED.format(peer.name)
        return None

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._asked.wait()
            try:
                await self._look()
            except Exception:
                log.exception("the certificates could not be looked at")

    async def _look(self) -> None:
        asked = self._asked.is_set()
        self._asked.clear()
        again = asked or self._loop.time() - self._files_warned > WARNING_INTERVAL
        news = await asyncio.to_thread(self._custody.examine if again else self._custody.look)
        if news is not None:
            self._warn_of_files(news.faults)
            self._tell(news, asked=asked)
            if news.identity or news.revocations:
                self._taken(news)
        for pipe in self._pipes():
            self._look_at_peer(pipe, whole=news is not None and (news.identity or news.revocations))
        self._gauge()

    def _look_at_peer(self, pipe: Pipe, *, whole: bool) -> None:
        """End a pipe whose certificate is not good any more; `whole`: not its end alone is to be looked at."""
        peer = pipe.peer
        if peer.not_after is None or pipe.ended.done():
            return
        left = peer.not_after - datetime.now(UTC)
        if whole or left <= timedelta():
            fault = self.fault_of(peer)
            if fault is not None:
                log.warning("ended the pipe to %s (%s): %s", peer.name, peer.address, fault)
                pipe.close(Goaway.CERTIFICATE, fault)
                return
        if left < EXPIRY_WARNING and self._loop.time() > self._peers_warned.get(peer.name, 0.0):
            self._peers_warned[peer.name] = self._loop.time() + WARNING_INTERVAL
            log.warning("the certificate of %s expires in %s, on %s", peer.name, span(left), moment(peer.not_after))

    def _warn_of_files(self, faults: Iterable[Fault]) -> None:
        self._files_warned = self._loop.time()
        for fault in faults:
            if fault.severity == "error":
                log.error("%s (what was there before stays in use)", fault.message)
            else:
                log.warning("%s", fault.message)

    def _tell(self, news: News, *, asked: bool) -> None:
        if news.identity:
            identity = self._custody.identity
            log.info("took a new identity: %s, valid until %s", identity.name, moment(identity.not_after))
        if news.revocations:
            log.info("took a new revocation list: %d revoked", len(self._custody.revocations))
        if asked and not (news.identity or news.revocations):
            log.info("looked for a new identity and a new revocation list: there is none")

    def _gauge(self) -> None:
        now = datetime.now(UTC)
        identity = self._custody.identity
        ends = {Gauge.IDENTITY: identity.not_after, Gauge.CA: identity.ca_not_after}
        of_peers = [pipe.peer.not_after for pipe in self._pipes() if pipe.peer.not_after is not None]
        if of_peers:
            ends[Gauge.PEERS] = min(of_peers)
        for gauge, end in ends.items():
            self._stats.gauge(gauge, (end - now) / timedelta(days=1))
