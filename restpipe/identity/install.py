"""Putting an identity where a node looks for it, once it is known to be good: `rp_server_set_identity` and its twin."""

import os
from dataclasses import dataclass
from pathlib import Path

from restpipe.exceptions import IdentityError
from restpipe.identity.certificates import Role
from restpipe.identity.files import Fault, Identity, error_lines, examine
from restpipe.identity.pem import CERTIFICATE_MODE, KEY_MODE, NewFile, is_missing, write_files
from restpipe.identity.wording import current_user


@dataclass(frozen=True, slots=True)
class IdentityPaths:
    """The three files of a node's identity."""

    key: Path
    certificate: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class InstalledIdentity:
    """An identity that was installed.

    Attributes:
        identity: the identity.
        paths: where its files are now.
        warnings: what does not keep the node from working, yet.
    """

    identity: Identity
    paths: IdentityPaths
    warnings: tuple[Fault, ...]


def install_identity(
    role: Role, key_path: Path, certificate_path: Path, ca_path: Path | None, target: IdentityPaths
) -> InstalledIdentity:
    """Check an identity as the node will, and put its files where the node looks for them.

    Each file is replaced whole. A running node that looks between two of them finds a pair that does not match, and
    keeps what it has.

    Args:
        role: what the node is.
        key_path: file of the private key.
        certificate_path: file of the certificate.
        ca_path: file of the CA certificate; None where the one installed before is to stay.
        target: where the files go; directories are made where there are none.

    Raises:
        IdentityError: the identity has errors, a line for each, and what was installed is unchanged; or it cannot be
            written.
    """
    if ca_path is None and is_missing(target.ca):
        raise IdentityError(f"{target.ca}: no CA certificate is installed yet; name its file as the third argument")
    identity, faults = examine(key_path, certificate_path, ca_path or target.ca, role, installing=True)
    if identity is None:
        raise IdentityError(error_lines(faults))
    files = [
        (target.key, identity.key_pem, KEY_MODE),
        (target.certificate, identity.certificate_pem, CERTIFICATE_MODE),
    ]
    if ca_path is not None:
        files.insert(0, (target.ca, identity.ca_pem, CERTIFICATE_MODE))
    for path, _, _ in files:
        _make_writable(path.parent, role)
    write_files([NewFile(path, pem, mode, _owner(path.parent)) for path, pem, mode in files], replace=True)
    return InstalledIdentity(identity, target, tuple(faults))


def _owner(directory: Path) -> tuple[int, int] | None:
    """Return who is to own what root installs: the user whose the directory is, under whom the node runs."""
    if os.geteuid() != 0:
        return None
    status = directory.stat()
    return status.st_uid, status.st_gid


def _make_writable(directory: Path, role: Role) -> None:
    """Make a directory where there is none.

    Raises:
        IdentityError: it cannot be made, or not be written in.
    """
    way_out = f"run this with sudo, or set RP_{role.upper()}_CERT_PATH to a directory of your own"
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise IdentityError(f"{directory}: cannot be made: {error.strerror}; {way_out}") from error
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise IdentityError(f"{directory}: user {current_user()} may not write there; {way_out}")
