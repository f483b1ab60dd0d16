"""Records are loaded at their home, whatever it has lost."""

from __future__ import annotations

from typing import Any

from polystore_adapters.memory import MemoryRepository, MemoryServer

from polystore.consistency.loading import load
from polystore.entity import entity_types
from polystore.journaled import PATIENCE_S, JournalEntity, Lent, LentBodies
from polystore.model import Change, Commit, Held, Key, Settlement, Write, key_hash
from polystore.protocols import Layout
from polystore.store import Store
from polystore.testing.documents import Documents
from polystore.testing.simloop import run
from tests.unit.consistency.world import Note, VirtualEnv

NOTE: Any = entity_types([Note])["note"]


def test_a_home_that_lost_many_records_is_waited_for_once() -> None:
    async def test(_loop: Any) -> None:
        env = VirtualEnv()
        server, documents = MemoryServer(env), MemoryServer(env)
        server.prepare([Layout(JournalEntity(NOTE), True, frozenset())], create=True)
        documents.prepare([Layout(NOTE, False, frozenset())], create=True)
        journal = Store("journal", MemoryRepository(server, env), env=env)
        home = Store("home", Documents(MemoryRepository(documents, env)), env=env)
        journal.bodies = LentBodies(env, "journal", {"note": Lent(JournalEntity(NOTE), home, [])})
        writes: list[Write] = []
        for i in range(64):
            body = {"id": str(i), "text": "t"}
            key = Key("", "note", str(i))
            writes.append(Write("put", key, key_hash("", "note", key.id), body, NOTE.content_hash(body)))
        committed = await journal.commit(Commit(writes))
        versions = {write.key: one.version for write, one in zip(writes, committed.written, strict=True)}
        held = [key for key in versions if int(key.id) % 7 == 0]
        for key in held:
            body = {"id": key.id, "text": "t"}
            documents.apply([Change(key, versions[key], 0, body, NOTE.content_hash(body), 1)])
        server.settle(Settlement(held=[Held(key, version) for key, version in versions.items()]))
        began = env.monotonic()
        assert set(await load(journal, versions)) == set(held)
        assert env.monotonic() - began < 2 * PATIENCE_S

    run(1, test)
