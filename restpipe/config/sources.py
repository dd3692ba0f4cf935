"""Where the values of settings come from beside the command line: environment variables and the user config module."""

from __future__ import annotations

import os
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pydantic_settings import PydanticBaseSettingsSource

from restpipe.config.imports import import_module
from restpipe.config.table import Row, rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

    from restpipe.config.node import NodeSettings

USER_MODULE_FIELD = "user_config_module"


@dataclass(frozen=True, slots=True)
class Given:
    """A value that was given for a setting.

    Attributes:
        value: as it was given, not validated.
        origin: the variable, the option or the name in the user config module that gave it.
    """

    value: object
    origin: str


def from_keywords(_settings_class: type[NodeSettings], keywords: Mapping[str, object]) -> dict[str, Given]:
    """Return what a program says, by field."""
    return {field: Given(value, field) for field, value in keywords.items()}


def from_options(settings_class: type[NodeSettings], options: Mapping[str, object]) -> dict[str, Given]:
    """Return what the command line says, by field. The options are keyed by field."""
    options_by_field = {field: row.option or field for field, row in rows(settings_class).items()}
    return {field: Given(value, options_by_field.get(field, field)) for field, value in options.items()}


def from_environment(settings_class: type[NodeSettings]) -> dict[str, Given]:
    """Return what environment variables say, by field; of two names for one setting the preferred one."""
    return {
        field: Given(os.environ[variable], variable)
        for field, row in rows(settings_class).items()
        for variable in reversed(row.variables)
        if variable in os.environ
    }


def from_user_module(settings_class: type[NodeSettings], module_name: str, setting: str) -> dict[str, Given]:
    """Return what the user config module says, by field.

    Args:
        settings_class: whose settings to look for.
        module_name: dotted name of the module; where it is empty, or not a name at all, nothing is found.
        setting: the setting that names the module and its value, for messages.

    Raises:
        ConfigError: the module cannot be imported.
    """
    if not all(part.isidentifier() for part in module_name.split(".")):
        return {}  # refused by the setting's own validation, which has the better message
    values = vars(import_module(module_name, setting))
    return {
        field: Given(values[name], f"{module_name}.{name}")
        for field, row in rows(settings_class).items()
        for name in reversed(user_names(row))
        if name in values
    }


def user_names(row: Row) -> list[str]:
    """Return the names of a setting in a user config module, the preferred first.

    They are its variables, those without the prefix RP_, RP_SERVER_ or RP_CLIENT_, and its field.
    """
    if row.field == USER_MODULE_FIELD:
        return []  # a module cannot name another in its place
    prefixes = ("", "RP_", "RP_SERVER_", "RP_CLIENT_")
    names = [name.removeprefix(prefix) for prefix in prefixes for name in row.variables]
    return list(dict.fromkeys([*names, row.field]))


class _GivenSource(PydanticBaseSettingsSource):
    """A source of settings as pydantic-settings asks for one."""

    @property
    def node_settings(self) -> type[NodeSettings]:
        return cast("type[NodeSettings]", self.settings_cls)

    @abstractmethod
    def given(self) -> dict[str, Given]:
        """Return what was given, by field."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - pydantic's
        """Return the value of a field, its key, and that it is not to be parsed as JSON."""
        given = self.given().get(field_name)
        return given and given.value, field_name, False

    def __call__(self) -> dict[str, Any]:
        return {field: given.value for field, given in self.given().items()}


class EnvironmentSource(_GivenSource):
    """Environment variables, under every name that a setting has."""

    def given(self) -> dict[str, Given]:
        """Return what was given, by field."""
        return from_environment(self.node_settings)


class UserModuleSource(_GivenSource):
    """Public values of the user's own module, which the options or the environment name."""

    def given(self) -> dict[str, Given]:
        """Return what was given, by field.

        Raises:
            ConfigError: the module cannot be imported.
        """
        name = str(self.current_state.get(USER_MODULE_FIELD, ""))
        named_by = from_environment(self.node_settings).get(USER_MODULE_FIELD)
        if named_by is None or named_by.value != name:
            named_by = Given(name, rows(self.node_settings)[USER_MODULE_FIELD].option or USER_MODULE_FIELD)
        return from_user_module(self.node_settings, name, f"{named_by.origin}={name!r}")
