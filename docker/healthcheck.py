#!/opt/restpipe/bin/python -I
"""Exit with 0 if the node of this container answers: healthcheck PORT PATH. The image has no curl."""

import http.client
import os
import sys

TIMEOUT_S = 3.0


def main(port: str, path: str) -> int:
    """Ask the node's web server, which shall not wait for an absent peer.

    Returns:
        The exit code: 0 for an answer with status 200.
    """
    headers = {"Authorization": f"Bearer {os.environ.get('RP_WEB_TOKEN', '')}", "Prefer": "wait=0"}
    # Not urllib: it would go through a proxy that the environment names.
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        told = f"{answer.status} {answer.read(1000).decode(errors='replace')}"
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{told}\n")  # for `docker inspect`
    return 0 if answer.status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
