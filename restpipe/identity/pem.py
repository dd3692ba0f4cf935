"""PEM files: read with every fault named, written whole or not at all."""

import errno
import os
import re
import select
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from restpipe.exceptions import IdentityError
from restpipe.identity.certificates import PrivateKey
from restpipe.identity.wording import current_user

KEY_MODE = 0o600
CERTIFICATE_MODE = 0o644

# Far above any chain of certificates, and far below what a wrong path (a disk, a log) would read into memory.
_READ_LIMIT = 1 << 20

# Seconds to wait for who writes to a pipe.
_PIPE_PATIENCE = 3.0

# RFC 7468 section 2. A label names what the block holds.
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)

_CRL_LABEL = "X509 CRL"

# gRPC's TLS library signs with neither P-521, nor Ed25519, nor any other curve.
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384"}


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file as it was read, with the permissions it had.

    Attributes:
        path: where it was read.
        mode: its permission bits.
    """

    path: Path
    mode: int
    _data: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path, *, missing: str, regular: bool = False) -> "PemFile":
        """Read a file that should be PEM.

        Args:
            path: the file.
            missing: the way out where there is no such file.
            regular: whether it must be a regular file: for the other end of a pipe one could wait for ever.

        Raises:
            IdentityError: it is missing, cannot be read, or holds no PEM.
        """
        try:
            pem = cls(path, *_read(path, regular=regular))
        except FileNotFoundError as error:
            raise IdentityError(f"{path}: no such file; {missing}") from error
        except PermissionError as error:
            raise IdentityError(
                f"{path}: user {current_user()} may not read it; run as its owner, or chown it"
            ) from error
        except OSError as error:
            raise IdentityError(f"{path}: cannot be read: {error.strerror}") from error
        if not _BLOCK.search(pem._data):
            raise IdentityError(f"{path}: {_not_pem(path, pem._data)}")
        return pem

    @property
    def labels(self) -> tuple[str, ...]:
        """What the blocks of the file say they hold, such as `CERTIFICATE`."""
        return tuple(match[1].decode() for match in _BLOCK.finditer(self._data))

    @property
    def has_private_key(self) -> bool:
        """Whether the file says that it holds a private key."""
        return any(label.endswith("PRIVATE KEY") for label in self.labels)

    @property
    def has_certificate(self) -> bool:
        """Whether the file says that it holds a certificate."""
        return "CERTIFICATE" in self.labels

    @property
    def has_crl(self) -> bool:
        """Whether the file says that it holds a certificate revocation list."""
        return _CRL_LABEL in self.labels

    @property
    def exposed(self) -> bool:
        """Whether users other than the owner can get at the file."""
        return bool(self.mode & 0o077)

    def private_key(self) -> PrivateKey:
        """Return the private key in the file.

        Raises:
            IdentityError: there is none, it is encrypted, malformed, or of a kind that TLS in gRPC does not take.
        """
        blocks = [match[0] for match in _BLOCK.finditer(self._data) if match[1].endswith(b"PRIVATE KEY")]
        if not blocks:
            swapped = ": are key and certificate swapped?" if self.has_certificate else ""
            raise IdentityError(f"{self.path}: holds {self.described()}, not a private key{swapped}")
        if len(blocks) > 1:
            raise IdentityError(f"{self.path}: holds {len(blocks)} private keys; keep the one of the certificate")
        try:
            key = serialization.load_pem_private_key(blocks[0], password=None)
        except TypeError as error:  # how cryptography says that a passphrase is needed
            raise IdentityError(
                f"{self.path}: the key is encrypted, and a node has nobody to ask for the passphrase;"
                f" decrypt it with `openssl pkey -in {self.path} -out NEW`"
            ) from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise IdentityError(f"{self.path}: the private key in it is damaged or of an unknown kind") from error
        if isinstance(key, rsa.RSAPrivateKey) or (
            isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES
        ):
            return key
        raise IdentityError(
            f"{self.path}: TLS in gRPC cannot use a key that is {key_kind(key)}; make one that is EC P-256 or RSA"
        )

    def certificates(self) -> list[x509.Certificate]:
        """Return the certificates in the file, in order, at least one.

        Raises:
            IdentityError: there is none, or one is malformed.
        """
        if not self.has_certificate:
            swapped = ": are key and certificate swapped?" if self.has_private_key else ""
            raise IdentityError(f"{self.path}: holds {self.described()}, not a certificate{swapped}")
        try:
            return x509.load_pem_x509_certificates(self._data)
        except ValueError as error:
            raise IdentityError(f"{self.path}: a certificate in it is damaged; copy the file again") from error

    def crls(self) -> list[x509.CertificateRevocationList]:
        """Return the certificate revocation lists in the file, in order, at least one.

        Raises:
            IdentityError: there is none, or one is malformed.
        """
        if not self.has_crl:
            raise IdentityError(f"{self.path}: holds {self.described()}, not a CRL")
        blocks = [match[0] for match in _BLOCK.finditer(self._data) if match[1].decode() == _CRL_LABEL]
        if len(blocks) != self._data.count(f"-----BEGIN {_CRL_LABEL}-----".encode()):
            raise IdentityError(f"{self.path}: a CRL in it was cut off; copy the file again")
        try:
            return [x509.load_pem_x509_crl(block) for block in blocks]
        except ValueError as error:
            raise IdentityError(f"{self.path}: a CRL in it is damaged; copy the file again") from error

    def described(self) -> str:
        """Return what the file says that it holds, in words."""
        return " and ".join(dict.fromkeys(_article(label.lower()) for label in self.labels))


def read_regular(path: Path) -> tuple[int, bytes]:
    """Return the permission bits and the content of a file, as far as any file of an identity goes.

    Raises:
        OSError: it cannot be read, or is something else, such as a pipe, for which a node could wait for ever.
    """
    return _read(path, regular=True)


def _read(path: Path, *, regular: bool) -> tuple[int, bytes]:
    # Permissions of the very file that is read, not of one put in its place.
    with open(path, "rb", buffering=0, opener=_open_at_once) as file:
        mode = os.fstat(file.fileno()).st_mode
        if regular and not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return stat.S_IMODE(mode), _content(file)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _content(file: FileIO) -> bytes:
    """Read a file, or a pipe that somebody writes to, as a shell's `<(...)`."""
    content = b""
    arrival = select.poll()
    arrival.register(file, select.POLLIN)
    deadline = time.monotonic() + _PIPE_PATIENCE
    while len(content) < _READ_LIMIT:
        if not arrival.poll(1000 * max(0.0, deadline - time.monotonic())):
            late = f"it is no regular file, and nobody wrote all of it within {_PIPE_PATIENCE:g} s"
            raise OSError(errno.ETIMEDOUT, late)
        piece = file.read(_READ_LIMIT - len(content))
        if not piece:
            break
        content += piece
    return content


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to be written.

    Attributes:
        path: where.
        data: all of its content.
        mode: its permission bits, whatever the umask.
        owner: user and group that own it, in numbers; None for those of this process.
    """

    path: Path
    data: bytes = field(repr=False)
    mode: int
    owner: tuple[int, int] | None = None


def write_files(files: Sequence[NewFile], *, replace: bool, occupied: str = "") -> None:
    """Write files that belong together: nobody ever reads half of one, and none appears before all are on the disk.

    Args:
        files: what to write; their directories exist.
        replace: whether files that exist are replaced. Where not, either all of the files are made or none.
        occupied: the way out where a file exists that is not to be replaced.

    Raises:
        IdentityError: a file exists and is not to be replaced, or cannot be written.
    """
    made: list[Path] = []
    with ExitStack() as staging:
        for staged, file in [(staging.enter_context(_staged(file)), file) for file in files]:
            try:
                if replace:
                    staged.replace(file.path)
                else:
                    file.path.hardlink_to(staged)  # unlike a rename, this fails where there is a file already
                    made.append(file.path)
            except OSError as error:
                for path in made:
                    path.unlink()
                if isinstance(error, FileExistsError):
                    raise IdentityError(f"{file.path}: exists already, and was left as it is; {occupied}") from error
                raise _unwritable(file, error) from error


def is_missing(path: Path) -> bool:
    """Say whether there is no such file. One that cannot be looked at may be there: reading it tells what is wrong."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def key_pem(key: PrivateKey) -> bytes:
    """Return a private key as PEM: PKCS#8, unencrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificates_pem(certificates: Sequence[x509.Certificate]) -> bytes:
    """Return certificates as PEM, and nothing else."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def key_kind(key: object) -> str:
    """Return the kind of a key, public or private, such as `EC P-256` or `RSA 2048`."""
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return f"EC {_CURVES.get(key.curve.name, key.curve.name)}"
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return re.sub(r"(Private|Public)Key.*", "", type(key).__name__)


