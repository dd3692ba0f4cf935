"""Files beneath a directory, found so that no path leads out of it, whatever others rename or link meanwhile.

Each directory on the way is opened by its name in the one before, without following links; what a link says is walked
in the same way. The kernel is never given a path of several names, nor `..`.
"""

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

# As many as Linux follows in one path.
MOST_LINKS = 40
# Directories that one path may lead through: each is an open file meanwhile.
DEEPEST = 64
# O_PATH needs no permission to read the directory, as a path does not.
_DIRECTORY = os.O_CLOEXEC | os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)
# A FIFO or a device would otherwise make the opening wait, or become the terminal of the process.
_READ = os.O_CLOEXEC | os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class BadNameError(ValueError):
    """A part of a path is no name of a file."""


class LeadsOutError(PermissionError):
    """A link leads out of the directory."""


class NoFileError(PermissionError):
    """What is there is neither a file nor a directory."""


class Place(NamedTuple):
    """Where a file is, or would be.

    Attributes:
        directory: descriptor of the directory; it may be good for nothing but to find things in it.
        name: in the directory; "." for the directory itself.
    """

    directory: int
    name: str


def check_name(name: str) -> None:
    """Refuse what is no name of a file.

    Raises:
        BadNameError: it is not one.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise BadNameError(f"{name!a} is no name of a file")


@contextlib.contextmanager
def located(
    root: Path, names: Sequence[str], *, follow_last: bool = True, make_directories: bool = False
) -> Iterator[Place]:
    """Find a file within `root`. A link is followed as long as it stays within.

    Args:
        root: the directory; its own path is the system's to resolve.
        names: of the directories below it, and of the file.
        follow_last: follow the file itself, too, where it is a link. What is found is none then.
        make_directories: make those that are missing.

    Raises:
        BadNameError: a name is none, or they are too many.
        LeadsOutError: a link is absolute, or leads above `root`.
        OSError: a directory on the way is missing, is none, or cannot be entered.
    """
    for name in names:
        check_name(name)
    way = _Way(root)
    try:
        yield way.walk(names, follow_last=follow_last, make_directories=make_directories)
    finally:
        way.close()


class _Way:
    """The directories from the root down to where a walk has come, each of them open."""

    def __init__(self, root: Path) -> None:
        self._above = [os.open(root, _DIRECTORY)]

    def close(self) -> None:
        for directory in self._above:
            os.close(directory)

    def walk(self, names: Sequence[str], *, follow_last: bool, make_directories: bool) -> Place:
        due = deque(names)
        links = 0
        while due:
            name = due.popleft()
            if name == "..":
                self._leave()
            elif name not in ("", "."):
                target = _target_of(name, self._above[-1]) if due or follow_last else None
                if target is not None:
                    links += 1
                    _check_link(target, links)
                    due.extendleft(reversed(target.split("/")))
                elif due:
                    self._enter(name, make=make_directories)
                else:
                    return Place(self._above[-1], name)
        return Place(self._above[-1], ".")

    def _enter(self, name: str, *, make: bool) -> None:
        if len(self._above) > DEEPEST:
            raise BadNameError(f"a path has at most {DEEPEST} directories")
        here = self._above[-1]
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=here)
                sync_directory(here)
        self._above.append(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=here))

    def _leave(self) -> None:
        if len(self._above) == 1:
            raise LeadsOutError(errno.EPERM, "a link leads out of the directory")
        os.close(self._above.pop())


def open_to_read(place: Place) -> int:
    """Open a regular file or a directory, and return its descriptor.

    Raises:
        NoFileError: it is neither.
        OSError: it cannot be opened.
    """
    _check_kind(os.stat(place.name, dir_fd=place.directory, follow_symlinks=False))
    descriptor = os.open(place.name, _READ, dir_fd=place.directory)
    try:
        _check_kind(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def sync_directory(directory: int) -> None:
    """Have the names in a directory written to the disk; not those in one that may not be read."""
    with contextlib.suppress(PermissionError):
        readable = os.open(".", _READ | os.O_DIRECTORY, dir_fd=directory)
        try:
            os.fsync(readable)
        finally:
            os.close(readable)


def _check_kind(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise NoFileError(errno.EPERM, "it is neither a file nor a directory")


def _check_link(target: str, links: int) -> None:
    if links > MOST_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if target.startswith("/"):
        raise LeadsOutError(errno.EPERM, "a link is absolute")


def _target_of(name: str, directory: int) -> str | None:
    """Return what a link says; None where it is none, or nothing is there."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
