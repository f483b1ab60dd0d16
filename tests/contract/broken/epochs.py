"""Homes whose next epoch is none."""

from __future__ import annotations

from typing import Any

import msgspec
from polystore_adapters.memory import MemoryServer

from polystore.model import JOURNAL_HELD
from polystore.testing.conformance import EpochConformance, KeptBodiesConformance
from tests.contract.broken.registry import fails


@fails(EpochConformance, "test_what_stands_and_what_is_deleted_is_of_the_new_epoch")
class TombstonesStay(MemoryServer):
    """What copies hold of a record that is deleted here stays newer than its tombstone."""

    def _raise(self, part: Any) -> None:
        tombstones = part.tombstones
        super()._raise(part)
        part.tombstones = tombstones


@fails(EpochConformance, "test_versions_go_on_above")
class VersionsStay(MemoryServer):
    """New versions are drawn where the lost ones were."""

    def bump_epoch(self) -> int:
        before = self._version
        number = super().bump_epoch()
        self._version = before
        return number


@fails(EpochConformance, "test_copies_in_use_are_to_be_filled_anew")
class CopiesStay(MemoryServer):
    """Copies keep what they have of the lost state."""

    def bump_epoch(self) -> int:
        rows = dict(self._targets)
        number = super().bump_epoch()
        self._targets = rows
        return number


@fails(EpochConformance, "test_copies_in_use_are_to_be_filled_anew")
class TheOthersToo(MemoryServer):
    """A copy that is off is put back."""

    def bump_epoch(self) -> int:
        number = super().bump_epoch()
        for key, row in self._targets.items():
            self._targets[key] = msgspec.structs.replace(row, status="backfilling")
        return number


@fails(KeptBodiesConformance, "test_a_tombstone_is_of_the_next_epoch_wherever_the_bodies_are")
class TombstonesOfLentTypesStay(MemoryServer):
    def _raise_bodies(self, part: Any) -> None:
        tombstones = part.tombstones
        super()._raise_bodies(part)
        part.tombstones = tombstones


@fails(KeptBodiesConformance, "test_a_body_that_gets_a_version_of_the_next_epoch_stays")
class BodiesAreHeld(MemoryServer):
    """What the home held at the version before is given up at the new one."""

    def _raise_bodies(self, part: Any) -> None:
        held = {id: row.body[JOURNAL_HELD] for id, row in part.rows.items()}
        super()._raise_bodies(part)
        for id, row in part.rows.items():
            part.rows[id] = msgspec.structs.replace(row, body={**row.body, JOURNAL_HELD: held[id]})
