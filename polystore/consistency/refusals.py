"""Texts that a model has refused for good: dead letters of its stage. A copy has such a record without that vector."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from polystore.consistency.targets import EMBED
from polystore.model import Key
from polystore.protocols import SupportsJournal
from polystore.store import Store

Refusals = Mapping[Key, Collection[str]]
"""Record -> the models that have refused a text of it."""
NONE: Refusals = MappingProxyType({})


async def refusals(home: Store, models: Collection[str], versions: Mapping[Key, int], page: int) -> Refusals:
    """Which of the models have refused a text of these records at these versions, or newer ones; `page` dead letters
    are read at a time."""
    found: dict[Key, set[str]] = {}
    for model in sorted(models):
        cursor: str | None = None
        while True:
            rows, cursor = await home.call(SupportsJournal.parked, EMBED + model, cursor, page)
            for row in rows:
                if row.key in versions and row.version >= versions[row.key]:
                    found.setdefault(row.key, set()).add(model)
            if cursor is None:
                break
    return found
