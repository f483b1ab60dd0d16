"""What readers and writers do between one another's steps, forced."""

from __future__ import annotations

import asyncio

import pytest

from polystore import HybridDataArchitecture
from polystore.cache import CacheStore
from polystore.collection import Collection
from tests.integration.cache.world import Note, StoppingEnv, config, opened, run, server_of, until

both = pytest.mark.parametrize("remote", [False, True], ids=["cache in the process", "cache behind a network"])


async def warm(hda: HybridDataArchitecture, id: str = "a") -> None:
    """The note is written, and in no cache."""
    await hda.collection(Note).put(Note(id, "old", 1), ack=["cache"])
    await hda.settle(10)


async def n_of(notes: Collection[Note]) -> int | None:
    note = await notes.get("a")
    return None if note is None else note.n


def cache_of(hda: HybridDataArchitecture) -> CacheStore:
    return hda.caches["note"]


@both
def test_what_was_read_before_a_write_is_not_filled_in_after_it(remote: bool) -> None:
    """The stale fill: a reader has read the old state at the home; then somebody writes, and the cache is told; then
    the reader brings what it has."""

    async def main() -> None:
        env = StoppingEnv(remote=remote)
        async with opened(env) as hda:
            notes = hda.collection(Note)
            await warm(hda)
            gate = env.stop("home", "get", "after")
            reader = asyncio.create_task(notes.get("a"))
            await gate.arrived.wait()
            await notes.put(Note("a", "new", 2), ack=["cache"])
            gate.open()
            assert (await reader or Note("")).n == 1, "the reader began before the write"
            await until(lambda: not cache_of(hda).flights)
            assert cache_of(hda).counts.refused == 1
            for _ in range(2):
                assert await n_of(notes) == 2

    run(main)


@both
def test_a_fill_that_arrives_before_the_invalidation_is_removed_by_it(remote: bool) -> None:
    async def main() -> None:
        env = StoppingEnv(remote=remote)
        async with opened(env) as hda:
            notes = hda.collection(Note)
            await warm(hda)
            env.fail("cache", "invalidate_now")
            gate = env.stop("cache", "invalidate")
            reading = env.stop("home", "get", "after")
            reader = asyncio.create_task(notes.get("a"))
            await reading.arrived.wait()
            await notes.put(Note("a", "new", 2))
            await gate.arrived.wait()
            reading.open()
            await reader
            await until(lambda: cache_of(hda).counts.filled == 1)
            assert await n_of(notes) == 1, "until the cache is told, that is what bounded means"
            gate.open()
            await hda.settle(10)
            assert await n_of(notes) == 2

    run(main)


@both
def test_a_reader_with_a_lease_does_not_join_what_was_under_way_before(remote: bool) -> None:
    """With the control evicted, a fill of what an earlier read has seen would be stale for good."""

    async def main() -> None:
        env = StoppingEnv(remote=remote)
        async with opened(env) as hda:
            notes = hda.collection(Note)
            first = await notes.put(Note("a", "old", 1), ack=["cache"])
            await hda.settle(10)
            gate = env.stop("home", "get", "after")
            earlier = asyncio.create_task(
                notes.get("a", after=first.token)
            )  # asks the home, and has read the old state
            await gate.arrived.wait()
            await notes.put(Note("a", "new", 2), ack=["cache"])
            server_of(hda).cache.controls.entries.clear()
            assert await n_of(notes) == 2
            await until(lambda: not cache_of(hda).flights)
            gate.open()
            assert (await earlier) is not None
            assert await n_of(notes) == 2

    run(main)


@both
def test_readers_who_miss_together_read_once_at_the_home(remote: bool) -> None:
    async def main() -> None:
        env = StoppingEnv(remote=remote)
        async with opened(env) as hda:
            notes = hda.collection(Note)
            await warm(hda)
            before = env.count("home", "get")
            gate = env.stop("home", "get")
            readers = [asyncio.create_task(notes.get("a")) for _ in range(50)]
            await gate.arrived.wait()
            readers += [asyncio.create_task(notes.get("a")) for _ in range(50)]
            await asyncio.sleep(0)
            gate.open()
            assert all(note is not None and note.n == 1 for note in await asyncio.gather(*readers))
            assert env.count("home", "get") == before + 1

    run(main)


@both
def test_when_the_first_of_them_is_cancelled_another_one_reads(remote: bool) -> None:
    async def main() -> None:
        env = StoppingEnv(remote=remote)
        async with opened(env) as hda:
            notes = hda.collection(Note)
            await warm(hda)
            gate = env.stop("home", "get")
            first = asyncio.create_task(notes.get("a"))
            await gate.arrived.wait()
            others = [asyncio.create_task(notes.get("a")) for _ in range(5)]
            await asyncio.sleep(0)
            first.cancel()
            assert all(note is not None and note.n == 1 for note in await asyncio.gather(*others))
            with pytest.raises(asyncio.CancelledError):
                await first

    run(main)


def test_who_waits_for_a_reader_reads_anew_and_not_what_that_one_has_read() -> None:
    """A reader that began after a write never gets what a slower one had read before it."""

    async def main() -> None:
        env = StoppingEnv(remote=True)
        async with opened(env) as hda:
            notes = hda.collection(Note)
            await warm(hda)
            gate = env.stop("home", "get", "after")
            slow = asyncio.create_task(notes.get("a"))
            await gate.arrived.wait()
            await notes.put(Note("a", "new", 2), ack=["cache"])
            later = asyncio.create_task(notes.get("a"))
            await until(lambda: env.count("cache", "lookup") >= 2)
            gate.open()
            found = await asyncio.gather(slow, later)
            assert [note.n for note in found if note is not None] == [1, 2]

    run(main)


@both
def test_while_another_process_has_the_lease_a_reader_waits_and_finds_what_it_fills_in(remote: bool) -> None:
    async def main() -> None:
        env, other = StoppingEnv(remote=remote), StoppingEnv(remote=remote)
        shared = config("memory:home", "memory:cache")
        async with opened(env, shared) as one, opened(other, shared) as two:
            await one.collection(Note).put(Note("a", "old", 1), ack=["cache"])
            await one.settle(10)
            gate = env.stop("home", "get", "after")
            reader = asyncio.create_task(one.collection(Note).get("a"))
            await gate.arrived.wait()
            waiting = asyncio.create_task(two.collection(Note).get("a"))
            await until(lambda: other.count("cache", "lease") >= 1)
            gate.open()
            found = await asyncio.gather(reader, waiting)
            assert [note.n for note in found if note is not None] == [1, 1]
            assert other.count("home", "get") == 0

    run(main)
