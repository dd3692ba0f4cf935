"""What a user may rely on when configuring a node."""

import os
import re
import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from pydantic import ValidationError

from restpipe.config import (
    ClientSettings,
    NodeSettings,
    ServerSettings,
    TcpBind,
    UnixBind,
    import_class,
    load_client_settings,
    load_server_settings,
    make_object,
    markdown_tables,
    rows,
    unknown_settings,
)
from restpipe.config.sources import user_names
from restpipe.config.table import shown
from restpipe.exceptions import ConfigError

NODES = (ServerSettings, ClientSettings)
UserModule = Callable[[str, str], None]
Node = type[ServerSettings] | type[ClientSettings]

# The documented names, and their defaults as one would type them.
SERVER_DEFAULTS = {
    "RP_SERVER_BIND_INTERFACE": "0.0.0.0",
    "RP_SERVER_BIND_PORT": "1234",
    "RP_ALLOWED_CLIENTS": "*",
    "RP_RELAY": "",
    "RP_SERVER_CERT_PATH": "/var/lib/restpipe",
    "RP_SERVER_KEY_FILENAME": "restpipe.server.key.pem",
    "RP_SERVER_CRT_FILENAME": "restpipe.server.crt.pem",
    "RP_SERVER_WEB_BIND": "127.0.0.1:8080",
    "RP_SERVER_CONNECTION_STATE_CHANGE_EVENT_CLASS": "",
    "RP_SERVER_USER_CONFIG_MODULE": "",
    "RP_SERVER_CLIENT_HOSTNAME_RESOLVER_CLS": "restpipe.nodes.resolver.DnsResolver",
    "RP_EVENT_HANDLER_FQ_CLASS": "restpipe.handlers.examples.ServerExamples",
}
CLIENT_DEFAULTS = {
    "RP_CLIENT_TARGET_HOSTNAME": "localhost",
    "RP_CLIENT_TARGET_PORT": "1234",
    "RP_CLIENT_CERT_PATH": "/var/lib/restpipe",
    "RP_CLIENT_KEY_FILENAME": "restpipe.client.key.pem",
    "RP_CLIENT_CRT_FILENAME": "restpipe.client.crt.pem",
    "RP_CLIENT_WEB_BIND": "127.0.0.1:8081",
    "RP_CLIENT_CONNECTION_STATE_CHANGE_EVENT_CLASS": "",
    "RP_CLIENT_USER_CONFIG_MODULE": "",
    "RP_CLIENT_RECONNECT_MIN_S": "0.1",
    "RP_CLIENT_RECONNECT_MAX_S": "5",
    "RP_CLIENT_CONNECT_TIMEOUT_S": "10",
    "RP_EVENT_HANDLER_FQ_CLASS": "restpipe.handlers.examples.ClientExamples",
}
COMMON_DEFAULTS = {
    "RP_CA_CRT_FILENAME": "ca.crt.pem",
    "RP_CRL_FILENAME": "ca.crl.pem",
    "RP_IDENTITY_INTERVAL_S": "5",
    "RP_CLIENT_HEARTBEAT_INTERVAL_S": "5",
    "RP_CLIENT_HEARTBEAT_TIMEOUT_S": "10",
    "RP_CONNECTION_WAIT_TIMEOUT_S": "20",
    "RP_DRAIN_TIMEOUT_S": "10",
    "RP_FILES": "",
    "RP_FILES_WRITABLE": "0",
    "RP_ALLOW": "*",
    "RP_HANDLER_THREADS": "64",
    "RP_HANDLER_WAIT_S": "1",
    "RP_MAX_BODY_BYTES": "16777216",
    "RP_MAX_EXCHANGES": "4096",
    "RP_IDEMPOTENCY_KEYS": "10000",
    "RP_IDEMPOTENCY_BYTES": "16777216",
    "RP_IDEMPOTENCY_LIFETIME_S": "86400",
    "RP_MAX_REQUEST_TIMEOUT_S": "3600",
    "RP_REQUEST_TIMEOUT_S": "60",
    "RP_SEND_TRACEBACKS": "1",
    "RP_UPSTREAM": "",
    "RP_ASGI": "",
    "RP_STATSD_HOST": "localhost",
    "RP_STATSD_PORT": "8125",
    "RP_METRICS": "0",
    "RP_WEB_HOSTS": "",
    "RP_WEB_SOCKET_MODE": "0660",
    "RP_WEB_HEAD_TIMEOUT_S": "10",
    "RP_WEB_IDLE_TIMEOUT_S": "75",
    "RP_WEB_MAX_REQUESTS": "1024",
    "RP_WEB_TOKEN": "",
    "DEBUG": "0",
    "RP_LOG_FORMAT": "text",
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the developer's own; an empty current directory, and no trace of it afterwards."""
    variables = {name for node in NODES for row in rows(node).values() for name in row.variables}
    for name in variables & os.environ.keys():
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.fixture
def user_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> UserModule:
    """Write a module to the current directory; it is forgotten after the test."""

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setitem(sys.modules, name, sys)  # makes monkeypatch remove whatever will stand there
        del sys.modules[name]

    return write


def faults(load: Callable[[], NodeSettings]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load()
    return str(caught.value).splitlines()


# Names and defaults


@pytest.mark.parametrize(
    ("node", "defaults"),
    [(ServerSettings, SERVER_DEFAULTS | COMMON_DEFAULTS), (ClientSettings, CLIENT_DEFAULTS | COMMON_DEFAULTS)],
)
def test_every_documented_variable_exists_with_its_documented_default(node: Node, defaults: dict[str, str]) -> None:
    assert {row.variables[0]: row.default for row in rows(node).values()} == defaults


@pytest.mark.parametrize("node", NODES)
def test_every_default_is_accepted_from_the_environment_and_means_the_same(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    untouched = node()
    for row in rows(node).values():
        monkeypatch.setenv(row.variables[0], row.default)
    assert node() == untouched


@pytest.mark.parametrize("node", NODES)
def test_no_name_leads_to_two_settings(node: Node) -> None:
    names = [name for row in rows(node).values() for name in {*user_names(row), *row.variables}]
    options = [row.option for row in rows(node).values() if row.option]
    assert len(names) == len(set(names))
    assert len(options) == len(set(options))


@pytest.mark.parametrize("node", NODES)
def test_every_setting_is_described_in_one_sentence(node: Node) -> None:
    for row in rows(node).values():
        assert re.fullmatch(r"[A-Z][^\n|]*[^.]\.", row.help), row.field


def test_the_reference_names_every_variable_option_and_default_of_both_nodes() -> None:
    cells = {cell for line in markdown_tables(*NODES).splitlines() for cell in re.findall(r"`([^`]*)`", line)}
    for node in NODES:
        for row in rows(node).values():
            assert {*row.variables, row.option or "DEBUG", row.default or "DEBUG"} <= cells


def test_the_reference_tells_a_variable_of_both_nodes_once_with_both_defaults() -> None:
    [line] = [line for line in markdown_tables(*NODES).splitlines() if "`RP_EVENT_HANDLER_FQ_CLASS`" in line]
    assert "`restpipe.handlers.examples.ServerExamples`, `restpipe.handlers.examples.ClientExamples`" in line


def test_settings_do_not_change_while_a_node_runs() -> None:
    settings = load_server_settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.bind_port = 1


def test_paths_of_the_identity_lie_in_the_certificate_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_CLIENT_CERT_PATH", "/etc/pipe")
    settings = load_client_settings()
    assert settings.key_path == Path("/etc/pipe/restpipe.client.key.pem")
    assert settings.crt_path == Path("/etc/pipe/restpipe.client.crt.pem")
    assert settings.ca_crt_path == Path("/etc/pipe/ca.crt.pem")


# Precedence


def test_options_beat_the_environment_which_beats_the_user_module_which_beats_the_defaults(
    monkeypatch: pytest.MonkeyPatch, user_module: UserModule
) -> None:
    assert load_server_settings().bind_port == 1234
    user_module("mine", "BIND_PORT = 1")
    monkeypatch.setenv("RP_SERVER_USER_CONFIG_MODULE", "mine")
    assert load_server_settings().bind_port == 1
    monkeypatch.setenv("RP_SERVER_BIND_PORT", "2")
    assert load_server_settings().bind_port == 2
    assert load_server_settings({"bind_port": "3"}).bind_port == 3


def test_the_old_short_names_work_and_the_long_ones_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIND_IP", "10.0.0.1")
    monkeypatch.setenv("BIND_PORT", "7")
    monkeypatch.setenv("CLIENT_HOSTNAME_RESOLVER_CLS", "my.Resolver")
    settings = load_server_settings()
    assert (settings.bind_interface, settings.bind_port) == ("10.0.0.1", 7)
    assert settings.client_hostname_resolver == "my.Resolver"
    monkeypatch.setenv("RP_SERVER_BIND_INTERFACE", "::1")
    monkeypatch.setenv("RP_SERVER_BIND_PORT", "8")
    monkeypatch.setenv("RP_SERVER_CLIENT_HOSTNAME_RESOLVER_CLS", "its.Resolver")
    settings = load_server_settings()
    assert (settings.bind_interface, settings.bind_port) == ("::1", 8)
    assert settings.client_hostname_resolver == "its.Resolver"


def test_an_option_names_the_user_module_before_the_environment_does(
    monkeypatch: pytest.MonkeyPatch, user_module: UserModule
) -> None:
    user_module("mine", "BIND_PORT = 1")
    monkeypatch.setenv("RP_SERVER_USER_CONFIG_MODULE", "absent")
    assert load_server_settings({"user_config_module": "mine"}).bind_port == 1


@pytest.mark.parametrize("first", range(4))
def test_of_two_names_in_a_user_module_the_variable_wins_then_the_short_one(
    first: int, user_module: UserModule
) -> None:
    names = ("RP_SERVER_BIND_PORT", "BIND_PORT", "SERVER_BIND_PORT", "bind_port")
    user_module("mine", "\n".join(f"{name} = {1 + n}" for n, name in enumerate(names) if n >= first))
    assert load_server_settings({"user_config_module": "mine"}).bind_port == 1 + first


def test_a_fault_is_told_of_the_value_that_wins(monkeypatch: pytest.MonkeyPatch, user_module: UserModule) -> None:
    user_module("mine", "BIND_PORT = 1")
    monkeypatch.setenv("RP_SERVER_USER_CONFIG_MODULE", "mine")
    monkeypatch.setenv("BIND_PORT", "2")
    monkeypatch.setenv("RP_SERVER_BIND_PORT", "x")
    assert faults(load_server_settings) == ["RP_SERVER_BIND_PORT='x': should be a whole number"]
    assert faults(lambda: load_server_settings({"bind_port": "y"})) == ["--bind-port='y': should be a whole number"]


# User config module


@pytest.mark.parametrize(
    "name", ["RP_SERVER_CERT_PATH", "SERVER_CERT_PATH", "CERT_PATH", "cert_path"], ids=lambda name: str(name)
)
def test_a_user_module_may_call_a_setting_by_variable_without_prefix_or_by_field(
    name: str, user_module: UserModule
) -> None:
    user_module("mine", f"from pathlib import Path\n{name} = Path('/etc/pipe')")
    assert load_server_settings({"user_config_module": "mine"}).cert_path == Path("/etc/pipe")


def test_a_user_module_has_values_rather_than_text(user_module: UserModule) -> None:
    user_module(
        "mine",
        "WEB_HOSTS = ['rp.local', 'RP.example']\nDEBUG = True\nWEB_SOCKET_MODE = 0o600\nSTATSD_PORT = None\n"
        "class Resolver: ...\nCLIENT_HOSTNAME_RESOLVER_CLS = Resolver",
    )
    settings = load_server_settings({"user_config_module": "mine"})
    assert settings.web_hosts == ("rp.local", "rp.example")
    assert settings.debug is True
    assert settings.web_socket_mode == 0o600
    assert settings.statsd_port is None
    assert settings.client_hostname_resolver == "mine.Resolver"


def test_a_wrong_value_in_a_user_module_is_named_with_the_module(user_module: UserModule) -> None:
    user_module("mine", "TARGET_PORT = 70000")
    assert faults(lambda: load_client_settings({"user_config_module": "mine"})) == [
        "mine.TARGET_PORT=70000: should be less than or equal to 65535"
    ]


def test_a_port_of_zero_in_a_user_module_is_a_wrong_port_and_does_not_turn_statistics_off(
    user_module: UserModule,
) -> None:
    user_module("mine", "STATSD_PORT = 0")
    assert faults(lambda: load_server_settings({"user_config_module": "mine"})) == [
        "mine.STATSD_PORT=0: should be greater than or equal to 1"
    ]


def test_values_of_a_user_module_that_are_no_setting_are_reported_and_do_no_harm(user_module: UserModule) -> None:
    user_module(
        "mine",
        "REQUEST_TIMEOUT = 3\nPIZZA = 1\n_PRIVATE = 1\nlower = 1\nRP_SERVER_BIND_PORT = 1\nTARGET_PORT = 9\n"
        "USER_CONFIG_MODULE = 'another'",
    )
    settings = load_client_settings({"user_config_module": "mine"})
    assert settings.target_port == 9
    assert unknown_settings(settings) == (
        "mine.REQUEST_TIMEOUT is no setting of RestPipe; did you mean REQUEST_TIMEOUT_S?",
        "mine.PIZZA is no setting of RestPipe",
        "mine.USER_CONFIG_MODULE is no setting of RestPipe",
    )
    assert unknown_settings(load_client_settings()) == ()


def test_variables_that_are_no_setting_are_reported_and_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_CLIENT_TARGET_HOSTNAM", "pipe.example.org")
    monkeypatch.setenv("RP_SERVER_BIND_PORT", "1")  # of the other node on this machine
    monkeypatch.setenv("RP_PIZZA", "1")
    monkeypatch.setenv("PIZZA", "1")
    settings = load_client_settings()
    assert settings.target_hostname == "localhost"
    assert unknown_settings(settings) == (
        "RP_CLIENT_TARGET_HOSTNAM is no setting of RestPipe; did you mean RP_CLIENT_TARGET_HOSTNAME?",
        "RP_PIZZA is no setting of RestPipe",
    )


def test_a_user_module_that_is_absent_is_named_with_what_named_it(monkeypatch: pytest.MonkeyPatch) -> None:
    [line] = faults(lambda: load_server_settings({"user_config_module": "absent"}))
    assert line.startswith("--config-module='absent': no module named 'absent'")
    monkeypatch.setenv("RP_CLIENT_USER_CONFIG_MODULE", "absent")
    [line] = faults(load_client_settings)
    assert line.startswith("RP_CLIENT_USER_CONFIG_MODULE='absent': no module named 'absent'")
    [line] = faults(lambda: load_client_settings({"user_config_module": "missing"}))
    assert line.startswith("--config-module='missing': no module named 'missing'")


def test_a_name_that_is_no_module_name_is_refused_before_it_is_imported() -> None:
    assert faults(lambda: load_server_settings({"user_config_module": "../mine.py"})) == [
        "--config-module='../mine.py': should be the dotted name of a module, such as package.module"
    ]


# Faults


def test_all_faults_are_reported_at_once_each_with_name_value_and_what_is_right(
    monkeypatch: pytest.MonkeyPatch, user_module: UserModule
) -> None:
    user_module("mine", "CERT_PATH = ''")
    monkeypatch.setenv("RP_SERVER_USER_CONFIG_MODULE", "mine")
    monkeypatch.setenv("BIND_PORT", "x")
    monkeypatch.setenv("DEBUG", "maybe")
    assert set(faults(lambda: load_server_settings({"handler_threads": "0", "event_handler": "Handler"}))) == {
        "mine.CERT_PATH='': should name a directory",
        "BIND_PORT='x': should be a whole number",
        "DEBUG='maybe': should be 1, true or yes, or 0, false or no",
        "--handler-threads='0': should be greater than or equal to 1",
        "--handler='Handler': should be the dotted path of a class, such as package.module.Class",
    }


@pytest.mark.parametrize(
    ("node", "variable", "value", "right"),
    [
        (ServerSettings, "RP_REQUEST_TIMEOUT_S", "0", "greater than 0"),
        (ServerSettings, "RP_REQUEST_TIMEOUT_S", "nan", "finite number"),
        (ServerSettings, "RP_REQUEST_TIMEOUT_S", "1e999", "finite number"),
        (ServerSettings, "RP_REQUEST_TIMEOUT_S", "", "a number"),
        (ServerSettings, "RP_REQUEST_TIMEOUT_S", "3601", "not exceed RP_MAX_REQUEST_TIMEOUT_S, which is 3600"),
        (ServerSettings, "RP_MAX_REQUEST_TIMEOUT_S", "2592001", "less than or equal to 2592000"),
        (ServerSettings, "RP_CONNECTION_WAIT_TIMEOUT_S", "-1", "greater than or equal to 0"),
        (ServerSettings, "RP_CONNECTION_WAIT_TIMEOUT_S", "2592001", "less than or equal to 2592000"),
        (ServerSettings, "RP_MAX_EXCHANGES", "2147483648", "less than or equal to 2147483647"),
        (ServerSettings, "RP_MAX_BODY_BYTES", "0", "greater than or equal to 1"),
        (ServerSettings, "RP_MAX_BODY_BYTES", "16M", "a whole number"),
        (ServerSettings, "RP_SERVER_BIND_PORT", "", "a whole number"),
        (ServerSettings, "RP_SERVER_BIND_PORT", "65536", "less than or equal to 65535"),
        (ServerSettings, "RP_SERVER_BIND_INTERFACE", "", "a host name or an IP address"),
        (ServerSettings, "RP_SERVER_BIND_INTERFACE", "rp..local", "1 to 63 characters between two dots"),
        (ServerSettings, "RP_SERVER_BIND_INTERFACE", 64 * "a", "1 to 63 characters between two dots"),
        (ServerSettings, "RP_SEND_TRACEBACKS", "", "1, true or yes"),
        (ServerSettings, "RP_CLIENT_HEARTBEAT_TIMEOUT_S", "5", "exceed RP_CLIENT_HEARTBEAT_INTERVAL_S, which is 5"),
        (ServerSettings, "RP_STATSD_PORT", "0", "greater than or equal to 1"),
        (ServerSettings, "RP_STATSD_HOST", "http://localhost", "without a scheme"),
        (ServerSettings, "RP_WEB_SOCKET_MODE", "-1", "at most 0777"),
        (ServerSettings, "RP_WEB_SOCKET_MODE", "rw", "an octal file mode such as 0660"),
        (ServerSettings, "RP_WEB_SOCKET_MODE", "7777", "at most 0777"),
        (ServerSettings, "RP_WEB_HOSTS", "rp.local,rp.local:80", "without a port"),
        (ServerSettings, "RP_ALLOWED_CLIENTS", "", "one or more names or patterns"),
        (ServerSettings, "RP_ALLOWED_CLIENTS", "alpha,,beta", "one or more names or patterns"),
        (ServerSettings, "RP_SERVER_KEY_FILENAME", "", "name a file"),
        (ServerSettings, "RP_CA_CRT_FILENAME", "ca/", "name a file"),
        (ServerSettings, "RP_EVENT_HANDLER_FQ_CLASS", "", "dotted path of a class"),
        (ServerSettings, "RP_EVENT_HANDLER_FQ_CLASS", "a.b-c", "dotted path of a class"),
        (ServerSettings, "RP_SERVER_CONNECTION_STATE_CHANGE_EVENT_CLASS", "Events", "dotted path of a class"),
        (ClientSettings, "RP_CLIENT_TARGET_PORT", "0", "greater than or equal to 1"),
        (ClientSettings, "RP_CLIENT_TARGET_HOSTNAME", "https://example.org", "without a scheme"),
        (ClientSettings, "RP_CLIENT_TARGET_HOSTNAME", "example.org:1234", "without a port"),
        (ClientSettings, "RP_CLIENT_RECONNECT_MAX_S", "0.01", "not be below RP_CLIENT_RECONNECT_MIN_S, which is 0.1"),
    ],
)
def test_a_wrong_variable_is_refused(
    node: Node, variable: str, value: str, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    load = load_server_settings if node is ServerSettings else load_client_settings
    [line] = faults(load)
    assert line.startswith(f"{variable}={value!r}: should ")
    assert right in line


@pytest.mark.parametrize(
    ("node", "variable", "value"),
    [
        (ServerSettings, "RP_REQUEST_TIMEOUT_S", "3600"),
        (ServerSettings, "RP_MAX_REQUEST_TIMEOUT_S", "2592000"),
        (ServerSettings, "RP_CONNECTION_WAIT_TIMEOUT_S", "0"),
        (ServerSettings, "RP_DRAIN_TIMEOUT_S", "2592000"),
        (ServerSettings, "RP_CLIENT_HEARTBEAT_TIMEOUT_S", "5.001"),
        (ServerSettings, "RP_MAX_BODY_BYTES", "1"),
        (ServerSettings, "RP_MAX_EXCHANGES", "2147483647"),
        (ServerSettings, "RP_SERVER_BIND_PORT", "0"),
        (ServerSettings, "RP_SERVER_BIND_PORT", "65535"),
        (ServerSettings, "RP_SERVER_BIND_INTERFACE", 63 * "a" + ".example."),
        (ServerSettings, "RP_STATSD_PORT", "65535"),
        (ServerSettings, "RP_WEB_SOCKET_MODE", "0777"),
        (ClientSettings, "RP_CLIENT_TARGET_PORT", "1"),
        (ClientSettings, "RP_CLIENT_RECONNECT_MAX_S", "0.1"),
        (ClientSettings, "RP_CLIENT_RECONNECT_MIN_S", "5"),
    ],
)
def test_a_value_at_its_bound_is_accepted(
    node: Node, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    settings = load_server_settings() if node is ServerSettings else load_client_settings()
    [field] = [row.field for row in rows(node).values() if variable in row.variables]
    given = getattr(settings, field)
    assert given == (int(value, 8) if field == "web_socket_mode" else type(given)(value))


@pytest.mark.parametrize(
    ("variable", "wrong"),
    [
        ("RP_CLIENT_HEARTBEAT_INTERVAL_S", "0"),
        ("RP_MAX_REQUEST_TIMEOUT_S", "x"),
        ("RP_CLIENT_RECONNECT_MIN_S", "-1"),
        ("RP_WEB_TOKEN", "open sesame"),
    ],
)
def test_a_rule_between_two_settings_is_not_told_where_one_of_them_is_wrong_by_itself(
    variable: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, wrong)
    monkeypatch.setenv("RP_CLIENT_WEB_BIND", "0.0.0.0:80")
    monkeypatch.setenv("RP_WEB_TOKEN", wrong if variable == "RP_WEB_TOKEN" else "sesame")
    [line] = faults(load_client_settings)
    assert line.startswith(variable)


def test_a_rule_that_a_default_breaks_says_that_it_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_CLIENT_HEARTBEAT_INTERVAL_S", "30")
    assert faults(load_server_settings) == [
        "RP_CLIENT_HEARTBEAT_TIMEOUT_S=10 (the default): should exceed RP_CLIENT_HEARTBEAT_INTERVAL_S, which is 30"
    ]


def test_an_option_that_no_setting_has_is_refused() -> None:
    assert faults(lambda: load_server_settings({"pizza": "1"})) == ["pizza: there is no such setting"]


@pytest.mark.parametrize("text", ["1", "true", "yes", "YES", "True"])
def test_yes_is_said_in_several_ways(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBUG", text)
    assert load_client_settings().debug is True


@pytest.mark.parametrize("text", ["0", "false", "no", "NO", "False"])
def test_no_is_said_in_several_ways(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_SEND_TRACEBACKS", text)
    assert load_client_settings().send_tracebacks is False


def test_empty_text_turns_off_what_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RP_STATSD_HOST", "RP_STATSD_PORT", "RP_SERVER_WEB_BIND", "RP_SERVER_USER_CONFIG_MODULE"):
        monkeypatch.setenv(variable, "")
    settings = load_server_settings()
    assert (settings.statsd_host, settings.statsd_port, settings.web_bind) == ("", None, None)


def test_blanks_around_a_host_or_an_address_do_not_matter() -> None:
    settings = load_server_settings({"bind_interface": " ::1 ", "web_bind": " 127.0.0.1:80 ", "statsd_host": " "})
    assert (settings.bind_interface, settings.web_bind) == ("::1", TcpBind("127.0.0.1", 80))
    assert settings.statsd_host == ""
    assert load_server_settings({"web_bind": " "}).web_bind is None


def test_a_directory_may_be_given_from_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/pipe")
    assert load_client_settings({"cert_path": "~/identity"}).key_path.parent == Path("/home/pipe/identity")


# Web server


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:8080", TcpBind("127.0.0.1", 8080)),
        ("localhost:0", TcpBind("localhost", 0)),
        ("127.9.9.9:1", TcpBind("127.9.9.9", 1)),
        ("[::1]:65535", TcpBind("::1", 65535)),
        ("unix:/run/rp.sock", UnixBind(Path("/run/rp.sock"))),
        ("unix:/" + 106 * "x", UnixBind(Path("/" + 106 * "x"))),  # 107 bytes: the most that the system takes
        ("", None),
    ],
)
def test_a_web_server_listens_on_loopback_on_a_unix_socket_or_nowhere(text: str, bind: object) -> None:
    settings = load_server_settings({"web_bind": text})
    assert settings.web_bind == bind
    assert str(settings.web_bind or "") == text


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "192.168.1.1", "[::]", "example.org", "[::ffff:10.0.0.1]", "128.0.0.1", "localhost.org"]
)
def test_a_web_server_beyond_loopback_needs_a_token(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_CLIENT_WEB_BIND", f"{host}:80")
    [line] = faults(load_client_settings)
    assert line.startswith(f"RP_CLIENT_WEB_BIND='{host}:80': ")
    assert "RP_WEB_TOKEN" in line
    monkeypatch.setenv("RP_WEB_TOKEN", "sesame")
    assert str(load_client_settings().web_bind) == f"{host}:80"


@pytest.mark.parametrize(
    "text",
    ["8080", ":8080", "localhost", "localhost:x", "localhost:65536", "localhost:-1", "localhost:²", "::1:80", "[::1]",
     "[]:80", "[localhost]:80", "a b:80", "http://localhost:80", "unix:", "unix:rp.sock",
     "unix:/" + 107 * "x", "unix:/" + 54 * "é"],
)  # fmt: skip
def test_a_web_bind_that_cannot_be_read_is_refused(text: str) -> None:
    [line] = faults(lambda: load_server_settings({"web_bind": text}))
    assert line.startswith(f"--web={text!r}"[:100])
    assert "should " in line


def test_the_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("sésame", "sesame\x7f", "open sesame"):
        monkeypatch.setenv("RP_WEB_TOKEN", wrong)
        [line] = faults(load_server_settings)
        assert line == "RP_WEB_TOKEN: should consist of printable ASCII characters without blanks"
    with pytest.raises(ValidationError) as caught:
        ServerSettings()
    assert "sesame" not in str(caught.value)

    monkeypatch.setenv("RP_WEB_TOKEN", "sesame")
    settings = load_server_settings()
    assert settings.web_token.get_secret_value() == "sesame"
    assert "sesame" not in f"{settings!r} {settings} {settings.model_dump_json()} {shown(settings.web_token)}"


def test_a_token_of_a_user_module_is_not_shown_either(user_module: UserModule) -> None:
    user_module("mine", "WEB_TOKEN = 'open sesame'")
    [line] = faults(lambda: load_server_settings({"user_config_module": "mine"}))
    assert line == "mine.WEB_TOKEN: should consist of printable ASCII characters without blanks"


def test_a_long_value_is_cut_in_its_message() -> None:
    [line] = faults(lambda: load_server_settings({"bind_port": 5000 * "9x"}))
    assert len(line) < 200


# Classes


def test_a_class_is_imported_from_the_current_directory(user_module: UserModule) -> None:
    user_module("handlers_here", "class Mine: ...")
    first = import_class("handlers_here.Mine", "X")
    assert first.__name__ == "Mine"
    path = [*sys.path]
    assert import_class("handlers_here.Mine", "X") is first
    assert sys.path == path


def test_the_current_directory_replaces_no_installed_module(user_module: UserModule) -> None:
    user_module("colorsys", "class Mine: ...")
    with pytest.raises(ConfigError, match=r"X='colorsys.Mine': module 'colorsys' \(.*\) has no class 'Mine'$"):
        import_class("colorsys.Mine", "X")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("absent.Mine", r"no module named 'absent', neither installed nor in /"),
        ("handlers_here.inner.Mine", r"no module named 'handlers_here.inner'"),
        (
            "handlers_here.Miner",
            r"'handlers_here' \(.*handlers_here.py\) has no class 'Miner'; did you mean Mine\?",
        ),
        ("handlers_here.mines", r"has no class 'mines'; did you mean Mine\?$"),  # not the function, which is closer
        ("handlers_here.Zebra", r"has no class 'Zebra'$"),
        ("handlers_here.mine", r"should be a class, not a function$"),
        ("handlers_here.number", r"should be a class, not an int$"),
    ],
)
def test_a_class_that_cannot_be_had_is_refused_with_exactly_what_failed(
    path: str, message: str, user_module: UserModule
) -> None:
    user_module("handlers_here", "class Mine: ...\nnumber = 1\ndef mine(): ...")
    with pytest.raises(ConfigError, match=f"^RP_EVENT_HANDLER_FQ_CLASS='{path}': .*{message}"):
        import_class(path, "RP_EVENT_HANDLER_FQ_CLASS")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import absent", r"ModuleNotFoundError: No module named 'absent' \(.*broken.py, line 1\)"),
        ("\n1 / 0", r"ZeroDivisionError: division by zero \(.*broken.py, line 2\)"),
        ("def f():\n  1 / 0\n\nf()", r"ZeroDivisionError: division by zero \(.*broken.py, line 2\)"),
        ("import sys\nsys.exit('bye')", r"SystemExit: bye \(.*broken.py, line 2\)"),
        ("def", r"SyntaxError: .*broken.py, line 1\)"),
        ("raise ValueError('one\\ntwo')", r"ValueError: one two \(.*broken.py, line 1\)"),
    ],
)
def test_a_module_that_fails_while_it_is_imported_is_refused_with_the_cause(
    text: str, message: str, user_module: UserModule
) -> None:
    user_module("broken", text)
    with pytest.raises(ConfigError, match=f"^X='broken.Mine': importing 'broken' failed: {message}$") as caught:
        import_class("broken.Mine", "X")
    assert caught.value.__cause__ is not None


