"""A node becomes a service by one command, which tells what it does and keeps what an operator wrote."""

import os
import re
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from restpipe.cli import app
from restpipe.cli.install_service import sealed, shipped
from restpipe.cli.notify import notify
from restpipe.config import ClientSettings, ServerSettings, rows

README = (Path(__file__).parents[2] / "README.md").read_text()
ROLES = ("server", "client")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/nginx/conf.d").mkdir(parents=True)
    return tmp_path


def run(root: Path, role: str, *options: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["install-service", role, "--root", str(root), *options])
    assert result.exit_code == code, result.output
    return result


def installed(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("role", ROLES)
def test_it_writes_a_unit_settings_and_a_site_of_nginx_and_names_each(root: Path, role: str) -> None:
    output = run(root, role).output
    files = installed(root)
    assert sorted(files) == [
        f"etc/nginx/conf.d/restpipe-{role}.conf",
        f"etc/restpipe/{role}.env",
        f"etc/systemd/system/restpipe-{role}.service",
        f"etc/systemd/system/restpipe-{role}.socket",
    ]
    assert all(f"write    {root / name}\n" in output for name in files)
    # What may hold a token is root's alone; systemd reads it as root.
    assert stat.S_IMODE((root / f"etc/restpipe/{role}.env").stat().st_mode) == 0o600
    assert "current" in run(root, role).output
    assert installed(root) == files


def test_without_nginx_none_is_configured(tmp_path: Path) -> None:
    run(tmp_path, "client")
    assert not (tmp_path / "etc/nginx").exists()


def test_a_dry_run_tells_the_same_and_does_nothing(root: Path) -> None:
    told = run(root, "client", "--dry-run").output
    assert installed(root) == {}
    assert run(root, "client").output == told
    run(root, "client", "--uninstall", "--dry-run")
    assert len(installed(root)) == 4


@pytest.mark.parametrize(
    "name",
    [
        "etc/nginx/conf.d/restpipe-client.conf",
        "etc/systemd/system/restpipe-client.service",
        "etc/systemd/system/restpipe-client.socket",
    ],
)
def test_an_edited_file_is_kept_and_said_so_unless_it_is_forced(root: Path, name: str) -> None:
    run(root, "client")
    path = root / name
    path.write_text(path.read_text().replace("restpipe", "mine"))
    edited = path.read_text()
    assert f"kept     {path}: it was edited; --force replaces it" in run(root, "client").output
    assert f"kept     {path}: it was edited; --force removes it" in run(root, "client", "--uninstall").output
    assert installed(root) == {name: edited}
    run(root, "client", "--force")
    assert path.read_text() != edited


def test_a_file_that_is_not_of_this_command_is_kept(root: Path) -> None:
    path = root / "etc/nginx/conf.d/restpipe-client.conf"
    path.write_text("server {}\n")
    assert f"kept     {path}" in run(root, "client").output
    assert path.read_text() == "server {}\n"


def test_a_file_of_an_earlier_release_is_replaced(root: Path) -> None:
    run(root, "client")
    path = root / "etc/systemd/system/restpipe-client.service"
    current = path.read_text()
    path.write_text(sealed("[Unit]\nDescription=as it was\n"))
    assert f"replace  {path}" in run(root, "client").output
    assert path.read_text() == current


def test_settings_that_were_edited_stay_whatever_happens(root: Path) -> None:
    run(root, "client")
    settings = root / "etc/restpipe/client.env"
    settings.write_text("RP_CLIENT_TARGET_HOSTNAME=pipe.example.org\n")
    run(root, "client", "--force")
    run(root, "client", "--uninstall", "--force")
    assert installed(root) == {"etc/restpipe/client.env": "RP_CLIENT_TARGET_HOSTNAME=pipe.example.org\n"}


def test_one_node_is_removed_and_the_other_stays(root: Path) -> None:
    run(root, "server")
    server = installed(root)
    run(root, "client")
    run(root, "client", "--uninstall")
    assert installed(root) == server


def test_who_is_not_root_is_told_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["/opt/restpipe/bin/restpipe", "install-service", "client"])
    result = CliRunner().invoke(app, ["install-service", "client"])
    assert result.exit_code == 1
    assert result.stderr == "only root installs services: sudo /opt/restpipe/bin/restpipe install-service client\n"


def test_an_installation_that_the_service_could_not_see_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("sys.argv", ["/home/me/.venv/bin/restpipe", "install-service", "client"])
    result = CliRunner().invoke(app, ["install-service", "client"])
    assert result.exit_code == 1
    assert "python3 -m venv /opt/restpipe" in result.stderr


def test_the_figures_of_a_service_and_its_machine_can_be_read() -> None:
    # /metrics takes them from /proc, as handlers do: without /proc/stat, there is nothing of the process.
    assert "ProcSubset" not in shipped("restpipe-client.service")


@pytest.mark.parametrize("role", ROLES)
def test_the_unit_is_one_that_systemd_accepts_and_calls_safe(root: Path, role: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    run(root, role)
    unit = root / f"etc/systemd/system/restpipe-{role}.service"
    unit.write_text(unit.read_text().replace("/opt/restpipe/bin/restpipe", shutil.which("true") or "/bin/true"))
    verify = ["systemd-analyze", "verify", str(unit), str(unit.with_suffix(".socket"))]
    verified = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    # Its scale goes from 0, safe, to 100.
    secure = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
    done = subprocess.run(secure, capture_output=True, text=True, timeout=60, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze does not judge files")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("role", "settings_class"), [("server", ServerSettings), ("client", ClientSettings)])
def test_the_shipped_settings_are_ones_that_the_node_has(
    role: str, settings_class: type[ServerSettings | ClientSettings]
) -> None:
    known = {variable for row in rows(settings_class).values() for variable in row.variables}
    unit, settings = shipped(f"restpipe-{role}.service"), shipped(f"{role}.env")
    named = re.findall(r"^(?:Environment=|#)((?:RP|BIND)_\w+)=(.*)$", unit + settings, re.MULTILINE)
    assert len(named) > 4
    assert {variable for variable, _ in named} <= known
    assert f"server {dict(named)[f'RP_{role.upper()}_WEB_BIND']} " in shipped(f"nginx-{role}.conf")
    listening = re.findall(r"^ListenStream=(.*)$", shipped(f"restpipe-{role}.socket"), re.MULTILINE)
    assert [f"unix:{path}" for path in listening] == [dict(named)[f"RP_{role.upper()}_WEB_BIND"]]


def test_what_the_server_is_given_speaks_of_the_server() -> None:
    for name in ("restpipe-server.service", "restpipe-server.socket", "nginx-server.conf"):
        assert "client" not in shipped(name).replace("client_max_body_size", "").lower()


def test_the_readme_shows_the_files_as_they_are_shipped() -> None:
    blocks = re.findall(r"^```(?:ini|nginx)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert shipped("restpipe-client.service") in blocks
    assert shipped("restpipe-client.socket") in blocks
    assert shipped("nginx-client.conf") in blocks


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    notify("STOPPING=1")  # to nobody: no failure
