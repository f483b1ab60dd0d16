"""The store of files as a whole: what a record may name, and the sweep of what none does.

Removing content begins at the homes: they condemn its key, which no commit can name from then on, and refuse while a
record names it. So the sweep takes nothing that a record names, whatever happens at the same time, and several at once
do each other no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from polystore.consistency import DataConsistencyManager
from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import AlreadyExists, ConfigurationError, InvalidData, PolystoreError
from polystore.model import (
    Commit,
    FileRef,
    Placement,
    StoredObject,
    Upload,
    Write,
    file_key_owner,
    refs_of,
    tenant_segment,
)
from polystore.protocols import Repository, SupportsFileClaims, SupportsJournal, SupportsObjects
from polystore.store import Store

KNOWN_S = 3600.0
"""How long content that was seen is taken to be there: far less than homes refuse a condemned key."""
KNOWN_MAX = 10_000
ORPHAN_S = 86_400.0
"""Age of content that no record ever named, from which on it is removed."""
PAGE = 500
_OWNER = "~polystore/owner"
_MARK = "files.swept"


class SweepReport(msgspec.Struct, frozen=True):
    """What a sweep looked at, and what it removed (`dry_run`: would have): objects and bytes."""

    examined: int
    removed: int
    bytes: int
    dry_run: bool = False


class FileRoom:
    """The one store of files of an application, and the homes whose records name them."""

    def __init__(
        self,
        env: Env,
        store: Store,
        homes: Sequence[Store],
        journal: Store,
        types: Mapping[str, EntityType[Any]],
        released_s: float,
    ) -> None:
        self.env = env
        self.store = store
        self._homes = homes
        self._journal = journal
        self._fields = {etype: one.files for etype, one in types.items() if one.files}
        self._released_us = int(released_s * 1e6)
        self._known: dict[str, tuple[FileRef, float]] = {}

    # -- what a record names ----------------------------------------------------------------------------------

    def remember(self, ref: FileRef) -> None:
        """This content is there."""
        while len(self._known) >= KNOWN_MAX:
            del self._known[next(iter(self._known))]
        self._known[ref.key] = (ref, self.env.monotonic() + KNOWN_S)

    def forget(self, key: str) -> None:
        self._known.pop(key, None)

    def _knows(self, ref: FileRef) -> bool:
        known = self._known.get(ref.key)
        return known is not None and known[0] == ref and self.env.monotonic() < known[1]

    async def check(self, writes: Sequence[Write]) -> None:
        """Whether the content of all files that the writes name is there: one call to the store for those that were not
        saved or seen by this process in the last hour, none else. Raises InvalidData; what the store raises."""
        wanted: dict[str, tuple[Write, FileRef]] = {}
        for write in writes:
            fields = self._fields.get(write.key.etype)
            for ref in refs_of(fields, write.body) if fields and write.body is not None else ():
                if file_key_owner(ref.key) != tenant_segment(write.key.tenant):
                    raise _unfit(write, "is of another tenant, or not made by files.save")
                if not self._knows(ref):
                    wanted[ref.key] = (write, ref)
        if not wanted:
            return
        found = await self.store.call(SupportsObjects.stat_objects, list(wanted))
        for (write, ref), one in zip(wanted.values(), found, strict=True):
            if one is None:
                raise _unfit(write, "has no content; save it first")
            if (one.size, one.sha256) != (ref.size, ref.sha256):
                raise _unfit(write, "has another size or sha256 than its content; use the FileRef that files.save gave")
            self.remember(ref)

    # -- removing ---------------------------------------------------------------------------------------------

    async def condemn(self, keys: Sequence[str], released_us: int, *, only_ask: bool) -> list[str]:
        """Those of the keys whose content may go, as all homes agree. Each is asked twice: nothing is condemned before
        all have agreed, and only what they still agree to then is."""
        for ask in (True, False) if not only_ask else (True,):
            for home in self._homes:
                may_go = await home.call(SupportsFileClaims.condemn, keys, released_us, ask) if keys else []
                keys = [key for key, goes in zip(keys, may_go, strict=True) if goes]
        return list(keys)

    async def sweep(
        self,
        *,
        older_than_s: float = ORPHAN_S,
        dry_run: bool = False,
        adopt: bool = False,
        progress: Callable[[SweepReport], None] | None = None,
    ) -> SweepReport:
        """See `HybridDataArchitecture.sweep_files`."""
        if type(older_than_s) not in (int, float) or not older_than_s >= 0:
            raise InvalidData("sweep_files: older_than_s is a number of seconds that is not negative")
        await self.own(adopt=adopt, check=True)
        age_us, after = int(older_than_s * 1e6), ""
        examined = removed = freed = 0
        while True:
            page = await self.store.call(SupportsObjects.list_objects, "", after, PAGE)
            before_us = page.now_us - age_us
            old = [one for one in page.objects if one.created_us <= before_us]
            sizes = {one.key: one.size for one in old if file_key_owner(one.key) is not None}
            gone = await self.condemn(list(sizes), self._released_us, only_ask=dry_run)
            if gone and not dry_run:
                await self.store.call(SupportsObjects.remove_objects, gone)
            examined, removed = examined + len(sizes), removed + len(gone)
            freed += sum(sizes[key] for key in gone)
            report = SweepReport(examined, removed, freed, dry_run)
            if progress is not None:
                progress(report)
            if len(page.objects) < PAGE:
                break
            after = page.objects[-1].key
        while not dry_run and await self.store.call(SupportsObjects.discard_parts, age_us):
            pass
        return report

    async def own(self, *, adopt: bool = False, check: bool = False) -> None:
        """Note in the store whose files it holds, unless that stands there. `check` raises ConfigurationError when
        they are another home's: to this one, they would all be content that no record names."""
        instance = await self._journal.call(Repository.ping)
        ours = instance.data_id.encode()
        if adopt:
            await self.store.call(SupportsObjects.remove_objects, [_OWNER])
        upload = Upload(_OWNER, str(self.env.uuid7()))
        made = StoredObject(_OWNER, len(ours), hashlib.sha256(ours).hexdigest(), "text/plain")
        (found,) = await self.store.call(SupportsObjects.stat_objects, [_OWNER])
        if found is None:
            with contextlib.suppress(AlreadyExists):  # another process was first
                await self.store.call(SupportsObjects.put_part, upload, 0, ours)
                await self.store.call(SupportsObjects.finish_object, upload, made)
            (found,) = await self.store.call(SupportsObjects.stat_objects, [_OWNER])
        if check and (found is None or not found.same_content(made)):
            raise ConfigurationError(
                f"the files in {self.store.name} belong to the records of another home than {self._journal.name}: a "
                "home that was lost, or another application's. Nothing was removed. Give each application a store of "
                "its own; if the other home is gone for good, run `polystore sweep --adopt`"
            )

    async def keep_swept(self, period_s: float, report: Callable[[str], None]) -> None:
        """Sweep once in each period, in one of the processes that share the journal; until it is cancelled."""
        while True:
            await asyncio.sleep(self.env.random.uniform(0.5, 1) * period_s)
            try:
                last = await self._journal.call(SupportsJournal.mark, _MARK)
                now_us = self.env.now_us()
                if last is None or int(last) + period_s * 1e6 / 2 <= now_us:
                    await self._journal.commit(Commit((), marks={_MARK: str(now_us)}))
                    await self.sweep()
            except PolystoreError as e:
                report(f"sweep of {self.store.name}: {e}")


