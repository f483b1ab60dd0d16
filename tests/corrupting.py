"""Copies made wrong behind polystore's back, by their own drivers: one record in one of several ways."""

from __future__ import annotations

import sqlite3
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import httpx
import msgspec

from polystore import Embedding, FullText, entity
from polystore.embedding import pack
from polystore.entity import EntityType, entity_types
from polystore.model import key_hash
from tests.chromadb import COLLECTIONS, http

DIMENSION = 8
WRONG = [9.0] * DIMENSION
ETYPE = "memo"


@entity(name=ETYPE)
@dataclass(kw_only=True)
class Memo:
    id: str
    number: int
    text: Annotated[str, FullText()]
    at: Annotated[list[float], Embedding(dimension=DIMENSION, metric="l2")]


MEMO: EntityType[Any] = entity_types([Memo])[ETYPE]


def memo(id: str, number: int) -> Memo:
    return Memo(id=id, number=number, text=f"apple {id} pear {number}", at=[float((number >> i) & 7) for i in range(8)])


def h_of(id: str) -> int:
    return key_hash("", ETYPE, id)


class Corruptor(Protocol):
    """Makes one copy wrong. `extra`: a record that is only there, made of that of another id."""

    @property
    def store(self) -> Mapping[str, Any]:
        """How the store is configured."""
        ...

    @property
    def kinds(self) -> Sequence[str]:
        """Ways to corrupt a record, each named as `verify` tells of it, but for what stands behind a blank."""
        ...

    def corrupt(self, kind: str, id: str) -> None: ...
    def close(self) -> None: ...


class Sqlite:
    kinds = ("missing", "extra", "older", "content", "vector", "fault")

    def __init__(self, folder: Path) -> None:
        self.store = {"url": f"sqlite:{folder}/copy.db", "roles": ["vector", "full_text"]}
        self._path = folder / "copy.db"

    def corrupt(self, kind: str, id: str) -> None:
        db = sqlite3.connect(self._path, timeout=30)
        (rid,) = db.execute("SELECT ps_rid FROM memo WHERE id = ?", (id,)).fetchone()
        match kind:
            case "missing":
                db.execute("DELETE FROM memo WHERE id = ?", (id,))
            case "extra":
                new = f"{id}-extra"
                names = [str(row[1]) for row in db.execute("PRAGMA table_info(memo)")]
                columns = [one for one in names if one != "ps_rid"]
                taken = ", ".join({"id": "?1", "ps_h": "?2"}.get(one, one) for one in columns)
                sql = f"INSERT INTO memo ({', '.join(columns)}) SELECT {taken} FROM memo WHERE id = ?3"
                db.execute(sql, (new, h_of(new), id))
            case "older":
                db.execute("UPDATE memo SET ps_version = ps_version - 1 WHERE id = ?", (id,))
            case "content":
                db.execute("UPDATE memo SET text = 'wrong' WHERE id = ?", (id,))
            case "vector":
                db.execute("UPDATE ps_vec_memo SET vec = ? WHERE rid = ?", (pack(WRONG), rid))
            case _:
                db.execute("DELETE FROM ps_text_memo WHERE rowid = ?", (rid,))
        db.commit()
        db.close()

    def close(self) -> None: ...


