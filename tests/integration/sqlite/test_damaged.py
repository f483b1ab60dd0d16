"""A row that somebody has damaged: told, never missing, and it stops neither a scan nor the reading of others."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import pytest
from polystore_adapters.sqlite import connect

from polystore import DecodeError, FullText, Relation
from polystore.entity import entity, entity_types
from polystore.env import Env
from polystore.model import EVERYTHING, UNREADABLE, Change, Key, key_hash
from polystore.protocols import Layout


@entity()
@dataclass(kw_only=True)
class Leaf:
    id: str
    text: Annotated[str, FullText()] = ""
    at: datetime = datetime(2024, 1, 2, tzinfo=UTC)
    near: Annotated[list[str], Relation("NEAR", to="Leaf")]


LEAF = entity_types([Leaf])["leaf"]


@pytest.mark.parametrize("damage", [("at", "soon"), ("near", "[{"), ("text", b"\xff")], ids=lambda one: one[0])
def test_a_damaged_row_is_told_by_a_scan_and_yields_to_what_is_written_again(
    damage: tuple[str, str | bytes], tmp_path: Path
) -> None:
    async def main() -> None:
        file = tmp_path / "leaves.db"
        store = await connect(f"sqlite:{file}", {}, Env())
        try:
            await store.prepare([Layout(LEAF, False, frozenset({"full_text", "graph"}))], create=True)
            changes = [change(id, i) for i, id in enumerate("abc", 1)]
            await store.apply(changes)
            field, value = damage
            with closing(sqlite3.connect(file)) as db, db:
                db.execute(f"UPDATE leaf SET \"{field}\" = CAST(? AS TEXT) WHERE id = 'b'", (value,))
            stamps = (await store.scan("leaf", "", EVERYTHING, None, 10)).stamps
            assert {one.id: (one.version, one.hash, one.fault) for one in stamps} == {
                **{one.key.id: (one.version, one.hash, "") for one in changes},
                "b": (2, b"", UNREADABLE),
            }
            for keys in (["b"], ["a", "b"]):
                with pytest.raises(DecodeError):
                    await store.get([Key("", "leaf", id) for id in keys])
            assert all(await store.get([Key("", "leaf", id) for id in "ac"]))
            await store.apply([change("b", 2, overwrites=True)])
            stamps = (await store.scan("leaf", "", EVERYTHING, None, 10)).stamps
            assert {one.id: one.fault for one in stamps} == {"a": "", "b": "", "c": ""}
        finally:
            await store.aclose()

    asyncio.run(main())


def test_a_row_whose_id_is_damaged_is_told_beside_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "leaves.db"
        store = await connect(f"sqlite:{file}", {}, Env())
        try:
            await store.prepare([Layout(LEAF, False, frozenset({"full_text", "graph"}))], create=True)
            await store.apply([change(id, i) for i, id in enumerate("abc", 1)])
            with closing(sqlite3.connect(file)) as db, db:
                db.execute("UPDATE leaf SET id = CAST(? AS TEXT) WHERE id = 'b'", (b"\xff",))
            cursor, faults = None, dict[str, str]()
            for _ in range(4):
                page = await store.scan("leaf", "", EVERYTHING, cursor, 2)
                faults |= {one.id: one.fault for one in page.stamps}
                if (cursor := page.cursor) is None:
                    break
            assert faults == {"a": "", "\\xff": UNREADABLE, "c": ""}
        finally:
            await store.aclose()

    asyncio.run(main())


def change(id: str, version: int, *, overwrites: bool = False) -> Change:
    body = LEAF.encode(Leaf(id=id, text=f"of {id}", near=["a"]))
    h = key_hash("", "leaf", id)
    return Change(Key("", "leaf", id), version, h, body, LEAF.content_hash(body), version, overwrites=overwrites)
