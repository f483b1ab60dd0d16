"""Stores that forget something when a connection ends, and homes whose facets do not follow: broken."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from polystore_adapters.memory import MemoryRepository, MemoryServer
from polystore_adapters.memory.tables import Row

from polystore.embedding import unpack
from polystore.model import Key, StoredVector, Write, Written
from polystore.testing.conformance import (
    DurabilityConformance,
    HomeDurabilityConformance,
    HomeTextConformance,
    HomeTraversalConformance,
    HomeVectorConformance,
)
from tests.contract.broken.registry import fails


@fails(DurabilityConformance, "test_records_and_tombstones_are_there_again")
class TombstonesForgotten(MemoryRepository):
    async def aclose(self) -> None:
        await super().aclose()
        for etype in self.server.layouts:
            for _, part in self.server.parts(etype):
                part.tombstones.clear()


@fails(DurabilityConformance, "test_what_was_done_when_the_end_came_is_there_and_nothing_in_halves")
class LastRecordsLost(MemoryRepository):
    """What was acknowledged lies in a buffer that the end throws away."""

    async def aclose(self) -> None:
        await super().aclose()
        for etype in self.server.layouts:
            for tenant, part in self.server.parts(etype):
                for id in list(part.rows)[-5:]:
                    self.server.remove(Key(tenant, etype, id))


@fails(DurabilityConformance, "test_records_and_tombstones_are_there_again")
class NewestForgotten(MemoryRepository):
    async def aclose(self) -> None:
        await super().aclose()
        cast(Any, self.server)._newest.clear()


@fails(HomeDurabilityConformance, "test_versions_go_on_where_they_were")
class VersionsStartAnew(MemoryRepository):
    async def aclose(self) -> None:
        await super().aclose()
        cast(Any, self.server)._version = 1 << 42


@fails(HomeDurabilityConformance, "test_operation_ids_are_remembered")
@fails(HomeDurabilityConformance, "test_a_commit_is_known_to_whoever_asks_again_after_the_end")
class OperationsForgotten(MemoryRepository):
    async def aclose(self) -> None:
        await super().aclose()
        self.server.operations.clear()


@fails(HomeDurabilityConformance, "test_the_journal_owes_what_it_owed")
class ClosesItsOutbox(MemoryRepository):
    """A worker that leaves in good order throws away what it still owes."""

    async def aclose(self) -> None:
        await super().aclose()
        self.server.outbox.clear()


@fails(HomeDurabilityConformance, "test_a_worker_whose_connection_ended_is_dead")
class WorkersLiveForEver(MemoryServer):
    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.known = frozenset[str]()

    def beat(self, worker: str) -> frozenset[str]:
        self.known |= super().beat(worker)
        return self.known


def after_update(drafts: Any, write: Write, written: Written, **fields: Any) -> Written:
    """What `_write` answered, with the row changed that an update is about to leave."""
    row = drafts.states.get(write.key)
    if write.kind == "update" and isinstance(row, Row):
        drafts.states[write.key] = msgspec.structs.replace(row, **fields)
    return written


@fails(HomeTextConformance, "test_the_index_follows_every_kind_of_write")
class TextAsItWasCreated(MemoryServer):
    def _write(self, drafts: Any, write: Write) -> Written:
        old = drafts.live(write.key)
        return after_update(drafts, write, super()._write(drafts, write), terms=old.terms if old else ())


@fails(HomeTraversalConformance, "test_edges_follow_every_kind_of_write")
class EdgesAsTheyWereCreated(MemoryServer):
    def _write(self, drafts: Any, write: Write) -> Written:
        old = drafts.live(write.key)
        return after_update(drafts, write, super()._write(drafts, write), edges=old.edges if old else ())


@fails(HomeVectorConformance, "test_an_update_keeps_the_vectors_of_the_fields_it_leaves_alone")
class VectorsLostByAnUpdate(MemoryServer):
    def _write(self, drafts: Any, write: Write) -> Written:
        return after_update(drafts, write, super()._write(drafts, write), vectors={})


@fails(HomeVectorConformance, "test_an_update_keeps_the_vectors_of_the_fields_it_leaves_alone")
class VectorsOfOldTextsServe(MemoryServer):
    def _write(self, drafts: Any, write: Write) -> Written:
        old = drafts.live(write.key)
        kept: dict[str, Any] = {**(old.vectors if old else {}), **{f: unpack(v) for f, v in write.vectors.items()}}
        return after_update(drafts, write, super()._write(drafts, write), vectors=kept)


@fails(HomeVectorConformance, "test_an_embedders_vectors_serve_while_their_text_stands")
class VectorsBesideTheHomeOnly(MemoryServer):
    def _serves(self, vector: StoredVector) -> bool:
        return False
