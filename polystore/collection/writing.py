"""From writes to results: idempotency keys, batches, and changing a record by a function."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, Literal, TypeVar
from uuid import UUID

import msgspec

from polystore.collection.scope import KeyValue, Scope, check_version
from polystore.entity import EntityType
from polystore.errors import InvalidData, NotFound, ValueTooLarge, VersionConflict
from polystore.model import Body, Key, OpId, Write
from polystore.results import Ack, WriteResult

T = TypeVar("T")

MODIFY_TRIES = 5


def op_of(
    tenant: str, op_id: UUID | None, types: Mapping[str, EntityType[Any]], writes: Sequence[Write]
) -> OpId | None:
    """The idempotency key of these writes. What they would do is hashed with it, so that the same id with another
    content is noticed: InvalidData."""
    if op_id is None:
        return None
    content = [
        (
            write.kind,
            write.key.etype,
            write.key.id,
            b"" if write.body is None else types[write.key.etype].content_hash(write.body),
            write.expect_version,
            write.ttl_us,
            [(field, write.vectors[field]) for field in sorted(write.keep)],
        )
        for write in writes
    ]
    return _op(tenant, op_id, content)


def _op(tenant: str, op_id: UUID, content: object) -> OpId:
    if not isinstance(op_id, UUID):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidData(f"op_id must be a UUID, for example uuid.uuid4(), not {type(op_id).__name__}")
    digest = hashlib.blake2b(msgspec.msgpack.encode(content), digest_size=16).digest()
    return OpId(tenant, str(op_id), digest)


async def send_one(scope: Scope[T], write: Write, op_id: UUID | None, ack: Ack, ack_timeout_s: float) -> WriteResult:
    op = op_of(scope.tenant, op_id, scope.wiring.types, (write,))
    results = await scope.manager.write(scope.etype, (write,), op=op, ack=ack, ack_timeout_s=ack_timeout_s)
    return results[0]


async def put_many(
    scope: Scope[T], values: Sequence[T], skip_unchanged: bool, op_id: UUID | None, ack: Ack, ack_timeout_s: float
) -> Sequence[WriteResult]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sized):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidData(
            f"put_many takes a list of values, not {type(values).__name__}; import_many takes anything that yields them"
        )
    if not values:
        return []
    check_size(scope, len(values), "put_many", "import_many takes any amount")
    kind: Literal["skip", "put"] = "skip" if skip_unchanged else "put"
    writes = [scope.whole(kind, value) for value in values]
    seen: set[Key] = set()
    for write in writes:
        check_new(write.key, seen)
    op = op_of(scope.tenant, op_id, scope.wiring.types, writes)
    return await scope.manager.write(scope.etype, writes, op=op, ack=ack, ack_timeout_s=ack_timeout_s)


def check_size(scope: Scope[Any], count: int, what: str, mend: str) -> None:
    most = scope.home.limits.batch_max
    if count > most:
        raise ValueTooLarge(
            f"{what}: {count} writes are more than {scope.home.name} takes in one commit ({most}); {mend}"
        )


def check_new(key: Key, seen: set[Key]) -> None:
    """One commit writes a record once: which of two values should stand would be a guess."""
    if key in seen:
        raise InvalidData(f"{key.etype} {key.id!r} is written twice in one commit; keep the write that should stand")
    seen.add(key)


async def update(
    scope: Scope[T],
    key: KeyValue,
    change: Mapping[str, object] | Callable[[T], T],
    expect_version: int | None,
    op_id: UUID | None,
    ack: Ack,
    ack_timeout_s: float,
) -> WriteResult:
    if callable(change):
        check_version(expect_version)
        return await _modify(scope, scope.key(key), change, expect_version, op_id, ack, ack_timeout_s)
    write = scope.patch(scope.key(key), change, expect_version=expect_version)
    return await send_one(scope, write, op_id, ack, ack_timeout_s)


async def _modify(
    scope: Scope[T],
    key: Key,
    change: Callable[[T], T],
    expect_version: int | None,
    op_id: UUID | None,
    ack: Ack,
    ack_timeout_s: float,
) -> WriteResult:
    """Read at the home, change, write if nobody else did meanwhile; see `Collection.update`."""
    # A repeated call reads another state than the first: only what the caller asked for can be compared.
    op = None if op_id is None else _op(scope.tenant, op_id, ("modify", key.etype, key.id, expect_version))
    tries = MODIFY_TRIES if expect_version is None else 1
    while True:
        write = await _modified(scope, key, change, expect_version, op)
        tries -= 1
        try:
            results = await scope.manager.write(scope.etype, (write,), op=op, ack=ack, ack_timeout_s=ack_timeout_s)
            return results[0]
        except VersionConflict:
            if not tries:
                raise


async def _modified(
    scope: Scope[T], key: Key, change: Callable[[T], T], expect_version: int | None, op: OpId | None
) -> Write:
    (record,) = await scope.home.get((key,))
    if record is None or record.body is None:
        if op is None:
            raise NotFound(f"{key.etype} {key.id!r} does not exist")
        # The home may know this op_id from before the record was deleted; else it says NotFound, and if the record has
        # come back meanwhile VersionConflict: no record is at version 0.
        return scope.removal(key, expect_version=0)
    entity = scope.entity
    value = change(entity.decode(record.body))
    if not isinstance(value, entity.cls):
        raise InvalidData(
            f"update of {entity.name}: the function returned {type(value).__name__}; it must return the changed "
            f"{entity.cls.__name__}"
        )
    # How long it lives is not the function's to say.
    whole = msgspec.structs.replace(scope.whole("skip", value), ttl_us=None)
    if whole.key != key:
        raise InvalidData(f"{entity.cls.__name__}.{entity.key}: the key of a record cannot change; put a new record")
    expected = record.version if expect_version is None else expect_version
    if whole.body == record.body:  # nothing to write, but the version is still to be checked
        return msgspec.structs.replace(whole, expect_version=expected)
    return _difference(entity, whole, record.body, expected)


def _difference(entity: EntityType[Any], whole: Write, before: Body, expected: int) -> Write:
    """Only what changed: the vectors that the caller gave for the other fields stay. Compared is the content, since
    Python takes 1, 1.0 and True for equal, and 1.0 and 1.00."""
    body = whole.body or {}

    def same(name: str) -> bool:
        return name in before and entity.content_hash({name: before[name]}) == entity.content_hash({name: body[name]})

    changed = {name: value for name, value in body.items() if not same(name)}
    vectors = {field: vector for field, vector in whole.vectors.items() if field in changed}
    return Write("update", whole.key, whole.h, changed, b"", expected, vectors)
