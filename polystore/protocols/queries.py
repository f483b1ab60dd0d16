"""Questions to the records of one store: by values, by words, by nearness, along relations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

from polystore.filters import Checked, Sort
from polystore.model import Direction, Match, Reached, Record
from polystore.text import Phrase


@runtime_checkable
class SupportsFilter(Protocol):
    async def find(
        self, etype: str, tenant: str, where: Checked | None, order: Sequence[Sort], limit: int
    ) -> list[Record]:
        """Live records that satisfy the condition, sorted; missing values last. `order` ends with the key."""
        ...

    async def count(self, etype: str, tenant: str, where: Checked | None) -> int: ...


@runtime_checkable
class SupportsTextSearch(Protocol):
    async def search(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        after: tuple[float, str] | None,
    ) -> list[Match]:
        """Records in which all phrases occur (`polystore.text`), over all full-text fields together, best first by
        BM25, ties by id. `after` is the (score, id) of the last match of the page before."""
        ...


@runtime_checkable
class SupportsVectorSearch(Protocol):
    metrics: ClassVar[frozenset[str]]

    async def similar(
        self, etype: str, tenant: str, field: str, vector: bytes, where: Checked | None, limit: int
    ) -> list[Match]:
        """The nearest records by the field's metric, best first, ties by id. score: cosine similarity, inner product,
        or the negative Euclidean distance; the cosine with a vector of length 0 is 0. The condition is applied before
        the limit. Records without a vector of the field are not found. Raises DimensionMismatch."""
        ...


@runtime_checkable
class SupportsTraversal(Protocol):
    async def traverse(
        self, etype: str, tenant: str, id: str, types: Sequence[str], direction: Direction, depth: int, limit: int
    ) -> list[Reached]:
        """Nodes within `depth` steps over edges of the given types, each once at its shortest depth, nearest first,
        then by entity and id; never the start itself. Cycles end. An end of an edge is a node also where no record is
        known of it, and no edge leaves the tenant. A path's edge reads from the record that has it, also where it was
        walked against its direction. The start may be of a type that only others point to: this store need not be
        prepared for it."""
        ...
