"""Rows of the journal: what is owed to which copy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from polystore.model.records import Key, Value

JOURNAL_BODY = "journal_body"
JOURNAL_DIGEST = "journal_digest"
JOURNAL_HELD = "journal_held_us"
"""Fields of what a journal keeps of a record whose home cannot commit: its packed body (None: only the home has it),
the hash of its content, and since when a home that is not durable is known to hold it, in us (None: not yet)."""


class OutboxRow(Value, frozen=True, gc=False):
    """Record `key` is at `version` (or newer) and the copies in `targets` are owed it."""

    version: int
    key: Key
    h: int
    targets: int
    claims: int = 0


RetryState = Literal["r", "p", "b", "o"]


class RetryRow(Value, frozen=True, gc=False):
    """A copy that is owed a record after a failure. state: r retry, p parked (dead letter), b backfill, o overwrite:
    what the copy has at this version is known to be wrong."""

    target: str
    key: Key
    h: int
    version: int
    min_version: int
    state: RetryState
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


class Held(Value, frozen=True, gc=False):
    """The home of a record, whose journal this is, holds `key` at exactly `version`: `durable`, or only in its memory
    as far as is known (`Limits.ack_durable`)."""

    key: Key
    version: int
    durable: bool = True


class Settlement(Value, frozen=True, gc=False):
    """The result of a delivery, made durable in one transaction at the home.

    `delivered` are the CLAIMED outbox versions, never the loaded ones. `owed` rows are merged by (target, key):
    version, attempts and hard_fails by maximum, min_version by minimum, first_us stays (0: none yet); state, next_us
    and error are those of the newer version, at equal versions `owed`'s, but a parked row stays parked unless `owed`
    is newer. `done` removes retry rows, parked ones too, whose version is not newer than the applied one. `held` is
    given only to a journal that has `SupportsKeptBodies`.
    """

    delivered: Sequence[int] = ()
    owed: Sequence[RetryRow] = ()
    done: Sequence[Done] = ()
    held: Sequence[Held] = ()


class TargetRow(Value, frozen=True, gc=False):
    """A copy of one entity type. `bit` is its place in the outbox mask, unique within the type; `data_id` is that of
    the store (`Instance.data_id`) when it was registered."""

    etype: str
    name: str
    bit: int
    status: Literal["active", "backfilling", "off"]
    cursor: str | None = None
    data_id: str = ""

    def stands(self, rows: Sequence[TargetRow]) -> bool:
        """Whether a journal with these rows has it so; one that is off, also where there never was such a copy."""
        return self in rows or (
            self.status == "off" and all((r.etype, r.name) != (self.etype, self.name) for r in rows)
        )


class Backlog(Value, frozen=True, gc=False):
    """What one journal still owes. retry, parked: copy -> how many rows. owed, oldest: (entity, copy) -> how many
    rows that are not parked, and the smallest `min_version` of them. unsent: entity -> the smallest version in the
    outbox."""

    outbox: int
    oldest_us: int | None
    retry: Mapping[str, int]
    parked: Mapping[str, int]
    owed: Mapping[tuple[str, str], int] = {}
    oldest: Mapping[tuple[str, str], int] = {}
    unsent: Mapping[str, int] = {}

    @classmethod
    def counted(cls, outbox: Iterable[Sequence[Any]], retry: Iterable[Sequence[Any]], noted: int = 0) -> Backlog:
        """From the outbox, by entity: (entity, rows, smallest time of creation, smallest version); and from the retry
        rows, by copy, entity and whether they are parked: (copy, entity, parked, rows, smallest `min_version`).
        `noted`: what triggers noted is owed, too."""
        unsent: dict[str, int] = {}
        created: list[int] = []
        for etype, rows, created_us, version in outbox:
            noted += rows
            created.append(created_us)
            unsent[etype] = version
        counts: tuple[dict[str, int], dict[str, int]] = ({}, {})
        owed: dict[tuple[str, str], int] = {}
        oldest: dict[tuple[str, str], int] = {}
        for name, etype, parked, rows, version in retry:
            counts[bool(parked)][name] = counts[bool(parked)].get(name, 0) + rows
            if not parked:
                owed[etype, name], oldest[etype, name] = rows, version
        return cls(noted, min(created, default=None), *counts, owed, oldest, unsent)


class StoredVector(Value, frozen=True, gc=False):
    """An embedder's result, kept beside the home so that unchanged text is never embedded again."""

    key: Key
    field: str
    embedder: str
    text_hash: bytes
    vector: bytes
