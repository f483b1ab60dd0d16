"""Journals, broken."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from polystore_adapters.memory import MemoryServer

from polystore.model import (
    Backlog,
    Done,
    OutboxRow,
    RetryRow,
    Settlement,
    StoredVector,
    TargetRow,
)
from polystore.testing.conformance import (
    JournalConformance,
)
from tests.contract.broken.registry import fails


@fails(JournalConformance, "test_a_commit_owes_every_change_to_all_copies_that_are_not_off")
class NothingOwed(MemoryServer):
    def mask(self, etype: str) -> int:
        return 0


@fails(JournalConformance, "test_a_commit_owes_every_change_to_all_copies_that_are_not_off")
class MaskWithTheOff(MemoryServer):
    def mask(self, etype: str) -> int:
        return sum(1 << row.bit for row in self.targets() if row.etype == etype)


@fails(JournalConformance, "test_rows_of_the_dead_are_taken_over_and_counted_and_those_of_the_living_are_not")
class ClaimsUncounted(MemoryServer):
    def claim(self, worker: str, live: frozenset[str], etypes: Sequence[str], limit: int) -> list[OutboxRow]:
        rows = super().claim(worker, live, etypes, limit)
        return [msgspec.structs.replace(row, claims=0) for row in rows]


@fails(JournalConformance, "test_rows_of_the_dead_are_taken_over_and_counted_and_those_of_the_living_are_not")
class ClaimsFromTheLiving(MemoryServer):
    def claim(self, worker: str, live: frozenset[str], etypes: Sequence[str], limit: int) -> list[OutboxRow]:
        return super().claim(worker, frozenset({worker}), etypes, limit)


@fails(JournalConformance, "test_many_claimers_at_once_share_the_rows")
class ClaimedTwice(MemoryServer):
    def claim(self, worker: str, live: frozenset[str], etypes: Sequence[str], limit: int) -> list[OutboxRow]:
        rows = super().claim(worker, live, etypes, limit)
        self.retire(worker)
        return rows


@fails(JournalConformance, "test_settle_removes_the_claimed_rows_and_no_other_and_may_be_repeated")
class SettleTakesOlderRowsToo(MemoryServer):
    def settle(self, settlement: Settlement) -> None:
        super().settle(settlement)
        for version in [v for v in self.outbox if settlement.delivered and v <= max(settlement.delivered)]:
            del self.outbox[version]


@fails(JournalConformance, "test_owed_rows_of_one_record_are_merged")
class RetryRowOverwritten(MemoryServer):
    def settle(self, settlement: Settlement) -> None:
        forgotten = [Done(row.target, row.key, 1 << 60) for row in settlement.owed]
        super().settle(Settlement(done=forgotten))
        super().settle(settlement)


@fails(JournalConformance, "test_done_removes_what_is_owed_up_to_the_applied_version")
class DoneIgnoresTheVersion(MemoryServer):
    def settle(self, settlement: Settlement) -> None:
        done = [msgspec.structs.replace(one, version=1 << 60) for one in settlement.done]
        super().settle(msgspec.structs.replace(settlement, done=done))


@fails(JournalConformance, "test_a_parked_row_stays_parked_until_something_newer_is_owed")
class ParkedForgotten(MemoryServer):
    """A parked row becomes a retry row by any settlement that names it."""

    def settle(self, settlement: Settlement) -> None:
        self.redrive(None, [row.key for row in settlement.owed if row.state != "p"])
        super().settle(settlement)


@fails(JournalConformance, "test_a_parked_row_stays_parked_until_something_newer_is_owed")
class ParkedIsDue(MemoryServer):
    def due(self, target: str, etypes: Sequence[str], now_us: int, limit: int) -> list[RetryRow]:
        rows, _ = self.parked(target, None, limit)
        return [*super().due(target, etypes, now_us, limit), *rows]


@fails(JournalConformance, "test_due_rows_come_oldest_first_and_stay_away_for_five_seconds")
class DueForEverybody(MemoryServer):
    def due(self, target: str, etypes: Sequence[str], now_us: int, limit: int) -> list[RetryRow]:
        rows = super().due(target, etypes, now_us, limit)
        self.awaken(target, [row.key for row in rows], 0)
        return rows


@fails(JournalConformance, "test_pending_tells_what_a_copy_still_misses")
class PendingForgetsTheParked(MemoryServer):
    def pending(self, etype: str, target: str, pairs: Sequence[tuple[int, int]]) -> bool:
        rows, _ = self.parked(target, None, 1_000)
        parked = {row.h for row in rows}
        return super().pending(etype, target, [pair for pair in pairs if pair[0] not in parked])


@fails(JournalConformance, "test_targets_and_placements_are_remembered")
class PlacementForWhoComesLast(MemoryServer):
    def remember(self, etype: str, placement: str, was: str | None = None) -> bool:
        return super().remember(etype, placement)


@fails(JournalConformance, "test_a_backfill_owes_every_record_once_and_remembers_how_far_it_is")
class BackfillOfOneTenant(MemoryServer):
    def backfill(self, row: TargetRow, limit: int) -> TargetRow:
        parts = self.parts(row.etype)
        self._parts = {(row.etype, tenant): part for tenant, part in parts[:1]}
        try:
            return super().backfill(row, limit)
        finally:
            self._parts.update({(row.etype, tenant): part for tenant, part in parts})


@fails(
    JournalConformance,
    "test_what_was_written_since_a_version_is_listed_with_its_tombstones_in_the_order_of_versions",
)
class ListsNoTombstones(MemoryServer):
    def written_since(self, etype: str, version: int, limit: int) -> list[OutboxRow]:
        found = super().written_since(etype, version, limit)
        return [row for row in found if row.key.id in self.part(etype, row.key.tenant).rows]


@fails(JournalConformance, "test_old_tombstones_go_only_when_nothing_waits_for_them")
class PurgesWhatIsOwed(MemoryServer):
    def purge(self, now_us: int, tombstone_ttl_us: int) -> int:
        self.outbox.clear()
        return super().purge(now_us, tombstone_ttl_us)


@fails(JournalConformance, "test_vectors_of_other_embedders_are_forgotten_part_by_part")
class CallersVectorsForgottenToo(MemoryServer):
    def forget_vectors(self, etype: str, but_of: Sequence[str], limit: int) -> int:
        found = [(key, at) for key, kept in self.stored.items() for at in kept if at[1] not in but_of]
        for key, at in found[:limit]:
            del self.stored[key][at]
        return len(found[:limit])


@fails(JournalConformance, "test_done_removes_what_is_owed_up_to_the_applied_version")
class OldestCountsTheParked(MemoryServer):
    def backlog(self) -> Backlog:
        rows, _ = self.parked(None, None, 100)
        found = super().backlog()
        parked = {(row.key.etype, row.target): row.min_version for row in rows}
        return msgspec.structs.replace(found, oldest={**found.oldest, **parked})


@fails(JournalConformance, "test_the_backlog_counts_what_is_owed")
class TypesCountedTogether(MemoryServer):
    def backlog(self) -> Backlog:
        found = super().backlog()
        oldest = min(found.unsent.values(), default=0)
        return msgspec.structs.replace(found, unsent=dict.fromkeys(found.unsent, oldest))


@fails(JournalConformance, "test_vectors_of_embedders_are_kept_for_the_text_they_were_made_of")
class VectorsOfOldTextsKept(MemoryServer):
    def put_vectors(self, vectors: Sequence[StoredVector]) -> None:
        for vector in vectors:
            self.stored.setdefault(vector.key, {}).setdefault((vector.field, vector.embedder), vector)


@fails(JournalConformance, "test_one_worker_at_a_time_has_a_lease_and_may_go_on_holding_it")
class LeasesForAll(MemoryServer):
    def hold_lease(self, name: str, worker: str, ttl_s: float) -> bool:
        return True


@fails(JournalConformance, "test_a_lease_lasts_as_long_as_it_was_asked_for_last")
class LeasesNotRenewed(MemoryServer):
    def hold_lease(self, name: str, worker: str, ttl_s: float) -> bool:
        owner, until_us = self._leases.get(name, ("", 0))
        return (ttl_s > 0 and owner == worker and until_us > self.env.now_us()) or super().hold_lease(
            name, worker, ttl_s
        )


@fails(JournalConformance, "test_a_lease_that_is_given_up_is_anybodys_at_once")
class LeasesEndWithTheWorker(MemoryServer):
    def retire(self, worker: str) -> None:
        super().retire(worker)
        self._leases = {name: lease for name, lease in self._leases.items() if lease[0] != worker}


@fails(JournalConformance, "test_targets_and_placements_are_remembered")
class CopiesAddedTwice(MemoryServer):
    def set_target(self, row: TargetRow, was: TargetRow | None = None) -> None:
        super().set_target(row, None if was is not None and was.status == "off" else was)
