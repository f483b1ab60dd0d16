"""The journal of homes that cannot commit: it keeps each body until the home has it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class SupportsKeptBodies(Protocol):
    """A `SupportsCommit` and `SupportsJournal` store as the journal of homes that cannot commit.

    The records of such a type are ordinary ones here, of fewer fields: what has to be known beside the commit, and the
    fields `JOURNAL_BODY`, `JOURNAL_DIGEST` and `JOURNAL_HELD` (`polystore.model`). What this adds to `settle`: of each
    `Settlement.held`, whose record stands at exactly that version, a `durable` one sets `JOURNAL_BODY` and
    `JOURNAL_HELD` to None, another one sets `JOURNAL_HELD` to the time of this store's clock. Versions, hashes and
    `updated_us` stay, and nothing is owed to anybody. A row that somebody else has locked may be left as it is.
    """

    async def release(self, etype: str, age_us: int, limit: int) -> int:
        """Set `JOURNAL_BODY` and `JOURNAL_HELD` to None of at most `limit` records of this type whose `JOURNAL_HELD` is
        older than the given age by this store's clock; returns how many."""
        ...