def test_a_syntax_error_in_another_module_names_the_place_of_the_error_alone(
    user_module: UserModule, tmp_path: Path
) -> None:
    user_module("worse", "def")
    user_module("broken", "import worse")
    with pytest.raises(ConfigError, match=r"SyntaxError: [^()]*\(worse.py, line 1\)$"):
        import_class("broken.Mine", "X")


def test_a_module_that_needs_another_whose_name_is_the_beginning_of_its_own_is_not_called_absent(
    user_module: UserModule,
) -> None:
    user_module("absently", "import absent")
    with pytest.raises(ConfigError, match=r"^X='absently.Mine': importing 'absently' failed: ModuleNotFoundError: "):
        import_class("absently.Mine", "X")


def test_a_module_that_cannot_even_be_begun_is_refused_with_the_cause_and_no_place(tmp_path: Path) -> None:
    (tmp_path / f"garbled{EXTENSION_SUFFIXES[0]}").write_bytes(b"no shared object")
    with pytest.raises(ConfigError, match=r"^X='garbled.Mine': importing 'garbled' failed: ImportError: [^(]*$"):
        import_class("garbled.Mine", "X")


# Objects


def test_an_object_is_made_of_the_class_that_a_setting_names(user_module: UserModule) -> None:
    user_module("handlers_here", "class Mine: ...")
    made = make_object("handlers_here.Mine", "X")
    assert type(made) is import_class("handlers_here.Mine", "X")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n    1 / 0", r"ZeroDivisionError: division by zero \(.*handlers_here.py, line 3\)"),
        ("\n    raise SystemExit('bye')", r"SystemExit: bye \(.*handlers_here.py, line 3\)"),
    ],
)
def test_an_object_that_cannot_be_made_is_refused_with_the_cause_and_its_place(
    text: str, message: str, user_module: UserModule
) -> None:
    user_module("handlers_here", f"class Mine:\n  def __init__(self): {text}")
    pattern = f"^X='handlers_here.Mine': making an object of it failed: {message}$"
    with pytest.raises(ConfigError, match=pattern) as caught:
        make_object("handlers_here.Mine", "X")
    assert caught.value.__cause__ is not None


