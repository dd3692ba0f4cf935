"""The OpenAPI documents of peers: what equal manifests have in common is made once, beside the event loop."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

from restpipe.pipe import Pipe
from restpipe.web.openapi import MOST_EVENTS, TAG, describe
from restpipe_pb.v1.pipe_pb2 import Event

# Characters that are shown of what a peer says of itself.
MOST_TEXT = 200
# Bytes of what is remembered of manifests.
_MEMORY = 16 * 1024 * 1024

NO_PATHS: Mapping[str, Any] = MappingProxyType({})
_DESCRIPTION = """
The path is `{prefix}` and a noun. Arguments follow as a query, or by position after `//`: `cat?x=a&y=b` is `cat//a/b`.
Every answer carries `X-Event-Return-Code`: 0 is success. A failure is `application/problem+json`; `executed` says
whether anything was done, and `retryable` whether to try again.
"""


@dataclass(frozen=True, slots=True)
class Document:
    """A document, to be sent.

    Attributes:
        body: JSON.
        etag: strong, with its quotes.
    """

    body: bytes
    etag: str


class Documents:
    """Makes the documents of peers.

    Args:
        token: whether the node wants a token.
    """

    def __init__(self, *, token: bool) -> None:
        self._token = token
        self._parts: OrderedDict[bytes, asyncio.Future[bytes]] = OrderedDict()

    async def of(self, pipe: Pipe, title: str, prefix: str, paths: Mapping[str, Any] = NO_PATHS) -> Document:
        """Return the document of the peer at the other end of a pipe.

        Args:
            pipe: to the peer.
            title: of the document.
            prefix: of the routes of its events, such as "/server".
            paths: items beside those of its events.
        """
        hello = pipe.ready.result()
        description = _DESCRIPTION.format(prefix=f"{prefix}/")
        if len(hello.manifest) > MOST_EVENTS:
            description += f"\nOf its {len(hello.manifest)} events, the first {MOST_EVENTS} are shown."
        head = {
            "title": title,
            "version": hello.software[:MOST_TEXT] or "unknown",
            "description": description.strip(),
        }
        return document_of(self.head(head, prefix), await self._part(hello.manifest, paths))

    def head(self, info: dict[str, str], prefix: str) -> dict[str, Any]:
        """Return what a document begins with."""
        head: dict[str, Any] = {"openapi": "3.1.0", "info": info, "servers": [{"url": prefix or "/"}]}
        if self._token:
            head["security"] = [{"token": []}]
        return head | {"tags": [{"name": TAG}]}

    async def _part(self, manifest: Sequence[Event], paths: Mapping[str, Any]) -> bytes:
        """Return what follows the head. It may take long to make: a manifest fills a frame."""
        key = _digest(*(event.SerializeToString() for event in manifest), json.dumps(dict(paths)).encode())
        making = self._parts.get(key)
        if making is None:
            making = self._parts[key] = asyncio.ensure_future(
                asyncio.to_thread(_make, list(manifest), paths, self._token)
            )
            making.add_done_callback(lambda _: self._forget())
        self._parts.move_to_end(key)
        return await asyncio.shield(making)

    def _forget(self) -> None:
        """Forget what was asked for longest ago, until the rest fits."""
        made = {key: making for key, making in self._parts.items() if making.done()}
        total = 0
        for key, making in reversed(made.items()):
            failed = making.cancelled() or making.exception() is not None
            total += 0 if failed else len(making.result())
            if failed or total > _MEMORY:
                del self._parts[key]


def document_of(head: dict[str, Any], rest: bytes) -> Document:
    """Join what a document begins with and the rest of it, both of them JSON objects that have members."""
    body = json.dumps(head).encode()[:-1] + b"," + rest[1:]
    return Document(body, f'"{_digest(body).hex()}"')


def _make(manifest: Sequence[Event], further: Mapping[str, Any], token: bool) -> bytes:
    described = describe(manifest, token=token)
    # Path by path: the encoder lets no other thread run meanwhile, that of the event loop included.
    paths = (f"{json.dumps(path)}: {json.dumps(item)}" for path, item in (described["paths"] | further).items())
    return f'{{"paths": {{{", ".join(paths)}}}, "components": {json.dumps(described["components"])}}}'.encode()


def _digest(*parts: bytes) -> bytes:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()
