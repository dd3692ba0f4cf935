"""Uploads whose node was killed: their files are found and removed, and those that are under way are not.

Who writes one holds a lock on it (flock(2)), which ends with its process however that ends. Where the file system has
no locks, nothing is removed.
"""

import contextlib
import fcntl
import logging
import os
import re
import secrets
from pathlib import Path

log = logging.getLogger(__name__)

# What an upload is until all of it is there. Such names are neither listed nor served.
UPLOAD_PREFIX = ".restpipe-upload-"
_NAME = re.compile(re.escape(UPLOAD_PREFIX) + "[0-9a-f]{16}")


def make_upload(directory: int) -> tuple[str, int]:
    """Make a file for an upload; return its name and its descriptor, which holds the lock.

    Raises:
        OSError: it cannot be made.
    """
    flags = os.O_CLOEXEC | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY
    while True:
        name = UPLOAD_PREFIX + secrets.token_hex(8)
        descriptor = os.open(name, flags, 0o666, dir_fd=directory)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return name, descriptor
        os.close(descriptor)  # it was taken for a leftover before it was locked


def remove_leftovers(root: Path) -> None:
    """Remove what is left of uploads that never will be complete, in a directory and all below it. Blocks."""
    removed = 0
    for _, _, names, directory in os.fwalk(root):
        for name in names:
            if _NAME.fullmatch(name):
                with contextlib.suppress(OSError):
                    removed += _remove_unlocked(name, directory)
    if removed:
        log.info("removed %d uploads below %s that were never completed", removed, root)


def _remove_unlocked(name: str, directory: int) -> bool:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_RDONLY
    descriptor = os.open(name, flags, dir_fd=directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=directory)
    finally:
        os.close(descriptor)
    return True
