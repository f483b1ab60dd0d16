"""Clearing what is held of one entity type, so that it can be built anew."""

from __future__ import annotations

from typing import Protocol, cast

from polystore.model import EVERYTHING
from polystore.protocols import Repository, SupportsRebuild, SupportsSchema
from polystore.testing.conformance.base import Conformance, change, key_of, layouts, live, removal, state
from polystore.testing.conformance.entities import NUMBERED, THING, Numbered, Thing


class Clearing(Repository, SupportsRebuild, Protocol):
    pass


class RebuildConformance(Conformance):
    """`clear`."""

    protocol = SupportsRebuild

    async def test_what_was_cleared_is_as_if_it_had_never_been(self) -> None:
        store: Clearing = await self.open()
        things = [Thing(id=f"t{i}", word=f"thing {i}") for i in range(20)]
        await self.write(store, [change(THING, one, 100 + i) for i, one in enumerate(things)])
        await self.write(store, [removal(key_of(THING, "t3"), 200)])
        other = change(NUMBERED, Numbered(number=1, word="stays"), 150)
        await self.write(store, [other])
        await store.clear(THING.name)
        await store.clear(THING.name)  # of nothing
        await cast(SupportsSchema, store).prepare(layouts(store, self.types, home=False), create=True)
        assert await store.tenants(THING.name) == []
        assert not (await store.scan(THING.name, "", EVERYTHING, None, 100)).stamps
        assert await store.newest(THING.name) == 0
        assert await state(store, key_of(THING, "t3")) is None
        await self.write(store, [change(THING, things[3], 5)])  # older than all that was there
        version, body = await live(store, key_of(THING, "t3"))
        assert (version, body["word"]) == (5, "thing 3")
        assert (await live(store, other.key))[0] == 150

    async def test_another_connection_goes_on_once_it_is_prepared_again(self) -> None:
        one: Clearing = await self.open()
        two: Clearing = await self.open()
        await self.write(two, [change(THING, Thing(id="a", word="before"), 7)])
        await one.clear(THING.name)
        for store in (one, two):
            await cast(SupportsSchema, store).prepare(layouts(store, self.types, home=False), create=True)
        await self.write(two, [change(THING, Thing(id="a", word="after"), 3)])
        version, body = await live(two, key_of(THING, "a"))
        assert (version, body["word"]) == (3, "after")
