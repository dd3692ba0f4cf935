"""`restpipe check`, as it is typed: it says what keeps a node from starting, and touches nothing."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from restpipe.cli.check import app
from restpipe.config import ClientSettings, ServerSettings, rows
from restpipe.identity import Authority, Role

UserModule = Callable[[str], str]

ROLES: tuple[Role, ...] = ("server", "client")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the developer's own, nothing of the machine's; identities and modules are in `tmp_path`."""
    variables = {
        name for node in (ServerSettings, ClientSettings) for row in rows(node).values() for name in row.variables
    }
    for name in variables & os.environ.keys():
        monkeypatch.delenv(name)
    for role in ROLES:
        monkeypatch.setenv(f"RP_{role.upper()}_CERT_PATH", str(tmp_path))
        monkeypatch.setenv(f"RP_{role.upper()}_KEY_FILENAME", f"{role}.key.pem")
        monkeypatch.setenv(f"RP_{role.upper()}_CRT_FILENAME", f"{role}.crt.pem")
        monkeypatch.setenv(f"RP_{role.upper()}_WEB_BIND", "127.0.0.1:0")
    monkeypatch.setenv("RP_SERVER_BIND_PORT", "0")
    monkeypatch.setattr("restpipe.cli.check.SERVICES", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.fixture
def identities(tmp_path: Path) -> Path:
    """Issue an identity to both nodes."""
    authority = Authority.create(tmp_path)
    for role in ROLES:
        authority.issue(role, role)
    return tmp_path


@pytest.fixture
def user_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> UserModule:
    """Write a module to the current directory; it is forgotten after the test."""

    def write(text: str) -> str:
        (tmp_path / "mine.py").write_text(text)
        monkeypatch.setitem(sys.modules, "mine", sys)  # makes monkeypatch remove whatever will stand there
        del sys.modules["mine"]
        return "mine"

    return write


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A program that listens on a TCP port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def check(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SystemExit | None)
    assert "Traceback" not in result.output
    return result


def found(result: Result) -> list[tuple[str, str, str]]:
    """Split what was found into severity, subject and text."""
    lines = result.stdout.partition("\n\n")[0].splitlines()
    return [(line[:8].strip(), line[9:21].strip(), line[22:]) for line in lines]


def errors(result: Result) -> list[tuple[str, str]]:
    """Return subject and text of each error that a failed check found."""
    assert (result.exit_code, result.stderr) == (1, "")
    return [(subject, text) for severity, subject, text in found(result) if severity == "error"]


def warnings(result: Result) -> list[tuple[str, str]]:
    """Return subject and text of each warning of a check that found no error."""
    assert (result.exit_code, result.stderr) == (0, "")
    return [(subject, text) for severity, subject, text in found(result) if severity == "warning"]


# What is fine


def test_a_server_that_would_start_is_described_in_a_line_for_each_thing(identities: Path) -> None:
    result = check("server")
    assert (result.exit_code, result.stderr) == (0, "")
    settings, identity, *others = found(result)
    assert settings == ("ok", "settings", "every value is usable")
    assert identity[:2] == ("ok", "identity")
    assert identity[2].startswith('"server", the identity of a server; expires in ')
    assert others == [
        ("ok", "handler", "restpipe.handlers.examples.ServerExamples serves 2 events"),
        ("ok", "resolver", "restpipe.nodes.resolver.DnsResolver"),
        ("ok", "clients", "those that may connect: *"),
        ("ok", "relay", "who may call whom through it: nobody"),
        ("ok", "pipe", "clients connect to 0.0.0.0:0"),
        ("ok", "web", "listens on 127.0.0.1:0; no token is required"),
    ]
    assert result.stdout.endswith("\n\nThis server node would start.\n")


def test_whom_a_server_lets_in_and_whom_it_lets_reach_whom_is_told(identities: Path) -> None:
    result = check("server", "--allowed-clients", "shop-*,office", "--relay", "shop-*>office, office>*")
    assert [line for line in found(result) if line[1] in ("clients", "relay")] == [
        ("ok", "clients", "those that may connect: shop-*, office"),
        ("ok", "relay", "who may call whom through it: shop-*>office, office>*"),
    ]


def test_a_client_is_described_as_its_options_say(identities: Path, user_module: UserModule) -> None:
    user_module("class Handler:\n  def get_one(self, ctx, post_data): ...\nclass Events: ...")
    result = check(
        "client", "--target-hostname", "::1", "--target-port", "7", "--web", "",
        "--handler", "mine.Handler", "--connection-events", "mine.Events",
    )  # fmt: skip
    assert result.exit_code == 0
    assert [line for line in found(result) if line[1] not in ("settings", "identity")] == [
        ("ok", "handler", "mine.Handler serves 1 event"),
        ("ok", "connections", "mine.Events"),
        ("ok", "pipe", "connects to [::1]:7"),
        ("ok", "web", "no web server"),
    ]
    assert result.stdout.endswith("\n\nThis client node would start.\n")


def test_a_check_leaves_every_file_and_directory_as_it_was(identities: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (identities, *identities.iterdir())}
    check("server", "--web", f"unix:{identities}/web.sock")
    assert {path: path.stat().st_mtime_ns for path in (identities, *identities.iterdir())} == before


# Settings


def test_each_wrong_setting_is_an_error_wherever_it_came_from(
    identities: Path, user_module: UserModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_module("HANDLER_THREADS = 0")
    monkeypatch.setenv("DEBUG", "maybe")
    result = check("client", "--target-port", "x", "--config-module", "mine")
    assert set(errors(result)) == {
        ("settings", "--target-port='x': should be a whole number"),
        ("settings", "DEBUG='maybe': should be 1, true or yes, or 0, false or no"),
        ("settings", "mine.HANDLER_THREADS=0: should be greater than or equal to 1"),
    }
    assert "\n\nThe rest can be checked once the settings are right.\n" in result.stdout
    assert result.stdout.endswith("\n\nThis client node would not start.\n")


def test_a_user_module_is_named_and_names_that_are_no_setting_are_warnings(
    identities: Path, user_module: UserModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_module("PIZZA = 1\nTARGET_PORT = 9")
    monkeypatch.setenv("RP_CLIENT_TARGET_PROT", "9")
    result = check("client", "--config-module", "mine")
    assert warnings(result) == [
        ("settings", "RP_CLIENT_TARGET_PROT is no setting of RestPipe; did you mean RP_CLIENT_TARGET_PORT?"),
        ("settings", "mine.PIZZA is no setting of RestPipe"),
    ]
    assert ("ok", "settings", "every value is usable, defaults are from mine") in found(result)
    assert ("ok", "pipe", "connects to localhost:9") in found(result)


@pytest.mark.parametrize(("text", "line"), [("import sys; sys.exit(3)", 1), ("\n1 / 0", 2)])
def test_a_user_module_that_fails_is_an_error_with_its_place(text: str, line: int, user_module: UserModule) -> None:
    user_module(text)
    [(subject, said)] = errors(check("server", "--config-module", "mine"))
    assert subject == "settings"
    assert said.startswith("--config-module='mine': importing 'mine' failed: ")
    assert said.endswith(f"mine.py, line {line})")


@pytest.mark.parametrize(
    ("token", "said"), [("sesame", "; a token is required\n"), ("open sesame", "RP_WEB_TOKEN: should consist of ")]
)
def test_the_token_is_never_shown_neither_a_right_one_nor_a_wrong_one(
    token: str, said: str, identities: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RP_WEB_TOKEN", token)
    result = check("server")
    assert said in result.stdout
    assert "sesame" not in result.output


@pytest.mark.parametrize("arguments", [["server", "--pizza"], ["server", "--web-token", "x"], ["pizza"], []])
def test_a_command_that_cannot_be_meant_is_a_usage_error(arguments: list[str]) -> None:
    result = check(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.output


# Identity


@pytest.mark.parametrize("role", ROLES)
def test_each_missing_file_of_an_identity_is_an_error_with_the_way_out(role: Role, tmp_path: Path) -> None:
    files = [f"{role}.key.pem", f"{role}.crt.pem", "ca.crt.pem"]
    assert errors(check(role)) == [
        ("identity", f"{tmp_path}/{file}: no such file; install an identity with rp_{role}_set_identity")
        for file in files
    ]


def test_an_identity_of_the_other_role_is_an_error_and_no_reason_to_check_nothing_else(identities: Path) -> None:
    result = check("server", "--key", "client.key.pem", "--crt", "client.crt.pem", "--handler", "absent.Handler")
    [(first, role), (second, handler)] = errors(result)
    assert (first, second) == ("identity", "handler")
    assert "is a client's certificate, and this node is a server" in role
    assert handler.startswith("RP_EVENT_HANDLER_FQ_CLASS='absent.Handler': no module named 'absent'")
    assert ("ok", "resolver", "restpipe.nodes.resolver.DnsResolver") in found(result)


def test_an_identity_that_expires_soon_is_a_warning(tmp_path: Path) -> None:
    Authority.create(tmp_path).issue("client", "client", days=3)
    result = check("client")
    [(subject, text)] = warnings(result)
    assert subject == "identity"
    assert "client.crt.pem: expires in 2 days" in text
    assert any(text.startswith('"client", the identity of a client; expires in 2 days') for _, _, text in found(result))


def test_a_revocation_list_is_told_and_a_damaged_one_is_an_error(identities: Path) -> None:
    authority = Authority.load(identities)
    assert not [line for line in found(check("server")) if line[1] == "revocations"]
    authority.revoke([5, 6])
    assert ("ok", "revocations", f"{identities}/ca.crl.pem revokes 2") in found(check("server"))
    authority.crl_path.write_text("nonsense")
    [(subject, text)] = errors(check("client"))
    assert subject == "identity"
    assert text.startswith(f"{identities}/ca.crl.pem: is not a PEM file")


def test_a_revoked_identity_is_an_error(identities: Path) -> None:
    authority = Authority.load(identities)
    authority.revoke(one.serial_number for one in authority.issued("client"))
    assert check("server").exit_code == 0
    [(subject, text)] = errors(check("client"))
    assert subject == "identity"
    assert "client.crt.pem: was revoked on 20" in text


# Classes

METHOD = "class Mine:\n  def get_time(self, ctx, post_data): ...\n"


@pytest.mark.parametrize(
    ("subject", "option", "variable"),
    [
        ("handler", "--handler", "RP_EVENT_HANDLER_FQ_CLASS"),
        ("connections", "--connection-events", "RP_SERVER_CONNECTION_STATE_CHANGE_EVENT_CLASS"),
        ("resolver", "--client-hostname-resolver", "RP_SERVER_CLIENT_HOSTNAME_RESOLVER_CLS"),
    ],
)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class Mime: ...", "has no class 'Mine'; did you mean Mime?"),
        ("import sys; sys.exit(3)", "importing 'mine' failed: SystemExit: 3 ("),
        (
            "class Mine:\n  def __init__(self): 1 / 0",
            "making an object of it failed: ZeroDivisionError: division by zero (",
        ),
        ("class Mine:\n  def __init__(self, x): ...", "making an object of it failed: TypeError: "),
    ],
)
def test_a_class_that_a_node_cannot_use_is_an_error_that_names_the_setting(
    subject: str, option: str, variable: str, text: str, said: str, identities: Path, user_module: UserModule
) -> None:
    user_module(text)
    [(actual, line)] = errors(check("server", option, "mine.Mine"))
    assert actual == subject
    assert line.startswith(f"{variable}='mine.Mine': ")
    assert said in line
    assert "restpipe/" not in line  # the place is in the user's code, or nowhere


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("def get_time(self): ...", "Mine.get_time must take (self, ctx, post_data, ...)"),
        ("def get_time(self, ctx, post_data, x: 'Absent'): ...", "Mine.get_time: "),
    ],
)
def test_a_handler_method_that_cannot_serve_events_is_an_error(
    method: str, said: str, identities: Path, user_module: UserModule
) -> None:
    user_module(f"class Mine:\n  {method}")
    [(subject, text)] = errors(check("client", "--handler", "mine.Mine"))
    assert subject == "handler"
    assert text.startswith(said)


# Addresses


def test_a_port_that_is_taken_is_a_warning_because_the_node_may_be_running(
    identities: Path, listening: socket.socket
) -> None:
    port = listening.getsockname()[1]
    taken = f"127.0.0.1:{port} is taken: by this node, if it runs already"
    way_out = "; otherwise end what listens there, or set"
    result = check("server", "--bind-interface", "127.0.0.1", "--bind-port", str(port), "--web", f"127.0.0.1:{port}")
    assert warnings(result) == [
        ("pipe", f"{taken}{way_out} RP_SERVER_BIND_INTERFACE or RP_SERVER_BIND_PORT"),
        ("web", f"{taken}, or by systemd for it{way_out} RP_SERVER_WEB_BIND"),
    ]
    assert result.stdout.endswith("\n\nThis server node would start, the warnings aside.\n")


def test_a_port_whose_last_connection_ended_a_moment_ago_is_free(identities: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = listener.accept()
            accepted.close()  # first: the port keeps waiting for late packets
            assert client.recv(1) == b""
    assert warnings(check("server", "--web", f"127.0.0.1:{port}")) == []


def test_an_address_of_another_machine_is_an_error(identities: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_WEB_TOKEN", "sesame")
    result = check("server", "--bind-interface", "192.0.2.1", "--web", "192.0.2.1:80")  # RFC 5737: nobody's
    cause = os.strerror(errno.EADDRNOTAVAIL)
    assert errors(result) == [
        ("pipe", f"cannot listen on 192.0.2.1:0: {cause}; set RP_SERVER_BIND_INTERFACE or RP_SERVER_BIND_PORT"),
        ("web", f"cannot listen on 192.0.2.1:80: {cause}; set RP_SERVER_WEB_BIND"),
    ]


def test_a_name_that_no_machine_has_is_an_error(identities: Path) -> None:
    [(subject, text)] = errors(check("server", "--bind-interface", "host.invalid"))
    assert subject == "pipe"
    assert text.startswith("cannot listen on host.invalid:0: ")


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("absent/web.sock", errno.ENOENT),
        ("server.key.pem/web.sock", errno.ENOTDIR),
        ("server.key.pem", errno.EEXIST),
    ],
)
def test_a_unix_socket_that_cannot_be_made_is_an_error(path: str, number: int, identities: Path) -> None:
    bind = f"unix:{identities / path}"
    assert errors(check("server", "--web", bind)) == [
        ("web", f"cannot listen on {bind}: {os.strerror(number)}; set RP_SERVER_WEB_BIND")
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_unix_socket_in_the_directory_of_others_is_an_error(identities: Path) -> None:
    directory = identities / "closed"
    directory.mkdir(mode=0o555)
    [(subject, text)] = errors(check("client", "--web", f"unix:{directory}/web.sock"))
    assert subject == "web"
    assert os.strerror(errno.EACCES) in text


def test_a_unix_socket_that_is_listened_on_is_a_warning_and_one_left_behind_is_fine(identities: Path) -> None:
    path = identities / "web.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        [(subject, text)] = warnings(check("client", "--web", f"unix:{path}"))
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):  # a connection would have systemd start the node
            listener.accept()
    assert subject == "web"
    assert text.startswith(f"unix:{path} is taken: by this node, if it runs already, or by systemd for it; ")
    assert warnings(check("client", "--web", f"unix:{path}")) == []
    assert path.is_socket()


@pytest.mark.usefixtures("identities")
@pytest.mark.parametrize("role", ROLES)
def test_a_service_that_listens_is_found(role: Role) -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:
        url = f"http://127.0.0.1:{service.getsockname()[1]}"
        result = CliRunner().invoke(app, [role, "--upstream", url])
    assert result.exit_code == 0, result.output
    assert f"ok       upstream     {url} takes connections" in result.output


@pytest.mark.usefixtures("identities")
@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_a_service_that_does_not_listen_yet_is_a_warning(where: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:
        url = f"http://127.0.0.1:{service.getsockname()[1]}" if where == "tcp" else f"unix:{tmp_path}/app.sock"
    result = CliRunner().invoke(app, ["client", "--upstream", url])
    assert result.exit_code == 0, result.output
    assert f"warning  upstream     {url} does not take connections: " in result.output
    assert "would start, the warnings aside" in result.output


@pytest.mark.parametrize(
    ("path", "severity", "said"),
    [
        ("mine:app", "ok", "mine:app is an ASGI application, of type function"),
        ("mine:Site.app", "ok", "mine:Site.app is an ASGI application, of type function"),
        ("mine:ap", "error", "RP_ASGI='mine:ap': module 'mine' ({here}/mine.py) has no 'ap'; did you mean app?"),
        ("mine:Site.nothing", "error", "RP_ASGI='mine:Site.nothing': type in 'mine:Site.nothing' has no 'nothing'"),
        ("mine:wsgi", "error", "called with scope, receive and send: not a function"),
        ("mine:PORT", "error", "called with scope, receive and send: not an int"),
        ("none:app", "error", "RP_ASGI='none:app': no module named 'none'"),
    ],
)
def test_an_application_is_imported_and_not_started(
    identities: Path, user_module: UserModule, path: str, severity: str, said: str
) -> None:
    user_module(
        "async def app(scope, receive, send): raise AssertionError\nclass Site:\n  app = staticmethod(app)\n"
        "def wsgi(environ, start_response): ...\nPORT = 1",
    )
    result = CliRunner().invoke(app, ["client", "--asgi", path])
    assert result.exit_code == (0 if severity == "ok" else 1), result.output
    (line,) = [line for line in result.output.splitlines() if line.split()[1:2] == ["asgi"]]
    assert line.startswith(severity)
    assert said.format(here=Path.cwd()) in line


def test_settings_of_a_service_that_are_not_looked_at_are_named(
    identities: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "service" not in check("client").output
    env = identities / "client.env"
    env.write_text("#RP_FILES=/srv\n\nRP_CLIENT_TARGET_HOSTNAME=pipe.example\nRP_METRICS=1\n")
    done = check("client")
    assert f"{env} are not looked at (RP_CLIENT_TARGET_HOSTNAME, RP_METRICS)" in done.output
    assert done.output.endswith("would start, the warnings aside.\n")
    command = done.output.split("as root: ")[1].splitlines()[0]
    script = Path(sys.executable).parent
    sourced = subprocess.run(
        ["sh", "-c", command], env=os.environ | {"PATH": f"{script}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "connects to pipe.example:1234" in sourced.stdout
    monkeypatch.setenv("RP_CLIENT_TARGET_HOSTNAME", "pipe.example")
    monkeypatch.setenv("RP_METRICS", "1")
    assert "service" not in check("client").output
    assert "service" not in check("server").output


def test_settings_of_a_service_that_may_not_be_read_are_spoken_of(identities: Path) -> None:
    (identities / "client.env").mkdir()
    assert "are not looked at (Is a directory)" in check("client").output
