"""The identity and the revocations of a node that runs: as its files have them, or had them when they made sense."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from restpipe.exceptions import IdentityError
from restpipe.identity.certificates import Role, trust_path
from restpipe.identity.files import Fault, Identity, error_lines, examine
from restpipe.identity.install import IdentityPaths
from restpipe.identity.pem import is_missing, read_regular
from restpipe.identity.revocation import NOTHING_REVOKED, Revocations, read_revocations, staleness
from restpipe.identity.wording import moment

STAYS = "stays revoked until this node is started again"


@dataclass(frozen=True, slots=True)
class News:
    """What a look at the files found.

    Attributes:
        identity: the identity is another one than before.
        revocations: what is revoked is not what it was before.
        faults: everything that is wrong with the files. What has an error was not taken.
    """

    identity: bool
    revocations: bool
    faults: tuple[Fault, ...]


class Custody:
    """Key, certificates and CRL of a node, followed through their replacement.

    Files are replaced one after the other, and not always whole. So an identity is taken once its three files fit
    together, and a CRL once it is complete and signed by the CA; whatever is wrong until then, those of before stay. A
    CRL whose file vanishes, or is replaced by an older one, stays, too: to lose a file must not reinstate what was
    revoked.

    Args:
        paths: key, certificate and CA certificate.
        crl_path: the CRL, where there is one.
        role: what the node is.

    Raises:
        IdentityError: the files cannot be used, or the certificate is revoked; a line for each error.

    Attributes:
        identity: the one to use.
        revocations: what is revoked.
        faults: all that is wrong with the files, as of the last examination.
    """

    def __init__(self, paths: IdentityPaths, crl_path: Path, role: Role) -> None:
        self._paths = paths
        self._crl_path = crl_path
        self._role: Role = role
        self._seen = self._digest()
        identity, revocations, faults = examine_with_crl(paths, crl_path, role)
        if identity is None or error_lines(faults):
            raise IdentityError(error_lines(faults))
        self.identity = identity
        self.revocations = revocations or NOTHING_REVOKED
        self.faults = tuple(faults)
        # Whether a CA was taken out of the file since: until then TLS has said of each peer what there is to say.
        self._withdrawn = False

    def trusts(self, certificate: bytes, intermediates: bytes) -> bool:
        """Say whether the certificate of a peer, which was good when it connected, leads to a trusted CA still.

        Args:
            certificate: PEM, of the peer alone.
            intermediates: PEM, of the CAs that the peer brought along.
        """
        if self._withdrawn:
            try:
                trust_path(x509.load_pem_x509_certificates(certificate + intermediates), self.identity.anchors)
            except (IdentityError, ValueError):  # a peer may bring anything along that it does not need
                return False
        return True

    def look(self) -> News | None:
        """Take what is new in the files; return None where none of them changed since the last look.

        Reads files, so it is not for the thread of an event loop.
        """
        seen = self._digest()
        if seen == self._seen:
            return None
        self._seen = seen
        return self.examine()

    def examine(self) -> News:
        """Take what is new in the files and find their faults, even if none of them changed: certificates age."""
        identity, revocations, faults = examine_with_crl(
            self._paths, self._crl_path, self._role, self.identity, self.revocations
        )
        if revocations is None:
            revocations = self.revocations
            if revocations and is_missing(self._crl_path):
                gone = f"{self._crl_path}: is gone; what it revoked {STAYS}"
                faults.append(Fault("warning", gone))
        identity = identity or self.identity
        self._withdrawn |= not set(self.identity.anchors) <= set(identity.anchors)
        news = News(identity != self.identity, revocations != self.revocations, tuple(faults))
        self.identity, self.revocations, self.faults = identity, revocations, news.faults
        return news

    def _digest(self) -> bytes:
        """Return what changes with content or mode of any file. A file's time would miss what its granularity hides."""
        digest = hashlib.sha256()
        for path in (self._paths.key, self._paths.certificate, self._paths.ca, self._crl_path):
            try:
                mode, data = read_regular(path)
                content = mode.to_bytes(4) + data
            except OSError as error:
                content = str(error).encode()
            digest.update(hashlib.sha256(content).digest())
        return digest.digest()


def examine_with_crl(
    paths: IdentityPaths,
    crl_path: Path,
    role: Role,
    held: Identity | None = None,
    revoked: Revocations = NOTHING_REVOKED,
) -> tuple[Identity | None, Revocations | None, list[Fault]]:
    """Read an identity and a CRL, and find the faults of both.

    Args:
        paths: key, certificate and CA certificate.
        crl_path: the CRL, where there is one.
        role: what the node is.
        held: what the node has in use, None before it starts. The CRL must be of its CA where the identity in the
            files cannot be used.
        revoked: what was revoked before; an older CRL is an error.

    Returns:
        The identity, None where it has an error or is revoked; what is revoked, None where there is no CRL or it has an
        error; and the faults.
    """
    identity, faults = examine(paths.key, paths.certificate, paths.ca, role, regular=held is not None)
    trusting = identity or held
    if trusting is None:
        return None, None, faults
    try:
        revocations = read_revocations(crl_path, trusting.anchors, revoked)
    except IdentityError as error:
        return identity, None, [*faults, Fault("error", str(error))]
    if revocations is None:
        return identity, None, faults
    stale = staleness(crl_path, revocations)
    if stale:
        faults.append(Fault("warning", stale))
    for absent in revocations.absent:
        faults.append(Fault("warning", f"{crl_path}: holds no CRL of {absent} any more; what it revoked {STAYS}"))
    date = revocations.date(trusting.certificate)
    if date is not None:
        anew = f"issue it anew with `restpipe ca renew {trusting.name}`"
        faults.append(Fault("error", f"{paths.certificate}: was revoked on {moment(date)}, says {crl_path}; {anew}"))
        identity = None
    return identity, revocations, faults
