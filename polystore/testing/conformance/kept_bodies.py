"""The journal of homes that cannot commit: what it keeps of their records, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import pytest
from polystore_adapters.memory import MemoryRepository, MemoryServer

from polystore.errors import IntegrityViolation, NotFound, StalenessTimeout, VersionConflict
from polystore.journaled import JournalEntity, Lent, LentBodies
from polystore.model import (
    EVERYTHING,
    JOURNAL_BODY,
    JOURNAL_HELD,
    Body,
    Change,
    Commit,
    Held,
    Key,
    Settlement,
    Write,
    key_hash,
)
from polystore.protocols import Layout, Repository, SupportsCommit, SupportsEpoch, SupportsJournal, SupportsKeptBodies
from polystore.store import Store
from polystore.testing.conformance.base import Conformance, account, delete, key_of, put, same, state, update, write
from polystore.testing.conformance.entities import ACCOUNT, NUMBERED, THING, VALUES, Numbered, Thing
from polystore.testing.documents import Documents

OF = (THING, NUMBERED, ACCOUNT)
MINUTE_US = 60_000_000


class Journal(Repository, SupportsCommit, SupportsEpoch, SupportsJournal, SupportsKeptBodies, Protocol):
    pass


class KeptBodiesConformance(Conformance):
    """The journal side of records whose home is another store, here one in memory that cannot commit."""

    protocol = SupportsKeptBodies
    home = True
    types = tuple(JournalEntity(one) for one in OF)

    async def journaled(self) -> tuple[Journal, Store, Store]:
        """The journal, the same as a store of whole records, and the home."""
        repository: Journal = await self.open()
        server = MemoryServer(self.env)
        documents = Documents(MemoryRepository(server, self.env))
        await documents.prepare([Layout(one, False, frozenset()) for one in OF], create=True)
        whole, home = Store("journal", repository, env=self.env), Store("home", documents, env=self.env)
        whole.bodies = LentBodies(self.env, "journal", {of.name: Lent(JournalEntity(of), home, []) for of in OF})
        return repository, whole, home

    # -- what settling does -----------------------------------------------------------------------------------------

    async def test_a_body_goes_when_the_home_holds_exactly_its_version(self) -> None:
        repository, whole, _ = await self.journaled()
        versions = await _put(
            whole, put("a"), put("b"), write("put", THING, Thing(id="b"), tenant="acme"), _numbered(7)
        )
        held = [Held(key, version) for key, version in versions.items() if key.id in ("a", "7")]
        await repository.settle(Settlement(held=held))
        assert [key.id for key in versions if await _kept(repository, key) is None] == ["a", "7"]
        a = key_of(THING, "a")
        again = (await _put(whole, put("a", word="again")))[a]
        for version in (versions[a], again - 1, again + 1):
            await repository.settle(Settlement(held=[Held(a, version)]))
            assert await _kept(repository, a), "the home was not seen to hold this version"
        await repository.settle(Settlement(held=[Held(a, again), Held(a, again)]))
        assert await _kept(repository, a) is None

    async def test_what_is_left_of_a_record_is_what_it_was(self) -> None:
        repository, whole, _ = await self.journaled()
        versions = await _put(whole, put("a", word="x"), _numbered(-3), account("u", "u@x", number=4))
        before = [await state(repository, key) for key in versions]
        stamps = [await self._stamps(repository, one.name) for one in OF]
        await repository.settle(Settlement(held=[Held(*one) for one in versions.items()]))
        for old, new in zip(before, [await state(repository, key) for key in versions], strict=True):
            assert old is not None
            assert old.body is not None
            assert new is not None
            assert new.body == {**old.body, JOURNAL_BODY: None}
            assert (new.version, new.hash, new.updated_us) == (old.version, old.hash, old.updated_us)
        assert [await self._stamps(repository, one.name) for one in OF] == stamps
        assert (await repository.backlog()).outbox == 0

    async def _stamps(self, repository: Repository, etype: str) -> Sequence[Any]:
        return (await repository.scan(etype, "", EVERYTHING, None, 100)).stamps

    async def test_stamps_tell_the_content_that_was_written(self) -> None:
        repository, whole, _ = await self.journaled()
        write = put("a", word="x")
        await _put(whole, write)
        (stamp,) = await self._stamps(repository, THING.name)
        assert stamp.hash == THING.content_hash(write.body or {}) == write.hash

    async def test_a_deleted_record_and_an_unknown_one_are_settled_too(self) -> None:
        repository, whole, _ = await self.journaled()
        versions = await _put(whole, put("a"))
        (gone,) = (await whole.commit(Commit([delete(THING, "a")]))).written
        held = [Held(key_of(THING, "a"), versions[key_of(THING, "a")]), Held(key_of(THING, "a"), gone.version)]
        await repository.settle(Settlement(held=[*held, Held(key_of(THING, "never"), 5)]))
        record = await state(repository, key_of(THING, "a"))
        assert record is not None
        assert (record.version, record.body) == (gone.version, None)

    async def test_for_a_home_that_is_not_durable_a_body_stays_for_a_while(self) -> None:
        repository, whole, _ = await self.journaled()
        versions = await _put(whole, put("a"), put("b"), put("c"), put("d"))
        a, b, c, _d = versions
        await repository.settle(Settlement(held=[Held(key, versions[key], durable=False) for key in (a, b)]))
        self.env.forward(90)
        await repository.settle(Settlement(held=[Held(c, versions[c], durable=False)]))
        again = await _put(whole, put("b", word="again"))
        assert await repository.release(THING.name, 2 * MINUTE_US, 100) == 0
        self.env.forward(60)
        assert await repository.release(THING.name, 2 * MINUTE_US, 100) == 1
        assert [await _kept(repository, key) is None for key in versions] == [True, False, False, False]
        await repository.settle(Settlement(held=[Held(b, again[b], durable=False)]))
        self.env.forward(180)
        assert [await repository.release(THING.name, 2 * MINUTE_US, 1) for _ in range(3)] == [1, 1, 0]
        assert [await _kept(repository, key) is None for key in versions] == [True, True, True, False]
        record = await state(repository, a)
        assert record is not None
        assert record.body is not None
        assert record.body[JOURNAL_HELD] is None

    async def test_a_body_that_gets_a_version_of_the_next_epoch_stays(self) -> None:
        """Its home has it at the version before, and nobody else at this one."""
        repository, whole, _ = await self.journaled()
        versions = await _put(whole, put("a"), put("b"))
        a, b = versions
        await repository.settle(Settlement(held=[Held(a, versions[a], durable=False), Held(b, versions[b])]))
        await repository.bump_epoch()
        self.env.forward(180)
        assert await repository.release(THING.name, 2 * MINUTE_US, 100) == 0
        (record,) = await whole.get([a])
        assert record is not None
        assert record.version > versions[a]
        (settled,) = await repository.get([b])
        assert settled is not None
        assert settled.version == versions[b]

    async def test_a_tombstone_is_of_the_next_epoch_wherever_the_bodies_are(self) -> None:
        """The home may hold a record that a lost state wrote again after the deletion."""
        repository, whole, _ = await self.journaled()
        await _put(whole, put("a"))
        await whole.commit(Commit([delete(THING, "a")]))
        lost = await repository.newest(THING.name) + 100
        await repository.bump_epoch()
        (gone,) = await repository.get([key_of(THING, "a")])
        assert gone is not None
        assert gone.deleted
        assert gone.version > lost

    async def test_no_newer_body_goes_however_writing_and_settling_meet(self) -> None:
        repository, whole, home = await self.journaled()
        keys = [key_of(THING, id) for id in "abcd"]

        async def writes(number: int) -> None:
            for i in range(12):
                written = await whole.commit(Commit([put(key.id, number=number * 100 + i) for key in keys]))
                changes = [
                    Change(key, one.version, _h(key), one.body, one.hash, one.updated_us)
                    for key, one in zip(keys, written.written, strict=True)
                ]
                await home.deliver(changes)
                await repository.settle(Settlement(held=[Held(one.key, one.version) for one in changes]))

        await asyncio.gather(*map(writes, range(4)))
        for record in await whole.get(keys):
            assert record is not None
            assert record.body is not None
        for key in keys:
            raw, there = await state(repository, key), await state(home.repository, key)
            assert raw is not None
            assert there is not None
            assert there.version == raw.version

    # -- whole records ------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("away", [False, True])
    async def test_a_record_is_the_same_whoever_has_its_body(self, away: bool) -> None:
        repository, whole, home = await self.journaled()
        writes = [
            put(f"{field} {i}", **{field: one}) for field, values in VALUES.items() for i, one in enumerate(values)
        ]
        versions = await _put(whole, *writes)
        if away:
            await _bring(repository, whole, home, versions)
        for one, record in zip(writes, await whole.get([one.key for one in writes]), strict=True):
            assert record is not None
            assert record.body is not None
            assert same(dict(record.body), dict(one.body or {})), one.key.id
            assert record.version == versions[one.key]
            assert record.hash == one.hash

    @pytest.mark.parametrize("away", [False, True])
    async def test_some_fields_are_changed_and_the_others_stay(self, away: bool) -> None:
        repository, whole, home = await self.journaled()
        versions = await _put(whole, put("a", word="x", number=1, tags=["t"]))
        if away:
            await _bring(repository, whole, home, versions)
        (a,) = versions
        done = await whole.commit(Commit([update(THING, "a", {"number": 2})]))
        (record,) = await whole.get([a])
        assert record is not None
        assert record.body is not None
        assert (record.body["word"], record.body["number"], record.body["tags"]) == ("x", 2, ["t"])
        assert done.written[0].body == record.body
        assert done.written[0].hash == record.hash == THING.content_hash(record.body)
        with pytest.raises(VersionConflict):
            await whole.commit(Commit([update(THING, "a", {"number": 3}, expect_version=versions[a])]))
        with pytest.raises(NotFound):
            await whole.commit(Commit([update(THING, "b", {"number": 3})]))
        await whole.commit(Commit([Write("update", a, _h(a), {}, ttl_us=MINUTE_US)]))
        (record,) = await whole.get([a])
        assert record is not None
        assert record.body is not None
        assert record.body["number"] == 2
        assert record.expires_us > record.updated_us

    async def test_of_many_that_change_a_record_at_once_none_undoes_another(self) -> None:
        repository, whole, home = await self.journaled()
        versions = await _put(whole, put("a"))
        await _bring(repository, whole, home, versions)
        fields: list[dict[str, object]] = [{"word": "w"}, {"number": 1}, {"flag": True}, {"maybe_word": "m"}]
        await asyncio.gather(*(whole.commit(Commit([update(THING, "a", one)])) for one in fields))
        (record,) = await whole.get(list(versions))
        assert record is not None
        assert record.body is not None
        wanted = {name: value for one in fields for name, value in one.items()}
        assert {name: record.body[name] for name in wanted} == wanted

    async def test_unique_values_are_held_when_their_bodies_are_away(self) -> None:
        repository, whole, home = await self.journaled()
        await _bring(repository, whole, home, await _put(whole, account("a", "a@x", number=1), account("b", "b@x")))
        with pytest.raises(IntegrityViolation):
            await _put(whole, account("c", "a@x"))
        with pytest.raises(IntegrityViolation):
            await whole.commit(Commit([update(ACCOUNT, "b", {"number": 1})]))
        await _put(whole, account("c", "a@x", tenant="acme"))
        swap = [account("a", "b@x", number=1), account("b", "a@x")]
        await whole.commit(Commit([update(ACCOUNT, "a", {"email": "-"}), swap[1]]))
        await _put(whole, swap[0])
        found = await whole.get([key_of(ACCOUNT, "a"), key_of(ACCOUNT, "b")])
        assert [one.body["email"] for one in found if one is not None and one.body is not None] == ["b@x", "a@x"]

    async def test_what_neither_has_is_never_taken_for_absent(self) -> None:
        repository, whole, _ = await self.journaled()
        versions = await _put(whole, put("a"))
        await repository.settle(Settlement(held=[Held(*one) for one in versions.items()]))
        reading = asyncio.create_task(whole.get(list(versions)))
        await asyncio.sleep(0.05)
        self.env.forward(60)
        with pytest.raises(StalenessTimeout, match="a"):
            await reading
        await _put(whole, put("a", word="anew"))
        (record,) = await whole.get(list(versions))
        assert record is not None
        assert record.body is not None
        assert record.body["word"] == "anew"


def _h(key: Key) -> int:
    return key_hash(key.tenant, key.etype, key.id)


def _numbered(number: int) -> Write:
    return write("put", NUMBERED, Numbered(number, "n"))


async def _put(whole: Store, *writes: Write) -> dict[Key, int]:
    done = await whole.commit(Commit(writes))
    return {one.key: written.version for one, written in zip(writes, done.written, strict=True)}


async def _kept(repository: Repository, key: Key) -> bytes | None:
    """The body that the journal keeps."""
    record = await state(repository, key)
    assert record is not None
    assert record.body is not None
    body: Body = record.body
    kept: bytes | None = body[JOURNAL_BODY]
    return kept


async def _bring(repository: Journal, whole: Store, home: Store, versions: dict[Key, int]) -> None:
    """Deliver the records to their home, and settle that."""
    by_type: dict[tuple[str, str], list[Change]] = {}
    for key, record in zip(versions, await whole.get(list(versions)), strict=True):
        assert record is not None
        one = Change(key, record.version, _h(key), record.body, record.hash, record.updated_us)
        by_type.setdefault((key.etype, key.tenant), []).append(one)
    for changes in by_type.values():
        outcomes = await home.deliver(changes)
        assert {outcome.status for outcome in outcomes} == {"applied"}
    await repository.settle(Settlement(held=[Held(*one) for one in versions.items()]))
