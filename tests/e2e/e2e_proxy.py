"""A TCP proxy between a client and its server that leaves connections half-open."""

import selectors
import socket
import struct
import threading
from types import TracebackType


class Proxy:
    """Passes bytes on, both ways, in a thread.

    Args:
        target: port on this machine.

    Attributes:
        port: that it listens on.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._dialled: set[socket.socket] = set()
        self._half_open: list[socket.socket] = []
        self._over = False
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._over = True
        self._thread.join()
        for each in [self._listener, *self._pairs, *self._half_open]:
            each.close()
        self._selector.close()

    def leave_half_open(self) -> None:
        """Reset the client's end of every connection, and let the server know nothing of it."""
        with self._lock:
            for dialled in self._dialled & self._pairs.keys():
                accepted = self._pairs.pop(dialled)
                del self._pairs[accepted]
                for each in (dialled, accepted):
                    self._selector.unregister(each)
                self._half_open.append(dialled)
                _reset(accepted)

    def reset_half_open(self) -> None:
        """Let the server know at last."""
        with self._lock:
            while self._half_open:
                _reset(self._half_open.pop())

    def _run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(0.05):
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._pairs:
                        self._pass_on(key.fileobj)

    def _accept(self) -> None:
        accepted, _ = self._listener.accept()
        dialled = socket.create_connection(("127.0.0.1", self._target))
        self._dialled.add(dialled)
        for each, other in ((accepted, dialled), (dialled, accepted)):
            self._pairs[each] = other
            self._selector.register(each, selectors.EVENT_READ)

    def _pass_on(self, source: socket.socket) -> None:
        target = self._pairs[source]
        try:
            data = source.recv(65536)
            target.sendall(data)
        except OSError:
            data = b""
        if not data:
            for each in (source, target):
                self._selector.unregister(each)
                del self._pairs[each]
                each.close()


def _reset(connection: socket.socket) -> None:
    """Close a connection by RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
