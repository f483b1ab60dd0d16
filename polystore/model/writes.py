"""What a home is asked to commit, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from polystore.errors import AlreadyExists, NotFound, VersionConflict
from polystore.model.facts import Spill
from polystore.model.records import Body, Key, Value


class Write(Value, frozen=True, gc=False):
    """One write of a commit.

    create: body is whole; a live record under the key is AlreadyExists.
    put:    body is whole; inserts or replaces. With `expect_version` it only replaces.
    update: body holds the changed fields only; NotFound when there is no live record.
    delete: body is None; an absent key is a no-op.
    skip:   like put, but when the stored hash equals `hash` nothing is written and the stored version is the answer.
    insert: like create, but a live record under the key is left alone and its version is the answer.
    expire: body is None; delete the record if its time is over, else nothing happens.

    A record whose time is over (`Record.expires_us`) is absent for all of them.

    `vectors` are for the home's own vector facet; those named in `keep` were given by the caller and are stored as
    `StoredVector` (embedder "caller") in the same commit. A create, put, skip or insert that changes the record
    without `keep` removes its stored vectors of "caller"; an update removes those of the fields it changes; a delete
    removes all stored vectors of the record.

    `ttl_us`: how long the record lives from now on, by the home's clock. None: for ever, where the body is whole; as
    long as it did before, in an update, whose body may be empty to change nothing but this.
    """

    kind: Literal["create", "put", "update", "delete", "skip", "insert", "expire"]
    key: Key
    h: int
    body: Body | None
    hash: bytes = b""
    expect_version: int | None = None
    vectors: Mapping[str, bytes] = {}
    keep: frozenset[str] = frozenset()
    ttl_us: int | None = None

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

    def leaves(self, hash: bytes) -> bool:
        """Whether a live record with this content hash is left as it is. A new time to live is a change."""
        return self.kind == "insert" or (self.kind == "skip" and self.hash == hash and self.ttl_us is None)


class OpId(Value, frozen=True, gc=False):
    """A caller's idempotency key: the same id with another request hash is InvalidData."""

    tenant: str
    id: str
    request_hash: bytes


class Commit(Value, frozen=True, gc=False):
    """Writes that become durable together or not at all, each with its duty to deliver.

    `owner` is the worker that will deliver them at once; None leaves them to any worker. `marks` are named positions
    (of an import) that become durable in the same commit, and so do `spills` (`SupportsSpill`), as far as they are
    `owed`, given only to a home that has this.
    """

    writes: Sequence[Write]
    owner: str | None = None
    op: OpId | None = None
    marks: Mapping[str, str] = {}
    spills: Sequence[Spill] = ()

    def owed(self, written: Sequence[Written]) -> list[Spill]:
        """The spills that are due after this: points of a record that was to expire and had not are not erased, since
        somebody has written it again meanwhile."""
        if not self.spills:
            return []
        lives = {
            (one.key.etype, one.key.tenant, one.key.id)
            for one, result in zip(self.writes, written, strict=True)
            if one.kind == "expire" and not result.changed
        }
        return [one for one in self.spills if one.kind != "erase" or (one.etype, one.tenant, one.id) not in lives]


class Written(Value, frozen=True, gc=False):
    """What became of one write of a commit.

    `changed` False: nothing was written (delete of an absent key, unchanged content, insert of an existing key), and
    `version` is the standing one or 0. `targets` is the mask of the copies that are owed this version; `body`, `hash`,
    `updated_us` and `expires_us` are what the home now holds.
    """

    version: int
    existed: bool
    changed: bool = True
    targets: int = 0
    body: Body | None = None
    hash: bytes = b""
    updated_us: int = 0
    expires_us: int = 0


class Committed(Value, frozen=True, gc=False):
    """One `Written` per write, in order. `repeated`: an earlier call with the same op_id had done it; then `written`
    has the version and `existed` of that call, `changed` is False and there are no bodies."""

    written: Sequence[Written]
    repeated: bool = False
