"""Commits of new records only, which are written without a decision about each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polystore_adapters.sqlite.repository import SqliteRepository

from polystore.entity import entity, entity_types
from polystore.model import Commit, Key, TargetRow, Write, key_hash
from tests.integration.sqlite.files import opened


@entity()
@dataclass(kw_only=True)
class Numbered:
    id: int
    text: str = ""


NUMBERED = entity_types([Numbered])["numbered"]


def new(id: int, **more: Any) -> Write:
    body = NUMBERED.encode(Numbered(id=id, text=f"{id}번째"))
    key = Key("", "numbered", str(id))
    return Write("skip", key, key_hash("", "numbered", key.id), body, NUMBERED.content_hash(body), **more)


async def committed(store: SqliteRepository, writes: Sequence[Write], owner: str | None) -> list[tuple[int, str, int]]:
    (answer,) = await store.commit([Commit(writes, owner)])
    assert not isinstance(answer, Exception), answer
    assert all(one.changed and one.targets == 0b10 for one in answer.written)
    return [(one.version, write.key.id, write.h) for one, write in zip(answer.written, writes, strict=True)]


def test_they_are_owed_to_copies_as_those_that_were_decided_one_by_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "app.db", types=[NUMBERED]) as store:
            await store.set_target(TargetRow("numbered", "copy", 1, "active"))
            most = store.limits.import_max
            assert most > store.limits.batch_max
            mine = await committed(store, [new(-1)], "me")
            mine += await committed(store, [new(i) for i in range(most)], "me")
            nobodys = await committed(store, [new(-2)], None)
            nobodys += await committed(store, [new(most + i, ttl_us=3_600_000_000) for i in range(20)], None)

            rows = await store.claimed("me", 1 << 60, 2 * most)
            assert [(row.version, row.key.id, row.h) for row in rows] == mine
            rows += await store.claim("me", frozenset({"me"}), ["numbered"], 2 * most)
            assert [(row.version, row.key.id, row.h) for row in rows] == mine + nobodys
            assert {(row.targets, row.claims) for row in rows} == {(0b10, 0)}
            found = await store.get([row.key for row in rows])
            assert [(one.version, one.body["id"]) for one in found if one is not None and one.body is not None] == [
                (version, int(id)) for version, id, _ in mine + nobodys
            ]

    asyncio.run(main())
