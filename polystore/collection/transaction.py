"""Several records of one home, written together or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from uuid import UUID

from polystore.collection.scope import KeyValue, Scope, Wiring
from polystore.collection.writing import check_new, check_size, op_of
from polystore.errors import UnsupportedOperation
from polystore.model import Key, Write
from polystore.results import Ack, WriteResult


class Transaction:
    """A set of writes, collected inside the block and sent as one commit at its end; nothing is sent when the block
    raises. Nothing is read or locked before that: use `expect_version` where it matters.

    The methods raise at once what can be known before any I/O: InvalidData, ConfigurationError, and
    UnsupportedOperation for a type that lives in another home than the ones before.
    """

    def __init__(self, wiring: Wiring, tenant: str, op_id: UUID | None, ack: Ack, ack_timeout_s: float) -> None:
        self._wiring = wiring
        self._tenant = tenant
        self._op_id = op_id
        self._ack: Ack = ack
        self._ack_timeout_s = ack_timeout_s
        self._writes: list[Write] = []
        self._keys: set[Key] = set()
        self._home: Scope[Any] | None = None
        self._ended = False
        self._result: Sequence[WriteResult] | None = None

    @property
    def result(self) -> Sequence[WriteResult]:
        """What each write did, in the order of the calls. Raises UnsupportedOperation before the commit."""
        if self._result is None:
            raise UnsupportedOperation("the transaction is not committed: read tx.result after its block has ended")
        return self._result

    def create(self, value: object, *, ttl_s: float | None = None) -> None:
        """As `Collection.create`."""
        scope = self._scope(type(value))
        self._add(scope, scope.whole("create", value, ttl_s=ttl_s))

    def put(self, value: object, *, expect_version: int | None = None, ttl_s: float | None = None) -> None:
        """As `Collection.put`."""
        scope = self._scope(type(value))
        self._add(scope, scope.whole("put", value, expect_version=expect_version, ttl_s=ttl_s))

    def update(
        self, cls: type[Any], key: KeyValue, change: Mapping[str, object], *, expect_version: int | None = None
    ) -> None:
        """As `Collection.update` with a mapping."""
        scope = self._scope(cls)
        self._add(scope, scope.patch(scope.key(key), change, expect_version=expect_version))

    def delete(self, cls: type[Any], key: KeyValue, *, expect_version: int | None = None) -> None:
        """As `Collection.delete`."""
        scope = self._scope(cls)
        self._add(scope, scope.removal(scope.key(key), expect_version=expect_version))

    def _scope(self, cls: type[Any]) -> Scope[Any]:
        if self._ended:
            raise UnsupportedOperation("the block of this transaction has ended; begin another one")
        scope = Scope(self._wiring, self._wiring.entity(cls), self._tenant)
        first = self._home
        if first is not None and first.home is not scope.home:
            raise UnsupportedOperation(
                f"a transaction has one home: {first.entity.cls.__name__} lives in {first.home.name}, {cls.__name__} "
                f"in {scope.home.name}. Write them apart, or pin both to one store before their first use"
            )
        return scope

    def _add(self, scope: Scope[Any], write: Write) -> None:
        check_size(scope, len(self._writes) + 1, "transaction", "use several")
        check_new(write.key, self._keys)
        self._home = self._home or scope
        self._writes.append(write)

    async def __aenter__(self) -> Transaction:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        if kind is not None:
            return
        if self._home is None:
            self._result = ()
        else:
            await self._write(self._home)

    async def _write(self, home: Scope[Any]) -> None:
        """Let what was collected happen, and keep the results."""
        op = op_of(self._tenant, self._op_id, self._wiring.types, self._writes)
        self._result = await self._wiring.manager.write(
            home.etype, self._writes, op=op, ack=self._ack, ack_timeout_s=self._ack_timeout_s
        )
