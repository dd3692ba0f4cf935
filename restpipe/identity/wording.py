"""Times and foreign text as people read them."""

import os
import pwd
from datetime import datetime, timedelta


def span(length: timedelta) -> str:
    """Return a length of time in its largest unit that is not zero: `3 days`, `1 hour`."""
    seconds = int(abs(length).total_seconds())
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            return _counted(seconds // size, unit)
    return _counted(seconds, "second")


def moment(time: datetime) -> str:
    """Return a time in UTC, to the minute."""
    return f"{time:%Y-%m-%d %H:%M} UTC"


def printable(text: str) -> str:
    """Return text that others wrote without control characters, which could forge log lines or drive a terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def current_user() -> str:
    """Return the name of the user that this process acts as; in a container it may have a number only."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"
