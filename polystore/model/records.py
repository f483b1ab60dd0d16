"""Records and their identity; what copies are told and what they answer."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from polystore.errors import PolystoreError

Body = Mapping[str, Any]
Vectors = Mapping[str, bytes]
"""Field name -> packed little-endian float32 components."""

VALUE_BYTES_MAX = 16 << 20
"""A single text or bytes value. The smallest common limit of the stores with a margin (MongoDB: 16 MiB a document)."""
KEY_BYTES_MAX = 512
"""UTF-8 bytes of an id: Elasticsearch's limit for `_id`, the smallest of all stores."""
TENANT_BYTES_MAX = 128
HASH_SPACE = 1 << 32
EPOCH_BITS = 42
"""Bits of a version below the number of its epoch. They last seven years at 10,000 updates a second."""
FIRST_VERSION = 1 << EPOCH_BITS
"""Epoch 1: a home that was restored to an older state continues in a later epoch, above all versions ever used."""


class Value(msgspec.Struct, frozen=True, gc=False):
    """Base of the small frozen values below."""


class Key(Value, frozen=True, gc=False):
    """Identity of a record. `id` is the text form of the application's key."""

    tenant: str
    etype: str
    id: str


def key_hash(tenant: str, etype: str, id: str) -> int:
    """Stable unsigned 32-bit hash (CRC-32) of a key: its lane, its verify bucket, its lock bucket.

    Computed here and stored beside the record, never computed by a server.
    """
    return zlib.crc32(f"{tenant}\0{etype}\0{id}".encode())


class HashSpan(Value, frozen=True, gc=False):
    """Half-open range of key hashes."""

    low: int = 0
    high: int = HASH_SPACE


EVERYTHING = HashSpan()


class Record(Value, frozen=True, gc=False):
    """A record as its store holds it. A tombstone has `body` None: the record was deleted at `version`.

    `expires_us`: from this time on it counts as absent, by the clock of its home; 0: never.
    """

    key: Key
    version: int
    body: Body | None
    hash: bytes = b""
    updated_us: int = 0
    expires_us: int = 0

    @property
    def deleted(self) -> bool:
        return self.body is None


class Change(Value, frozen=True, gc=False):
    """Record `key` is at `version`: the state to bring a copy to. `body` None means deleted. `overwrites`: what stands
    there at this very version is known to be wrong, and is replaced too."""

    key: Key
    version: int
    h: int
    body: Body | None
    hash: bytes
    updated_us: int
    vectors: Vectors = {}
    expires_us: int = 0
    overwrites: bool = False

    @property
    def deleted(self) -> bool:
        return self.body is None

    def replaces(self, version: int) -> bool:
        """The guard: whether it takes the place of what stands at `version`."""
        return self.version > version or (self.overwrites and self.version == version)


class Outcome(Value, frozen=True, gc=False):
    """What a copy did with one change. `stale` means that it already holds this version or a newer one: a success."""

    status: Literal["applied", "stale", "rejected"]
    error: PolystoreError | None = None


APPLIED = Outcome("applied")
STALE = Outcome("stale")


class Stamp(Value, frozen=True, gc=False):
    """What `verify` compares: a record's version and the hash of its content, recomputed from what is stored.

    `vectors` maps field to the digest of the stored vector (`vector_digest`). `fault` names what is wrong inside the
    store itself (a search index entry that does not belong to the stored text, say), else it is empty.
    """

    id: str
    h: int
    version: int
    hash: bytes
    deleted: bool = False
    vectors: Mapping[str, int] = {}
    fault: str = ""


UNREADABLE = "what is stored cannot be read"
"""The fault of a record that is there, and not as it was written."""
CALLER = "caller"
"""The embedder name of stored vectors that the application gave with a write."""


def text_hash(text: str) -> bytes:
    """16 bytes of BLAKE2b: which text a stored vector was made of."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def vector_digest(packed: bytes) -> int:
    """CRC-32 of a packed vector."""
    return zlib.crc32(packed)


class Page(Value, frozen=True, gc=False):
    """Stamps sorted by (h, id), and where to go on; `cursor` None: this was the last page."""

    stamps: Sequence[Stamp]
    cursor: str | None


class Instance(Value, frozen=True, gc=False):
    """Which server answered. `run_id` changes when it restarted; `data_id` when its data began anew (an emptied server,
    a deleted file): what it acknowledged before is gone."""

    server: str
    version: str
    run_id: str
    data_id: str = ""


class Limits(Value, frozen=True, gc=False):
    """What one repository takes in one call, and what its acknowledgement is worth: `ack_durable`, that it is kept
    whatever ends; `shared`, that other processes may reach the same data. `part_bytes`: of each part of an object but
    the last. `guarded`: `apply` compares and writes in one step, whoever else writes; else the consistency manager lets
    one process write at a time. `serial`: it carries out one `apply` at a time, so those that wait travel together.
    `import_max`: writes that it takes in one commit of an import, where that is more than `batch_max`."""

    batch_max: int = 500
    import_max: int = 0
    value_bytes_max: int = VALUE_BYTES_MAX
    ack_durable: bool = True
    shared: bool = True
    part_bytes: int = 1 << 20
    guarded: bool = True
    serial: bool = False
