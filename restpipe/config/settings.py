"""The settings of a server node, and those of a client node."""

from typing import Annotated

from pydantic import ValidationInfo, field_validator

from restpipe.config.binds import TcpBind, host_port
from restpipe.config.fields import PIPE, CrtFilename, EventHandler, KeyFilename, WebBindSetting
from restpipe.config.node import NodeSettings
from restpipe.config.table import Setting, shown
from restpipe.config.values import ClassPath, Host, ListeningPort, NamesOrPatterns, Port, Rules, Seconds


class ServerSettings(NodeSettings):
    """What a server node can be told."""

    node = "server"

    key_filename: KeyFilename = "restpipe.server.key.pem"
    crt_filename: CrtFilename = "restpipe.server.crt.pem"
    web_bind: WebBindSetting = TcpBind("127.0.0.1", 8080)
    event_handler: EventHandler = "restpipe.handlers.examples.ServerExamples"

    bind_interface: Annotated[
        Host,
        Setting(
            "RP_SERVER_BIND_INTERFACE",
            "BIND_IP",
            help="Host name or IP address that clients connect to; 0.0.0.0 is every interface.",
            panel=PIPE,
            option="--bind-interface",
        ),
    ] = "0.0.0.0"  # noqa: S104 - mutual TLS guards it
    bind_port: Annotated[
        ListeningPort,
        Setting(
            "RP_SERVER_BIND_PORT",
            "BIND_PORT",
            help="TCP port that clients connect to; 0 is any free one.",
            panel=PIPE,
            option="--bind-port",
        ),
    ] = 1234
    allowed_clients: Annotated[
        NamesOrPatterns,
        Setting(
            "RP_ALLOWED_CLIENTS",
            help="Names of the clients that may connect, or patterns such as shop-*, separated by commas.",
            panel=PIPE,
            option="--allowed-clients",
            live=True,
        ),
    ] = ("*",)
    relay: Annotated[
        Rules,
        Setting(
            "RP_RELAY",
            help="Which clients may call which others through this server: rules such as 'shop-*>printer-*', separated "
            "by commas; empty for none.",
            panel=PIPE,
            option="--relay",
            live=True,
        ),
    ] = ()
    client_hostname_resolver: Annotated[
        ClassPath,
        Setting(
            "RP_SERVER_CLIENT_HOSTNAME_RESOLVER_CLS",
            "CLIENT_HOSTNAME_RESOLVER_CLS",
            help="Dotted path of the class that finds the addresses of a host name that no client's certificate bears.",
            panel=PIPE,
            option="--client-hostname-resolver",
        ),
    ] = "restpipe.nodes.resolver.DnsResolver"


class ClientSettings(NodeSettings):
    """What a client node can be told."""

    node = "client"

    key_filename: KeyFilename = "restpipe.client.key.pem"
    crt_filename: CrtFilename = "restpipe.client.crt.pem"
    web_bind: WebBindSetting = TcpBind("127.0.0.1", 8081)
    event_handler: EventHandler = "restpipe.handlers.examples.ClientExamples"

    target_hostname: Annotated[
        Host,
        Setting(
            "RP_CLIENT_TARGET_HOSTNAME",
            help="Host name or IP address of the server; its certificate must be valid for it.",
            panel=PIPE,
            option="--target-hostname",
        ),
    ] = "localhost"
    target_port: Annotated[
        Port,
        Setting(
            "RP_CLIENT_TARGET_PORT",
            help="TCP port of the server.",
            panel=PIPE,
            option="--target-port",
        ),
    ] = 1234
    connect_timeout_s: Annotated[
        Seconds,
        Setting(
            "RP_CLIENT_CONNECT_TIMEOUT_S",
            help="Seconds that one attempt to connect may take.",
            panel=PIPE,
            option="--connect-timeout",
        ),
    ] = 10.0
    reconnect_min_s: Annotated[
        Seconds,
        Setting(
            "RP_CLIENT_RECONNECT_MIN_S",
            help="Seconds that the wait after a failed attempt to connect starts from; it doubles each time.",
            panel=PIPE,
            option="--reconnect-min",
        ),
    ] = 0.1
    reconnect_max_s: Annotated[
        Seconds,
        Setting(
            "RP_CLIENT_RECONNECT_MAX_S",
            help="Seconds that the wait after a failed attempt to connect never exceeds.",
            panel=PIPE,
            option="--reconnect-max",
        ),
    ] = 5.0

    @property
    def target_address(self) -> str:
        """Host and port of the server, an IPv6 address in brackets."""
        return host_port(self.target_hostname, self.target_port)

    @field_validator("reconnect_max_s")
    @classmethod
    def _maximum_is_not_below_minimum(cls, maximum: float, info: ValidationInfo) -> float:
        minimum = info.data.get("reconnect_min_s", 0)
        if maximum < minimum:
            raise ValueError(f"should not be below {cls.variable('reconnect_min_s')}, which is {shown(minimum)}")
        return maximum
