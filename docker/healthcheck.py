#!/opt/restpipe/bin/python -I
"""Exit with 0 if the node of this container is ready: healthcheck PORT, or SOCKET. The image has no curl."""

import http.client
import socket
import sys

TIMEOUT_S = 3.0


class UnixConnection(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def connect(self) -> None:
        """Connect to the socket that stands in place of the host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def main(place: str) -> int:
    """Ask the node's web server.

    Returns:
        The exit code: 0 for an answer with status 200.
    """
    # Not urllib: it would go through a proxy that the environment names.
    if place.isdigit():
        connection = http.client.HTTPConnection("127.0.0.1", int(place), timeout=TIMEOUT_S)
    else:
        connection = UnixConnection(place, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz", headers={"Host": "localhost"})
        answer = connection.getresponse()
        told = f"{answer.status} {answer.read(1000).decode(errors='replace')}"
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{told}\n")  # for `docker inspect`
    return 0 if answer.status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
