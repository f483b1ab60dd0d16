"""Who asks a store past polystore finds what serves, by a name that stays the same; see `SupportsAlias`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from polystore.errors import PolystoreError
from polystore.model import Placement
from polystore.protocols import SupportsAlias
from polystore.store import Store


async def take_aliases(
    stores: Mapping[str, Store], placements: Iterable[Placement], report: Callable[[str], None], *, create: bool
) -> None:
    """Let the aliases in these stores stand for what the placements say. What serves is said by the journal alone, so a
    failure holds nobody up: it is reported, and mended when the type goes over or is opened the next time."""
    serving: dict[str, list[str]] = {}
    for one in placements:
        for name in {one.home, *one.facets.values()} & stores.keys():
            if stores[name].supports(SupportsAlias):
                serving.setdefault(name, []).append(one.etype)
    for name, etypes in serving.items():
        try:
            await stores[name].call(SupportsAlias.take_alias, etypes, create)
        except PolystoreError as e:
            report(f"who asks {name} past polystore may not find what serves: {e}")
