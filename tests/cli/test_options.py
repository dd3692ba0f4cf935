"""Command-line options are the settings, under other names."""

import os
import re
from ast import literal_eval

import pytest
import typer
from typer.testing import CliRunner, Result

from restpipe.cli.options import settings_options
from restpipe.config import ClientSettings, ServerSettings, load_client_settings, load_server_settings, rows

Node = type[ServerSettings] | type[ClientSettings]

COMMANDS: dict[str, Node] = {"server": ServerSettings, "client": ClientSettings}

app = typer.Typer(add_completion=False)


@app.command()
@settings_options(ServerSettings)
def server(options: dict[str, object]) -> None:
    """Run a server."""
    print(options)
    load_server_settings(options)


@app.command()
@settings_options(ClientSettings, exclude=["debug"])
def client(options: dict[str, object], greeting: str = "hello") -> None:
    """Run a client."""
    print(greeting, options)
    load_client_settings(options)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {name for node in COMMANDS.values() for row in rows(node).values() for name in row.variables}
    for name in variables & os.environ.keys():
        monkeypatch.delenv(name)


def run(*arguments: str) -> Result:
    # Wide enough that nothing is wrapped; without colours, whatever the developer's terminal can do.
    return CliRunner().invoke(app, arguments, env={"TERMINAL_WIDTH": "300", "COLUMNS": "300", "NO_COLOR": "1"})


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_every_setting_with_its_variables_its_default_and_its_group(command: str) -> None:
    text = run(command, "--help").stdout
    for row in rows(COMMANDS[command]).values():
        if row.option is None or (command == "client" and row.field == "debug"):
            continue
        assert row.option in text
        assert f"{row.help} Environment: {' or '.join(row.variables)}." in text
        assert f" {row.panel} " in text
        if not row.is_flag:
            assert not row.default or f"[default: {row.default}]" in text


def test_help_tells_what_kind_of_value_an_option_takes() -> None:
    text = run("client", "--help").stdout
    kinds = {
        "--target-port": "NUMBER",
        "--statsd-port": "NUMBER",
        "--request-timeout": "SECONDS",
        "--cert-path": "PATH",
        "--handler": "TEXT",
    }
    for option, kind in kinds.items():
        assert re.search(rf"{option} +{kind} ", text)


@pytest.mark.parametrize(("command", "own"), [("server", "--bind-interface"), ("client", "--target-hostname")])
def test_help_begins_with_what_makes_a_node_a_server_or_a_client(command: str, own: str) -> None:
    text = run(command, "--help").stdout
    assert text.index(own) < text.index("--heartbeat-interval")


def test_help_shows_which_way_a_flag_stands_and_how_to_turn_it() -> None:
    text = run("server", "--help").stdout
    assert "--no-send-tracebacks" in text
    assert "[default: send-tracebacks]" in text
    assert "[default: no-debug]" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_secret_is_no_option(command: str) -> None:
    assert "token" not in run(command, "--help").stdout.replace("RP_WEB_TOKEN", "").lower()
    assert run(command, "--web-token", "sesame").exit_code == 2


def test_an_excluded_field_is_no_option() -> None:
    assert run("server", "--debug").exit_code == 0
    assert run("client", "--debug").exit_code == 2


def test_only_what_was_typed_is_passed_on_and_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_SERVER_BIND_INTERFACE", "10.0.0.1")
    typed = ("--bind-port", "0042", "--web", "", "--no-send-tracebacks", "--request-timeout", "60")
    result = run("server", *typed)
    assert result.exit_code == 0
    assert literal_eval(result.stdout) == {
        "bind_port": "0042",
        "web_bind": "",
        "send_tracebacks": False,
        "request_timeout_s": "60",
    }


def test_a_wrong_value_is_a_usage_error_in_the_words_of_the_settings() -> None:
    result = run("client", "--target-port", "x", "--heartbeat-interval", "0")
    assert result.exit_code == 2
    assert set(result.stderr.splitlines()) == {
        "--target-port='x': should be a whole number",
        "--heartbeat-interval='0': should be greater than 0",
    }


def test_a_wrong_variable_is_refused_under_its_own_name_beside_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBUG", "maybe")
    result = run("server")
    assert result.exit_code == 2
    assert result.stderr == "DEBUG='maybe': should be 1, true or yes, or 0, false or no\n"
    assert run("server", "--debug").exit_code == 0


def test_a_command_keeps_parameters_of_its_own() -> None:
    assert run("client", "--greeting", "welcome").stdout == "welcome {}\n"
