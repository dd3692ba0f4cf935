"""`rp_server_set_identity` and `rp_client_set_identity`, run as processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from restpipe.cli import set_identity
from restpipe.identity import Authority, Role, load_identity


def _run(role: Role, *arguments: Path, **environment: str | Path) -> subprocess.CompletedProcess[str]:
    command = f"from restpipe.cli.set_identity import {role}_set_identity as run; run()"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RP_")}
    return subprocess.run(
        [sys.executable, "-c", command, *map(str, arguments)],
        env=clean | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        check=False,
    )


def _issue(directory: Path, role: Role) -> tuple[Path, Path, Path]:
    authority = Authority.create(directory)
    issued = authority.issue(role, role)
    return issued.key_path, issued.certificate_path, authority.certificate_path


@pytest.mark.parametrize("role", ["server", "client"])
def test_an_identity_is_installed_under_the_documented_names(tmp_path: Path, role: Role) -> None:
    result = _run(role, *_issue(tmp_path / "from", role), **{f"RP_{role.upper()}_CERT_PATH": tmp_path / "to"})
    assert (result.returncode, result.stderr) == (0, "")
    to = tmp_path / "to"
    names = (f"restpipe.{role}.key.pem", f"restpipe.{role}.crt.pem", "ca.crt.pem")
    assert load_identity(to / names[0], to / names[1], to / names[2], role).name == role
    assert sorted(path.name for path in to.iterdir()) == sorted(names)
    assert f'Installed the identity of the {role} "{role}"' in result.stdout


def test_the_names_of_the_files_can_be_set(tmp_path: Path) -> None:
    result = _run(
        "client",
        *_issue(tmp_path / "from", "client"),
        RP_CLIENT_CERT_PATH=tmp_path / "to",
        RP_CLIENT_KEY_FILENAME="k",
        RP_CLIENT_CRT_FILENAME="c",
        RP_CA_CRT_FILENAME="a",
    )
    assert result.returncode == 0
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["a", "c", "k"]


def test_a_directory_may_be_given_from_the_home_directory(tmp_path: Path) -> None:
    result = _run("client", *_issue(tmp_path / "from", "client"), RP_CLIENT_CERT_PATH="~/to", HOME=tmp_path)
    assert result.returncode == 0
    assert len(list((tmp_path / "to").iterdir())) == 3


def test_an_identity_goes_where_the_user_config_module_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(f"CERT_PATH = '{tmp_path}/to'\nKEY_FILENAME = 'k'\nBIND_PORT = 'x'\n")
    result = _run("server", *_issue(tmp_path / "from", "server"), RP_SERVER_USER_CONFIG_MODULE="mine")
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["ca.crt.pem", "k", "restpipe.server.crt.pem"]


def test_a_wrong_setting_that_does_not_say_where_an_identity_is_does_not_matter(tmp_path: Path) -> None:
    result = _run(
        "server",
        *_issue(tmp_path / "from", "server"),
        RP_SERVER_CERT_PATH=tmp_path / "to",
        RP_SERVER_BIND_PORT="x",
        RP_SERVER_WEB_BIND="0.0.0.0:80",
        RP_WEB_TOKEN="open sesame",
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_a_wrong_setting_that_says_where_an_identity_is_is_named_and_nothing_is_installed(tmp_path: Path) -> None:
    files = _issue(tmp_path / "from", "client")
    result = _run("client", *files, RP_CLIENT_CERT_PATH=tmp_path / "to", RP_CA_CRT_FILENAME="")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines() == ["RP_CA_CRT_FILENAME='': should name a file", "Nothing was installed."]
    result = _run("client", *files, RP_CLIENT_USER_CONFIG_MODULE="absent")
    assert result.returncode == 2
    assert result.stderr.startswith("RP_CLIENT_USER_CONFIG_MODULE='absent': no module named 'absent'")
    assert result.stderr.endswith("\nNothing was installed.\n")
    assert not (tmp_path / "to").exists()


def test_a_client_on_the_host_of_its_server_needs_no_third_argument(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "from")
    server, client = authority.issue("server", "server"), authority.issue("client", "client")
    to = {"RP_SERVER_CERT_PATH": tmp_path / "to", "RP_CLIENT_CERT_PATH": tmp_path / "to"}
    first = _run("server", server.key_path, server.certificate_path, authority.certificate_path, **to)
    second = _run("client", client.key_path, client.certificate_path, **to)
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(list((tmp_path / "to").iterdir())) == 5


def test_every_fault_is_a_line_on_stderr_and_nothing_is_installed(tmp_path: Path) -> None:
    key, certificate, ca = _issue(tmp_path / "from", "server")
    result = _run("client", certificate, key, ca, RP_CLIENT_CERT_PATH=tmp_path / "to")
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        f"{certificate}: holds a certificate, not a private key: are key and certificate swapped?",
        f"{key}: holds a private key, not a certificate: are key and certificate swapped?",
        "Nothing was installed.",
    ]
    assert not (tmp_path / "to").exists()


def test_a_key_that_others_can_read_is_installed_with_a_warning(tmp_path: Path) -> None:
    key, certificate, ca = _issue(tmp_path / "from", "client")
    key.chmod(0o644)
    result = _run("client", key, certificate, ca, RP_CLIENT_CERT_PATH=tmp_path / "to")
    assert result.returncode == 0
    assert result.stderr.startswith(f"warning: {key}: holds a private key and is open to group or others")


@pytest.mark.parametrize(("role", "count"), [("server", 2), ("server", 4), ("client", 1), ("client", 4)])
def test_too_few_or_too_many_files_are_a_usage_error(tmp_path: Path, role: Role, count: int) -> None:
    result = _run(role, *[tmp_path / "a"] * count)
    assert result.returncode == 2
    assert "Usage:" in result.stderr


def test_a_machine_with_the_service_is_told_to_start_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_identity, "UNITS", tmp_path)
    monkeypatch.setenv("RP_CLIENT_CERT_PATH", str(tmp_path / "to"))
    files = [str(path) for path in _issue(tmp_path / "from", "client")]
    (tmp_path / "restpipe-client.service").touch()
    assert CliRunner().invoke(set_identity._client, files).output.endswith("Next:\n  restpipe client\n")
    monkeypatch.setattr(set_identity, "STATE", tmp_path / "to")
    told = CliRunner().invoke(set_identity._client, files).output
    assert told.endswith("Next:\n  systemctl enable --now restpipe-client\n")
    assert "run the node as that user" not in told
