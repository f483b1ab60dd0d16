"""A home in memory that goes on above its versions, as one does that was restored to the past."""

from __future__ import annotations

import msgspec

from polystore.model import EPOCH_BITS, JOURNAL_BODY, JOURNAL_HELD

from .home import Home
from .tables import Part


class Epochs(Home):
    """Part of `MemoryServer`."""

    def bump_epoch(self) -> int:
        number = (self._version >> EPOCH_BITS) + 1
        self._version = (number << EPOCH_BITS) + 1
        for etype in [etype for etype, one in self.layouts.items() if one.home]:
            if JOURNAL_BODY in self.layout(etype).entity.fields:
                for _, part in self.parts(etype):
                    self._raise_bodies(part)
                continue
            for _, part in self.parts(etype):
                self._raise(part)
            for key, row in list(self._targets.items()):
                if row.etype == etype and row.status != "off":
                    self._targets[key] = msgspec.structs.replace(row, status="backfilling", cursor=None)
        return number

    def _raise(self, part: Part) -> None:
        part.rows = {id: msgspec.structs.replace(row, version=self._version) for id, row in part.rows.items()}
        self._raise_tombstones(part)

    def _raise_tombstones(self, part: Part) -> None:
        part.tombstones = {
            id: msgspec.structs.replace(one, version=self._version) for id, one in part.tombstones.items()
        }

    def _raise_bodies(self, part: Part) -> None:
        """The home held them at the versions before."""
        self._raise_tombstones(part)
        for id, row in part.rows.items():
            if row.body[JOURNAL_BODY] is not None:
                body = {**row.body, JOURNAL_HELD: None}
                part.rows[id] = msgspec.structs.replace(row, version=self._version, body=body)
