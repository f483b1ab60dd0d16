"""What a database holds of one entity type."""

from __future__ import annotations

from collections.abc import Sequence

from polystore.errors import SchemaMismatch
from polystore.protocols import Layout
from polystore_adapters.neo4j.nodes import Codec
from polystore_adapters.neo4j.server import Server, quoted


class Held:
    """One entity type; holds no data."""

    def __init__(self, server: Server, layout: Layout) -> None:
        self.layout = layout
        self.entity = layout.entity
        self.etype = layout.entity.name
        self.codec = Codec(layout.entity)
        self.all = quoted(server.label)
        self.retired: Sequence[str] = ()
        """Fields that the class has no more, whose values stay in the bodies."""


class AllHeld(dict[str, Held]):
    """Entity name -> what is held of it, of the types that this repository was prepared for."""

    def __missing__(self, etype: str) -> Held:
        raise SchemaMismatch(f"nothing is prepared for {etype!r}: prepare it with create=True first")
