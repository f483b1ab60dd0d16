"""Reads that ask a cache first, through the facade."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from polystore import ConfigurationError, HybridDataArchitecture, NotFound, Unavailable, entity
from polystore.selection import explanation
from tests.integration.cache.world import Note, Secret, StoppingEnv, config, opened, run, server_of, until

both = pytest.mark.parametrize("remote", [False, True], ids=["cache in the process", "cache behind a network"])


@entity(cache="strict")
class Account(msgspec.Struct):
    id: str


def refused(where: Any, entities: Sequence[type[Any]]) -> str:
    caught: list[str] = []

    async def main() -> None:
        try:
            async with HybridDataArchitecture.open(where, entities=entities):
                pass
        except ConfigurationError as e:
            caught.append(str(e))

    run(main)
    return caught[0]


@both
def test_what_was_read_once_is_had_from_the_cache(remote: bool) -> None:
    async def main() -> None:
        env = StoppingEnv(remote=remote)
        async with opened(env) as hda:
            notes = hda.collection(Note)
            await notes.put(Note("a", "x", 1), ack=["cache"])
            await notes.put(Note("b", "y", 2), ack=["cache"])
            await hda.settle(10)
            assert await notes.get_many(["a", "c", "b"]) == [Note("a", "x", 1), None, Note("b", "y", 2)]
            await until(lambda: hda.caches["note"].counts.filled == 3)
            asked = env.count("home", "get")
            assert await notes.get("a") == Note("a", "x", 1)
            assert await notes.get("c") is None
            assert await notes.exists("b")
            assert not await notes.exists("c")
            assert (await notes.load("b")).value.n == 2
            with pytest.raises(NotFound):
                await notes.load("c")
            assert await notes.get_many(["b", "b", "a"]) == [Note("b", "y", 2), Note("b", "y", 2), Note("a", "x", 1)]
            assert env.count("home", "get") == asked
            assert await notes.get_many([]) == []

    run(main)


@both
def test_every_write_of_this_process_shows_at_the_next_read_once_the_cache_was_told(remote: bool) -> None:
    async def main() -> None:
        async with opened(StoppingEnv(remote=remote)) as hda:
            notes = hda.collection(Note)
            ack: Any = ["cache"] if remote else "committed"
            assert await notes.get("a") is None
            await notes.create(Note("a", "x", 1), ack=ack)
            assert await notes.get("a") == Note("a", "x", 1), "what was known to be absent is there"
            await notes.update("a", {"n": 2}, ack=ack)
            assert await notes.get("a") == Note("a", "x", 2)
            await notes.put(Note("a", "y", 3), ack=ack)
            assert await notes.get("a") == Note("a", "y", 3)
            await notes.delete("a", ack=ack)
            assert await notes.get("a") is None
            async with hda.transaction(ack=ack) as tx:
                tx.put(Note("a", "z", 4))
                tx.put(Note("b", "z", 5))
            assert await notes.get_many(["a", "b"]) == [Note("a", "z", 4), Note("b", "z", 5)]

    run(main)


def test_a_read_with_a_token_asks_the_home() -> None:
    async def main() -> None:
        env = StoppingEnv(remote=True)
        async with opened(env) as hda:
            notes = hda.collection(Note)
            await notes.put(Note("a", "x", 1), ack=["cache"])
            await notes.get("a")
            await until(lambda: hda.caches["note"].counts.filled == 1)
            gate = env.stop("cache", "invalidate")
            written = await notes.put(Note("a", "x", 2))
            await gate.arrived.wait()
            assert await notes.get("a") == Note("a", "x", 1), "the cache does not know yet"
            assert await notes.get("a", after=written.token) == Note("a", "x", 2)
            assert await notes.get_many(["a"], after=written.token) == [Note("a", "x", 2)]
            assert (await notes.load("a", after=written.token)).value.n == 2
            gate.open()

    run(main)


def test_callers_share_no_object() -> None:
    async def main() -> None:
        async with opened() as hda:
            notes = hda.collection(Note)
            await notes.put(Note("a", tags=["x"]), ack=["cache"])
            for _ in range(3):
                (note,) = await notes.get_many(["a"])
                assert note is not None
                assert note.tags == ["x"]
                note.tags.append("mine")
                one = await notes.get("a")
                assert one is not None
                assert one.tags == ["x"]
                one.tags.append("mine")

    run(main)


def test_tenants_have_entries_of_their_own() -> None:
    async def main() -> None:
        async with opened() as hda:
            for tenant in ("acme", "ac/me", "ac%2Fme"):
                notes = hda.tenant(tenant).collection(Note)
                assert await notes.get("a/b") is None
                await notes.put(Note("a/b", tenant))
            for tenant in ("acme", "ac/me", "ac%2Fme"):
                assert await hda.tenant(tenant).collection(Note).get("a/b") == Note("a/b", tenant)
            assert await hda.collection(Note).get("a/b") is None

    run(main)


@both
def test_an_entry_lives_no_longer_than_its_record_nor_than_the_hard_limit(remote: bool) -> None:
    async def main() -> None:
        env = StoppingEnv(remote=remote)
        async with opened(env) as hda:
            notes = hda.collection(Note)
            await notes.put(Note("a", "x"), ttl_s=20, ack=["cache"])
            await notes.put(Note("b", "x"), ack=["cache"])
            await notes.get_many(["a", "b", "c"])
            await until(lambda: hda.caches["note"].counts.filled == 3)
            env.forward(21)
            assert await notes.get("a") is None
            held = server_of(hda).cache
            assert held.lookup(["/note/b"]) != [None]
            assert held.lookup(["/note/c"]) != [None]
            env.forward(13)
            assert held.lookup(["/note/c"]) == [None], "that a record is absent is known for 30 s and a tenth"
            env.forward(330 - 34 + 1)
            assert held.lookup(["/note/b"]) == [None]

    run(main)


# -- a cache that fails -------------------------------------------------------------------------------------------

VERBS = ("lookup", "lookup_now", "lease", "fill", "invalidate", "invalidate_now")


@both
@pytest.mark.parametrize("error", [Unavailable("no route"), RuntimeError("a fault in the adapter")], ids=type)
@pytest.mark.parametrize("verbs", [VERBS, ("lookup", "lookup_now"), ("lease",), ("fill",)], ids=",".join)
def test_a_cache_that_fails_is_bypassed_and_counted(remote: bool, error: Exception, verbs: tuple[str, ...]) -> None:
    async def main() -> None:
        env = StoppingEnv(remote=remote)
        async with opened(env) as hda:
            notes = hda.collection(Note)
            await notes.put(Note("a", "x", 1))
            await hda.settle(10)
            counts = hda.caches["note"].counts
            before = counts.bypassed
            env.fail("cache", *verbs, error=error)
            assert await notes.get("a") == Note("a", "x", 1)
            assert await notes.get_many(["a", "b"]) == [Note("a", "x", 1), None]
            assert (await notes.load("a")).value.n == 1
            assert await notes.exists("a")
            await notes.put(Note("a", "x", 2))
            await until(lambda: counts.bypassed > before)
            env.heal()

    run(main)


def test_a_cache_that_does_not_answer_is_not_waited_for() -> None:
    async def main() -> None:
        env = StoppingEnv(remote=True)
        async with opened(env) as hda:
            notes = hda.collection(Note)
            await notes.put(Note("a", "x", 1), ack=["cache"])
            env.stop("cache", "lookup")
            assert await notes.get("a") == Note("a", "x", 1)
            assert hda.caches["note"].counts.bypassed == 1

    run(main)


@both
def test_what_the_cache_missed_while_it_was_down_is_told_when_it_is_back(remote: bool) -> None:
    async def main() -> None:
        env = StoppingEnv(remote=remote)
        async with opened(env) as hda:
            notes = hda.collection(Note)
            await notes.put(Note("a", "x", 1), ack=["cache"])
            await notes.get("a")
            await until(lambda: hda.caches["note"].counts.filled == 1)
            env.fail("cache", "invalidate", "invalidate_now")
            written = await notes.put(Note("a", "x", 2))
            assert written.stores["cache"] == "pending"
            assert await notes.get("a") == Note("a", "x", 1), "readers reach the cache, and writers do not"
            env.heal()
            await hda.settle(10)
            assert await notes.get("a") == Note("a", "x", 2)

    run(main)


def test_an_outage_of_the_home_is_an_error_also_with_a_cache() -> None:
    async def main() -> None:
        env = StoppingEnv()
        async with opened(env) as hda:
            notes = hda.collection(Note)
            await notes.put(Note("a", "x", 1), ack=["cache"])
            await notes.get("a")
            await until(lambda: hda.caches["note"].counts.filled == 1)
            env.fail("home", "get")
            assert await notes.get("a") == Note("a", "x", 1)
            with pytest.raises(Unavailable):
                await notes.get("b")
            env.heal()
            assert await notes.get("b") is None

    run(main)


# -- whether there is a cache -------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory:", config()], ids=["no store for it", "a home that reads in the process"])
def test_without_need_records_have_no_cache(where: Any) -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open(where, entities=[Note]) as hda:
            assert hda.caches == {}
            result = await hda.collection(Note).put(Note("a"))
            assert "cache" not in result.stores

    run(main)


def test_a_pin_makes_any_store_that_can_the_cache() -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open(config(note={"cache": "cache"}), entities=[Note, Secret]) as hda:
            assert list(hda.caches) == ["note"]
            notes = hda.collection(Note)
            result = await notes.put(Note("a"), ack="applied")
            assert result.stores == {"home": "committed", "cache": "applied"}
            await notes.get("a")
            await until(lambda: hda.caches["note"].counts.filled == 1)
            with hda.trace() as trace:
                await notes.get("a")
            assert [(step.store, step.verb) for step in trace.steps] == [("cache", "lookup")]
            assert "  cache      cache: pinned by the configuration" in explanation(hda.remembered["note"]).splitlines()

    run(main)


def test_what_the_class_says_holds() -> None:
    async def main() -> None:
        async with opened(entities=[Note, Secret]) as hda:
            assert list(hda.caches) == ["note"]
            secrets = hda.collection(Secret)
            result = await secrets.put(Secret("s"))
            assert result.stores == {"home": "committed"}
            assert await secrets.get("s") == Secret("s")

    run(main)
    message = refused(config(secret={"cache": "cache"}), [Secret])
    assert "cache='off'" in message
    message = refused(config(account={"cache": "cache"}), [Account])
    assert "cache='strict'" in message
    assert "before its commit, and 'cache' is this process" in message


def test_strict_is_no_matter_where_nothing_is_cached() -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open(config(), entities=[Account]) as hda:
            assert hda.caches == {}

    run(main)


@pytest.mark.parametrize(("pin", "why"), [("home", "it holds records"), ("plain", "roles do not include cache")])
def test_a_pin_that_cannot_be_is_refused(pin: str, why: str) -> None:
    where = config(note={"cache": pin})
    del where["stores"]["home"]["roles"]
    where["stores"]["plain"] = {"url": "memory:", "roles": ["live_state"]}
    assert why in refused(where, [Note])


def test_a_cache_that_is_down_when_all_is_opened_is_owed_what_it_misses() -> None:
    async def main() -> None:
        shared = config("memory:home", "memory:cache")
        shared["stores"]["cache"]["required"] = False
        async with opened(where=shared) as hda:
            notes = hda.collection(Note)
            await notes.put(Note("a", "x", 1), ack="applied")
            await notes.get("a")
            await until(lambda: hda.caches["note"].counts.filled == 1)
            async with opened(StoppingEnv(refused={"cache"}), shared) as other:
                assert other.caches == {}
                written = await other.collection(Note).put(Note("a", "x", 2))
                assert written.stores["cache"] == "pending"
                assert await other.collection(Note).get("a") == Note("a", "x", 2)
            await hda.settle(10)
            assert await notes.get("a") == Note("a", "x", 2), "the first process has done what the other one could not"

    run(main)


def test_a_cache_that_comes_back_shows_nothing_of_what_it_missed() -> None:
    """Without the cache in the configuration nobody owes it anything: so what it holds goes when it comes back."""

    async def main() -> None:
        with_cache = config("memory:home", "memory:cache")
        without = {"stores": {"home": with_cache["stores"]["home"]}}
        async with opened(where=with_cache) as hda:
            await hda.collection(Note).put(Note("a", "x", 1), ack="applied")
            await hda.collection(Note).get("a")
            await until(lambda: hda.caches["note"].counts.filled == 1)
        async with opened(where=without) as hda:
            await hda.collection(Note).put(Note("a", "x", 2))
        async with opened(where=with_cache) as hda:
            assert await hda.collection(Note).get("a") == Note("a", "x", 2)

    run(main)
