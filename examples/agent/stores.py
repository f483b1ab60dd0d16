"""Which store holds what, whether it answers, and what it is owed."""

import time
from collections import Counter, defaultdict

import msgspec

from polystore import HybridDataArchitecture, PolystoreError
from polystore.protocols import Repository, SupportsJournal, SupportsSpill


class StoreReport(msgspec.Struct):
    """`holds`: by role, what it holds. `status`: its server and how fast it answered, or why it did not. `owed`: what
    it did not take yet; at a home, what is just on its way from there."""

    name: str
    holds: dict[str, list[str]]
    status: str
    owed: int


async def report(hda: HybridDataArchitecture) -> list[StoreReport]:
    holds: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for etype, remembered in sorted(hda.remembered.items()):
        placement = remembered.placement
        for role, name in {"home": placement.home, **placement.facets, **placement.beside}.items():
            holds[name][role].append(etype)
    owed = await _owed(hda)
    return [StoreReport(name, holds[name], await _status(hda, name), owed[name]) for name in hda.stores]


async def _status(hda: HybridDataArchitecture, name: str) -> str:
    started = time.perf_counter()
    try:
        instance = await hda.stores[name].call(Repository.ping)
    except PolystoreError as e:
        return f"{type(e).__name__}: {e}"
    return f"{instance.server} {instance.version}, {(time.perf_counter() - started) * 1000:.1f} ms"


async def _owed(hda: HybridDataArchitecture) -> Counter[str]:
    owed: Counter[str] = Counter()
    for store in hda.stores.values():
        if "journal" in store.roles:
            backlog = await store.call(SupportsJournal.backlog)
            owed.update({**backlog.retry, store.name: backlog.outbox})
            for spill in await store.call(SupportsSpill.spills):
                owed[spill.store] += spill.facts
    return owed
