"""What a copy still holds of records that its home has deleted: the copy was out of service meanwhile, so that nothing
was owed to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from polystore.consistency.loading import load_each
from polystore.model import EVERYTHING, Key, RetryRow, Settlement, TargetRow
from polystore.protocols import Repository, SupportsJournal
from polystore.store import Store


async def owe_leftovers(
    home: Store,
    copy: Store,
    row: TargetRow,
    end: int,
    *,
    now_us: int,
    page_max: int,
    turn: Callable[[], Awaitable[bool]],
) -> bool:
    """Owe the copy the deletes at version `end` or before that it missed. True when there were any, or may be. Reads
    every record of the copy once, as long as `turn` says that no other process does."""
    found = False
    for tenant in await copy.call(Repository.tenants, row.etype):
        cursor: str | None = None
        while True:
            if not await turn():
                return True
            page = await copy.call(Repository.scan, row.etype, tenant, EVERYTHING, cursor, page_max)
            # A delete drew a version above that of the record, also when its tombstone has been purged since: so the
            # next one is newer than the record and older than all that may be written under this key again.
            stamps = {Key(tenant, row.etype, stamp.id): stamp for stamp in page.stamps}
            versions = {key: stamp.version + 1 for key, stamp in stamps.items()}
            changes, _ = await load_each(home, versions) if stamps else ({}, {})
            owed = [
                RetryRow(row.name, key, change.h, change.version, change.version, "b", first_us=now_us, next_us=now_us)
                for key, change in changes.items()
                if change.deleted and change.version <= end
            ]
            if owed:
                found = True
                await home.call(SupportsJournal.settle, Settlement(owed=owed))
            cursor = page.cursor
            if cursor is None:
                break
    return found
