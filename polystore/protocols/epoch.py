"""A home that goes on above versions that were lost."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class SupportsEpoch(Protocol):
    """A home that can leave behind the versions that a newer state of its database had drawn, and which copies may
    hold: a standby that lacked the last commits took over, or a backup was restored."""

    async def bump_epoch(self) -> int:
        """Begin the next epoch, and return its number: from now on versions are above `number << 42`. In the same
        transaction every record and every tombstone gets such a version, and every copy is to be filled with them
        (`TargetRow.status` "backfilling"): so what copies have of the lost state is overwritten, or deleted by the look
        that ends a filling. Commits under way end before, later ones begin in the new epoch.

        Records whose home is another store (`SupportsKeptBodies`) stay as they are, unless their bodies are here. Their
        tombstones are raised like all others: what the home holds of the lost state is older then, and `repair` deletes
        it."""
        ...