@contextmanager
def _staged(file: NewFile) -> Iterator[Path]:
    """Write a file under a name of its own beside the place it is for, private to its owner until it is complete."""
    try:
        descriptor, name = tempfile.mkstemp(dir=file.path.parent, prefix=f".{file.path.name}.")  # O_EXCL, mode 0600
    except OSError as error:
        raise _unwritable(file, error) from error
    staged = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(file.data)
            stream.flush()
            os.fchmod(descriptor, file.mode)
            if file.owner is not None:
                os.fchown(descriptor, *file.owner)
            os.fsync(descriptor)
        yield staged
    except OSError as error:
        raise _unwritable(file, error) from error
    finally:
        staged.unlink(missing_ok=True)


def _unwritable(file: NewFile, error: OSError) -> IdentityError:
    return IdentityError(f"{file.path}: cannot be written: {error.strerror}")


def _not_pem(path: Path, data: bytes) -> str:
    """Say what a file is that is not PEM."""
    if not data:
        return "is empty; copy the file again"
    if b"-----BEGIN " in data:
        return "is PEM that was cut off; copy the file again"
    with suppress(ValueError):
        x509.load_der_x509_certificate(data)
        return f"is a certificate in DER, not in PEM; convert it with `openssl x509 -inform der -in {path} -out NEW`"
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        serialization.load_der_private_key(data, password=None)
        return f"is a private key in DER, not in PEM; convert it with `openssl pkey -inform der -in {path} -out NEW`"
    with suppress(ValueError):
        x509.load_der_x509_crl(data)
        return f"is a CRL in DER, not in PEM; convert it with `openssl crl -inform der -in {path} -out NEW`"
    return "is not a PEM file (it has no line `-----BEGIN ...-----`)"


def _article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
