"""What every repository does: honest claims and guarded changes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytest

from polystore import protocols
from polystore.errors import InvalidData, UnsupportedOperation, ValueTooLarge
from polystore.model import Change
from polystore.protocols import Repository
from polystore.store import Store
from polystore.testing.conformance.base import chunks, key_of, live, removal, state
from polystore.testing.conformance.entities import (
    NUMBERED,
    THING,
)
from polystore.testing.conformance.overwriting import Overwriting
from polystore.testing.conformance.records import thing


def methods(protocol: type) -> dict[str, Any]:
    """The methods that a protocol itself declares."""
    return {name: value for name, value in vars(protocol).items() if inspect.isfunction(value) and name[0] != "_"}


PROTOCOLS: Mapping[str, type] = {
    name: value for name, value in vars(protocols).items() if name.startswith("Supports") and isinstance(value, type)
}


class RepositoryConformance(Overwriting):
    """Every adapter passes this."""

    protocol = Repository

    # -- claims -----------------------------------------------------------------------------------------------

    async def test_claims_a_protocol_exactly_when_it_has_its_methods(self) -> None:
        """And what it does not claim is refused by the store above it, before it is asked."""
        repository = await self.connection()
        store = Store("kit", repository, env=self.env)
        for name, protocol in PROTOCOLS.items():
            for verb, wanted in methods(protocol).items():
                found = getattr(repository, verb, None)
                if protocol in repository.capabilities:
                    assert found is not None, f"{name} is in `capabilities`, but {verb} is not there"
                    _agree(verb, found, wanted)
                    continue
                assert found is None, f"{verb} is there, but {name} is not in `capabilities`"
                if inspect.iscoroutinefunction(wanted):
                    nothing = [None] * (len(inspect.signature(wanted).parameters) - 1)
                    with pytest.raises(UnsupportedOperation, match="kit"):
                        await store.call(wanted, *nothing)

    async def test_has_the_methods_of_every_repository_and_claims_only_protocols_of_the_contract(self) -> None:
        store = await self.connection()
        for verb, wanted in methods(Repository).items():
            _agree(verb, getattr(store, verb), wanted)
        assert store.capabilities <= set(PROTOCOLS.values())
        assert store.limits.batch_max >= 1
        assert store.limits.value_bytes_max >= 1 << 20

    async def test_says_who_it_is(self) -> None:
        store: Repository = await self.open()
        other: Repository = await self.open()
        first, second = await store.ping(), await store.ping()
        assert first == second == await other.ping()
        assert all(isinstance(part, str) for part in (first.server, first.version, first.run_id, first.data_id))
        assert first.server
        assert first.run_id

    async def test_tells_the_highest_version_it_ever_held(self) -> None:
        store: Repository = await self.open()
        assert await store.newest(THING.name) == 0
        await store.apply([thing("a", 7), thing("b", 3)])
        await store.apply([thing("c", 5, tenant="acme"), thing("a", 6, tenant="acme")])
        assert await store.newest(THING.name) == 7
        await store.apply([removal(key_of(THING, "a"), 9)])
        assert await store.newest(THING.name) == 9
        await store.apply([thing("a", 8)])
        assert (await store.newest(THING.name), await store.newest(NUMBERED.name)) == (9, 0)

    # -- apply ------------------------------------------------------------------------------------------------

    async def test_only_newer_versions_are_applied(self) -> None:
        store: Repository = await self.open()
        for version, status in ((5, "applied"), (5, "stale"), (4, "stale"), (6, "applied"), (1, "stale")):
            (outcome,) = await store.apply([thing("a", version, number=version)])
            assert (outcome.status, outcome.error) == (status, None)
        version, body = await live(store, key_of(THING, "a"))
        assert (version, body["number"]) == (6, 6)

    async def test_no_changes_are_no_outcomes(self) -> None:
        store: Repository = await self.open()
        assert await store.apply([]) == []

    async def test_versions_up_to_53_bits_are_kept(self) -> None:
        store: Repository = await self.open()
        last = (1 << 53) - 1
        for version, status in ((last - 1, "applied"), (last, "applied"), (last - 1, "stale")):
            assert [o.status for o in await store.apply([thing("a", version)])] == [status]
        assert (await live(store, key_of(THING, "a")))[0] == last

    async def test_a_batch_may_hold_a_key_several_times_and_answers_each(self) -> None:
        store: Repository = await self.open()
        batch = [thing("a", 1), thing("b", 7), thing("a", 3, number=3), thing("a", 2), thing("a", 3, number=3)]
        outcomes = await store.apply([*batch, removal(key_of(THING, "c"), 2), thing("c", 1), removal(batch[0].key, 2)])
        assert len(outcomes) == 8
        assert {o.status for o in outcomes} <= {"applied", "stale"}
        assert outcomes[1].status == outcomes[5].status == "applied"
        assert "applied" in (outcomes[2].status, outcomes[4].status)
        assert (await live(store, key_of(THING, "a")))[1]["number"] == 3
        assert (await live(store, key_of(THING, "b")))[0] == 7
        gone = await state(store, key_of(THING, "c"))
        assert gone is not None
        assert (gone.version, gone.deleted) == (2, True)

    async def test_a_tombstone_holds_against_older_changes_and_yields_to_newer_ones(self) -> None:
        store: Repository = await self.open()
        key = key_of(THING, "a")
        assert [o.status for o in await store.apply([thing("a", 3)])] == ["applied"]
        assert [o.status for o in await store.apply([removal(key, 5)])] == ["applied"]
        for late in (thing("a", 4), thing("a", 5), removal(key, 5), removal(key, 2)):
            assert [o.status for o in await store.apply([late])] == ["stale"]
            record = await state(store, key)
            assert record is not None
            assert (record.version, record.body, record.key) == (5, None, key)
        assert [o.status for o in await store.apply([thing("a", 6, word="again")])] == ["applied"]
        assert (await live(store, key))[1]["word"] == "again"
        assert [o.status for o in await store.apply([removal(key, 5)])] == ["stale"]
        assert (await live(store, key))[0] == 6

    async def test_the_tombstone_of_a_record_never_seen_holds_too(self) -> None:
        store: Repository = await self.open()
        key = key_of(THING, "a")
        assert [o.status for o in await store.apply([removal(key, 5)])] == ["applied"]
        assert [o.status for o in await store.apply([thing("a", 4)])] == ["stale"]
        record = await state(store, key)
        assert record is not None
        assert (record.version, record.deleted) == (5, True)

    async def test_one_bad_change_is_rejected_alone_or_kept_exactly(self) -> None:
        """A number beyond 64 bits: no store may round, clip or swallow it, nor let it hold up its neighbours."""
        store: Repository = await self.open()
        bad = thing("bad", 2)
        body = {**(bad.body or {}), "number": 1 << 63}
        bad = Change(bad.key, 2, bad.h, body, THING.content_hash(body), bad.updated_us)
        outcomes = await store.apply([thing("a", 1), bad, thing("b", 3)])
        assert [outcomes[0].status, outcomes[2].status] == ["applied", "applied"]
        assert [r and r.version for r in await store.get([key_of(THING, "a"), key_of(THING, "b")])] == [1, 3]
        if outcomes[1].status == "applied":
            assert (await live(store, bad.key))[1]["number"] == 1 << 63
        else:
            assert outcomes[1].status == "rejected"
            assert isinstance(outcomes[1].error, InvalidData)
            assert str(1 << 63) not in str(outcomes[1].error), "an error must not carry a value"
            assert await state(store, bad.key) is None

    async def test_a_batch_of_the_largest_size_is_taken_and_a_larger_one_is_refused_or_taken_whole(self) -> None:
        store: Repository = await self.open()
        size = store.limits.batch_max
        assert {o.status for o in await store.apply([thing(f"{i}", 1) for i in range(size)])} == {"applied"}
        over = [thing(f"{i}", 2) for i in range(size + 1)]
        try:
            outcomes = await store.apply(over)
        except ValueTooLarge:
            wanted: list[int | None] = [1] * size + [None]
        else:
            assert {o.status for o in outcomes} == {"applied"}
            wanted = [2] * (size + 1)
        records = [r for part in chunks(over, 500) for r in await store.get([c.key for c in part])]
        assert [r and r.version for r in records] == wanted


def _agree(verb: str, found: Any, wanted: Any) -> None:
    """The found method can be called as the contract's is."""
    assert inspect.iscoroutinefunction(found) == inspect.iscoroutinefunction(wanted), f"{verb}: async or not"
    ours = [p for p in inspect.signature(wanted).parameters.values() if p.name != "self"]
    theirs = list(inspect.signature(found).parameters.values())
    assert [(p.name, p.kind) for p in theirs[: len(ours)]] == [(p.name, p.kind) for p in ours], f"{verb}: parameters"
    assert all(p.default is not p.empty for p in theirs[len(ours) :]), f"{verb}: more parameters are needed"
