"""Keys and certificates: making, issuing, checking and installing the identities of nodes.

    authority     a CA, and what it issues
    certificates  what a certificate says
    pem           files, read with every fault named, and written whole
    files         the three files of an identity, and all that is wrong with them
    revocation    lists of what a CA took back
    custody       all of that for a node that runs, as its files change
    install       putting an identity where a node looks for it
    names         whom a rule means
    wording       times and foreign text, for people

What others need of a certificate, they ask for here.
"""

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
