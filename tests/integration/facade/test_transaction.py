"""Several records of one home, together or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest

from polystore import (
    AlreadyExists,
    ConfigurationError,
    HybridDataArchitecture,
    IntegrityViolation,
    InvalidData,
    Transaction,
    UnsupportedOperation,
    ValueTooLarge,
    VersionConflict,
)
from tests.integration.facade.world import Memory, Person, and_on_postgresql, down, everywhere, opened, split


@everywhere
async def test_writes_of_several_types_are_one_commit(hda: HybridDataArchitecture) -> None:
    people, memories = hda.collection(Person), hda.collection(Memory)
    await people.put_many([Person(id="p1", name="하나"), Person(id="p2", name="둘")])
    async with hda.transaction(ack="applied") as tx:
        tx.create(Memory(id="m", text="둘이서 산책했다"))
        tx.put(Person(id="p3", name="셋"))
        tx.update(Person, "p1", {"name": "하나 씨"})
        tx.delete(Person, "p2")
        tx.delete(Person, "nobody")
        assert await people.count() == 2, "nothing is sent before the end of the block"
    assert [(one.key, one.existed) for one in tx.result] == [
        ("m", False),
        ("p3", False),
        ("p1", True),
        ("p2", True),
        ("nobody", False),
    ]
    assert [p.name for p in await people.find()] == ["하나 씨", "셋"]
    assert [hit.value.id for hit in await memories.search("산책")] == ["m"]


@and_on_postgresql
async def test_one_write_that_fails_undoes_them_all(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    first = await people.put(Person(id="p1", name="하나", email="one@example.com"))
    await people.put(Person(id="p1", name="하나", email="one@example.com"))
    version = first.version

    def create(tx: Transaction) -> None:
        tx.create(Person(id="p1", name="x"))

    def take_the_email(tx: Transaction) -> None:
        tx.put(Person(id="p2", name="x", email="one@example.com"))

    def update(tx: Transaction) -> None:
        tx.update(Person, "p1", {"name": "x"}, expect_version=version)

    def put(tx: Transaction) -> None:
        tx.put(Person(id="p1", name="x"), expect_version=version)

    def delete(tx: Transaction) -> None:
        tx.delete(Person, "p1", expect_version=version)

    errors: Mapping[Callable[[Transaction], None], type[Exception]] = {
        create: AlreadyExists,
        take_the_email: IntegrityViolation,
        update: VersionConflict,
        put: VersionConflict,
        delete: VersionConflict,
    }

    async def with_others(write: Callable[[Transaction], None]) -> None:
        async with hda.transaction() as tx:
            tx.put(Person(id="other", name="x"))
            tx.put(Memory(id="m", text="x"))
            write(tx)

    for write, error in errors.items():
        with pytest.raises(error):
            await with_others(write)
        assert not await people.exists("other")
        assert not await hda.collection(Memory).exists("m")


@split
async def test_an_error_in_the_block_sends_nothing(hda: HybridDataArchitecture) -> None:
    transactions: list[Transaction] = []

    async def fail() -> None:
        async with hda.transaction() as tx:
            transactions.append(tx)
            tx.put(Person(id="p", name="x"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), down(hda.stores["home"], "commit"):
        await fail()
    assert not await hda.collection(Person).exists("p")
    with pytest.raises(UnsupportedOperation, match="not committed"):
        _ = transactions[0].result


@split
async def test_a_transaction_without_writes_asks_nobody(hda: HybridDataArchitecture) -> None:
    with down(hda.stores["home"], "commit"):
        async with hda.transaction() as tx:
            pass
    assert tx.result == ()


@everywhere
async def test_an_operation_id_makes_a_repeated_transaction_harmless(hda: HybridDataArchitecture) -> None:
    op = uuid4()
    versions: list[list[int | None]] = []
    for _ in range(2):
        async with hda.transaction(op_id=op) as tx:
            tx.create(Person(id="p", name="하나"))
            tx.put(Memory(id="m", text="글"))
        versions.append([one.version for one in tx.result])
    assert versions[0] == versions[1]
    with pytest.raises(InvalidData, match="op_id"):
        async with hda.transaction(op_id=op) as tx:
            tx.create(Person(id="p", name="둘"))


@split
async def test_what_can_be_known_is_raised_at_the_call(hda: HybridDataArchitecture) -> None:
    async with hda.transaction() as tx:
        with pytest.raises(InvalidData, match=r"Memory\.text"):
            tx.put(Memory(text=cast(Any, 7)))
        with pytest.raises(InvalidData, match="no field"):
            tx.update(Person, "p", {"nam": "x"})
        with pytest.raises(ConfigurationError, match="int"):
            tx.put(7)
        with pytest.raises(UnsupportedOperation, match="after its block"):
            _ = tx.result
        tx.put(Person(id="p", name="x"))
        with pytest.raises(InvalidData, match="twice"):
            tx.delete(Person, "p")
        for i in range(hda.stores["home"].limits.batch_max - 1):
            tx.put(Person(id=str(i), name="x"))
        with pytest.raises(ValueTooLarge):
            tx.put(Person(id="one too many", name="x"))
    assert len(tx.result) == hda.stores["home"].limits.batch_max
    with pytest.raises(UnsupportedOperation, match="ended"):
        tx.put(Person(name="late"))


@split
async def test_a_transaction_stays_in_its_tenant(hda: HybridDataArchitecture) -> None:
    async with hda.tenant("acme").transaction() as tx:
        tx.put(Person(id="p", name="아크메"))
    assert await hda.tenant("acme").collection(Person).exists("p")
    assert not await hda.collection(Person).exists("p")


def test_types_of_different_homes_do_not_go_together(tmp_path: Path) -> None:
    config = {
        "stores": {
            "one": {"url": f"sqlite:{tmp_path}/one.db"},
            "two": {"url": f"sqlite:{tmp_path}/two.db"},
        },
        "pins": {"person": {"home": "one"}, "memory": {"home": "two"}},
    }

    async def test(hda: HybridDataArchitecture) -> None:
        async def both() -> None:
            async with hda.transaction() as tx:
                tx.put(Person(id="p", name="x"))
                tx.put(Memory(id="m", text="x"))

        with pytest.raises(UnsupportedOperation, match=r"Person lives in one, Memory in two"):
            await both()
        assert not await hda.collection(Person).exists("p")
        assert not await hda.collection(Memory).exists("m")

    opened(test, config)