class Elasticsearch:
    """It knows no vectors here, but when it was written to past polystore: "content by update" and "missing by delete"
    count up the server's own version of the document."""

    kinds = ("missing", "extra", "older", "content", "content by update", "fault", "content unreadable")

    def __init__(self, url: str, prefix: str) -> None:
        self.store = {"url": url, "roles": ["full_text"], "options": {"prefix": prefix}}
        self._index = f"/{prefix}{ETYPE}"
        self._client = httpx.Client(base_url=f"http{url.removeprefix('elasticsearch')}", timeout=60)

    def ask(self, method: str, path: str, body: object = None, **params: Any) -> dict[str, Any]:
        answer = self._client.request(method, f"{self._index}{path}", json=body, params=params).raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def corrupt(self, kind: str, id: str) -> None:
        there = self.ask("GET", f"/_doc/%2F{id}")
        source, version = there["_source"], {"version": there["_version"], "version_type": "external_gte"}
        match kind:
            case "missing":
                self.ask("PUT", "/_settings", {"index": {"gc_deletes": "0s"}})
                self.ask("DELETE", f"/_doc/%2F{id}", **version)
            case "extra":
                new = f"{id}-extra"
                more = {"id": new, "ps_id": new, "ps_h": h_of(new)}
                self.ask("PUT", f"/_doc/%2F{new}", source | more, version=version["version"], version_type="external")
            case "older":
                self.ask("PUT", f"/_doc/%2F{id}", source | {"ps_version": source["ps_version"] - 1}, **version)
            case "content":
                self.ask("PUT", f"/_doc/%2F{id}", source | {"number": -1}, **version)
            case "content unreadable":
                self.ask("PUT", f"/_doc/%2F{id}", source | {"at": "wrong"}, **version)
            case "content by update":
                self.ask("POST", f"/_update/%2F{id}", {"doc": {"number": -1}})
            case _:
                self.ask("PUT", f"/_doc/%2F{id}", source | {"ps_terms": "wrong"}, **version)

    def close(self) -> None:
        self._client.close()


class Chromadb:
    """A record has its vector, a list in its body, in the index alone: "content by index" is another one there."""

    kinds = ("missing", "extra", "older", "content", "vector", "fault", "content unreadable", "content by index")

    def __init__(self, url: str, prefix: str) -> None:
        self.store = {"url": url, "roles": ["vector"], "options": {"prefix": prefix}}
        self._begins = f"{prefix}{ETYPE}.v"
        self._client = httpx.Client(base_url=http(url), timeout=120)

    def _ask(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        """Of the collection of vectors, which has the whole records."""
        there: list[dict[str, Any]] = self._client.get(COLLECTIONS, params={"limit": 10_000}).json()
        (id,) = [one["id"] for one in there if one["name"].startswith(self._begins)]
        answer = self._client.post(f"{COLLECTIONS}/{id}/{verb}", json=body).raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def corrupt(self, kind: str, id: str) -> None:
        item = {"ids": [f"/{id}"]}
        there = self._ask("get", item | {"include": ["metadatas", "uris", "embeddings"]})
        about, embedding = there["metadatas"][0], there["embeddings"][0]
        kept = msgspec.msgpack.decode(b64decode(there["uris"][0].partition(",")[2]))
        body = kept[-1]
        match kind:
            case "missing":
                self._ask("delete", item)
            case "extra":
                new = f"{id}-extra"
                about |= {"id": new, "ps_at": f"/{h_of(new) >> 20:x}"}
                uri = _uri([*kept[:-1], body | {"id": new}])
                more = {"ids": [f"/{new}"], "metadatas": [about], "uris": [uri], "embeddings": [embedding]}
                self._ask("upsert", more)
            case "older":
                self._ask("update", item | {"metadatas": [about | {"ps_version": about["ps_version"] - 1}]})
            case "content":
                self._ask("update", item | {"uris": [_uri([*kept[:-1], body | {"number": -1}])]})
            case "content unreadable":
                self._ask("update", item | {"uris": ["data:,"]})
            case "vector":
                uri = _uri([zlib.crc32(pack(WRONG)), None, "", *kept[3:-1], body | {"at": embedding}])
                self._ask("update", item | {"uris": [uri], "embeddings": [WRONG]})
            case "fault":
                self._ask("update", item | {"metadatas": [{"number": -1}]})
            case _:
                self._ask("update", item | {"embeddings": [WRONG]})

    def close(self) -> None:
        self._client.close()


def _uri(kept: Sequence[Any]) -> str:
    return f"data:application/msgpack;base64,{b64encode(msgspec.msgpack.encode(kept)).decode()}"
