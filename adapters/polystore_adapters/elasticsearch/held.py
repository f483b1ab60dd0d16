"""What a server holds of one entity type."""

from __future__ import annotations

from collections.abc import Sequence

from polystore.errors import SchemaMismatch
from polystore.protocols import Layout
from polystore_adapters.elasticsearch.documents import AT, Codec
from polystore_adapters.elasticsearch.server import Document, Server


class Held:
    """One entity type in one index, which an alias names; holds no data."""

    def __init__(self, server: Server, layout: Layout) -> None:
        self.layout = layout
        self.entity = layout.entity
        self.etype = layout.entity.name
        self.fact = layout.kind == "fact"
        self.full_text = (self.fact or "full_text" in layout.facets) and bool(layout.entity.full_text)
        self.codec = Codec(layout.entity, self.full_text, self.fact)
        self.index = server.name(self.etype)
        self.by_nori = False
        """Whether the index has the texts by the analyzer nori, too."""
        self.retired: Sequence[str] = ()
        """Fields that the class has no more, whose values stay in the documents."""

    def oldest_us(self, now_us: int) -> int | None:
        """The time of the oldest line that is not over; None where lines stay."""
        ttl_s = self.entity.ttl_s if self.fact else None
        return None if ttl_s is None else now_us - round(ttl_s * 1e6)

    def _young(self, now_us: int) -> list[Document]:
        oldest_us = self.oldest_us(now_us)
        return [] if oldest_us is None else [{"range": {AT: {"gte": oldest_us}}}]

    def live(self, tenant: str | None, now_us: int, *more: Document) -> Document:
        """The records of a tenant, or of all, whose time is not over, for which the conditions hold."""
        of: Document = {"exists": {"field": "ps_tenant"}} if tenant is None else {"term": {"ps_tenant": tenant}}
        over = {"range": {"ps_expires_us": {"gt": 0, "lte": now_us}}}
        return {"bool": {"filter": [of, *self._young(now_us), *more], "must_not": [over]}}


class AllHeld(dict[str, Held]):
    """Entity name -> what is held of it, of the types that this repository was prepared for."""

    def __missing__(self, etype: str) -> Held:
        raise SchemaMismatch(f"nothing is prepared for {etype!r}: prepare it with create=True first")
