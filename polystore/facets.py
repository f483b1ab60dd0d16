"""What a field can be beyond a value: searchable, comparable by meaning, related, unique, indexed; and what a class can
have beside its fields: measures."""

from __future__ import annotations

import builtins
from typing import Any, Generic, Literal, TypeVar

import msgspec

from polystore.errors import ConfigurationError, EntityError
from polystore.sizes import parse_size

P = TypeVar("P")
V = TypeVar("V")

DIMENSION_MAX = 8192
Metric = Literal["cosine", "l2", "ip"]


class Facet(msgspec.Struct, frozen=True):
    """Base of the facets: values to put into `Annotated[...]`."""


class FullText(Facet, frozen=True):
    """The text is found by `search`: words of any language, Korean by every syllable pair."""


class Embedding(Facet, frozen=True):
    """The text is found by `similar`, compared by the embedder's vectors; on `list[float]` the field is the vector
    itself and `dimension` is required. metric: cosine, l2 (Euclidean distance) or ip (inner product)."""

    embedder: str = "default"
    dimension: int | None = msgspec.field(default=None)
    metric: Metric = "cosine"

    def __post_init__(self) -> None:
        if self.metric not in ("cosine", "l2", "ip"):
            raise EntityError(f"Embedding(metric={self.metric!r}): the metrics are cosine, l2 and ip")
        if self.dimension is not None and not 1 <= self.dimension <= DIMENSION_MAX:
            raise EntityError(f"Embedding(dimension={self.dimension}): must be from 1 to {DIMENSION_MAX}")


class Unique(Facet, frozen=True):
    """No two live records of the type and tenant have the same value; missing values do not count."""


class Index(Facet, frozen=True):
    """Conditions and orders on the field are answered from an index."""


class Relation(msgspec.Struct, frozen=True):
    """The field names related records: `str` or `str | None` (one id), `list[str]`, or `list[Edge[P]]` with properties.

    The edges belong to the record and are replaced with it. `to` is the other entity: its class or its name.

    on_delete: what becomes of the field when the other record is deleted. "keep": it stays as it is, and names a record
    that is not there until somebody writes it again. "detach": soon after the delete every record that still names it
    is updated, as by `Collection.update`: the id or edge is taken out of the list, or the field becomes None. A record
    that was written again by then keeps its references.
    """

    type: str
    to: str | builtins.type[Any]
    on_delete: Literal["keep", "detach"] = "keep"


class Measure(Generic[V]):
    """Points over time that belong to a record without being a field of it: `mood: ClassVar[Measure[float]] =
    Measure(float, unit="valence")`. Points are facts: appended, never changed.

    type: float, int, bool or str; only the first two have averages and sums. unit: for people. retention_s: points that
    are older are removed by and by; None keeps them. on_delete: "erase" removes the points of a record with it, "keep"
    does not; a mapped class keeps them, since others delete its rows. Raises EntityError.
    """

    def __init__(
        self,
        type: builtins.type[V],  # noqa: A002
        *,
        unit: str = "",
        retention_s: float | None = None,
        on_delete: Literal["keep", "erase"] = "keep",
    ) -> None:
        if type not in (float, int, bool, str):
            raise EntityError(f"Measure({type!r}): the values of points are float, int, bool or str")
        if on_delete not in ("keep", "erase"):
            raise EntityError(f"Measure(on_delete={on_delete!r}): use 'keep' or 'erase'")
        if retention_s is not None and not (builtins.type(retention_s) in (int, float) and retention_s > 0):
            raise EntityError("Measure(retention_s=...): a number of seconds above 0, or None")
        self.type = type
        self.unit = unit
        self.retention_s = retention_s
        self.on_delete: Literal["keep", "erase"] = on_delete
        self.name = ""
        """The attribute under which it stands on its class."""

    def __set_name__(self, owner: builtins.type[Any], name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Measure({self.type.__name__}, name={self.name!r}, unit={self.unit!r})"


class Edge(msgspec.Struct, Generic[P]):
    """One edge of a relation: the id of the other record, and properties of the edge."""

    to: str
    properties: P


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What an entity asks of its home; the input of the selector's decision tree.

    `data_size` is a quantity such as "500MB" or a number of bytes. Raises EntityError for a wrong type, a bad size, and
    needs that contradict each other, so that the class fails where it is declared.
    """

    transactions: bool = False
    complex_relations: bool = False
    real_time: bool = False
    data_size: str | int | None = None

    def __post_init__(self) -> None:
        for name in ("transactions", "complex_relations", "real_time"):
            if not isinstance(getattr(self, name), bool):
                raise EntityError(f"Needs({name}=...): must be True or False")
        if self.data_size is not None:
            try:
                parse_size(self.data_size)
            except ConfigurationError as e:
                raise EntityError(f"Needs(data_size=...): {e}") from None
        if self.complex_relations and self.real_time and not self.transactions:
            raise EntityError(
                "Needs(complex_relations=True, real_time=True): a store for live state has no joins; add "
                "transactions=True (a relational home, fast reads of single records), or drop one of the two"
            )
