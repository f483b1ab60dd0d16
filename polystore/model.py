"""Frozen values that travel between the facade, the consistency manager and the adapters.

A *body* is the plain form of a record: a mapping of field name to `str`, `int`, `float`, `bool`, `bytes`, aware UTC
`datetime`, `date`, `Decimal`, `UUID`, `None`, or JSON-like lists and dicts for nested fields. `EntityType` makes and
reads bodies; adapters store and return them unchanged.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from polystore.errors import AlreadyExists, NotFound, PolystoreError, VersionConflict

T = TypeVar("T")
R = TypeVar("R")

Body = Mapping[str, Any]
Vectors = Mapping[str, bytes]
"""Field name -> packed little-endian float32 components."""

VALUE_BYTES_MAX = 16 << 20
"""A single text or bytes value. The smallest common limit of the stores with a margin (MongoDB: 16 MiB a document)."""
KEY_BYTES_MAX = 512
"""UTF-8 bytes of an id: Elasticsearch's limit for `_id`, the smallest of all stores."""
TENANT_BYTES_MAX = 128
HASH_SPACE = 1 << 32
FIRST_VERSION = 1 << 42
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
    """A record as its store holds it. A tombstone has `body` None: the record was deleted at `version`."""

    key: Key
    version: int
    body: Body | None
    hash: bytes = b""
    updated_us: int = 0

    @property
    def deleted(self) -> bool:
        return self.body is None


class Change(Value, frozen=True, gc=False):
    """Record `key` is at `version`: the state to bring a copy to. `body` None means deleted."""

    key: Key
    version: int
    h: int
    body: Body | None
    hash: bytes
    updated_us: int
    vectors: Vectors = {}

    @property
    def deleted(self) -> bool:
        return self.body is None


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
    """What one repository takes in one call, and what its acknowledgement is worth."""

    batch_max: int = 500
    value_bytes_max: int = VALUE_BYTES_MAX
    ack_durable: bool = True


# -- writes at a home ---------------------------------------------------------------------------------------------


class Write(Value, frozen=True, gc=False):
    """One write of a commit.

    create: body is whole; a live record under the key is AlreadyExists.
    put:    body is whole; inserts or replaces. With `expect_version` it only replaces.
    update: body holds the changed fields only; NotFound when there is no live record.
    delete: body is None; an absent key is a no-op.
    skip:   like put, but when the stored hash equals `hash` nothing is written and the stored version is the answer.
    insert: like create, but a live record under the key is left alone and its version is the answer.

    `vectors` are for the home's own vector facet; those named in `keep` were given by the caller and are stored as
    `StoredVector` (embedder "caller") in the same commit. A create, put, skip or insert that changes the record
    without `keep` removes its stored vectors of "caller"; an update removes those of the fields it changes; a delete
    removes all stored vectors of the record.
    """

    kind: Literal["create", "put", "update", "delete", "skip", "insert"]
    key: Key
    h: int
    body: Body | None
    hash: bytes = b""
    expect_version: int | None = None
    vectors: Vectors = {}
    keep: frozenset[str] = frozenset()

    def judge(self, standing: int | None) -> None:
        """Whether a home may carry the write out upon a live record of this version; None: there is none. Raises
        NotFound, VersionConflict or AlreadyExists."""
        expected = self.expect_version
        if standing is None:
            if self.kind == "update" or expected is not None:
                raise NotFound(f"{self.key.etype} {self.key.id!r} does not exist")
        elif expected is not None and expected != standing:
            raise VersionConflict(
                f"{self.key.etype} {self.key.id!r} is at version {standing}, not at {expected}; read it again",
                actual=standing,
            )
        elif self.kind == "create":
            raise AlreadyExists(f"{self.key.etype} {self.key.id!r} exists already")


class OpId(Value, frozen=True, gc=False):
    """A caller's idempotency key: the same id with another request hash is InvalidData."""

    tenant: str
    id: str
    request_hash: bytes


class Commit(Value, frozen=True, gc=False):
    """Writes that become durable together or not at all, each with its duty to deliver.

    `owner` is the worker that will deliver them at once; None leaves them to any worker. `marks` are named positions
    (of an import) that become durable in the same commit.
    """

    writes: Sequence[Write]
    owner: str | None = None
    op: OpId | None = None
    marks: Mapping[str, str] = {}


