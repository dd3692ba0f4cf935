"""The seam between the pipe and what carries its frames."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from restpipe.identity.files import Identity
from restpipe.identity.names import NamePatterns


class CarrierLostError(Exception):
    """The carrier ended, and a frame may not have arrived. The message is the cause in one line."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The node at the other end.

    Attributes:
        name: from its certificate; on a client node, the server's host name, which its certificate was checked for.
        address: its IP address, as this node sees it.
        certificate: PEM, that of the node alone; empty where the carrier has none.
        not_after: end of the certificate's validity.
        intermediates: PEM, those of the CAs that it brought along; None where nobody can tell.
    """

    name: str
    address: str
    certificate: bytes = b""
    not_after: datetime | None = None
    intermediates: bytes | None = None


class Carrier(Protocol):
    """Carries frames, whole and in order, both ways.

    One task reads and one task writes; two reads or two writes at once are not allowed.
    """

    peer: Peer

    async def read(self) -> bytes | None:
        """Return the next frame; None once the carrier ended, cleanly or not.

        Cancelling ends the carrier for reading: only do so to close it.
        """

    async def write(self, frame: bytes) -> None:
        """Hand over a frame; wait while the carrier's own buffers are full.

        Must not be cancelled: gRPC would never send the status of the call.

        Raises:
            CarrierLostError: the carrier ended.
        """

    async def close(self) -> None:
        """End the carrier. What was written before arrives if the peer reads it within a second."""


class Listener(Protocol):
    """Accepts connections, and makes carriers of them.

    Attributes:
        fault_of: returns what a client is refused for; None where nothing is wrong with it.
        allowed: clients of other names are refused.
    """

    fault_of: Callable[[Peer], str | None]
    allowed: NamePatterns

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port, which is chosen where `port` is 0.

        Raises:
            ConfigError: the address cannot be bound.
        """

    def replace(self, identity: Identity) -> None:
        """Show another identity to those who connect from now on, and trust its CAs; pipes go on."""

    async def drain(self) -> None:
        """Accept no new connections."""

    async def stop(self, grace: float) -> None:
        """Wait for at most `grace` seconds until all connections have ended, and end them."""
