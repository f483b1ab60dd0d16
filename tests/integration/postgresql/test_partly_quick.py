"""Commits that travel together, of which only some can be one statement."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from polystore_adapters.postgresql import commit as slow
from polystore_adapters.postgresql.pool import Pool

from polystore.env import Env
from polystore.errors import Unavailable
from polystore.model import Commit, Committed, Key, Write, key_hash
from polystore.protocols import Layout
from polystore.testing.conformance.entities import NUMBERED, Numbered
from tests.postgresql import connected, fresh_schema


def put(number: int, word: str, ttl_us: int | None = None) -> Commit:
    key, body = Key("", NUMBERED.name, str(number)), NUMBERED.encode(Numbered(number, word))
    h = key_hash("", key.etype, key.id)
    return Commit([Write("put", key, h, body, NUMBERED.content_hash(body), ttl_us=ttl_us)])


def test_an_outage_between_is_told_to_those_alone_that_were_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who was written is told that nothing was, and tries again."""

    async def scenario(path: str) -> None:
        store: Any = await connected(Env(), path)
        try:
            await store.prepare([Layout(NUMBERED, True, frozenset())], create=True)
            await store.commit([put(1, "expired", ttl_us=1)])

            async def down(pool: Pool, tables: object, commits: object) -> Any:
                raise Unavailable("the server restarts")

            with monkeypatch.context() as patch:
                patch.setattr(slow, "run", down)
                first, second = await store.commit([put(1, "anew"), put(2, "fresh")])
            assert isinstance(first, Unavailable)
            assert isinstance(second, Committed)
            (found,) = await store.get([Key("", NUMBERED.name, "2")])
            assert (found.version, found.body["word"]) == (second.written[0].version, "fresh")
        finally:
            await store.aclose()

    with fresh_schema() as path:
        asyncio.run(scenario(path))
