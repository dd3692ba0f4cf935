"""The settings that both nodes have, as they are declared: variable, option, meaning, type, default."""

from pathlib import Path
from typing import Annotated

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from restpipe.config.table import Setting
from restpipe.config.values import (
    Bytes,
    ClassPath,
    Count,
    Directory,
    FileMode,
    FileName,
    Hosts,
    LogFormat,
    NamesOrPatterns,
    OptionalAsgiPath,
    OptionalClassPath,
    OptionalExistingDirectory,
    OptionalHost,
    OptionalModule,
    OptionalPort,
    OptionalUpstream,
    OptionalWebBind,
    Seconds,
    SecondsOrNone,
    Token,
)

PIPE = "Pipe"
IDENTITY = "Identity"
WEB = "Web"
HANDLERS = "Handlers"
LIMITS = "Limits"
STATISTICS = "Statistics"
GENERAL = "General"

# Settings that both nodes have, with a default of each node's own.
KeyFilename = Annotated[
    FileName,
    Setting(
        "RP_{NODE}_KEY_FILENAME",
        help="File name of the private key in the certificate directory.",
        panel=IDENTITY,
        option="--key",
    ),
]
CrtFilename = Annotated[
    FileName,
    Setting(
        "RP_{NODE}_CRT_FILENAME",
        help="File name of the certificate in the certificate directory.",
        panel=IDENTITY,
        option="--crt",
    ),
]
WebBindSetting = Annotated[
    OptionalWebBind,
    Setting(
        "RP_{NODE}_WEB_BIND",
        help="Where the web server listens: host:port, unix:/path, or empty for no web server.",
        panel=WEB,
        option="--web",
    ),
]
EventHandler = Annotated[
    ClassPath,
    Setting(
        "RP_EVENT_HANDLER_FQ_CLASS",
        help="Dotted path of the class whose methods serve events.",
        panel=HANDLERS,
        option="--handler",
    ),
]


