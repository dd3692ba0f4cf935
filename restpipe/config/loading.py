"""Loading the settings of a node: every fault is reported at once, by the name that the user wrote."""

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from restpipe.config.binds import WebBind
from restpipe.config.imports import close_match, import_module
from restpipe.config.node import NodeSettings
from restpipe.config.settings import ClientSettings, ServerSettings
from restpipe.config.sources import (
    USER_MODULE_FIELD,
    Given,
    from_environment,
    from_keywords,
    from_options,
    from_user_module,
    user_names,
)
from restpipe.config.table import Row, rows
from restpipe.exceptions import ConfigError

NO_OPTIONS: Mapping[str, object] = MappingProxyType({})
SHOWN_CHARACTERS = 100

# What is right, where pydantic's own words speak of parsing rather than of the value.
RIGHT = {
    "bool_parsing": "should be 1, true or yes, or 0, false or no",
    "float_parsing": "should be a number",
    "int_parsing": "should be a whole number",
}

Settings = TypeVar("Settings", bound=NodeSettings)
# Says of each field which option or keyword gave it.
Origins = Callable[[type[NodeSettings], Mapping[str, object]], dict[str, Given]]


def load_server_settings(
    options: Mapping[str, object] = NO_OPTIONS, inherited: WebBind | None = None
) -> ServerSettings:
    """Load the settings of a server node from options, environment, user config module and defaults, in this order.

    Args:
        options: what the user typed on the command line and nothing else, keyed by field.
        inherited: where the socket listens that this process was started with; the web server has that one.

    Raises:
        ConfigError: values are wrong. The message has a line for each: where it came from, the value, what is right.
    """
    return _load(ServerSettings, options, from_options, inherited)


def load_client_settings(
    options: Mapping[str, object] = NO_OPTIONS, inherited: WebBind | None = None
) -> ClientSettings:
    """Load the settings of a client node from options, environment, user config module and defaults, in this order.

    Args:
        options: what the user typed on the command line and nothing else, keyed by field.
        inherited: where the socket listens that this process was started with; the web server has that one.

    Raises:
        ConfigError: values are wrong. The message has a line for each: where it came from, the value, what is right.
    """
    return _load(ClientSettings, options, from_options, inherited)


def load_settings(settings_class: type[Settings], keywords: Mapping[str, object]) -> Settings:
    """Load the settings of a node within a program, by keyword; what it leaves out is loaded as for a command.

    Args:
        settings_class: `ServerSettings`, `ClientSettings`, or a class of their kind.
        keywords: values by field, as they are, or as text.

    Raises:
        ConfigError: values are wrong. The message has a line for each, which names the keyword.
    """
    return _load(settings_class, keywords, from_keywords)


def unknown_settings(settings: NodeSettings) -> tuple[str, ...]:
    """Return a sentence for each name that looks like a setting, and is one of no node.

    These are environment variables that begin with RP_, and public upper-case values of the user config module.
    """
    # One environment, and one module, may serve both nodes.
    known = [row for each in (type(settings), ServerSettings, ClientSettings) for row in rows(each).values()]
    variables = {variable for row in known for variable in row.variables}
    unknown = [(name, "", variables) for name in sorted(os.environ) if name.startswith("RP_") and name not in variables]
    if settings.user_config_module:
        names = {name for row in known for name in user_names(row)}
        module = import_module(settings.user_config_module, settings.variable(USER_MODULE_FIELD))
        unknown += [
            (name, f"{module.__name__}.", names)
            for name in vars(module)
            if name.isupper() and not name.startswith("_") and name not in names
        ]
    return tuple(
        f"{origin}{name} is no setting of RestPipe{close_match(name, sorted(right))}" for name, origin, right in unknown
    )


def _load(
    settings_class: type[Settings], chosen: Mapping[str, object], origins: Origins, inherited: WebBind | None = None
) -> Settings:
    held = {} if inherited is None else {"web_bind": inherited}
    try:
        return settings_class(**cast("dict[str, Any]", {**chosen, **held}))
    except ValidationError as error:
        faults = error.errors(include_url=False)
    # Outside the `except`: pydantic's own message would follow this one in a traceback.
    given = _all_given(settings_class, origins(settings_class, chosen))
    given |= {field: Given(str(bind), "the socket of LISTEN_FDS") for field, bind in held.items()}
    raise ConfigError("\n".join(_line(settings_class, fault, given) for fault in faults))


def _all_given(settings_class: type[NodeSettings], chosen: dict[str, Given]) -> dict[str, Given]:
    """Gather what every source gave, by the precedence that `NodeSettings` tells pydantic."""
    given = from_environment(settings_class) | chosen
    module = given.get(USER_MODULE_FIELD, Given("", ""))
    return from_user_module(settings_class, str(module.value), f"{module.origin}={module.value!r}") | given


def _line(settings_class: type[NodeSettings], fault: Mapping[str, Any], given: Mapping[str, Given]) -> str:
    field = str(fault["loc"][0])
    row = rows(settings_class).get(field)
    if row is None:
        return f"{given[field].origin}: there is no such setting{close_match(field, list(rows(settings_class)))}"
    return f"{_culprit(row, given.get(field))}: {_right(fault)}"


def _culprit(row: Row, given: Given | None) -> str:
    if row.is_secret:
        return given.origin if given else row.variables[0]
    if given is None:
        return f"{row.variables[0]}={row.default} (the default)"
    text = repr(given.value)
    if len(text) > SHOWN_CHARACTERS:
        text = f"{text[:SHOWN_CHARACTERS]}..."
    return f"{given.origin}={text}"


def _right(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    return RIGHT.get(fault["type"], str(fault["msg"]).removeprefix("Input "))
