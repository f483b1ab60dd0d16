"""The part of an architecture that looks after the whole: what has to be delivered, compared, built anew, swept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from polystore.collection import Wiring
from polystore.collection.sweeping import ORPHAN_S, FileRoom, SweepReport
from polystore.consistency.mending import RepairReport, Steady
from polystore.consistency.rebuild import RebuildProgress
from polystore.consistency.renewing import RenewProgress
from polystore.errors import UnsupportedOperation


class Upkeep:
    """Of all entities and tenants, whatever view is asked."""

    _wiring: Wiring

    async def settle(self, timeout_s: float = 60.0) -> None:
        """Return once every change committed so far is applied everywhere or parked, and every fact that a journal
        keeps for a store is delivered. Raises StalenessTimeout naming what is still owed."""
        deadline = self._wiring.env.monotonic() + timeout_s
        await self._wiring.manager.settle(timeout_s)
        await self._wiring.facts.settle(deadline - self._wiring.env.monotonic())

    async def rebuild(
        self, *names: str | type[Any], progress: Callable[[RebuildProgress], None] | None = None
    ) -> Mapping[str, int]:
        """Make vectors anew with the configured embedders, then change over to them; the old ones serve meanwhile and
        are removed at the end. names: entities (classes or names), or stores, meaning what has its vectors there; none:
        all entities. Returns how many texts this process embedded, by entity; 0 where nothing had changed.

        Writes go on. Cancelled or killed at any moment, the next call goes on; an embedder that goes down on the way is
        waited for. Raises what an embedder raises that does not answer at the beginning, ConfigurationError for an
        unknown name, and what stores raise.
        """
        rebuilder = self._wiring.manager.rebuilder
        wanted = rebuilder.named([name if isinstance(name, str) else self._wiring.entity(name).name for name in names])
        return {etype: await rebuilder.rebuild(etype, progress or _quiet) for etype in wanted}

    async def repair(
        self,
        *names: str | type[Any],
        dry_run: bool = False,
        rate_per_s: float | None = None,
        progress: Callable[[RepairReport], None] | None = None,
    ) -> RepairReport:
        """Compare copies with their homes, both ways, and bring them what they lack or hold wrongly, by the way of
        every change; what only they have is deleted there. names: entities (classes or names) and stores, meaning these
        copies of these entities; none of a kind: all. dry_run: change nothing, what would be repaired is `left`.
        rate_per_s: the most records that are compared a second.

        Writes go on, and what is on its way is no difference. What a copy holds in a newer version than its home has
        given out stays as it is, and so does what a home has lost itself: `left` counts, `shown` names them. Cancelled
        or killed at any moment, all is whole, and the next call goes on. Raises ConfigurationError for an unknown name,
        and what stores raise.
        """
        mender = self._wiring.manager.mender
        wanted = [name if isinstance(name, str) else self._wiring.entity(name).name for name in names]
        types, copies = mender.named(wanted)
        job = Steady(self._wiring.env, dry_run=dry_run, rate_per_s=rate_per_s, progress=progress)
        for etype in types:
            await mender.mend(etype, job, copies)
        return job.report

    async def rebuild_copies(
        self,
        store: str,
        *,
        rollback: bool = False,
        rate_per_s: float = 0.0,
        progress: Callable[[RenewProgress], None] | None = None,
    ) -> Mapping[str, str]:
        """Build the copies that a store serves anew, in another place on the same server, and go over to that once it
        is complete and compared. Returns which place serves each entity now: `search~2` is the second of `search`. The
        place that served before is kept until the next rebuild, or `discard_copies`; rollback: move back to it, by the
        same way, so that it serves when it is up to date. rate_per_s: how many records are filled in a second; 0: as
        many as go.

        Reads and writes go on, in all processes. Cancelled or killed at any moment, every process that has the store
        goes on with it, and the next call waits for the end. Raises ConfigurationError for a store that serves no
        copies, has no second place, or nothing to go back to; Unavailable when it does not answer; and what stores
        raise.
        """
        renewer = self._wiring.manager.renewer
        return await renewer.rebuild(store, progress or _unseen, rate_per_s=rate_per_s, back=rollback)

    async def discard_copies(self, store: str) -> Sequence[str]:
        """Remove what the last rebuild of a store has left behind; returns the places that were emptied. There is no
        way back then. Raises as `rebuild_copies`."""
        return await self._wiring.manager.renewer.discard(store)

    async def sweep_files(
        self,
        *,
        older_than_s: float = ORPHAN_S,
        dry_run: bool = False,
        adopt: bool = False,
        progress: Callable[[SweepReport], None] | None = None,
    ) -> SweepReport:
        """Remove the content, of all tenants, that no record names: content that none ever did when it is older than
        `older_than_s` (a day), content whose record was replaced or deleted when `tombstone_ttl_s` have passed since,
        and what interrupted saves left. An open architecture does so about every hour; it does no harm while others
        save and write. progress: called after every 500 objects. adopt: the content of a home that is lost is swept as
        this one's from now on.

        Raises ConfigurationError when the content belongs to another home, UnsupportedOperation when no entity has
        files, and what stores raise.
        """
        room = self._file_room()
        return await room.sweep(older_than_s=older_than_s, dry_run=dry_run, adopt=adopt, progress=progress)

    def _file_room(self) -> FileRoom:
        room = self._wiring.files
        if room is None:
            raise UnsupportedOperation("no entity has files: give a record that names them a field of type FileRef")
        return room


def _quiet(progress: RebuildProgress) -> None:
    """Nobody watches."""


def _unseen(progress: RenewProgress) -> None:
    """Nobody watches."""
