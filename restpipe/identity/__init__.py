"""Keys and certificates: making, issuing, checking and installing the identities of nodes."""

from restpipe.identity.authority import Authority, IssuedIdentity
from restpipe.identity.certificates import Role, certificate_name, parse_certificate
from restpipe.identity.custody import Custody, News
from restpipe.identity.files import Fault, Identity, check_identity, load_identity
from restpipe.identity.install import IdentityPaths, InstalledIdentity, install_identity
from restpipe.identity.revocation import Revocations

__all__ = [
    "Authority",
    "Custody",
    "Fault",
    "Identity",
    "IdentityPaths",
    "InstalledIdentity",
    "IssuedIdentity",
    "News",
    "Revocations",
    "Role",
    "certificate_name",
    "check_identity",
    "install_identity",
    "load_identity",
    "parse_certificate",
]