class Written(Value, frozen=True, gc=False):
    """What became of one write of a commit.

    `changed` False: nothing was written (delete of an absent key, unchanged content, insert of an existing key), and
    `version` is the standing one or 0. `targets` is the mask of the copies that are owed this version; `body`, `hash`
    and `updated_us` are what the home now holds.
    """

    version: int
    existed: bool
    changed: bool = True
    targets: int = 0
    body: Body | None = None
    hash: bytes = b""
    updated_us: int = 0


class Committed(Value, frozen=True, gc=False):
    """One `Written` per write, in order. `repeated`: an earlier call with the same op_id had done it; then `written`
    has the version and `existed` of that call, `changed` is False and there are no bodies."""

    written: Sequence[Written]
    repeated: bool = False


# -- the journal: outbox, retry, dead letters ---------------------------------------------------------------------


class OutboxRow(Value, frozen=True, gc=False):
    """Record `key` is at `version` (or newer) and the copies in `targets` are owed it."""

    version: int
    key: Key
    h: int
    targets: int
    claims: int = 0


class RetryRow(Value, frozen=True, gc=False):
    """A copy that is owed a record after a failure. state: r retry, p parked (dead letter), b backfill."""

    target: str
    key: Key
    h: int
    version: int
    min_version: int
    state: Literal["r", "p", "b"]
    attempts: int = 0
    hard_fails: int = 0
    first_us: int = 0
    next_us: int = 0
    error_class: str = ""
    error: str = ""


class Done(Value, frozen=True, gc=False):
    """Copy `target` holds `key` at `version` or newer."""

    target: str
    key: Key
    version: int


class Settlement(Value, frozen=True, gc=False):
    """The result of a delivery, made durable in one transaction at the home.

    `delivered` are the CLAIMED outbox versions, never the loaded ones. `owed` rows are merged by (target, key):
    version, attempts and hard_fails by maximum, min_version by minimum, first_us stays (0: none yet); state, next_us
    and error are those of the newer version, at equal versions `owed`'s, but a parked row stays parked unless `owed`
    is newer. `done` removes retry rows, parked ones too, whose version is not newer than the applied one.
    """

    delivered: Sequence[int] = ()
    owed: Sequence[RetryRow] = ()
    done: Sequence[Done] = ()


class TargetRow(Value, frozen=True, gc=False):
    """A copy of one entity type. `bit` is its place in the outbox mask, unique within the type; `data_id` is that of
    the store (`Instance.data_id`) when it was registered."""

    etype: str
    name: str
    bit: int
    status: Literal["active", "backfilling", "off"]
    cursor: str | None = None
    data_id: str = ""


class Backlog(Value, frozen=True, gc=False):
    """What one journal still owes."""

    outbox: int
    oldest_us: int | None
    retry: Mapping[str, int]
    parked: Mapping[str, int]


class StoredVector(Value, frozen=True, gc=False):
    """An embedder's result, kept beside the home so that unchanged text is never embedded again."""

    key: Key
    field: str
    embedder: str
    text_hash: bytes
    vector: bytes


class Considered(Value, frozen=True, gc=False):
    """A store that the selector looked at for a role, and why it was or was not chosen."""

    role: str
    store: str
    chosen: bool
    reason: str


class Placement(Value, frozen=True, gc=False):
    """Where one entity type lives. `facets` maps full_text, vector and graph to the store that serves it, which may be
    the home itself: then it is written in the home's own commit and needs no delivery."""

    etype: str
    home: str
    facets: Mapping[str, str]
    rule: str = ""
    why: Sequence[str] = ()
    considered: Sequence[Considered] = ()
    cost: str = ""

    def copies(self) -> dict[str, frozenset[str]]:
        """Store name -> facets, for the stores other than the home."""
        out: dict[str, set[str]] = {}
        for facet, store in self.facets.items():
            if store != self.home:
                out.setdefault(store, set()).add(facet)
        return {store: frozenset(facets) for store, facets in out.items()}


# -- query results of adapters ------------------------------------------------------------------------------------


class Match(Value, frozen=True, gc=False):
    """A hit of a copy before hydration: larger scores are better; `version` is what the copy holds."""

    id: str
    score: float
    version: int
    body: Body | None = None


class Reached(Value, frozen=True, gc=False):
    """A node reached by a traversal: its shortest `depth`, one such `path` of (from id, relation, to id), and the
    properties of the path's last edge."""

    etype: str
    id: str
    depth: int
    path: Sequence[tuple[str, str, str]]
    properties: Mapping[str, Any]


Direction = Literal["out", "in", "both"]
"""Which edges are followed: those that the record has, those that lead to it, or both."""
