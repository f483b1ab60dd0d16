"""Journals of homes that cannot commit, broken."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace
from polystore_adapters.memory import MemoryServer

from polystore.model import JOURNAL_BODY, Held, Key, Record
from polystore.testing.conformance import KeptBodiesConformance
from tests.contract.broken.registry import fails


@fails(KeptBodiesConformance, "test_a_body_goes_when_the_home_holds_exactly_its_version")
class BodyGoesAtAnyVersion(MemoryServer):
    def settle_held(self, held: Sequence[Held]) -> None:
        standing = self.get([one.key for one in held])
        super().settle_held([replace(h, version=r.version) for h, r in zip(held, standing, strict=True) if r])


@fails(KeptBodiesConformance, "test_a_body_goes_when_the_home_holds_exactly_its_version")
class BodyGoesOfOlderVersionsToo(MemoryServer):
    def settle_held(self, held: Sequence[Held]) -> None:
        for one, standing in zip(held, self.get([one.key for one in held]), strict=True):
            if standing is not None and standing.version <= one.version:
                super().settle_held([replace(one, version=standing.version)])


@fails(KeptBodiesConformance, "test_a_body_goes_when_the_home_holds_exactly_its_version")
class BodyOfAnotherTenantGoes(MemoryServer):
    def settle_held(self, held: Sequence[Held]) -> None:
        for one in held:
            for tenant, part in self.parts(one.key.etype):
                if one.key.id in part.rows:
                    key = Key(tenant, one.key.etype, one.key.id)
                    super().settle_held([replace(one, key=key, version=part.rows[one.key.id].version)])


@fails(KeptBodiesConformance, "test_what_is_left_of_a_record_is_what_it_was")
class SettlingIsAWrite(MemoryServer):
    def settle_held(self, held: Sequence[Held]) -> None:
        super().settle_held(held)
        for one in held:
            rows = self.part(one.key.etype, one.key.tenant).rows
            rows[one.key.id] = replace(rows[one.key.id], updated_us=self.env.now_us())


@fails(KeptBodiesConformance, "test_a_deleted_record_and_an_unknown_one_are_settled_too")
class SettledTombstoneIsGone(MemoryServer):
    def settle_held(self, held: Sequence[Held]) -> None:
        for one in held:
            self.part(one.key.etype, one.key.tenant).tombstones.pop(one.key.id, None)
        super().settle_held(held)


@fails(KeptBodiesConformance, "test_for_a_home_that_is_not_durable_a_body_stays_for_a_while")
class EveryHomeIsDurable(MemoryServer):
    def settle_held(self, held: Sequence[Held]) -> None:
        super().settle_held([replace(one, durable=True) for one in held])


@fails(KeptBodiesConformance, "test_for_a_home_that_is_not_durable_a_body_stays_for_a_while")
class ReleasedAtOnce(MemoryServer):
    def release(self, etype: str, age_us: int, limit: int) -> int:
        return super().release(etype, 0, limit)


@fails(KeptBodiesConformance, "test_what_neither_has_is_never_taken_for_absent")
class AwayIsAbsent(MemoryServer):
    def get_now(self, key: Key) -> Record | None:
        record = super().get_now(key)
        away = record is not None and record.body is not None and record.body.get(JOURNAL_BODY, b"") is None
        return None if away else record
