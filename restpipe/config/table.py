"""What is known about a setting beside its type; the configuration reference is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

if TYPE_CHECKING:
    from collections.abc import Callable

    from restpipe.config.node import NodeSettings


def shown(value: object) -> str:
    """Write a value as one would type it in an environment variable."""
    match value:
        case None:
            return ""
        case bool():
            return str(int(value))
        case float():
            return f"{value:.10g}"
        case tuple():
            return ",".join(map(str, value))
        case SecretStr():
            return "" if not value.get_secret_value() else "(secret)"
        case _:
            return str(value)


class Setting:
    """What is known about a setting beside its type, as metadata of the field's annotation.

    Attributes:
        variables: environment variables, the preferred first; `{NODE}` stands for SERVER or CLIENT.
        help: what the setting means, in one sentence, with its unit.
        panel: the group it belongs to.
        option: command-line option; None for a secret, which other users of the machine could read there.
        show: writes a value as one would type it.
        live: a node that runs takes a new value.
    """

    def __init__(
        self,
        *variables: str,
        help: str,  # noqa: A002 - the word that every command-line library uses
        panel: str,
        option: str | None,
        show: Callable[[Any], str] = shown,
        live: bool = False,
    ) -> None:
        self.variables = variables
        self.help = help
        self.panel = panel
        self.option = option
        self.show = show
        self.live = live


@dataclass(frozen=True, slots=True)
class Row:
    """One setting of a node.

    Attributes:
        field: name in the settings class.
        variables: environment variables, the preferred first.
        option: command-line option, None where there is none.
        panel: the group it belongs to.
        help: what it means, in one sentence, with its unit.
        default: the default as one would type it; empty where it is empty.
        kind: type of the default.
        show: writes a value as one would type it.
        live: a node that runs takes a new value.
    """

    field: str
    variables: tuple[str, ...]
    option: str | None
    panel: str
    help: str
    default: str
    kind: type
    show: Callable[[Any], str] = shown
    live: bool = False

    @property
    def is_flag(self) -> bool:
        """Whether it is a matter of yes or no."""
        return self.kind is bool

    @property
    def is_secret(self) -> bool:
        """Whether its value must never be shown."""
        return self.kind is SecretStr


@cache
def rows(settings_class: type[NodeSettings]) -> dict[str, Row]:
    """Return every setting of a node by the name of its field, in the order of the class."""
    found = {}
    for field, info in settings_class.model_fields.items():
        setting = next(known for known in info.metadata if isinstance(known, Setting))
        found[field] = Row(
            field=field,
            variables=tuple(name.format(NODE=settings_class.node.upper()) for name in setting.variables),
            option=setting.option,
            panel=setting.panel,
            help=setting.help,
            default=setting.show(info.default),
            kind=type(info.default),
            show=setting.show,
            live=setting.live,
        )
    return found


def markdown_tables(server: type[NodeSettings], client: type[NodeSettings]) -> str:
    """Return the configuration reference: a Markdown table each for both nodes, a server and a client."""
    both = {
        field: (row, rows(client)[field])
        for field, row in rows(server).items()
        if field in rows(client) and row.variables == rows(client)[field].variables
    }
    tables = (
        ("Both nodes", list(both.values())),
        ("Server node", [(row,) for field, row in rows(server).items() if field not in both]),
        ("Client node", [(row,) for field, row in rows(client).items() if field not in both]),
    )
    return "\n\n".join(_markdown_table(title, list(lines)) for title, lines in tables) + "\n"


def _markdown_table(title: str, lines: list[tuple[Row, ...]]) -> str:
    head = f"#### {title}\n\n| variable | option | default | meaning |\n|---|---|---|---|\n"
    return head + "\n".join(_markdown_row(*line) for line in lines)


def _markdown_row(row: Row, *others: Row) -> str:
    defaults = dict.fromkeys(row.default for row in (row, *others))  # a set that keeps its order: server, client
    cells = (
        " or ".join(f"`{name}`" for name in row.variables),
        f"`{row.option}`" if row.option else "",
        ", ".join(f"`{default}`" for default in defaults if default) or "(empty)",
        row.help,
    )
    return f"| {' | '.join(cells)} |"
