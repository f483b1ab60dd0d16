"""Which classes of the kit an adapter has to pass, by what it claims."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from polystore import protocols
from polystore.protocols import Repository, SupportsCommit, SupportsSchema
from polystore.testing import conformance
from polystore.testing.conformance.base import Conformance

_NO_RECORDS = frozenset(
    {
        *(protocols.SupportsObjects, protocols.SupportsState, protocols.SupportsCache, protocols.SupportsInlineCache),
        *(protocols.SupportsTimeRange, protocols.SupportsLog),
    }
)
"""A store that can do nothing else keeps no records."""
_AS_HOME_TOO = frozenset(
    {
        *("CancellationConformance", "DurabilityConformance", "FilterConformance", "RecordsConformance"),
        *("SchemaConformance", "TextConformance", "TraversalConformance", "VectorConformance"),
    }
)
"""They run with `home = True` as well, where the store can be a home."""


class Chosen(NamedTuple):
    cls: type[Any]
    home: bool


def chosen(claims: Collection[type]) -> list[Chosen]:
    """The classes for a repository with these `capabilities`, by name."""
    able = set(claims) - {SupportsSchema}
    records = not able or not able <= _NO_RECORDS
    out: list[Chosen] = []
    for name, cls in sorted(vars(conformance).items()):
        if not isinstance(cls, type) or not issubclass(cls, Conformance) or cls is Conformance:
            continue
        if cls.protocol not in {Repository, *claims} or (not records and cls.protocol in (Repository, SupportsSchema)):
            continue
        if not cls.home or SupportsCommit in claims:
            out.append(Chosen(cls, cls.home))
        if name in _AS_HOME_TOO and SupportsCommit in claims:
            out.append(Chosen(cls, True))
    return out
