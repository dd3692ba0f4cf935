"""Settings of a node: what can be set, where values come from, and what is said when one is wrong.

    binds     where the web server listens
    upstreams the HTTP service that requests are passed on to
    values    types of settings
    table     what is known about a setting beside its type: variables, option, description; the configuration reference
    fields    the settings that both nodes have, as they are declared
    node      the same: sources, and rules between settings
    settings  those of a server node and of a client node
    sources   environment variables and the user config module
    loading   options + environment + user module + defaults -> settings, or a line for each fault
    reloading settings of a node that runs, read anew
    imports   classes and applications that settings name

`fields` and `settings` are the one place where a setting is written down. The variables, the command-line options and
the tables of the README are derived from it.
"""

from restpipe.config.binds import TcpBind, UnixBind, WebBind
from restpipe.config.imports import import_application, import_class, make_object
from restpipe.config.loading import load_client_settings, load_server_settings, load_settings, unknown_settings
from restpipe.config.node import NodeSettings
from restpipe.config.reloading import Reread, reread
from restpipe.config.settings import ClientSettings, ServerSettings
from restpipe.config.table import Row, markdown_tables, rows
from restpipe.config.upstreams import UpstreamAddress

__all__ = [
    "ClientSettings",
    "NodeSettings",
    "Reread",
    "Row",
    "ServerSettings",
    "TcpBind",
    "UnixBind",
    "UpstreamAddress",
    "WebBind",
    "import_application",
    "import_class",
    "load_client_settings",
    "load_server_settings",
    "load_settings",
    "make_object",
    "markdown_tables",
    "reread",
    "rows",
    "unknown_settings",
]
