"""`restpipe install-service`: a node as a systemd service, behind nginx where that is installed."""

import grp
import hashlib
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated, NoReturn

import typer

HELP = (
    "Install a node as a systemd service, and the configuration of nginx for it where nginx is installed. systemd "
    "holds the socket of its web server, so that a restart refuses no caller.\n\n"
    "Prints each thing it does. A file that was edited since is kept, unless --force is given; the settings in "
    "/etc/restpipe and the identity in /var/lib/restpipe are never replaced or removed. Run again after an upgrade."
)

USER = "restpipe"
# Of nginx, which is to reach the node's socket: on Debian, elsewhere, and where there is no nginx.
GROUPS = ("www-data", "nginx", USER)
# Where the shipped files say that RestPipe and nginx are.
_EXECUTABLE = "/opt/restpipe/bin/restpipe"
_GROUP = "Group=www-data\n"
# The last line of an installed file. What stands before it is as it was written, or was edited.
_SEAL = "# Installed by `restpipe install-service`, unedited while it has this checksum: "
# Places that a service with ProtectHome=yes cannot see.
_HOMES = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 - nothing is written there


class Role(StrEnum):
    """Which node."""

    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class ServiceFile:
    """A file of a service.

    Attributes:
        path: where it is installed.
        text: what it says.
        mode: its permission bits.
        settings: it is the operator's own once it is there.
    """

    path: Path
    text: str
    mode: int = 0o644
    settings: bool = False


class Installer:
    """Installs and removes the files of a service.

    Args:
        role: which node.
        root: directory that stands for /.
        executable: the command of RestPipe that the service runs.
        dry_run: tell what would be done, and do none of it.
        force: replace and remove edited files, too.
    """

    def __init__(self, role: str, root: Path, executable: str, *, dry_run: bool, force: bool) -> None:
        self._role = role
        self._root = root
        self._executable = executable
        self._dry_run = dry_run
        self._force = force
        # What is not the machine that runs is a package to be, or a test: no user is made there, and nothing started.
        self._live = root == Path("/")

    @property
    def unit(self) -> str:
        """Name of the service."""
        return f"restpipe-{self._role}"

    def files(self) -> list[ServiceFile]:
        """Return the files of the service, as they are for this machine."""
        unit = shipped(f"{self.unit}.service").replace(_EXECUTABLE, self._executable)
        units = self._root / "etc/systemd/system"
        files = [
            ServiceFile(units / f"{self.unit}.service", unit.replace(_GROUP, _group_line())),
            ServiceFile(units / f"{self.unit}.socket", shipped(f"{self.unit}.socket").replace(_GROUP, _group_line())),
            ServiceFile(self._root / f"etc/restpipe/{self._role}.env", shipped(f"{self._role}.env"), 0o600, True),
        ]
        nginx = self._root / "etc/nginx/conf.d"
        if nginx.is_dir():
            files.append(ServiceFile(nginx / f"{self.unit}.conf", shipped(f"nginx-{self._role}.conf")))
        return files

    def install(self) -> None:
        """Make the user, write the files, and tell what remains to be done."""
        if self._live and not _exists(pwd.getpwnam, USER):
            command = ("useradd", "--system", "--user-group", "--no-create-home")
            self._run(*command, "--home-dir", "/var/lib/restpipe", "--shell", "/usr/sbin/nologin", USER)
        for file in self.files():
            self._install(file)
        self._reload()
        set_identity = f"{Path(self._executable).parent}/rp_{self._role}_set_identity"
        typer.echo(f"\nNow: the settings, in {self._root / 'etc/restpipe' / self._role}.env")
        typer.echo(f"     the identity: {set_identity} KEY CRT CA")
        typer.echo(f"     systemctl enable --now {self.unit}")
        if any("nginx" in file.path.name for file in self.files()):
            typer.echo("     nginx -t && systemctl reload nginx")

    def uninstall(self) -> None:
        """Stop the service and remove its files; settings that were edited, the identity and the user stay."""
        if self._live and Path("/run/systemd/system").is_dir():
            self._run("systemctl", "disable", "--now", f"{self.unit}.socket", f"{self.unit}.service", check=False)
        for file in self.files():
            if not file.path.exists():
                self._tell("absent", file.path)
            elif self._is_edited(file) and (file.settings or not self._force):
                self._tell("kept", file.path, "it was edited" + ("" if file.settings else "; --force removes it"))
            else:
                self._tell("remove", file.path)
                if not self._dry_run:
                    file.path.unlink()
        self._reload()

    def _install(self, file: ServiceFile) -> None:
        text = file.text if file.settings else sealed(file.text)
        if not file.path.exists():
            self._tell("write", file.path)
        elif file.path.read_text() == text:
            self._tell("current", file.path)
            return
        elif file.settings or (self._is_edited(file) and not self._force):
            self._tell("kept", file.path, "it was edited" + ("" if file.settings else "; --force replaces it"))
            return
        else:
            self._tell("replace", file.path)
        if self._dry_run:
            return
        file.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        staged = file.path.with_name(f".{file.path.name}.new")
        staged.unlink(missing_ok=True)
        staged.touch(mode=0o600)
        staged.write_text(text)
        staged.chmod(file.mode)
        staged.replace(file.path)

    def _is_edited(self, file: ServiceFile) -> bool:
        text = file.path.read_text(errors="replace")
        if file.settings:
            return text != file.text
        own, seal, _ = text.rpartition(_SEAL)
        return not seal or sealed(own) != text

    def _reload(self) -> None:
        if self._live and Path("/run/systemd/system").is_dir():
            self._run("systemctl", "daemon-reload")

    def _run(self, *command: str, check: bool = True) -> None:
        typer.echo(f"{'run':<8} {' '.join(command)}")
        if not self._dry_run:
            subprocess.run(command, check=check)

    def _tell(self, what: str, path: Path, why: str = "") -> None:
        typer.echo(f"{what:<8} {path}{f': {why}' if why else ''}")


