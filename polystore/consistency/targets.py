"""The copies of one home: which bit of the outbox mask is whose."""

from __future__ import annotations

from collections import deque
from statistics import median

from polystore.model import TargetRow
from polystore.protocols import SupportsJournal
from polystore.store import Store

EMBED = "embed:"
"""Prefix of the pseudo-targets: an embedder that works after the commit."""
DETACH = "detach:references"
"""The pseudo-target that takes references to deleted records away."""
STAGES = (EMBED, DETACH)
"""How the names of pseudo-targets begin: work after the commit that is no store."""


class Pace:
    """How long calls to one copy take, and whether retry rows of it may exist."""

    def __init__(self) -> None:
        self.seconds: deque[float] = deque(maxlen=64)
        self.owes = True  # until the first look at the journal says otherwise

    def patience_s(self, least: float, factor: float, most: float) -> float:
        """How long a batch waits for this copy before it goes on without it."""
        if len(self.seconds) < 8:
            return most
        return min(most, max(least, factor * median(self.seconds)))


class Targets:
    """A view of the journal's ps_target rows; refreshed by the relay and whenever a mask shows that it is outdated."""

    def __init__(self, home: Store) -> None:
        self._home = home
        self._rows: dict[str, dict[int, TargetRow]] = {}
        self._names: dict[tuple[str, int], tuple[str, ...]] = {}
        self._paces: dict[str, Pace] = {}

    async def refresh(self) -> None:
        rows = await self._home.call(SupportsJournal.targets)
        self._rows = {}
        for row in rows:
            self._rows.setdefault(row.etype, {})[row.bit] = row
        self._names.clear()

    def names(self, etype: str, mask: int) -> tuple[str, ...]:
        """The copies whose bits are set; bits of copies that are off, or unknown here, are left out."""
        known = self._names.get((etype, mask))
        if known is None:
            rows = self._rows.get(etype, {})
            known = tuple(row.name for bit, row in sorted(rows.items()) if mask >> bit & 1 and row.status != "off")
            self._names[etype, mask] = known
        return known

    def outdated(self, etype: str, mask: int) -> bool:
        """True when a commit has set the bit of a copy that is unknown here, or off: commits look at the journal, so
        that copy has come, or come back, since the last refresh."""
        rows = self._rows.get(etype, {})
        bits = (bit for bit in range(mask.bit_length()) if mask >> bit & 1)
        return any(bit not in rows or rows[bit].status == "off" for bit in bits)

    def rows(self, etype: str | None = None) -> list[TargetRow]:
        if etype is not None:
            return list(self._rows.get(etype, {}).values())
        return [row for rows in self._rows.values() for row in rows.values()]

    def all_names(self) -> list[str]:
        return list(dict.fromkeys(row.name for row in self.rows() if row.status != "off"))

    def etypes(self, target: str) -> list[str]:
        """The entity types that `target` has copies of."""
        return [row.etype for row in self.rows() if row.name == target and row.status != "off"]

    def pace(self, target: str) -> Pace:
        pace = self._paces.get(target)
        if pace is None:
            pace = self._paces[target] = Pace()
        return pace
