"""What is known to be wrong in a copy: the right one takes its place, at the same version."""

from __future__ import annotations

from msgspec.structs import replace

from polystore.model import Change
from polystore.protocols import Repository
from polystore.testing.conformance.base import Conformance, key_of, live, removal, state
from polystore.testing.conformance.entities import THING
from polystore.testing.conformance.records import pages, thing


def right(change: Change) -> Change:
    return replace(change, overwrites=True)


class Overwriting(Conformance):
    """Part of `RepositoryConformance`."""

    async def test_what_overwrites_takes_the_place_of_its_own_version_and_of_none_that_is_newer(self) -> None:
        store: Repository = await self.open()
        await store.apply([thing("wrong", 5, word="wrong"), thing("newer", 9, word="newer"), thing("older", 2)])
        changes = [thing(id, 5, word="right") for id in ("wrong", "newer", "older", "missing")]
        assert [o.status for o in await store.apply([right(one) for one in changes])] == [
            *("applied", "stale", "applied", "applied")
        ]
        words = {id: (await live(store, key_of(THING, id)))[1]["word"] for id in ("wrong", "newer", "older", "missing")}
        assert words == {"wrong": "right", "newer": "newer", "older": "right", "missing": "right"}
        stamps = {stamp.id: (stamp.version, stamp.hash, stamp.fault) for stamp in await pages(store)}
        assert stamps["wrong"] == (5, changes[0].hash, "")
        assert [o.status for o in await store.apply([thing("wrong", 5, word="again")])] == ["stale"]

    async def test_what_overwrites_deletes_at_the_same_version_and_brings_back(self) -> None:
        store: Repository = await self.open()
        await store.apply([thing("a", 5)])
        await store.apply([right(removal(key_of(THING, "a"), 5))])
        gone = await state(store, key_of(THING, "a"))
        assert gone is not None
        assert (gone.version, gone.deleted, await pages(store)) == (5, True, [])
        assert [o.status for o in await store.apply([thing("a", 5)])] == ["stale"]
        assert [o.status for o in await store.apply([right(thing("a", 5, word="back"))])] == ["applied"]
        assert (await live(store, key_of(THING, "a")))[1]["word"] == "back"
        assert [o.status for o in await store.apply([right(removal(key_of(THING, "a"), 4))])] == ["stale"]
