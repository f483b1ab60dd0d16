"""What is known of a type, its newest version and its tenants, is never behind the records that lie there, wherever a
process ends: by the one a journal that was restored to the past is noticed, by the other a comparison finds them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from polystore_adapters.redis import RedisRepository, connect
from polystore_adapters.redis.keys import Keys
from polystore_adapters.redis.records import PUT
from polystore_adapters.redis.server import Command, Server
from redis.asyncio.cluster import ClusterNode

from polystore import entity
from polystore.entity import entity_type
from polystore.env import SYSTEM_ENV
from polystore.model import APPLIED, Change, Key, key_hash
from polystore.protocols import Layout
from tests.redis_servers import Place
from tests.stack import own_server, url_of


@entity()
@dataclass(kw_only=True)
class Word:
    id: str


WORD = entity_type(Word)
KEYS = [Key("acme", "word", f"w{n}") for n in range(20)]
"""In all buckets, and so on all nodes."""


def changes(version: int) -> list[Change]:
    bodies = [{"id": key.id} for key in KEYS]
    return [
        Change(key, version + i, key_hash(key.tenant, key.etype, key.id), body, WORD.content_hash(body), 1)
        for i, (key, body) in enumerate(zip(KEYS, bodies, strict=True))
    ]


async def opened(url: str, **options: Any) -> RedisRepository:
    repository = await connect(url, options, SYSTEM_ENV)
    await repository.prepare([Layout(WORD, False, frozenset())], create=True)
    return repository


async def check(repository: RedisRepository) -> int:
    """How many records lie there; and that all of them are known of."""
    versions = [record.version for record in await repository.get(KEYS) if record is not None]
    assert await repository.newest("word") >= max(versions, default=0), "a journal restored to the past goes unnoticed"
    assert await repository.tenants("word") == (["acme"] if versions else []), "no comparison finds them"
    return len(versions)


def test_in_a_cluster_no_record_is_written_before_the_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends while the node of the note does not answer, and the others have done all that they were sent."""
    place = Place(url_of("redis-cluster"))

    async def main() -> None:
        repository = await opened(place.url, prefix=place.prefix)
        client: Any = repository.client
        silent = client.get_node_from_key(Keys(place.prefix).about("word")[0]).name
        asked, answering = asyncio.Event(), set[Any]()

        def held(name: str) -> None:
            real = getattr(ClusterNode, name)

            async def call(self: Any, *arguments: Any, **named: Any) -> Any:
                if self.name == silent:
                    asked.set()
                    await asyncio.Event().wait()
                answering.add(asyncio.current_task())
                try:
                    return await real(self, *arguments, **named)
                finally:
                    answering.discard(asyncio.current_task())

            monkeypatch.setattr(ClusterNode, name, call)

        held("execute_command")
        held("execute_pipeline")
        writing = asyncio.create_task(repository.apply(changes(1)))
        await asyncio.wait_for(asked.wait(), 10)
        await asyncio.sleep(0)  # what is sent to all nodes at once begins in the same turn
        async with asyncio.timeout(10):
            while answering:  # noqa: ASYNC110
                await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        monkeypatch.undo()
        assert await check(repository) == 0
        assert await repository.apply(changes(1)) == [APPLIED] * len(KEYS)
        assert await check(repository) == len(KEYS)
        await repository.aclose()

    asyncio.run(main())
    place.clear()


def test_a_note_that_the_server_has_forgotten_is_not_written_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends after its first packet. The server knows the script that writes, from another process."""

    async def main(url: str) -> None:
        repository, packets = await opened(url), list[int]()
        client: Any = repository.client
        await client.script_flush()
        await client.script_load(PUT.text)
        real: Any = vars(Server)["_sent"]

        async def sent(self: Server, commands: Sequence[Command], writes: bool) -> Any:
            packets.append(len(commands))
            if len(packets) > 1:
                raise asyncio.CancelledError
            return await real(self, commands, writes)

        monkeypatch.setattr(Server, "_sent", sent)
        await asyncio.gather(repository.apply(changes(1)), return_exceptions=True)
        monkeypatch.undo()
        assert packets == [1 + len(KEYS)]
        assert await check(repository) == len(KEYS)
        await repository.aclose()

    with own_server("redis") as mine:
        asyncio.run(main(mine.url))
