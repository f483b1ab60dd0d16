"""A cache: bytes by name, that are never older than the last invalidation it acknowledged.

A reader who misses is given a lease, reads at the home, and may fill in what it read only while the lease stands. Every
write invalidates what it changed and so revokes the lease: whatever was read before that write is refused (Nishtala et
al., Scaling Memcache at Facebook, NSDI 2013). The floor, which is the newest version that was invalidated, refuses what
an outdated replica has read. Value and control (floor, lease, intents) may be lost apart from one another, at any time.
Losing either is safe: without a lease nothing is filled in. All steps are atomic for each name, and all times are
the cache's own.

A name is `T/E/I`: tenant, entity and id of a record, percent-encoded, or `T//N` for a name that an application chose.
An adapter whose server is shared with others keeps the value at `ps:v:{T/E/I}` and the control at `ps:c:{T/E/I}`, which
have the same hash slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from polystore.model import Value

LEASE_US = 2_000_000
"""How long a reader may take to read at the home and fill in; longer, and the next reader gets the lease."""
INTENT_US = 30_000_000
"""How long an intent stands whose writer is never heard of again: longer than any commit may take."""
CONTROL_US = 60_000_000
"""How long a control is kept after its last change."""

Leased = bytes | Literal["leased", "wait", "bypass"]
"""The answer to a reader who missed. bytes: the value, filled in meanwhile. leased: read at the home, then fill in.
wait: another reader has the lease. bypass: a strict write is under way; read at the home, leave the cache alone."""


class Fill(Value, frozen=True, gc=False):
    """What a reader with the lease `token` found at the home. `version` is that of the value, 0 where it has none."""

    name: str
    token: int
    version: int
    value: bytes
    ttl_us: int


class Invalidation(Value, frozen=True, gc=False):
    """What is under the name has changed to `version`; None: whatever is there is wrong. `value` takes the place of an
    older one that is there, None: that one goes. `writer` is the writer whose intent ends with it, 0: none."""

    name: str
    version: int | None
    value: bytes | None = None
    ttl_us: int = 0
    writer: int = 0


@runtime_checkable
class SupportsCache(Protocol):
    """Every call may be repeated. Values go when their time to live is over, when an invalidation names them, and when
    the room that the cache is given is used up."""

    async def lookup(self, names: Sequence[str]) -> list[bytes | None]:
        """The values in the order asked, None where there is none. A value that is there may be used."""
        ...

    async def lease(self, names: Sequence[str], token: int) -> list[Leased]:
        """Ask for the leases of names that `lookup` did not find. `token` is a number from 1 up that nobody else uses;
        who has the lease of that token already has it still. A name whose lease somebody else has since less than
        `LEASE_US` is "wait"."""
        ...

    async def fill(self, fills: Sequence[Fill]) -> list[bool]:
        """Fill in each value if its lease still stands, its version is not below the floor nor below that of what is
        there, and no strict write is under way; the lease ends either way. True where it was filled in. A value that
        is larger than the cache's room is refused."""
        ...

    async def invalidate(self, invalidations: Sequence[Invalidation]) -> None:
        """When it returns, no older value is found under the names, and what was read before is not filled in any more:
        leases are revoked, floors raised to `version`."""
        ...

    async def intend(self, names: Sequence[str], writer: int) -> None:
        """Said by a strict write before its commit: removes the values, revokes the leases, and lets nobody fill in
        until this `writer` (a number from 1 up) invalidates, or `INTENT_US` are over."""
        ...

    async def forget(self, etype: str) -> None:
        """Remove values and controls of an entity: nobody has invalidated them for a while."""
        ...


@runtime_checkable
class SupportsInlineCache(Protocol):
    """A cache inside this process: what it holds is had and removed without leaving the caller's thread."""

    def lookup_now(self, name: str) -> bytes | None:
        """Like `lookup` of one name."""
        ...

    def invalidate_now(self, invalidations: Sequence[Invalidation]) -> None:
        """Like `invalidate`."""
        ...
