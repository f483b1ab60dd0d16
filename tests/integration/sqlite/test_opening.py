"""A new file is opened once, whoever asks for it at the same moment, and closed whenever that is asked for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from polystore_adapters.sqlite import connect
from polystore_adapters.sqlite.database import Database

from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import Unavailable
from polystore.model import APPLIED, Change, Key, key_hash
from polystore.protocols import Layout
from polystore.testing.conformance.entities import ARTICLE, SPOT, Article, Spot


def change(of: EntityType[Any], value: object) -> Change:
    body = of.encode(value)
    key = Key("", of.name, str(body["id"]))
    return Change(key, 1, key_hash("", of.name, key.id), body, of.content_hash(body), 1)


def writers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "polystore-write"}


def test_two_that_prepare_a_new_file_at_the_same_moment_share_one_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two homes do whose copies are built anew in one second place. With a writer each, one ended the other's
    transaction in its middle: its table was gone again."""
    both, before = threading.Barrier(2), writers()
    real: Any = vars(Database)["_open"]

    def met(self: Database, create: bool) -> None:
        both.wait(10)
        real(self, create)

    monkeypatch.setattr(Database, "_open", met)

    async def main() -> None:
        store = await connect(f"sqlite:{tmp_path}/new.db", {}, Env())
        layouts = [Layout(one, False, frozenset({"full_text", "graph"})) for one in (ARTICLE, SPOT)]
        await asyncio.gather(*(store.prepare([one], create=True) for one in layouts))
        assert len(writers() - before) == 1
        changes = [change(ARTICLE, Article(id="a")), change(SPOT, Spot(id="s"))]
        for one in changes:
            assert await store.apply([one]) == [APPLIED]
        assert all(await store.get([one.key for one in changes]))
        await store.aclose()
        assert writers() <= before

    asyncio.run(main())


def test_a_store_that_is_closed_while_its_file_is_opened_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a caller that was cancelled, and so does not wait for it."""
    begun, go_on, before = threading.Event(), threading.Event(), writers()
    real: Any = vars(Database)["_settings"]

    def held(self: Database, *arguments: Any, **named: Any) -> None:
        begun.set()
        assert go_on.wait(10)
        real(self, *arguments, **named)

    monkeypatch.setattr(Database, "_settings", held)

    async def main() -> None:
        store = await connect(f"sqlite:{tmp_path}/new.db", {}, Env())
        preparing = asyncio.create_task(store.prepare([Layout(SPOT, False, frozenset())], create=True))
        await asyncio.to_thread(begun.wait, 10)
        preparing.cancel()
        closing = asyncio.create_task(store.aclose())
        await asyncio.sleep(0)
        go_on.set()
        await closing
        assert writers() <= before
        with pytest.raises(Unavailable, match="closed"):
            await store.prepare([Layout(SPOT, False, frozenset())], create=True)

    asyncio.run(main())
    # Who closes the last connection takes the log away.
    assert {path.name for path in tmp_path.iterdir()} <= {"new.db", "new.db.lock", "workers"}


def test_nothing_of_another_database_or_of_mapped_classes_is_imported_for_a_file(tmp_path: Path) -> None:
    """A command waits for each import: SQLAlchemy's ORM and a second dialect were a third of a start."""
    script = (
        "import asyncio, dataclasses, sys, polystore\n"
        "@polystore.entity()\n"
        "@dataclasses.dataclass\n"
        "class Note:\n    id: str\n"
        "async def main():\n"
        "    async with polystore.HybridDataArchitecture.open('sqlite:notes.db', entities=[Note]) as hda:\n"
        "        await hda.collection(Note).put(Note('n1'))\n"
        "asyncio.run(main())\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "sqlalchemy.dialects.sqlite" in loaded
    assert not {"sqlalchemy.orm", "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.mysql"} & loaded
