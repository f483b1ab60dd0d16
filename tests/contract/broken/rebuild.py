"""Clearing, broken."""

from __future__ import annotations

from polystore_adapters.memory import MemoryServer

from polystore.model import Key
from polystore.testing.conformance import RebuildConformance
from tests.contract.broken.registry import fails


@fails(RebuildConformance, "test_what_was_cleared_is_as_if_it_had_never_been")
class TombstonesStay(MemoryServer):
    def clear(self, etype: str) -> None:
        for tenant, part in self.parts(etype):
            for id in list(part.rows):
                self.remove(Key(tenant, etype, id))


@fails(RebuildConformance, "test_another_connection_goes_on_once_it_is_prepared_again")
class RecordsStay(MemoryServer):
    def clear(self, etype: str) -> None:
        self.layouts.pop(etype, None)
