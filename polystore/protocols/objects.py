"""Blobs: content of any size under keys that are written once, and which record names which content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from polystore.model import ObjectPage, StoredObject, Upload


@runtime_checkable
class SupportsObjects(Protocol):
    """Content by key. A stream is a row of calls, one for each part: each has the deadline of any other operation, may
    be tried again by itself, and needs memory for one part, however long the stream is.

    All parts but the last have `Limits.part_bytes` bytes. Keys are checked by `check_object_key` (InvalidData). No
    content is seen before `finish_object`, and none is ever replaced. Every method may be repeated.
    """

    async def put_part(self, upload: Upload, index: int, data: bytes) -> None:
        """Keep part `index` (from 0) of the upload; in any order, a repeat replaces it. Nobody sees it. Not durable
        before `finish_object`. Raises StoreFull, Unavailable."""
        ...

    async def finish_object(self, upload: Upload, made: StoredObject) -> None:
        """Make the upload the content of its key, at once and durably; `made.created_us` is the store's to set. Content
        of no bytes has no parts. When the same content (size, sha256, type) is there already it counts as done by an
        earlier try; raises AlreadyExists when other content is, NotFound when parts are missing (discarded), and
        then nothing changed."""
        ...

    async def abandon_object(self, upload: Upload) -> None:
        """Forget the parts; no-op when there are none, or when they have become content."""
        ...

    async def read_object(self, key: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (exclusive) of the content, fewer only where it ends before; at most
        `Limits.part_bytes` are asked for. Raises NotFound when there is no content, StoreCorrupt when it is damaged."""
        ...

    async def stat_objects(self, keys: Sequence[str]) -> list[StoredObject | None]:
        """What is known of each key's content, in the order asked; None where there is none."""
        ...

    async def list_objects(self, prefix: str, after: str, limit: int) -> ObjectPage:
        """At most `limit` objects whose key begins with `prefix` and sorts behind `after`, sorted by key (by bytes).
        Fewer than `limit`: there are no more."""
        ...

    async def remove_objects(self, keys: Sequence[str]) -> None:
        """Take the content away: no call finds it any more. What takes long to free is left to `discard_parts`."""
        ...

    async def discard_parts(self, idle_us: int) -> bool:
        """Free the parts of uploads that were not touched for `idle_us` by the store's clock, and what removed content
        left. Bounded work: True when there may be more, then call again."""
        ...

    async def object_url(self, key: str, expires_s: int) -> str:
        """An address under which others can read the content, for at least this long where it ends. Raises NotFound;
        UnsupportedOperation where there are no such addresses."""
        ...


@runtime_checkable
class SupportsFileClaims(Protocol):
    """A home that knows, as part of each commit, which of its records names which file: at most one, else the commit
    is IntegrityViolation. A key that was condemned cannot be named (InvalidData)."""

    async def condemn(self, keys: Sequence[str], released_us: int, only_ask: bool) -> list[bool]:
        """For each key whether its content may go: no record names it, and none did in the last `released_us` by the
        home's clock. It is then condemned: for at least 24 h no commit can name it. `only_ask` changes nothing."""
        ...
