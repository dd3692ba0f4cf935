"""Command-line options made from a settings class, so that no setting is written down twice."""

import functools
import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from restpipe.config import NodeSettings, Row, rows
from restpipe.exceptions import ConfigError

USAGE_ERROR = 2
METAVARS = {float: "SECONDS", int: "NUMBER", type(Path()): "PATH"}


def settings_options(
    settings_class: type[NodeSettings], *, exclude: Collection[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function with a parameter `options` a typer command that has an option for every setting of a node.

    `options` receives what the user typed and nothing else, by field, ready for `load_server_settings`. Values stay
    text, and flags bool: the settings class is the one parser, so a wrong value is refused in the same words wherever
    it came from. A `ConfigError` is printed to standard error, and the command exits with 2. The function's other
    parameters are typer's as usual.

    A setting without an option in its metadata, such as the web token, gets none.

    Args:
        settings_class: whose settings.
        exclude: fields that get no option although they could.
    """
    offered = [row for row in rows(settings_class).values() if row.option and row.field not in exclude]
    offered.sort(
        key=lambda row: row.field in NodeSettings.model_fields
    )  # what makes this node a server or a client first

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = [item for item in inspect.signature(function).parameters.values() if item.name != "options"]
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        signature = inspect.Signature(
            [*(item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in own), *map(_parameter, offered), context]
        )

        @functools.wraps(function)
        def command(*, context: typer.Context, **values: object) -> Any:
            options = {row.field: values.pop(row.field) for row in offered}
            typed = {field: value for field, value in options.items() if _was_typed(context, field)}
            try:
                return function(options=typed, **values)
            except ConfigError as error:
                typer.echo(error, err=True)
                raise typer.Exit(USAGE_ERROR) from None

        # typer reads both.
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {item.name: item.annotation for item in signature.parameters.values()}
        return command

    return decorate


def _parameter(row: Row) -> inspect.Parameter:
    """Describe the option of a setting as typer wants it."""
    name = f"{row.option}/--no-{str(row.option).removeprefix('--')}" if row.is_flag else row.option
    # The variables are told rather than declared: typer would parse them itself, and refuse them in words of its own.
    option = typer.Option(
        name,
        help=f"{row.help} Environment: {' or '.join(row.variables)}.",
        rich_help_panel=row.panel,
        metavar=None if row.is_flag else METAVARS.get(row.kind, "TEXT"),
    )
    return inspect.Parameter(
        row.field,
        inspect.Parameter.KEYWORD_ONLY,
        default=row.default == "1" if row.is_flag else row.default,
        annotation=Annotated[bool if row.is_flag else str, option],
    )


def _was_typed(context: typer.Context, field: str) -> bool:
    source = context.get_parameter_source(field)
    return source is not None and source.name == "COMMANDLINE"
