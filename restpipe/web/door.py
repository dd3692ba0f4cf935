"""Who may come in: names that the node answers to, no other site's pages, and the bearer token."""

import base64
import binascii
import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from restpipe.config import TcpBind, WebBind
from restpipe.exceptions import BadRequestError, ForbiddenError, MisdirectedError, UnauthorizedError

# Host values that were found good are remembered, up to this many.
_MEMORY = 256
# RFC 3986 section 3.2.2: an IPv6 address in brackets, or anything else; and a port.
_HOST = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::[0-9]*)?")


class Door:
    """Checks the headers of a request before anything is done.

    Args:
        bind: where the web server listens. Behind a unix socket stands a proxy of the operator's, which knows its
            names; None: so does the application that the node is mounted in.
        names: names of the node beside those of the local machine.
        token: what callers must show, "" for none: as a bearer token (RFC 6750), or as the password of HTTP Basic,
            which browsers ask for.
    """

    def __init__(self, bind: WebBind | None, names: Iterable[str], token: str) -> None:
        self._any_host = not isinstance(bind, TcpBind)
        own = (bind.host,) if isinstance(bind, TcpBind) else ()
        self._names = {name.lower() for name in ("localhost", socket.gethostname(), *own, *names)}
        self._good_hosts: set[bytes] = set()
        self._token = token.encode()

    @property
    def wants_token(self) -> bool:
        """Whether callers must show a token."""
        return bool(self._token)

    def check(self, headers: Iterable[tuple[bytes, bytes]], version: str = "1.1") -> None:
        """Let a request in.

        Args:
            headers: its names in lower case.
            version: of HTTP.

        Raises:
            BadRequestError: it has several Host headers, or none though HTTP/1.1 demands one (RFC 9112 section 3.2).
            MisdirectedError: Host is none of the node's names, as after DNS rebinding.
            ForbiddenError: a page of another site sent it.
            UnauthorizedError: the token is missing or wrong.
        """
        host: bytes | None = None
        origin = site = authorization = b""
        for name, value in headers:
            if name == b"host":
                if host is not None:
                    raise BadRequestError("there are several Host headers")
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"authorization":
                authorization = value
        if host not in self._good_hosts:
            self._check_host(host, version)
        if site == b"cross-site" or (origin and not self._is_own(origin, host or b"")):
            raise ForbiddenError("a page of another site may not call this node")
        if self._token and not self._shows_token(authorization):
            raise UnauthorizedError("this node wants its token (RP_WEB_TOKEN): Authorization: Bearer ...")

    def _check_host(self, host: bytes | None, version: str) -> None:
        if host is None and version == "1.1":
            raise BadRequestError("there is no Host header")
        if not host:
            return
        text = host.decode("latin-1").lower()
        name = _without_port(text)
        # A rebound name is a name: an address in Host means that the caller chose this address. But for "any address",
        # which leads here, too, and of which browsers do not say that another site's page chose it.
        if not self._any_host and name not in self._names and not _is_address(name):
            raise MisdirectedError(f"{text!a} is none of this node's names; RP_WEB_HOSTS adds to them")
        if len(self._good_hosts) < _MEMORY:
            self._good_hosts.add(host)

    def _is_own(self, origin: bytes, host: bytes) -> bool:
        try:
            netloc = urlsplit(origin.decode("latin-1")).netloc.lower()
        except ValueError:
            return False
        return bool(netloc) and netloc == host.decode("latin-1").lower()

    def _shows_token(self, authorization: bytes) -> bool:
        scheme, _, credentials = authorization.partition(b" ")
        shown = credentials.strip()
        if scheme.lower() == b"basic":
            try:
                _, _, shown = base64.b64decode(shown, validate=True).partition(b":")
            except binascii.Error:
                return False
        elif scheme.lower() != b"bearer":
            return False
        return hmac.compare_digest(shown, self._token)


def _without_port(host: str) -> str:
    match = _HOST.fullmatch(host)
    return (match[1] or match[2]) if match else host


def _is_address(name: str) -> bool:
    try:
        return not ipaddress.ip_address(name).is_unspecified
    except ValueError:
        return False