def install_service(
    role: Annotated[Role, typer.Argument(help="Which node.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, and do none of it.")] = False,
    uninstall: Annotated[bool, typer.Option("--uninstall", help="Stop the service and remove its files.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace or remove files that were edited, too.")] = False,
    root: Annotated[
        Path,
        typer.Option("--root", metavar="DIR", help="What stands for /, as for a package; nothing is started there."),
    ] = Path("/"),
) -> None:
    """Install a node as a systemd service."""
    executable = str(Path(sys.argv[0]).absolute())
    arguments = " ".join(sys.argv[1:])
    if root == Path("/") and not dry_run:
        if os.geteuid() != 0:
            _fail(f"only root installs services: sudo {executable} {arguments}")
        if executable.startswith(_HOMES) and not uninstall:
            _fail(
                f"{executable} is where a service does not reach: install RestPipe in a place of its own, with"
                " `python3 -m venv /opt/restpipe && /opt/restpipe/bin/pip install 'restpipe>=1'`,"
                f" and run {_EXECUTABLE} {arguments}"
            )
    installer = Installer(role, root, _EXECUTABLE if root != Path("/") else executable, dry_run=dry_run, force=force)
    try:
        (installer.uninstall if uninstall else installer.install)()
    except (OSError, subprocess.CalledProcessError) as error:
        _fail(str(error))


def shipped(name: str) -> str:
    """Return a file as it is shipped. Those of the server are the client's, with the other name."""
    files = resources.files("restpipe") / "service"
    if (files / name).is_file():
        return (files / name).read_text()
    text = (files / name.replace(Role.SERVER, Role.CLIENT)).read_text()
    return re.sub(r"client(?!_max)", Role.SERVER, text).replace("CLIENT", "SERVER")


def sealed(text: str) -> str:
    """Return a text with a last line by which later edits of it are seen."""
    return f"{text}{_SEAL}{hashlib.sha256(text.encode()).hexdigest()[:16]}\n"


def _group_line() -> str:
    group = next((name for name in GROUPS if _exists(grp.getgrnam, name)), USER)
    return f"Group={group}\n"


def _exists(look_up: Callable[[str], object], name: str) -> bool:
    try:
        look_up(name)
    except KeyError:
        return False
    return True


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)
