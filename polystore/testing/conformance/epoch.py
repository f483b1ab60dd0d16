"""The next epoch of a home: above everything that was ever drawn, with copies that are filled anew."""

from __future__ import annotations

from typing import ClassVar, Protocol

from polystore.model import EPOCH_BITS, Key, TargetRow
from polystore.protocols import Repository, SupportsCommit, SupportsEpoch, SupportsJournal
from polystore.testing.conformance.base import Conformance, account, commit, delete
from polystore.testing.conformance.entities import ACCOUNT


class _Home(Repository, SupportsEpoch, SupportsCommit, SupportsJournal, Protocol):
    pass


class EpochConformance(Conformance):
    protocol = SupportsEpoch
    home = True
    types: ClassVar = (ACCOUNT,)

    async def written(self) -> _Home:
        """A home with two records, one that is deleted, a copy that is active and one that is off."""
        store: _Home = await self.open()
        for bit, status in enumerate(("active", "off")):
            await store.set_target(TargetRow(ACCOUNT.name, status, bit, status))  # type: ignore[arg-type]
        await commit(store, account("a", "a@x"), account("b", "b@x"), account("gone", "c@x"))
        await commit(store, delete(ACCOUNT, "gone"))
        return store

    async def versions(self, store: _Home) -> list[int]:
        """Of the two records and of the tombstone."""
        found = await store.get([Key("", ACCOUNT.name, id) for id in ("a", "b", "gone")])
        assert [one is not None and one.deleted for one in found] == [False, False, True]
        return [one.version for one in found if one is not None]

    async def test_what_stands_and_what_is_deleted_is_of_the_new_epoch(self) -> None:
        store = await self.written()
        before = max(await self.versions(store))
        number = await store.bump_epoch()
        assert number > before >> EPOCH_BITS
        assert {version >> EPOCH_BITS for version in await self.versions(store)} == {number}
        bodies = [one.body for one in await store.get([Key("", ACCOUNT.name, "a")]) if one is not None]
        assert [(body or {})["email"] for body in bodies] == ["a@x"]

    async def test_versions_go_on_above(self) -> None:
        store = await self.written()
        first, second = await store.bump_epoch(), await store.bump_epoch()
        assert second > first
        standing = max(await self.versions(store))
        (written,) = await commit(store, account("a", "new@x"))
        assert written.version > standing
        assert written.version >> EPOCH_BITS == second
        assert await store.newest(ACCOUNT.name) >= written.version

    async def test_copies_in_use_are_to_be_filled_anew(self) -> None:
        store = await self.written()
        await store.bump_epoch()
        rows = {row.name: row for row in await store.targets()}
        assert (rows["active"].status, rows["active"].cursor) == ("backfilling", None)
        assert rows["off"].status == "off"
        row = await store.backfill(rows["active"], 10)
        assert row.cursor == ""
        owed = await store.due("active", [ACCOUNT.name], 2**62, 10)
        assert sorted((one.key.id, one.version) for one in owed) == list(
            zip(["a", "b"], await self.versions(store), strict=False)
        )