def _unfit(write: Write, what: str) -> InvalidData:
    return InvalidData(f"{write.key.etype} {write.key.id!r}: a file that it names {what}")


async def open_files(
    exits: AsyncExitStack,
    env: Env,
    stores: Mapping[str, Store],
    placements: Mapping[str, Placement],
    manager: DataConsistencyManager,
    journal: Store | None,
) -> FileRoom | None:
    """The store of the application's files, swept from now on until `exits`; None when no entity has any. Raises
    ConfigurationError, and what the store raises."""
    placed = {etype: name for etype, one in placements.items() if (name := one.beside.get("file")) is not None}
    for etype, name in placed.items():
        if name not in stores:
            raise ConfigurationError(
                f"{etype}: {name!r}, which holds its files, does not answer; it cannot be optional"
            )
        home = stores[placements[etype].authority]
        if not home.supports(SupportsFileClaims):
            raise ConfigurationError(
                f"{etype}: its home {home.name!r} cannot keep who names which file; give it another home"
            )
    if not placed or journal is None:
        return None
    homes = [one for one in stores.values() if one.roles & {"home", "journal"} and one.supports(SupportsFileClaims)]
    settings = manager.settings
    store = stores[next(iter(placed.values()))]
    room = FileRoom(env, store, homes, journal, manager.types, settings.tombstone_ttl_s)
    await room.own()
    manager.before_commit = room.check
    sweeping = asyncio.create_task(room.keep_swept(settings.file_sweep_s, manager.report))

    async def stop() -> None:
        sweeping.cancel()
        await asyncio.wait([sweeping])

    exits.push_async_callback(stop)
    return room
