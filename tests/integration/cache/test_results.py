"""Results of queries under a caller's `cache_key`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from polystore import F, HybridDataArchitecture, InvalidData, InvalidFilter
from polystore.collection.untyped import ReadResult
from tests.integration.cache.world import Note, StoppingEnv, config, opened, run

both = pytest.mark.parametrize("remote", [False, True], ids=["cache in the process", "cache behind a network"])

QUERIES: dict[str, dict[str, Any]] = {
    "filter": {"where": F.n >= 2, "order_by": F.n.desc()},
    "full_text": {"text": "river"},
    "similarity": {"to": "a walk along the river", "where": F.n >= 2},
    "hybrid": {"text": "river"},
    "relationship": {"key": "n1", "type": "ABOUT", "where": F.n >= 2},
}


async def notes_in(hda: HybridDataArchitecture) -> None:
    notes = [Note(f"n{i}", f"a walk along the river {i}", i, about=[f"n{i + 1}", f"n{i + 2}"]) for i in range(1, 6)]
    await hda.collection(Note).put_many(notes, ack="visible")
    await hda.settle(10)


async def ask(hda: HybridDataArchitecture, kind: Any, **more: Any) -> ReadResult:
    query: Any = {"kind": kind, "entity": "note", **QUERIES[kind], "cache_key": "front", **more}
    return await hda.read_operation(query)


def ids(result: ReadResult) -> list[str]:
    return [getattr(item, "value", item).id for item in result.items]


@both
@pytest.mark.parametrize("kind", QUERIES)
def test_a_result_is_kept_as_ids_and_its_records_are_current(remote: bool, kind: str) -> None:
    async def main() -> None:
        env = StoppingEnv(remote=remote)
        async with opened(env) as hda:
            await notes_in(hda)
            notes = hda.collection(Note)
            first = await ask(hda, kind)
            assert first.cache == "miss"
            assert len(first.items) >= 2
            await hda.settle(10)
            again = await ask(hda, kind)
            assert (again.cache, list(again.items), again.cursor) == ("hit", list(first.items), first.cursor)
            assert [step.verb for step in again.steps if step.store == "home"] == ["get"]
            changed, gone, unfit = "n3", "n2", "n4"
            await notes.update(changed, {"tags": ["new"]}, ack="visible")
            await notes.delete(gone, ack="visible")
            await notes.update(unfit, {"n": 0}, ack="visible")
            later = await ask(hda, kind)
            assert later.cache == "hit"
            limited = "where" in QUERIES[kind]
            assert ids(later) == [id for id in ids(first) if id != gone and not (limited and id == unfit)]
            values = {item.id: item for item in (getattr(item, "value", item) for item in later.items)}
            assert values[changed].tags == ["new"]

    run(main)


def test_a_result_lives_five_seconds() -> None:
    async def main() -> None:
        env = StoppingEnv()
        async with opened(env) as hda:
            await notes_in(hda)
            await ask(hda, "filter")
            await hda.settle(10)
            await hda.collection(Note).put(Note("n9", n=9))
            assert "n9" not in ids(await ask(hda, "filter"))
            env.forward(5.6)
            result = await ask(hda, "filter")
            assert result.cache == "miss"
            assert "n9" in ids(result)

    run(main)


@both
def test_a_write_that_names_the_key_removes_the_result(remote: bool) -> None:
    async def main() -> None:
        async with opened(StoppingEnv(remote=remote)) as hda:
            await notes_in(hda)
            await ask(hda, "filter")
            await ask(hda, "filter")
            await hda.write_operation({"core": {"n": 9}, "cache_keys": ["other"]}, entity="note", key="n9")
            assert (await ask(hda, "filter")).cache == "hit"
            await hda.write_operation({"core": {"n": 8}, "cache_keys": ["front"]}, entity="note", key="n8")
            result = await ask(hda, "filter")
            assert result.cache == "miss"
            assert {"n8", "n9"} <= {*ids(result)}

    run(main)


@both
def test_what_was_asked_before_the_write_is_not_kept_after_it(remote: bool) -> None:
    """As for records: the lease is revoked, though there is no version."""

    async def main() -> None:

        env = StoppingEnv(remote=remote)
        async with opened(env) as hda:
            await notes_in(hda)
            gate = env.stop("home", "find", "after")
            slow = asyncio.create_task(ask(hda, "filter"))
            await gate.arrived.wait()
            await hda.write_operation({"core": {"n": 9}, "cache_keys": ["front"]}, entity="note", key="n9")
            gate.open()
            assert "n9" not in ids(await slow)
            result = await ask(hda, "filter")
            assert "n9" in ids(result)

    run(main)


def test_one_name_is_one_query_of_one_tenant() -> None:
    """The result of one query is never the answer to another one: its condition may be somebody's access control."""

    async def main() -> None:
        async with opened() as hda:
            await notes_in(hda)
            await ask(hda, "filter")
            await hda.settle(10)
            other = await ask(hda, "filter", where=F.n >= 5)
            assert (other.cache, ids(other)) == ("bypass", ["n5"])
            assert (await ask(hda, "full_text")).cache == "bypass"
            assert (await ask(hda, "filter")).cache == "hit"
            tenant = await ask(hda.tenant("acme"), "filter")
            assert (tenant.cache, ids(tenant)) == ("miss", [])

    run(main)


