"""What a database holds of one entity type: MongoDB's collection of its name, and the indexes of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polystore.errors import SchemaMismatch
from polystore.protocols import Layout
from polystore_adapters.mongodb.documents import Codec, micros_field
from polystore_adapters.mongodb.driver import UNREAD, Collection, Document
from polystore_adapters.mongodb.full_text import FullText
from polystore_adapters.mongodb.options import CollectionOptions
from polystore_adapters.mongodb.server import Server

META = "ps_meta"
"""The collection of what is known of the others: schemas, the newest version of deleted records, who these data are."""


class Held:
    """One entity type; holds no data."""

    def __init__(self, server: Server, layout: Layout) -> None:
        self.layout = layout
        self.entity = layout.entity
        self.etype = layout.entity.name
        self.full_text = FullText(self.entity) if "full_text" in layout.facets and self.entity.full_text else None
        self.codec = Codec(self.entity, self.full_text)
        self.options = server.options.collections.get(self.etype, CollectionOptions())
        self.documents: Collection = server.collection(self.etype, UNREAD)
        self.retired: Sequence[str] = ()
        """Fields that the class has no more, whose values stay in the documents."""

    @property
    def indexes(self) -> Mapping[str, Document]:
        """Name -> what `createIndexes` takes of it."""
        key: Document = {self.entity.key: 1}
        found: dict[str, Document] = {
            "ps_scan": {"key": {"ps_tenant": 1, "ps_h": 1, "_id.id": 1}},
            "ps_key": {"key": {"ps_tenant": 1} | key},
            "ps_newest": {"key": {"ps_version": -1}},
        }
        if self.options.capped_bytes is None:  # a capped one forgets by itself, and MongoDB refuses it such an index
            found["ps_purge"] = {"key": {"ps_purge_at": 1}, "expireAfterSeconds": 0}
        # Unique values are held by the home: a copy may meet two records' changes in either order.
        for field in dict.fromkeys((*self.entity.index, *self.entity.unique)):
            timed = self.entity.fields[field].kind.name == "datetime"
            rest: Document = {micros_field(field): 1} if timed else {}
            found[f"ps_index_{field}"] = {"key": {"ps_tenant": 1, field: 1} | rest}
        if self.full_text is not None:
            found["ps_text"] = {"key": {"ps_tenant": 1, "ps_terms": 1}}
        theirs = {name: {**one.options, "key": one.keys} for name, one in self.options.indexes.items()}
        return {name: {**one, "name": name} for name, one in {**theirs, **found}.items()}

    def newest_id(self) -> str:
        return newest_id(self.etype)


def newest_id(etype: str) -> str:
    """The document of `META` with the newest version among tombstones, which the server removes one day."""
    return f"newest {etype}"


class AllHeld(dict[str, Held]):
    """Entity name -> what is held of it, of the types that this repository was prepared for."""

    def __missing__(self, etype: str) -> Held:
        raise SchemaMismatch(f"nothing is prepared for {etype!r}: prepare it with create=True first")


def differs(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether the index that is there is another one. Of an index of texts the server tells its keys otherwise."""
    keys = [*wanted["key"].items()]
    if "text" not in wanted["key"].values() and keys != [(name, _plain(one)) for name, one in there["key"].items()]:
        return True
    options = {"unique": False, "sparse": False, "expireAfterSeconds": None, "partialFilterExpression": None}
    return any(wanted.get(name, usual) != there.get(name, usual) for name, usual in options.items())


def _plain(direction: object) -> object:
    return int(direction) if isinstance(direction, float) else direction
