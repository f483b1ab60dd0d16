"""What a database holds of one entity type."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from polystore.errors import SchemaMismatch
from polystore.protocols import Layout, VectorSpec
from polystore_adapters.chromadb.items import RECORDS, Codec
from polystore_adapters.chromadb.server import Server


class Held:
    """One entity type in its collections; holds no data."""

    def __init__(self, server: Server, layout: Layout) -> None:
        self.layout = layout
        self.entity = layout.entity
        self.etype = layout.entity.name
        self._server = server
        self.name = records_name(server, self.etype)
        self.vectors: Mapping[str, VectorSpec] = layout.vectors if "vector" in layout.facets else {}
        self.codec = Codec(layout.entity, self.vectors)
        self.ids: dict[str, str] = {}
        """RECORDS and field -> id of the collection; ids are the server's, and known when the type is prepared."""
        self.tenants = ""
        """Id of the collection of tenants."""
        self.known: set[str] = set()
        """Tenants that are noted there."""
        self.tenants_seen: tuple[float, frozenset[str]] | None = None
        """When a search last looked which tenants are noted, and which they were."""
        self.counted: tuple[float, int] | None = None
        """When a scan last counted the records, and how many there were."""
        self.retired: Sequence[str] = ()
        """Fields that the class has no more, whose values stay in the bodies."""

    @property
    def whole(self) -> Sequence[str]:
        """The places where whole records lie."""
        return list(dict.fromkeys((self.codec.main, RECORDS)))

    def index_name(self, field: str, spec: VectorSpec) -> str:
        return index_name(self._server, self.etype, field, spec)


def records_name(server: Server, etype: str) -> str:
    """Of the collection of a type's records without a vector, which tells of the type."""
    return f"{server.options.prefix}{etype}.records"


def index_name(server: Server, etype: str, field: str, spec: VectorSpec) -> str:
    """Of the collection of a field's vectors. Vectors of another kind lie in another one, so that nobody who does not
    know of the change reads or writes among them."""
    kind = f"{field} {spec.dimension} {spec.metric} {spec.embedder}"
    return f"{server.options.prefix}{etype}.v{hashlib.sha256(kind.encode()).hexdigest()[:16]}"


class AllHeld(dict[str, Held]):
    """Entity name -> what is held of it, of the types that this repository was prepared for."""

    def __missing__(self, etype: str) -> Held:
        raise SchemaMismatch(f"nothing is prepared for {etype!r}: prepare it with create=True first")
