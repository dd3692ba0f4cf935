"""Telling systemd how a service of type notify is: sd_notify(3)."""

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Tell the service manager, where there is one; it is no failure if it does not listen.

    Args:
        state: such as "READY=1".
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # of the abstract namespace
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setblocking(False)
        manager.sendto(state.encode(), address)
