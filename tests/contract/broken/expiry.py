"""Time to live, broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from polystore_adapters.memory import MemoryServer

from polystore.model import Change, Key, Outcome, Write, Written
from polystore.testing.conformance import CopyExpiryConformance, ExpiryConformance
from tests.contract.broken.registry import fails


@fails(ExpiryConformance, "test_a_record_is_there_until_its_time_is_over_and_not_after")
class ImmortalUntilSwept(MemoryServer):
    """A record is there until somebody deletes it."""

    def expired(self, row: Any) -> bool:
        return False


@fails(ExpiryConformance, "test_find_and_count_leave_out_what_has_expired")
class FindsTheDead(MemoryServer):
    def alive(self, etype: str, tenant: str) -> dict[str, Any]:
        return self.part(etype, tenant).rows


@fails(ExpiryConformance, "test_an_update_keeps_the_time_unless_it_says_another")
class UpdateMakesImmortal(MemoryServer):
    def _new_row(self, write: Write, old: Any, version: int, now: int) -> Any:
        new: Any = super()._new_row(write, old, version, now)
        return msgspec.structs.replace(new, expires_us=0 if write.ttl_us is None else new.expires_us)


@fails(ExpiryConformance, "test_expire_leaves_alone_what_is_not_over")
class SweepsTheLiving(MemoryServer):
    """What was expired when it was listed is deleted, whatever was written since."""

    def _write(self, drafts: Any, write: Write) -> Written:
        return super()._write(
            drafts, msgspec.structs.replace(write, kind="delete") if write.kind == "expire" else write
        )


def _nobody(key: Key) -> None:
    """No record has expired."""


@fails(ExpiryConformance, "test_a_unique_value_is_free_when_its_holder_has_expired")
class TheDeadHoldTheirValues(MemoryServer):
    def _write(self, drafts: Any, write: Write) -> Written:
        drafts.over = _nobody
        return super()._write(drafts, write)


@fails(ExpiryConformance, "test_the_same_content_with_a_new_time_is_no_repeat")
class SameContentIsSkipped(MemoryServer):
    def _write(self, drafts: Any, write: Write) -> Written:
        return super()._write(drafts, msgspec.structs.replace(write, ttl_us=None) if write.kind == "skip" else write)


@fails(ExpiryConformance, "test_of_many_expired_records_as_many_are_listed_as_were_asked_for")
class ListsEverything(MemoryServer):
    def expired_keys(self, etypes: Sequence[str], limit: int) -> list[Key]:
        return super().expired_keys(etypes, 1 << 30)


@fails(CopyExpiryConformance, "test_a_copy_does_not_show_what_has_expired")
class CopyWithoutTimes(MemoryServer):
    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        return super().apply([msgspec.structs.replace(one, expires_us=0) for one in changes])
