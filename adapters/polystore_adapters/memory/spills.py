"""Facts that the journal of a memory server keeps for stores that are down."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from polystore.model import Spill, SpillCount, SpillRow
from polystore.protocols import first_run, spill_refused

TAKEN_US = 5_000_000


class _Kept(msgspec.Struct):
    row: SpillRow
    created_us: int
    next_us: int = 0
    aside: bool = False
    error: str = ""


class Spills:
    """See `SupportsSpill`. Every method is one step."""

    def __init__(self) -> None:
        self.rows: dict[int, _Kept] = {}
        self._number = 0

    def keep(self, spills: Sequence[Spill], now_us: int) -> None:
        for spill in spills:
            self._number += 1
            self.rows[self._number] = _Kept(SpillRow(self._number, 0, spill), now_us)

    def spill(self, spills: Sequence[Spill], bytes_max: int, now_us: int) -> None:
        kept = sum(len(one.row.spill.payload) for one in self.rows.values())
        if kept + sum(len(one.payload) for one in spills) > bytes_max:
            raise spill_refused(spills, kept, bytes_max)
        self.keep(spills, now_us)

    def spilled(self, store: str, limit: int, now_us: int) -> list[SpillRow]:
        mine = [one for one in self.rows.values() if one.row.spill.store == store]
        queue = [one for one in mine if not one.aside]
        if not queue or queue[0].next_us > now_us:
            queue = [one for one in mine if one.aside and one.next_us <= now_us]
        run = first_run((one.row for one in queue), limit)
        for row in run:
            self.rows[row.number].next_us = now_us + TAKEN_US
        return run

    def unspill(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.rows.pop(number, None)

    def postpone(self, numbers: Sequence[int], until_us: int, error: str, aside: bool) -> None:
        for number in numbers:
            if (one := self.rows.get(number)) is not None:
                one.row = msgspec.structs.replace(one.row, attempts=one.row.attempts + 1)
                one.next_us, one.error, one.aside = until_us, error, aside

    def counts(self) -> list[SpillCount]:
        stores: dict[str, list[_Kept]] = {}
        for one in self.rows.values():
            stores.setdefault(one.row.spill.store, []).append(one)
        return [_count(store, kept) for store, kept in sorted(stores.items())]

    def erasing(self, store: str, etype: str, tenant: str, ids: Sequence[str]) -> list[str]:
        spills = [one.row.spill for one in self.rows.values()]
        waiting = {s.id for s in spills if (s.kind, s.store, s.etype, s.tenant) == ("erase", store, etype, tenant)}
        return [id for id in dict.fromkeys(ids) if id in waiting]


def _count(store: str, kept: Sequence[_Kept]) -> SpillCount:
    spills = [one.row.spill for one in kept]
    return SpillCount(
        store=store,
        rows=len(kept),
        facts=sum(spill.count for spill in spills),
        bytes=sum(len(spill.payload) for spill in spills),
        oldest_us=kept[0].created_us,
        aside=sum(one.aside for one in kept),
        error=next((one.error for one in reversed(kept) if one.error), ""),
    )
