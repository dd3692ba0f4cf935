"""An identity is installed whole and good, or what was there stays."""

import os
import stat
from pathlib import Path

import pytest
from certificates_of_others import issued, unprivileged

from restpipe.exceptions import IdentityError
from restpipe.identity import IdentityPaths, install_identity, load_identity


def _target(directory: Path) -> IdentityPaths:
    return IdentityPaths(directory / "node.key.pem", directory / "node.crt.pem", directory / "ca.crt.pem")


def _contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_what_is_installed_is_what_the_node_loads(tmp_path: Path) -> None:
    files = issued(tmp_path / "from", "server")
    target = _target(tmp_path / "var" / "lib")
    installed = install_identity("server", *files.all, target)
    assert load_identity(target.key, target.certificate, target.ca, "server") == installed.identity
    assert installed.warnings == ()


def test_the_installed_key_is_private_and_the_certificates_are_not(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        target = install_identity("client", *issued(tmp_path / "from", "client").all, _target(tmp_path / "to")).paths
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (target.key, target.certificate, target.ca)]
    assert modes == [0o600, 0o644, 0o644]


def test_only_the_three_files_are_in_the_directory(tmp_path: Path) -> None:
    install_identity("client", *issued(tmp_path / "from", "client").all, _target(tmp_path / "to"))
    assert sorted(_contents(tmp_path / "to")) == ["ca.crt.pem", "node.crt.pem", "node.key.pem"]


def test_a_client_takes_the_ca_that_is_installed_already(tmp_path: Path) -> None:
    first, second = issued(tmp_path / "from", "client", "alpha"), issued(tmp_path / "from", "client", "beta")
    install_identity("client", *first.all, _target(tmp_path / "to"))
    installed = install_identity("client", second.key, second.certificate, None, _target(tmp_path / "to"))
    assert installed.identity.name == "beta"
    assert installed.identity.ca_pem == first.ca.read_bytes()


def test_without_any_ca_the_third_argument_is_asked_for(tmp_path: Path) -> None:
    files = issued(tmp_path / "from", "client")
    with pytest.raises(IdentityError, match=r"to/ca.crt.pem: no CA certificate is installed yet; .*third argument"):
        install_identity("client", files.key, files.certificate, None, _target(tmp_path / "to"))
    assert not (tmp_path / "to").exists()


def test_an_installed_ca_that_may_not_be_looked_at_is_said_and_not_called_missing(tmp_path: Path) -> None:
    files = issued(tmp_path / "from", "client")
    target = install_identity("client", *files.all, _target(tmp_path / "to")).paths
    (tmp_path / "to").chmod(0o000)
    with unprivileged(), pytest.raises(IdentityError, match=r"to/ca.crt.pem: user \S+ may not read it"):
        install_identity("client", files.key, files.certificate, None, target)
    (tmp_path / "to").chmod(0o700)


def test_a_bad_identity_leaves_the_installed_one_as_it_is(tmp_path: Path) -> None:
    good, other = issued(tmp_path / "a", "client"), issued(tmp_path / "b", "client")
    install_identity("client", *good.all, _target(tmp_path / "to"))
    before = _contents(tmp_path / "to")
    with pytest.raises(IdentityError, match="not signed by the CA"):
        install_identity("client", other.key, other.certificate, None, _target(tmp_path / "to"))
    with pytest.raises(IdentityError, match=r"no such file; check the path"):
        install_identity("client", tmp_path / "nothing", good.certificate, good.ca, _target(tmp_path / "to"))
    assert _contents(tmp_path / "to") == before


def test_an_identity_may_be_renewed_from_the_very_files_that_are_installed(tmp_path: Path) -> None:
    target = install_identity("client", *issued(tmp_path / "from", "client").all, _target(tmp_path / "to")).paths
    before = _contents(tmp_path / "to")
    install_identity("client", target.key, target.certificate, target.ca, target)
    assert _contents(tmp_path / "to") == before


def test_a_key_that_travelled_in_the_open_is_installed_private_with_a_warning(tmp_path: Path) -> None:
    files = issued(tmp_path / "from", "client")
    files.key.chmod(0o644)
    installed = install_identity("client", *files.all, _target(tmp_path / "to"))
    assert stat.S_IMODE(installed.paths.key.stat().st_mode) == 0o600
    assert [fault.message for fault in installed.warnings] == [
        f"{files.key}: holds a private key and is open to group or others (mode 0644); "
        "the installed copy is not, delete this one"
    ]


def test_a_private_key_in_the_certificate_file_is_not_installed_for_all_to_read(tmp_path: Path) -> None:
    files = issued(tmp_path / "from", "client")
    files.certificate.write_bytes(files.key.read_bytes() + files.certificate.read_bytes())
    target = install_identity("client", *files.all, _target(tmp_path / "to")).paths
    assert b"PRIVATE" not in target.certificate.read_bytes()


def test_a_directory_that_belongs_to_others_is_named_with_both_ways_out(tmp_path: Path) -> None:
    files = issued(tmp_path, "client")
    target = _target(Path("/proc/restpipe"))  # where not even root can make one
    with pytest.raises(IdentityError, match=r"^/proc/restpipe: cannot be made: .*sudo, or set RP_CLIENT_CERT_PATH to"):
        install_identity("client", *files.all, target)


def test_a_directory_that_may_not_be_written_is_named_with_both_ways_out(tmp_path: Path) -> None:
    files = issued(tmp_path, "client")
    for path in files.all:
        path.chmod(0o600)
        os.chown(path, 65534 if os.geteuid() == 0 else -1, -1)
    for parent in (tmp_path, *tmp_path.parents):
        if not parent.stat().st_mode & 0o001:  # pytest's own
            parent.chmod(0o755)
    with unprivileged(), pytest.raises(IdentityError, match=r"^/usr: user \S+ may not write there; run this with sudo"):
        install_identity("client", *files.all, _target(Path("/usr")))