def test_pages_of_a_kept_result_go_on() -> None:
    async def main() -> None:
        async with opened() as hda:
            await notes_in(hda)
            pages = [await ask(hda, "filter", limit=2) for _ in range(2)]
            assert [ids(page) for page in pages] == [["n5", "n4"]] * 2
            first = pages[1]
            assert first.cursor is not None
            rest = await ask(hda, "filter", limit=2, cursor=first.cursor, cache_key="second page")
            assert ids(rest) == ["n3", "n2"]

    run(main)


def test_with_a_token_and_without_a_cache_the_stores_are_asked() -> None:
    async def main() -> None:
        async with opened() as hda:
            await notes_in(hda)
            await ask(hda, "filter")
            written = await hda.collection(Note).put(Note("n9", n=9))
            result = await ask(hda, "filter", after=written.token)
            assert (result.cache, result.items[0].id) == ("off", "n9")
        async with HybridDataArchitecture.open("memory:", entities=[Note]) as hda:
            await notes_in(hda)
            for _ in range(2):
                assert (await ask(hda, "filter")).cache == "off"
            await hda.write_operation({"core": {"n": 9}, "cache_keys": ["front"]}, entity="note", key="n9")

    run(main)


def test_the_cache_of_results_needs_no_cache_of_records() -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open(config(), entities=[Note]) as hda:
            assert hda.caches == {}
            await notes_in(hda)
            assert [(await ask(hda, "filter")).cache for _ in range(2)] == ["miss", "hit"]

    run(main)


@both
def test_a_cache_that_fails_is_bypassed(remote: bool) -> None:
    async def main() -> None:
        env = StoppingEnv(remote=remote)
        async with opened(env) as hda:
            await notes_in(hda)
            env.fail("cache", "lookup", "lookup_now", "lease", "invalidate", "invalidate_now")
            result = await ask(hda, "filter")
            assert (result.cache, ids(result)) == ("bypass", ["n5", "n4", "n3", "n2"])
            await hda.write_operation({"core": {"n": 9}, "cache_keys": ["front"]}, entity="note", key="n9")
            assert ids(await ask(hda, "filter"))[0] == "n9"
            env.heal()

    run(main)


def test_a_read_by_key_says_what_the_cache_did() -> None:
    async def main() -> None:
        async with opened() as hda:
            await notes_in(hda)
            asked: list[str] = []
            for _ in range(2):
                asked.append((await hda.read_operation({"kind": "key", "entity": "note", "key": "n1"})).cache)
                await hda.settle(10)
            assert asked == ["miss", "hit"]

    run(main)


def test_bad_names_are_refused() -> None:
    async def main() -> None:
        async with opened() as hda:
            bad: Any = {"kind": "key", "entity": "note", "key": "n1", "cache_key": "x"}
            with pytest.raises(InvalidFilter, match="cache_key"):
                await hda.read_operation(bad)
            with pytest.raises(InvalidFilter, match="text"):
                await ask(hda, "filter", cache_key=7)
            names: Any = "front"
            with pytest.raises(InvalidData, match="cache_keys"):
                await hda.write_operation({"core": {}, "cache_keys": names}, entity="note", key="n1")

    run(main)
