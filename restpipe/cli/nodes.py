"""`restpipe server` and `restpipe client`.

What runs a node is imported by the commands that do: it takes as long as everything else together.
"""

import os
from functools import partial

from restpipe.cli.activation import inherited_bind
from restpipe.cli.options import settings_options
from restpipe.config import ClientSettings, ServerSettings, load_client_settings, load_server_settings


@settings_options(ServerSettings)
def server(options: dict[str, object]) -> None:
    """Run a server node: clients connect to it, and local programs reach them at /client/NAME/NOUN.

    Each option has a variable; an option beats its variable, which beats the user config module. RP_WEB_TOKEN has a
    variable alone, for a command line can be read by others.
    """
    from restpipe.cli.run import run

    load = partial(load_server_settings, options, inherited_bind())
    run(load(), load)


@settings_options(ClientSettings)
def client(options: dict[str, object]) -> None:
    """Run a client node: it connects to the server, for ever, and local programs reach that at /server/NOUN.

    Each option has a variable; an option beats its variable, which beats the user config module. RP_WEB_TOKEN has a
    variable alone, for a command line can be read by others.
    """
    load = partial(load_client_settings, options, inherited_bind())
    settings = load()
    # gRPC reads both when it is imported. Its own resolver asks DNS even for what /etc/hosts has, and waits for it.
    os.environ.setdefault("GRPC_DNS_RESOLVER", "native")
    if not settings.debug:
        # What it would print of each attempt to connect, the log says once.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from restpipe.cli.run import run

    run(settings, load)
