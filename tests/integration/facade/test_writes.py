"""Writes through a collection: what each verb promises, on every profile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

import pytest

from polystore import (
    AlreadyExists,
    ConfigurationError,
    DimensionMismatch,
    F,
    HybridDataArchitecture,
    IntegrityViolation,
    InvalidData,
    NotFound,
    Token,
    ValueTooLarge,
    VersionConflict,
)
from polystore.model import Commit, Write
from tests.integration.facade.world import Memory, Person, Reading, and_on_postgresql, down, everywhere, remember, split

Act = Callable[[], Coroutine[Any, Any, object]]


@everywhere
async def test_create_inserts_once(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    first = await people.create(Person(id="p1", name="민지"))
    assert (first.key, first.existed, first.changed) == ("p1", False, True)
    with pytest.raises(AlreadyExists):
        await people.create(Person(id="p1", name="다른 민지"))
    assert await people.get("p1") == Person(id="p1", name="민지")


@everywhere
async def test_put_inserts_and_replaces_with_growing_versions(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    first = await people.put(Person(id="p1", name="민지"))
    second = await people.put(Person(id="p1", name="민지 씨"))
    assert (first.existed, second.existed) == (False, True)
    assert cast(int, first.version) < cast(int, second.version)
    stored = await people.load("p1")
    assert (stored.value.name, stored.version) == ("민지 씨", second.version)
    assert abs((datetime.now(UTC) - stored.written_at).total_seconds()) < 60


def _same(person: Person) -> Person:
    return person


def _renamed(person: Person) -> Person:
    return Person(id=person.id, name="x")


@everywhere
async def test_a_write_with_an_expected_version_never_inserts(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    writes: list[Act] = [
        lambda: people.put(Person(id="p1", name="x"), expect_version=1),
        lambda: people.update("p1", {"name": "x"}, expect_version=1),
        lambda: people.update("p1", _same, expect_version=1),
        lambda: people.delete("p1", expect_version=1),
    ]
    for write in writes:
        with pytest.raises(NotFound):
            await write()
    assert not await people.exists("p1")


@everywhere
async def test_a_stale_expected_version_is_refused_and_says_the_actual_one(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    old = await people.put(Person(id="p1", name="하나"))
    new = await people.put(Person(id="p1", name="둘"))
    writes: list[Act] = [
        lambda: people.put(Person(id="p1", name="x"), expect_version=old.version),
        lambda: people.update("p1", {"name": "x"}, expect_version=old.version),
        lambda: people.update("p1", _renamed, expect_version=old.version),
        lambda: people.delete("p1", expect_version=old.version),
    ]
    for write in writes:
        with pytest.raises(VersionConflict) as caught:
            await write()
        assert caught.value.actual == new.version
    assert await people.get("p1") == Person(id="p1", name="둘")
    assert (await people.put(Person(id="p1", name="셋"), expect_version=new.version)).existed


@split
async def test_a_function_with_an_expected_version_is_asked_once(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    old = await people.put(Person(id="p", name="하나"))
    await people.put(Person(id="p", name="둘"))
    asked: list[str] = []

    def change(person: Person) -> Person:
        asked.append(person.name)
        return Person(id="p", name="셋")

    with pytest.raises(VersionConflict):
        await people.update("p", change, expect_version=old.version)
    assert asked == ["둘"]


@and_on_postgresql
async def test_update_with_a_mapping_changes_the_named_fields_and_on_postgresql(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    await remember(hda)
    result = await memories.update("m3", {"text": "자전거를 수리점에 맡겼다", "importance": 0.9}, ack="applied")
    assert set(result.stores.values()) <= {"committed", "applied"}
    assert await memories.get("m3") == Memory(id="m3", text="자전거를 수리점에 맡겼다", importance=0.9)
    assert [hit.value.id for hit in await memories.search("수리점")] == ["m3"]
    assert not await memories.search("브레이크")
    assert (await memories.similar("자전거를 수리점에 맡겼다", limit=1))[0].value.id == "m3"


@everywhere
async def test_update_of_an_absent_record_is_not_found(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    with pytest.raises(NotFound):
        await people.update("p1", {"name": "x"})
    with pytest.raises(NotFound):
        await people.update("p1", lambda p: p)


@everywhere
async def test_update_with_a_function_reads_again_when_another_write_came_between(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    await memories.put(Memory(id="m", text="값", importance=0.0))

    def more(memory: Memory) -> Memory:
        memory.importance = (memory.importance or 0) + 1
        return memory

    await asyncio.gather(*(memories.update("m", more) for _ in range(3)))
    assert cast(Memory, await memories.get("m")).importance == 3


@split
async def test_update_with_a_function_gives_up_after_five_tries(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    await people.put(Person(id="p", name="0"))
    seen: list[str] = []

    def mine(person: Person) -> Person:
        seen.append(person.name)
        return Person(id="p", name="mine")

    repository = cast(Any, hda.stores["home"].repository)
    plain = repository.commit

    async def always_second(commits: Sequence[Commit]) -> object:
        (write,) = commits[0].writes
        body = {"id": "p", "name": str(len(seen)), "email": None}
        await plain([Commit([Write("put", write.key, write.h, body)])])
        return await plain(commits)

    repository.commit = always_second
    with pytest.raises(VersionConflict):
        await people.update("p", mine)
    assert seen == ["0", "1", "2", "3", "4"]


@everywhere
async def test_update_with_a_function_that_changes_nothing_writes_nothing(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    first = await people.put(Person(id="p", name="그대로"))
    again = await people.update("p", lambda p: p)
    assert (again.changed, again.version) == (False, first.version)


def _nothing(person: Person) -> None: ...


@split
async def test_a_function_must_return_the_changed_value_under_the_same_key(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    await people.put(Person(id="p", name="x"))
    with pytest.raises(InvalidData, match="must return the changed Person"):
        await people.update("p", cast(Any, _nothing))
    with pytest.raises(InvalidData, match="key"):
        await people.update("p", lambda p: Person(id="q", name="x"))
    with pytest.raises(InvalidData, match="mapping"):
        await people.update("p", cast(Any, [("name", "x")]))


@everywhere
async def test_delete_removes_from_every_store(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    await remember(hda)
    result = await memories.delete("m1", ack="applied")
    assert result.existed
    assert await memories.get("m1") is None
    assert not await memories.exists("m1")
    assert [hit.value.id for hit in await memories.search("자전거")] == ["m3"]
    assert "m1" not in [hit.value.id for hit in await memories.similar("한강에서 자전거", hydrate=False)]


@everywhere
async def test_delete_of_an_absent_key_is_no_error(hda: HybridDataArchitecture) -> None:
    result = await hda.collection(Person).delete("nobody")
    assert (result.existed, result.version, result.changed) == (False, None, False)


@and_on_postgresql
async def test_put_many_is_all_or_nothing(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    await people.put(Person(id="p0", name="먼저", email="minji@example.com"))
    with pytest.raises(IntegrityViolation):
        await people.put_many([Person(id="p1", name="a"), Person(id="p2", name="b", email="minji@example.com")])
    assert await people.count() == 1
    results = await people.put_many(
        [Person(id="p1", name="a"), Person(id="p0", name="나중", email="minji@example.com")]
    )
    assert [(one.key, one.existed) for one in results] == [("p1", False), ("p0", True)]
    assert await people.put_many([]) == []


@everywhere
async def test_put_many_can_leave_unchanged_records_alone(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    before = await people.put_many([Person(id="a", name="하나"), Person(id="b", name="둘")])
    after = await people.put_many([Person(id="a", name="하나"), Person(id="b", name="셋")], skip_unchanged=True)
    assert [one.changed for one in after] == [False, True]
    assert after[0].version == before[0].version
    always = await people.put_many([Person(id="a", name="하나")])
    assert always[0].changed


@split
async def test_one_commit_has_a_bound_and_writes_a_record_once(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    most = hda.stores["home"].limits.batch_max
    with pytest.raises(ValueTooLarge, match="import_many"):
        await people.put_many([Person(name="x")] * (most + 1))
    with pytest.raises(InvalidData, match="twice"):
        await people.put_many([Person(id="é", name="a"), Person(id="e\u0301", name="b")])
    assert await people.count() == 0


@and_on_postgresql
async def test_an_operation_id_makes_a_repeat_harmless(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    op = uuid4()
    first = await people.create(Person(id="p", name="하나"), op_id=op)
    await people.put(Person(id="p", name="둘"))
    again = await people.create(Person(id="p", name="하나"), op_id=op)
    assert (again.version, again.existed, again.changed) == (first.version, False, False)
    assert await people.get("p") == Person(id="p", name="둘")
    with pytest.raises(InvalidData, match="op_id"):
        await people.create(Person(id="p", name="셋"), op_id=op)
    with pytest.raises(InvalidData, match="op_id"):
        await people.put(Person(id="p", name="하나"), op_id=op)


@split
async def test_all_that_a_call_asks_for_belongs_to_its_operation_id(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    first = await memories.put(Memory(id="m", text="글"))
    size = hda.manager.embedders.dimension(hda.types["memory"], "text")
    op, memory = uuid4(), Memory(id="m", text="글")
    one, other = [1.0] + [0.0] * (size - 1), [0.0] * (size - 1) + [1.0]
    await memories.put(memory, expect_version=first.version, vectors={"text": one}, op_id=op)
    again = await memories.put(memory, expect_version=first.version, vectors={"text": one}, op_id=op)
    assert not again.changed
    for version, vector in ((first.version, other), (7, one), (None, one)):
        with pytest.raises(InvalidData, match="op_id"):
            await memories.put(memory, expect_version=version, vectors={"text": vector}, op_id=op)


@everywhere
async def test_a_function_under_an_operation_id_is_applied_once(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    await memories.put(Memory(id="m", text="x", importance=1.0))
    op = uuid4()

    def twice(memory: Memory) -> Memory:
        return replace(memory, importance=(memory.importance or 0) * 2)

    await memories.update("m", twice, op_id=op)
    await memories.update("m", twice, op_id=op)
    assert cast(Memory, await memories.get("m")).importance == 2
    await memories.delete("m")
    assert not (await memories.update("m", twice, op_id=op)).changed
    with pytest.raises(NotFound):
        await memories.update("m", twice, op_id=uuid4())


@split
async def test_an_operation_id_of_the_wrong_type_is_refused(hda: HybridDataArchitecture) -> None:
    with pytest.raises(InvalidData, match="UUID"):
        await hda.collection(Person).put(Person(name="x"), op_id=cast(Any, "once"))


@everywhere
async def test_committed_says_pending_and_applied_waits_for_all_copies(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    home = hda.remembered["memory"].placement.home
    copies = hda.remembered["memory"].placement.copies().keys()
    first = await memories.put(Memory(id="m", text="한강"))
    assert first.stores[home] == "committed"
    assert {first.stores[copy] for copy in copies} <= {"pending"}
    second = await memories.put(Memory(id="m", text="한강 다리"), ack="applied")
    assert second.stores == {home: "committed", **dict.fromkeys(copies, "applied")}


@split
async def test_ack_names_the_stores_to_wait_for(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    with down(hda.stores["shapes"], "apply"):
        result = await memories.put(Memory(id="m", text="산책"), ack=["words"], ack_timeout_s=5)
        assert (result.stores["words"], result.stores["shapes"]) == ("applied", "pending")
        late = await memories.put(Memory(id="m", text="밤 산책"), ack="applied", ack_timeout_s=0.05)
        assert late.stores["shapes"] == "pending"
    for wrong in ("soon", ["wordz"]):
        with pytest.raises(ConfigurationError, match="ack"):
            await memories.put(Memory(id="other", text="x"), ack=cast(Any, wrong))
    assert not await memories.exists("other")


@and_on_postgresql
async def test_vectors_given_with_a_write_stand_in_for_the_embedders(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    await remember(hda)
    (nearest, *_) = await memories.similar("비가 오는 날에는 파전을 부쳐 먹는다", limit=1)
    assert nearest.value.id == "m5"
    size = hda.manager.embedders.dimension(hda.types["memory"], "text")
    mine = [1.0] + [0.0] * (size - 1)
    await memories.put(Memory(id="m1", text="글과 상관없는 벡터"), vectors={"text": mine}, ack="applied")
    assert (await memories.similar(mine, limit=1))[0].value.id == "m1"
    await memories.update("m1", lambda m: replace(m, importance=0.5), ack="applied")
    assert (await memories.similar(mine, limit=1))[0].score == pytest.approx(1.0)
    await memories.put(Memory(id="m1", text="글과 상관없는 벡터"), ack="applied")
    assert (await memories.similar(mine, limit=1))[0].score < 0.9


@split
async def test_vectors_that_cannot_belong_are_refused(hda: HybridDataArchitecture) -> None:
    memories, readings = hda.collection(Memory), hda.collection(Reading)
    size = hda.manager.embedders.dimension(hda.types["memory"], "text")
    with pytest.raises(DimensionMismatch):
        await memories.put(Memory(text="x"), vectors={"text": [1.0, 2.0]})
    with pytest.raises(InvalidData, match="NaN"):
        await memories.put(Memory(text="x"), vectors={"text": [float("nan")] * size})
    with pytest.raises(InvalidData, match="Embedding"):
        await memories.put(Memory(text="x"), vectors={"title": [1.0] * size})
    with pytest.raises(InvalidData, match="value of the field"):
        await readings.put(Reading(id=1), vectors={"shape": [1.0, 2.0, 3.0]})
    with pytest.raises(InvalidData, match=r"Reading.*32-bit"):
        await readings.put(Reading(id=1, shape=[1e300, 0.0, 0.0]))
    assert await memories.count() == await readings.count() == 0


@split
async def test_arguments_of_the_wrong_type_are_refused_and_nothing_is_written(hda: HybridDataArchitecture) -> None:
    people, memories = cast(Any, hda.collection(Person)), cast(Any, hda.collection(Memory))
    one = Person(id="p", name="x")
    for many in ((one for _ in range(2)), "ab", None):
        with pytest.raises(InvalidData, match=r"put_many takes a list of values.*import_many"):
            await people.put_many(many)
    for keys in ("ab", 7, None):
        with pytest.raises(InvalidData, match="get_many takes a list of keys"):
            await people.get_many(keys)
    for vector in (None, "abc", 1.0):
        with pytest.raises(InvalidData, match=r"Memory\.text: a vector of \d+ numbers is needed"):
            await memories.put(Memory(text="x"), vectors={"text": vector})
    with pytest.raises(InvalidData, match="vectors= is a mapping"):
        await memories.put(Memory(text="x"), vectors=[1.0])
    calls: list[Callable[[Any], Coroutine[Any, Any, object]]] = [
        lambda v: people.put(one, expect_version=v),
        lambda v: people.update("p", {"name": "y"}, expect_version=v),
        lambda v: people.update("p", str, expect_version=v),
        lambda v: people.delete("p", expect_version=v),
        lambda v: hda.write_operation({"core": {"name": "x"}}, entity="person", key="p", expect_version=v),
    ]
    for version in (True, "1", 1.0):
        for call in calls:
            with pytest.raises(InvalidData, match=r"expect_version= is the int of WriteResult\.version"):
                await call(version)
    assert await people.count() == await memories.count() == 0


@everywhere
async def test_keys_are_composed_text(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    decomposed = "\u1106\u1175\u11ab\u110c\u1175"  # 민지 in single letters
    result = await people.put(Person(id=decomposed, name="x"))
    assert result.key == "민지"
    for key in (decomposed, "민지"):
        assert cast(Person, await people.get(key)).id == "민지"
    assert (await people.find(F.id == decomposed))[0].id == "민지"


@split
@pytest.mark.filterwarnings("error")
async def test_impossible_values_are_refused_and_nothing_is_written(hda: HybridDataArchitecture) -> None:
    people, memories, readings = hda.collection(Person), hda.collection(Memory), hda.collection(Reading)
    for key in ("", "a" * 513, "\ud800", "a\0b"):
        with pytest.raises(InvalidData, match=r"Person\.id"):
            await people.put(Person(id=key, name="x"))
        with pytest.raises(InvalidData, match=r"Person\.id"):
            await people.get(key)
    with pytest.raises(InvalidData, match=r"Memory\.happened"):
        await memories.put(Memory(text="x", happened=datetime(2026, 1, 1)))  # noqa: DTZ001
    with pytest.raises(InvalidData, match=r"Memory\.importance"):
        await memories.put(Memory(text="x", importance=float("nan")))
    with pytest.raises(InvalidData, match=r"Reading\.id"):
        await readings.put(Reading(id=1 << 63))
    with pytest.raises(InvalidData, match="Person"):
        await people.put(cast(Any, Memory(text="x")))
    assert await people.count() == await memories.count() == await readings.count() == 0


@split
async def test_a_home_that_is_down_refuses_the_write(hda: HybridDataArchitecture) -> None:
    people = hda.collection(Person)
    with down(hda.stores["home"], "commit"), pytest.raises(Exception, match="pulled the plug"):
        await people.put(Person(id="p", name="x"))
    assert not await people.exists("p")


@and_on_postgresql
async def test_a_token_makes_every_read_see_the_write(hda: HybridDataArchitecture) -> None:
    people, memories = hda.collection(Person), hda.collection(Memory)
    for i in range(20):
        token = (await people.put(Person(id="p", name=f"이름 {i}"))).token
        token |= (await memories.put(Memory(id="m", text=f"기억 {i}쪽"))).token
        assert cast(Person, await people.get("p", after=token)).name == f"이름 {i}"
        assert [m and m.text for m in await memories.get_many(["m"], after=token)] == [f"기억 {i}쪽"]
        assert [hit.value.text for hit in await memories.search(f"{i}쪽", after=token)] == [f"기억 {i}쪽"]
        assert (await memories.similar("기억", after=token))[0].value.text == f"기억 {i}쪽"
        assert await memories.exists("m", after=token)
        assert await memories.count(F.text == f"기억 {i}쪽", after=token) == 1
        assert (await memories.load("m", after=token)).value.text == f"기억 {i}쪽"


@everywhere
async def test_what_is_no_token_is_refused(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    bad = cast(Token, "yesterday")
    for read in (
        lambda: memories.get("m", after=bad),
        lambda: memories.get_many(["m"], after=bad),
        lambda: memories.load("m", after=bad),
        lambda: memories.find(after=bad),
        lambda: memories.search("글", after=bad),
        lambda: memories.similar("글", after=bad),
        lambda: memories.hybrid("글", after=bad),
        lambda: memories.related("m", "ABOUT", after=bad),
    ):
        with pytest.raises(InvalidData, match="token"):
            await read()
