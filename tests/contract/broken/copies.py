"""Copies and records, broken."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, cast

import msgspec
from polystore_adapters.memory import MemoryRepository, MemoryServer
from polystore_adapters.memory.tables import Row, Tombstone

from polystore.errors import PolystoreError, Unavailable
from polystore.filters import Checked
from polystore.model import (
    APPLIED,
    EVERYTHING,
    STALE,
    Change,
    HashSpan,
    Key,
    Outcome,
    Page,
    Record,
)
from polystore.protocols import SupportsFilter
from polystore.testing.conformance import (
    CancellationConformance,
    HistoriesConformance,
    InlineGetConformance,
    RecordsConformance,
    RepositoryConformance,
)
from tests.contract.broken.registry import fails


def changed(record: Record, change: Callable[[Any], Any]) -> Record:
    """The record with every value changed."""
    body = {name: change(value) for name, value in (record.body or {}).items()}
    return msgspec.structs.replace(record, body=body)


@fails(RepositoryConformance, "test_only_newer_versions_are_applied")
@fails(HistoriesConformance, "test_many_appliers_end_at_the_newest_version_and_no_version_drops", seed=0)
@fails(HistoriesConformance, "test_late_repeats_of_old_changes_change_nothing", seed=100)
class NoGuard(MemoryServer):
    def _apply(self, change: Change) -> Outcome:
        self.remove(change.key)
        return super()._apply(change)


@fails(
    RepositoryConformance,
    "test_what_overwrites_takes_the_place_of_its_own_version_and_of_none_that_is_newer",
)
@fails(RepositoryConformance, "test_what_overwrites_deletes_at_the_same_version_and_brings_back")
class EqualsAreStaleWhateverIsSaid(MemoryServer):
    def _apply(self, change: Change) -> Outcome:
        return super()._apply(msgspec.structs.replace(change, overwrites=False))


@fails(
    RepositoryConformance,
    "test_what_overwrites_takes_the_place_of_its_own_version_and_of_none_that_is_newer",
)
class OverwritesWhatIsNewer(MemoryServer):
    def _apply(self, change: Change) -> Outcome:
        if change.overwrites:
            self.remove(change.key)
        return super()._apply(change)


@fails(RepositoryConformance, "test_only_newer_versions_are_applied")
class GuardTakesEquals(MemoryServer):
    """A repeat is written again: harmless for the state, but the answer lies."""

    def _apply(self, change: Change) -> Outcome:
        standing = self.part(change.key.etype, change.key.tenant).standing(change.key.id)
        if standing is not None and standing.version == change.version:
            return APPLIED
        return super()._apply(change)


@fails(RepositoryConformance, "test_a_tombstone_holds_against_older_changes_and_yields_to_newer_ones")
@fails(HistoriesConformance, "test_many_appliers_end_at_the_newest_version_and_no_version_drops", seed=0)
class HardDelete(MemoryServer):
    """A delete takes the record away and leaves nothing that could hold."""

    def _apply(self, change: Change) -> Outcome:
        outcome = super()._apply(change)
        if change.deleted and outcome == APPLIED:
            self.remove(change.key)
        return outcome


@fails(RepositoryConformance, "test_the_tombstone_of_a_record_never_seen_holds_too")
class TombstoneOnlyOfTheSeen(MemoryServer):
    def _apply(self, change: Change) -> Outcome:
        if change.deleted and self.part(change.key.etype, change.key.tenant).standing(change.key.id) is None:
            return APPLIED
        return super()._apply(change)


@fails(RepositoryConformance, "test_a_tombstone_holds_against_older_changes_and_yields_to_newer_ones")
class TombstoneWithoutVersion(MemoryServer):
    def _apply(self, change: Change) -> Outcome:
        outcome = super()._apply(change)
        if change.deleted and outcome == APPLIED:
            self.install(change.key, Tombstone(0, change.h, change.updated_us))
        return outcome


@fails(RecordsConformance, "test_tenants_do_not_see_each_other")
class TenantIgnored(MemoryServer):
    def get(self, keys: Sequence[Key]) -> list[Record | None]:
        found = super().get([Key("", key.etype, key.id) for key in keys])
        return [record and msgspec.structs.replace(record, key=key) for key, record in zip(keys, found, strict=True)]


@fails(RecordsConformance, "test_tenants_do_not_see_each_other")
class TenantsForgotten(MemoryServer):
    def tenants(self, etype: str) -> list[str]:
        return [tenant for tenant, _ in self.parts(etype)]


@fails(RepositoryConformance, "test_tells_the_highest_version_it_ever_held")
class NewestOfTheLiving(MemoryServer):
    def newest(self, etype: str) -> int:
        return max((row.version for _, part in self.parts(etype) for row in part.rows.values()), default=0)


@fails(RecordsConformance, "test_get_answers_in_the_order_asked_with_repeats_and_gaps")
class AnswersUnordered(MemoryServer):
    def get(self, keys: Sequence[Key]) -> list[Record | None]:
        return super().get(sorted(keys, key=lambda key: key.id))


@fails(RecordsConformance, "test_get_answers_in_the_order_asked_with_repeats_and_gaps")
class GapsLeftOut(MemoryServer):
    def get(self, keys: Sequence[Key]) -> list[Record | None]:
        return [record for record in super().get(keys) if record is not None]


@fails(RecordsConformance, "test_every_value_comes_back_exactly")
class DecimalsAsFloats(MemoryServer):
    def record(self, key: Key, row: Row) -> Record:
        record = super().record(key, row)
        return changed(record, lambda v: Decimal(repr(float(v))) if isinstance(v, Decimal) else v)


@fails(RecordsConformance, "test_every_value_comes_back_exactly")
@fails(RecordsConformance, "test_negative_zero_is_zero_and_texts_keep_their_form")
class TextsComposed(MemoryServer):
    def record(self, key: Key, row: Row) -> Record:
        return changed(super().record(key, row), lambda v: unicodedata.normalize("NFC", v) if type(v) is str else v)


@fails(RecordsConformance, "test_every_value_comes_back_exactly")
class EmptyIsMissing(MemoryServer):
    def record(self, key: Key, row: Row) -> Record:
        return changed(super().record(key, row), lambda v: None if v in ("", b"", []) else v)


@fails(RecordsConformance, "test_values_given_are_not_kept_and_values_returned_belong_to_the_caller")
class BodiesShared(MemoryServer):
    def record(self, key: Key, row: Row) -> Record:
        return Record(key, row.version, row.body, row.hash, row.updated_us)


@fails(RecordsConformance, "test_scan_lists_live_records_by_hash_and_id_over_any_page_size")
class ScanUnsorted(MemoryServer):
    def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        page = super().scan(etype, tenant, span, cursor, limit)
        return Page(sorted(page.stamps, key=lambda stamp: stamp.id), page.cursor)


@fails(RecordsConformance, "test_scan_computes_the_hash_from_what_is_stored")
class ScanTrustsTheStoredHash(MemoryServer):
    def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        page = super().scan(etype, tenant, span, cursor, limit)
        rows = self.part(etype, tenant).rows
        return Page([msgspec.structs.replace(one, hash=rows[one.id].hash) for one in page.stamps], page.cursor)


@fails(RecordsConformance, "test_scan_lists_live_records_by_hash_and_id_over_any_page_size")
class ScanLosesEqualHashes(MemoryServer):
    def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        page = super().scan(etype, tenant, span, cursor, limit)
        if page.cursor is None:
            return page
        last = page.stamps[-1].h
        return Page(page.stamps, f'[{last}, "\U0010ffff"]')


@fails(RepositoryConformance, "test_one_bad_change_is_rejected_alone_or_kept_exactly")
class OneBadChangeFailsAll(MemoryServer):
    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        for change in changes:
            if change.body is not None and (change.body.get("number") or 0) >= 1 << 63:
                return [Outcome("rejected", PolystoreError("no"))] * len(changes)
        return super().apply(changes)


@fails(HistoriesConformance, "test_four_versions_of_a_fresh_key_at_once_end_at_the_fourth", removed=None)
class ReadsThenWrites(MemoryRepository):
    """The guard as two calls: between them another applier comes first."""

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        standing = await self.get([change.key for change in changes])
        outcomes: list[Outcome] = []
        for change, before in zip(changes, standing, strict=True):
            if before is not None and before.version >= change.version:
                outcomes.append(STALE)
            else:
                self.server.remove(change.key)
                outcomes += self.server.apply([change])
        return outcomes


@fails(RepositoryConformance, "test_a_batch_of_the_largest_size_is_taken_and_a_larger_one_is_refused_or_taken_whole")
class LargeBatchesCutOff(MemoryRepository):
    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        await super().apply(changes[: self.limits.batch_max])
        return [APPLIED] * len(changes)


@fails(RecordsConformance, "test_close_may_come_twice_and_under_way")
class OutageAsNone(MemoryRepository):
    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        try:
            return await super().get(keys)
        except Unavailable:
            return [None] * len(keys)


@fails(RepositoryConformance, "test_says_who_it_is")
class TaskLeft(MemoryRepository):
    async def ping(self) -> Any:
        self.task = asyncio.create_task(asyncio.sleep(3600))
        return await super().ping()


@fails(RepositoryConformance, "test_claims_a_protocol_exactly_when_it_has_its_methods")
class ClaimsTooMuch(MemoryRepository):
    search = None  # type: ignore[assignment]


@fails(RepositoryConformance, "test_claims_a_protocol_exactly_when_it_has_its_methods")
class ClaimsTooLittle(MemoryRepository):
    capabilities = MemoryRepository.capabilities - {SupportsFilter}


@fails(RepositoryConformance, "test_claims_a_protocol_exactly_when_it_has_its_methods")
class OtherParameters(MemoryRepository):
    async def count(self, etype: str, where: Checked | None, tenant: str = "") -> int:  # type: ignore[override]
        return await super().count(etype, tenant, where)


@fails(RecordsConformance, "test_a_cancelled_call_leaves_nothing_broken")
class LocksForGood(MemoryRepository):
    """A cancelled call keeps what it had taken."""

    taken = False

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        if self.taken:
            raise Unavailable("busy")
        self.taken = True
        outcomes = await super().apply(changes)
        self.taken = False
        return outcomes


@fails(InlineGetConformance, "test_raises_after_close_and_never_says_missing")
class InlineSaysMissing(MemoryRepository):
    def get_now(self, key: Key) -> Record | None:
        try:
            return super().get_now(key)
        except Unavailable:
            return None


@fails(HistoriesConformance, "test_a_cancelled_call_that_arrives_late_undoes_nothing_newer")
class Zombies(MemoryRepository):
    """A call that was cancelled is carried out later, over whatever is there then."""

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(0.002, self._over, changes)
            raise
        return await super().apply(changes)

    def _over(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self.server.remove(change.key)
            self.server.apply([change])


@fails(RecordsConformance, "test_cancelled_reads_leave_nothing_broken")
class KeepsConnections(MemoryRepository):
    """A connection whose call was cancelled is never given back."""

    checked_out = 0

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        self.checked_out += 1
        await asyncio.sleep(0)
        found = await super().get(keys)
        self.checked_out -= 1
        return found


@fails(CancellationConformance, "test_reads_cancelled_at_any_await_harm_no_other_call")
class KeepsWhatCameWithTheCancellation(MemoryRepository):
    """A cancelled wait gives its turn back, but not the connection that it had been given at this very moment."""

    checked_out = 0

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        await asyncio.sleep(0)
        turn = asyncio.get_running_loop().create_future()
        turn.get_loop().call_soon(turn.set_result, None)
        self.checked_out += 1
        try:
            await turn
        finally:
            if turn.cancelled() or not cast(Any, asyncio.current_task()).cancelling():
                self.checked_out -= 1
        return await super().get(keys)


@fails(CancellationConformance, "test_a_write_cancelled_at_any_await_is_done_or_not_and_holds_up_no_other")
class LocksForGoodWhenAnswered(MemoryRepository):
    """A lock that is given back by who awaits the answer, and by nobody when that was cancelled."""

    locked = False

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        if self.locked:
            raise Unavailable("locked")
        self.locked = True
        outcomes = await super().apply(changes)
        await asyncio.sleep(0)
        self.locked = False
        return outcomes


@fails(RecordsConformance, "test_keys_that_look_alike_or_hurt_are_all_different")
class KeysFolded(MemoryServer):
    """Capitals and small letters are one, as servers' collations have it."""

    def _apply(self, change: Change) -> Outcome:
        key = msgspec.structs.replace(change.key, id=change.key.id.lower())
        return super()._apply(msgspec.structs.replace(change, key=key))


@fails(RecordsConformance, "test_scan_misses_nothing_that_stands_still_while_others_change")
class PagesByCounting(MemoryServer):
    """The cursor says how many were shown, not behind which to go on."""

    def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        everything = super().scan(etype, tenant, span, None, 1_000_000).stamps
        begin = int(cursor or 0)
        page = everything[begin : begin + limit]
        return Page(page, f"{begin + limit}" if begin + limit < len(everything) else None)


@fails(RecordsConformance, "test_scan_keeps_to_the_span")
class SpanIgnored(MemoryServer):
    def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        return super().scan(etype, tenant, EVERYTHING, cursor, limit)


@fails(RepositoryConformance, "test_versions_up_to_53_bits_are_kept")
class VersionsOf32Bits(MemoryServer):
    def _apply(self, change: Change) -> Outcome:
        return super()._apply(msgspec.structs.replace(change, version=change.version & 0xFFFFFFFF))


@fails(RepositoryConformance, "test_a_batch_may_hold_a_key_several_times_and_answers_each")
class OneAnswerForAKey(MemoryServer):
    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        return super().apply([*{change.key: change for change in changes}.values()])