def test_a_class_that_wants_arguments_is_refused_without_a_place_in_restpipe(user_module: UserModule) -> None:
    user_module("handlers_here", "class Mine:\n  def __init__(self, x): ...")
    with pytest.raises(ConfigError, match=r"making an object of it failed: TypeError: [^/]* argument: 'x'$"):
        make_object("handlers_here.Mine", "X")


# Files


def test_a_directory_of_files_is_meant_from_where_the_node_was_started(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    settings = load_client_settings({"files": "served", "files_writable": True})
    assert (settings.files, settings.files_writable) == (tmp_path / "served", True)
    assert load_client_settings().files is None


def test_files_that_cannot_be_served_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    missing = f"--files='a b': should be a directory that exists: make it with `mkdir -p '{tmp_path}/a b'`"
    assert faults(lambda: load_client_settings({"files": "a b", "files_writable": True})) == [missing]
    assert faults(lambda: load_server_settings({"files": "file"})) == ["--files='file': should be a directory"]
    nothing = "--files-writable=True: should be 0 unless RP_FILES names a directory"
    assert faults(lambda: load_client_settings({"files_writable": True})) == [nothing]


def test_files_are_not_served_beside_an_upstream() -> None:
    (found,) = faults(lambda: load_client_settings({"files": ".", "upstream": "http://127.0.0.1:9000"}))
    assert found == "--files='.': should be empty, or RP_UPSTREAM: what it names serves everything"


@pytest.mark.parametrize(
    ("denied", "fault"),
    [
        (os.R_OK, "--files='.': should be a directory that the user of this node may read"),
        (os.W_OK, "--files-writable=True: should be 0 unless the user of this node may write to "),
    ],
)
def test_files_that_the_user_may_not_touch_are_refused(
    monkeypatch: pytest.MonkeyPatch, denied: int, fault: str
) -> None:
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & denied)
    (found,) = faults(lambda: load_client_settings({"files": ".", "files_writable": True}))
    assert found.startswith(fault)
