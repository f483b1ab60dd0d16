"""Which copies an entity type has, and whether they still hold what they held."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from msgspec.structs import replace

from polystore.consistency.detach import Detach
from polystore.consistency.embedding import Embedders
from polystore.consistency.line import Line
from polystore.consistency.targets import EMBED
from polystore.errors import ConfigurationError, StoreCorrupt, Unavailable
from polystore.model import Placement, TargetRow
from polystore.protocols import Repository, SupportsEpoch, SupportsJournal
from polystore.store import Store

TARGETS_MAX = 62
"""Bits of the outbox mask, a signed 64-bit integer in every commit store."""


async def register(
    line: Line, etype: str, placement: Placement, stores: Mapping[str, Store], embedders: Embedders, detach: Detach
) -> None:
    """Tell the journal which copies the type has: the last process to be opened decides, but a copy that one still
    running is configured with is put back by its relay. A new copy is registered before anybody looks whether there are
    records: a commit in between then owes it already, and nothing falls between registration and backfill."""
    journal = line.home
    stands = await _identities(journal, etype, placement, stores)
    going = {row.name for row in line.targets.rows(etype) if row.status != "off" and row.name.startswith(EMBED)}
    begun, left = await _at_work(line, placement, embedders, going)
    stages = embedders.pseudo_targets(etype, placement) | begun | detach.pseudo_targets(etype)
    wanted = {*placement.targets()} | stages
    stands |= {name: name.removeprefix(EMBED) for name in wanted if name.startswith(EMBED)}
    rows = {row.name: row for row in line.targets.rows(etype)}
    free = free_bits(line, etype)
    new: list[TargetRow] = []
    for target in sorted(wanted):
        row = rows.get(target)
        data_id = stands.get(target, row.data_id if row else "")
        if row is not None and row.status != "off" and row.data_id == data_id:
            continue
        bit = next(free) if row is None else row.bit
        new.append(TargetRow(etype, target, bit, "backfilling", data_id=data_id))
    for row in new:  # unless another process has done so since these rows were read: it may be filled by now
        await journal.call(SupportsJournal.set_target, row, rows.get(row.name, replace(row, status="off")))
    for row in [row for row in new if row.name == placement.cache]:
        await line.filling.empty(row)
        new.remove(row)
    if new and not await journal.call(Repository.tenants, etype):
        for row in new:
            store = stores.get(row.name)
            if store is None or not await store.call(Repository.tenants, etype):  # else it was here before
                await journal.call(SupportsJournal.set_target, replace(row, status="active"), row)
    stood = {name for name, row in rows.items() if row.status != "off"} | line.wanted.get(etype, frozenset())
    line.wanted[etype] = frozenset(wanted)
    # Not what another process has begun since. The relay may put back what was wanted until now, and what is filled at
    # this moment stands otherwise at the next.
    while ending := [one for one in rows.values() if one.name in stood - wanted - left and one.status != "off"]:
        for row in ending:
            await journal.call(SupportsJournal.set_target, replace(row, status="off", cursor=None), row)
        await line.targets.refresh()
        rows = {row.name: row for row in line.targets.rows(etype)}


def check_readable(
    rows: Iterable[TargetRow], etype: str, store: str, *, whole: bool = True, late: bool = False
) -> None:
    """Raises Unavailable when a copy is out of service, or incomplete and is to be `whole`; `late`: when it may be."""
    if late:
        raise Unavailable(
            f"{etype} has moved, and this process could not go over yet, since a store did not answer; try again",
            store=store,
        )
    for row in rows:
        if whole and row.name == store and row.status == "backfilling":
            raise Unavailable(
                f"this copy of {etype} is still being filled; `polystore status` shows how far it is", store=store
            )
        if row.name == store and row.status == "off":
            raise Unavailable(
                f"another process was opened with a configuration in which this is no copy of {etype}; open all "
                "processes with the same one",
                store=store,
            )


def vector_copies(placements: Mapping[str, Placement]) -> dict[str, frozenset[str]]:
    """Which stores are brought vectors, and of which types."""
    found: dict[str, set[str]] = {}
    for etype, placement in placements.items():
        for store, facets in placement.targets().items():
            if "vector" in facets:
                found.setdefault(store, set()).add(etype)
    return {name: frozenset(etypes) for name, etypes in found.items()}


def free_bits(line: Line, etype: str) -> Iterator[int]:
    """Bits of the outbox mask that no copy of the type ever had. Raises ConfigurationError when there are no more."""
    yield from sorted(set(range(TARGETS_MAX)) - {row.bit for row in line.targets.rows(etype)})
    raise ConfigurationError(f"{etype}: more than {TARGETS_MAX} copies were ever configured")


async def _at_work(
    line: Line, placement: Placement, embedders: Embedders, going: Collection[str]
) -> tuple[set[str], set[str]]:
    """Of the embedders that are `going`: those that a rebuild has begun to ask, which goes on; and those that are left
    alone, since others ask them, for a copy that is filled or in processes that can, or since a model in this process
    that serves by now is owed something still."""
    etype = placement.etype
    serving = {EMBED + model for model in embedders.models_in(etype, placement.facets)}
    begun = (embedders.begun[etype] & embedders.upcoming(etype)) - serving
    others = embedders.models_in(etype, placement.upcoming) | embedders.elsewhere.get(etype, set())
    left = {EMBED + model for model in others}
    ending = (serving & {*going}) - embedders.pseudo_targets(etype, placement)
    if ending:
        backlog = await line.home.call(SupportsJournal.backlog)
        left |= {name for name in ending if backlog.outbox or backlog.retry.get(name)}
    return begun & {*going}, left & {*going}


async def _identities(home: Store, etype: str, placement: Placement, stores: Mapping[str, Store]) -> dict[str, str]:
    """The identity of each copy's data: a copy whose data began anew is filled again like a new one.

    Raises ConfigurationError for a copy that lives in this process only, of a home that others may share;
    StoreCorrupt when a copy is ahead of its home: new versions would repeat old ones and count as stale.
    """
    stands: dict[str, str] = {}
    for name in placement.targets():
        store = stores.get(name)
        if name == placement.cache:
            continue  # what it holds is not missed, and no older than it was told
        if store is None:
            continue  # optional, and does not answer: it is owed what it misses
        if home.limits.shared and not store.limits.shared:
            raise ConfigurationError(
                f"{name!r} forgets its data with the process, and {home.name!r}, the home of {etype}, does not: "
                "other processes would write without it. Give the copy a durable store, such as sqlite:FILE"
            )
        stands[name] = (await store.call(Repository.ping)).data_id
        held = await store.call(Repository.newest, etype)  # before the home's: others go on writing meanwhile
        if held > await home.call(Repository.newest, etype):
            if name == placement.home:
                raise StoreCorrupt(
                    f"{name!r} holds versions of {etype} that {home.name!r}, its journal, has not given out: the "
                    "journal was restored to the past, or is another one. Nothing was changed. Put the newer data of "
                    f"{home.name!r} back: only it knows the versions, and what was not delivered",
                    store=home.name,
                    operation="open",
                )
            raise StoreCorrupt(
                f"the copy {name!r} holds versions of {etype} that {home.name!r} has not given out: the home was "
                "restored to the past, or these two do not belong together. Nothing was changed. Put the newer "
                f"data of {home.name!r} back, or delete the data of {name!r}, which is then filled anew"
                + (f", or run `polystore epoch bump {home.name}`" if home.supports(SupportsEpoch) else ""),
                store=home.name,
                operation="open",
            )
    return stands
