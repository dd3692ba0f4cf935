"""Reading settings anew while a node runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from restpipe.config.imports import refresh_module
from restpipe.config.node import NodeSettings
from restpipe.config.sources import USER_MODULE_FIELD
from restpipe.config.table import Row, rows

Settings = TypeVar("Settings", bound=NodeSettings)


@dataclass(frozen=True, slots=True)
class Reread(Generic[Settings]):
    """What came of reading settings anew.

    Attributes:
        settings: to be used from now on: those of before, with what a running node takes.
        taken: what that is, a phrase for each.
        pending: variables whose new values want a restart.
    """

    settings: Settings
    taken: tuple[str, ...]
    pending: tuple[str, ...]


def reread(settings: Settings, load: Callable[[], Settings]) -> Reread[Settings]:
    """Read settings anew, their user config module, too.

    Args:
        settings: in use.
        load: loads them as they were loaded at the start. Options and variables of a process do not change.

    Raises:
        ConfigError: they are wrong; a line for each fault.
    """
    if settings.user_config_module:
        origin = f"{settings.variable(USER_MODULE_FIELD)}={settings.user_config_module!r}"
        refresh_module(settings.user_config_module, origin)
    loaded = load()
    changed = [row for field, row in rows(type(settings)).items() if getattr(loaded, field) != getattr(settings, field)]
    live = [row for row in changed if row.live]
    return Reread(
        settings.model_copy(update={row.field: getattr(loaded, row.field) for row in live}),
        tuple(_phrase(row, settings, loaded) for row in live),
        tuple(row.variables[0] for row in changed if not row.live),
    )


def _phrase(row: Row, before: NodeSettings, after: NodeSettings) -> str:
    old, new = (row.show(getattr(settings, row.field)) for settings in (before, after))
    return f"{row.variables[0]} is {new!r}, was {old!r}"
