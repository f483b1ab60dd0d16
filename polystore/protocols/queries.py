"""Questions to the records of one store: by values, by words, by nearness, along relations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from polystore.filters import Checked, Sort
from polystore.model import Direction, Key, Link, Match, Reached, Record, Windows
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
        the limit. Records without a vector of the field are not found. Raises DimensionMismatch; SchemaMismatch when
        another process has prepared the store for another embedder of the field since, as commits and `apply` do that
        bring vectors of it."""
        ...


@runtime_checkable
class SupportsTraversal(Protocol):
    """Edges of the given types, followed in a direction. `where` is a condition on single edges, as on a body of the
    one field `properties` (`EntityType.edge_condition`): the others are as if they were not there. An end of an edge is
    a node also where no record is known of it, and no edge leaves the tenant. The start may be of a type that only
    others point to: this store need not be prepared for it."""

    async def traverse(
        self,
        etype: str,
        tenant: str,
        id: str,
        types: Sequence[str],
        direction: Direction,
        depth: int,
        where: Checked | None,
        limit: int,
    ) -> list[Reached]:
        """Nodes within `depth` steps, each once at its shortest depth, nearest first, then by entity and id; never the
        start itself. Cycles end. A path's edge reads from the record that has it, also where it was walked against its
        direction."""
        ...

    async def paths(
        self,
        start: Key,
        end: Key,
        types: Sequence[str],
        direction: Direction,
        depth_max: int,
        where: Checked | None,
        limit: int,
    ) -> list[list[Link]]:
        """The first `limit` of all paths of at most `depth_max` edges from `start` to `end`, two records of one tenant,
        that come to no node twice: shortest first, then in the order of `polystore.walking.step_order`. None leads from
        a record to itself. Raises WorkLimitExceeded when there is more to look at than the store takes on
        (`polystore.walking.WORK_MAX`, or a limit of its own): what is answered is never incomplete."""
        ...


@runtime_checkable
class SupportsCounts(Protocol):
    """Of records and of the lines of logs, whichever the store was prepared for."""

    async def counts(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        field: str,
        windows: Windows | None,
        limit: int,
    ) -> list[tuple[Any, int]]:
        """(value, how many) of a field, over what is live, for which the condition holds and in which all phrases
        occur (none: all): the first `limit` by number, then by value. The field is of a kind of `COUNTABLE`. With
        windows it is a datetime: (beginning of the window, how many of the times fall into it), oldest first, of the
        windows that have any. What is missing is not counted."""
        ...


@runtime_checkable
class SupportsRefresh(Protocol):
    """Claimed by a store whose questions may not show yet what another process wrote. What was written by the same
    connection they show, and reading by key needs nothing."""

    async def refresh(self, etype: str) -> None:
        """Every question after this shows what was written of the type before it, by whoever."""
        ...