class NodeFields(BaseSettings):
    """What both nodes can be told. `NodeSettings` says where values come from, and which of them go together."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    heartbeat_interval_s: Annotated[
        Seconds,
        Setting(
            "RP_CLIENT_HEARTBEAT_INTERVAL_S",
            help="Seconds between two pings of the peer.",
            panel=PIPE,
            option="--heartbeat-interval",
        ),
    ] = 5.0
    heartbeat_timeout_s: Annotated[
        Seconds,
        Setting(
            "RP_CLIENT_HEARTBEAT_TIMEOUT_S",
            help="Seconds of silence after which the peer is dead; more than the heartbeat interval.",
            panel=PIPE,
            option="--heartbeat-timeout",
        ),
    ] = 10.0
    connection_wait_timeout_s: Annotated[
        SecondsOrNone,
        Setting(
            "RP_CONNECTION_WAIT_TIMEOUT_S",
            help="Seconds that a request waits for an absent peer to connect; 0 fails at once.",
            panel=PIPE,
            option="--connection-wait-timeout",
        ),
    ] = 20.0
    drain_timeout_s: Annotated[
        SecondsOrNone,
        Setting(
            "RP_DRAIN_TIMEOUT_S",
            help="Seconds that exchanges in flight may still take after SIGTERM.",
            panel=PIPE,
            option="--drain-timeout",
        ),
    ] = 10.0

    cert_path: Annotated[
        Directory,
        Setting(
            "RP_{NODE}_CERT_PATH",
            help="Directory of the private key and the certificates.",
            panel=IDENTITY,
            option="--cert-path",
        ),
    ] = Path("/var/lib/restpipe")
    key_filename: KeyFilename
    crt_filename: CrtFilename
    ca_crt_filename: Annotated[
        FileName,
        Setting(
            "RP_CA_CRT_FILENAME",
            help="File name of the CA certificate in the certificate directory.",
            panel=IDENTITY,
            option="--ca-crt",
        ),
    ] = "ca.crt.pem"
    crl_filename: Annotated[
        FileName,
        Setting(
            "RP_CRL_FILENAME",
            help="File name of the CA's revocation list in the certificate directory, which need not exist.",
            panel=IDENTITY,
            option="--crl",
        ),
    ] = "ca.crl.pem"
    identity_interval_s: Annotated[
        Seconds,
        Setting(
            "RP_IDENTITY_INTERVAL_S",
            help="Seconds between two looks for a new key, certificate or revocation list; SIGHUP looks at once.",
            panel=IDENTITY,
            option="--identity-interval",
        ),
    ] = 5.0

    web_token: Annotated[
        Token,
        Setting(
            "RP_WEB_TOKEN",
            help="Bearer token that every web request must carry; empty for none.",
            panel=WEB,
            option=None,
        ),
    ] = SecretStr("")
    web_bind: WebBindSetting
    web_hosts: Annotated[
        Hosts,
        Setting(
            "RP_WEB_HOSTS",
            help="Further host names that requests may carry in Host, separated by commas.",
            panel=WEB,
            option="--web-hosts",
        ),
    ] = ()
    web_socket_mode: Annotated[
        FileMode,
        Setting(
            "RP_WEB_SOCKET_MODE",
            help="File mode of the unix socket that the web server listens on, in octal.",
            panel=WEB,
            option="--web-socket-mode",
            show="{:04o}".format,
        ),
    ] = 0o660
    web_head_timeout_s: Annotated[
        Seconds,
        Setting(
            "RP_WEB_HEAD_TIMEOUT_S",
            help="Seconds that the head of a web request may take to arrive.",
            panel=WEB,
            option="--web-head-timeout",
        ),
    ] = 10.0
    web_idle_timeout_s: Annotated[
        Seconds,
        Setting(
            "RP_WEB_IDLE_TIMEOUT_S",
            help="Seconds that a web connection may stay open without a request; longer than nginx keeps its own, 60.",
            panel=WEB,
            option="--web-idle-timeout",
        ),
    ] = 75.0
    web_max_requests: Annotated[
        Count,
        Setting(
            "RP_WEB_MAX_REQUESTS",
            help="Number of web requests that may wait for their answers; those beyond get 503 at once.",
            panel=WEB,
            option="--web-max-requests",
        ),
    ] = 1024

    event_handler: EventHandler
    upstream: Annotated[
        OptionalUpstream,
        Setting(
            "RP_UPSTREAM",
            help="HTTP service that serves in place of a class: http://host:port/path, https://..., or unix:/path.",
            panel=HANDLERS,
            option="--upstream",
        ),
    ] = None
    asgi: Annotated[
        OptionalAsgiPath,
        Setting(
            "RP_ASGI",
            help="ASGI application that serves in place of a class, such as package.module:app; empty for none.",
            panel=HANDLERS,
            option="--asgi",
        ),
    ] = ""
    connection_events: Annotated[
        OptionalClassPath,
        Setting(
            "RP_{NODE}_CONNECTION_STATE_CHANGE_EVENT_CLASS",
            help="Dotted path of the class that is told when connections come and go; empty for none.",
            panel=HANDLERS,
            option="--connection-events",
        ),
    ] = ""
    files: Annotated[
        OptionalExistingDirectory,
        Setting(
            "RP_FILES",
            help="Directory whose files are served at the noun `files`; empty for none.",
            panel=HANDLERS,
            option="--files",
        ),
    ] = None
    files_writable: Annotated[
        bool,
        Setting(
            "RP_FILES_WRITABLE",
            help="Whether PUT and DELETE change the files that are served.",
            panel=HANDLERS,
            option="--files-writable",
        ),
    ] = False
    allow: Annotated[
        NamesOrPatterns,
        Setting(
            "RP_ALLOW",
            help="Names of the callers that may call what this node serves, or patterns such as shop-*, separated by "
            "commas; an @allow in the handler beats it.",
            panel=HANDLERS,
            option="--allow",
            live=True,
        ),
    ] = ("*",)
    handler_threads: Annotated[
        Count,
        Setting(
            "RP_HANDLER_THREADS",
            help="Number of threads that run the handler methods which are not async.",
            panel=HANDLERS,
            option="--handler-threads",
        ),
    ] = 64
    handler_wait_s: Annotated[
        Seconds,
        Setting(
            "RP_HANDLER_WAIT_S",
            help="Seconds that a burst of events may wait for them, or the time of two calls. A queue that stays "
            "is refused.",
            panel=HANDLERS,
            option="--handler-wait",
        ),
    ] = 1.0
    send_tracebacks: Annotated[
        bool,
        Setting(
            "RP_SEND_TRACEBACKS",
            help="Whether callers see the traceback of a handler that raised.",
            panel=HANDLERS,
            option="--send-tracebacks",
        ),
    ] = True

    max_request_timeout_s: Annotated[
        Seconds,
        Setting(
            "RP_MAX_REQUEST_TIMEOUT_S",
            help="Seconds that a request may ask for in X-Event-Timeout at most.",
            panel=LIMITS,
            option="--max-request-timeout",
        ),
    ] = 3600.0
    request_timeout_s: Annotated[
        Seconds,
        Setting(
            "RP_REQUEST_TIMEOUT_S",
            help="Seconds for an exchange, anew with each piece of a streamed body; X-Event-Timeout overrides it.",
            panel=LIMITS,
            option="--request-timeout",
        ),
    ] = 60.0
    max_body_bytes: Annotated[
        Bytes,
        Setting(
            "RP_MAX_BODY_BYTES",
            help="Bytes of the largest body that is held whole for a handler; streams have no limit.",
            panel=LIMITS,
            option="--max-body-bytes",
        ),
    ] = 16 * 1024 * 1024
    max_exchanges: Annotated[
        Count,
        Setting(
            "RP_MAX_EXCHANGES",
            help="Number of exchanges that a peer may have open on one pipe.",
            panel=LIMITS,
            option="--max-exchanges",
        ),
    ] = 4096
    idempotency_keys: Annotated[
        Count,
        Setting(
            "RP_IDEMPOTENCY_KEYS",
            help="Number of Idempotency-Keys that are remembered of each peer.",
            panel=LIMITS,
            option="--idempotency-keys",
        ),
    ] = 10_000
    idempotency_bytes: Annotated[
        Bytes,
        Setting(
            "RP_IDEMPOTENCY_BYTES",
            help="Bytes of the answers to requests with an Idempotency-Key that are kept for each peer.",
            panel=LIMITS,
            option="--idempotency-bytes",
        ),
    ] = 16 * 1024 * 1024
    idempotency_lifetime_s: Annotated[
        Seconds,
        Setting(
            "RP_IDEMPOTENCY_LIFETIME_S",
            help="Seconds that an Idempotency-Key is remembered once its request's time is over, if there is room.",
            panel=LIMITS,
            option="--idempotency-lifetime",
        ),
    ] = 86_400.0

    statsd_host: Annotated[
        OptionalHost,
        Setting(
            "RP_STATSD_HOST",
            help="Host name of the statsd server; empty for no statsd.",
            panel=STATISTICS,
            option="--statsd-host",
        ),
    ] = "localhost"
    statsd_port: Annotated[
        OptionalPort,
        Setting(
            "RP_STATSD_PORT",
            help="UDP port of the statsd server; empty for no statsd.",
            panel=STATISTICS,
            option="--statsd-port",
        ),
    ] = 8125

    metrics: Annotated[
        bool,
        Setting(
            "RP_METRICS",
            help="Whether the web server has /metrics, for Prometheus.",
            panel=STATISTICS,
            option="--metrics",
        ),
    ] = False

    user_config_module: Annotated[
        OptionalModule,
        Setting(
            "RP_{NODE}_USER_CONFIG_MODULE",
            help="Dotted name of a module whose upper-case values replace the defaults; empty for none.",
            panel=GENERAL,
            option="--config-module",
        ),
    ] = ""
    debug: Annotated[
        bool,
        Setting(
            "DEBUG",
            help="Whether the log shows the underlying mechanics.",
            panel=GENERAL,
            option="--debug",
        ),
    ] = False
    log_format: Annotated[
        LogFormat,
        Setting(
            "RP_LOG_FORMAT",
            help="Whether the log is text, or json: an object a line.",
            panel=GENERAL,
            option="--log-format",
        ),
    ] = "text"
