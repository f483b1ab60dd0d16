"""Vectors in SQLite: exact search over a matrix in memory that follows the table."""

from __future__ import annotations

import math
import sqlite3
from array import array
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from heapq import nlargest
from operator import mul
from threading import Lock
from typing import Any, Protocol

from polystore.embedding import unpack
from polystore.entity import EntityType
from polystore.errors import DimensionMismatch, StoreCorrupt
from polystore.facets import Metric
from polystore.model import Match, vector_digest
from polystore.protocols import VectorSpec

from . import FacetRow
from .tables import follow, json_list, snapshot

_CHUNK_BYTES = 1 << 20
_COMPACT_MIN = 1000
_BOOKKEEPING_BYTES = 120
"""What a cached row takes beside its components: its rid twice, a list entry and a dict entry."""

Where = tuple[str, Sequence[Any]]
"""A condition as SQL over the entity's table as `t`, and its parameters."""


class Rows(Protocol):
    """Vectors in memory by rid: `Matrix` with numpy, `Arrays` without."""

    def __len__(self) -> int: ...
    def reserve(self, count: int) -> None: ...
    def put(self, rids: Sequence[int], vectors: Sequence[bytes]) -> None: ...
    def drop(self, rids: Sequence[int]) -> None: ...
    def nearest(self, query: array[float], allowed: Sequence[int] | None, limit: int) -> list[int]: ...
    def scores(self, query: array[float], vectors: Sequence[bytes]) -> list[float]: ...


class Arrays:
    """What `Matrix` does, without numpy: slower, the same results."""

    def __init__(self, metric: Metric, dimension: int) -> None:
        self._metric: Metric = metric
        self._vectors: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    def reserve(self, count: int) -> None:
        """Nothing to do: a dict grows by itself."""

    def put(self, rids: Sequence[int], vectors: Sequence[bytes]) -> None:
        self._vectors.update(zip(rids, vectors, strict=True))

    def drop(self, rids: Sequence[int]) -> None:
        for rid in rids:
            self._vectors.pop(rid, None)

    def nearest(self, query: array[float], allowed: Sequence[int] | None, limit: int) -> list[int]:
        rids = [rid for rid in (self._vectors if allowed is None else allowed) if rid in self._vectors]
        if len(rids) <= limit:
            return rids
        scores = self.scores(query, [self._vectors[rid] for rid in rids])
        last = nlargest(limit, scores)[-1]
        return [rid for rid, score in zip(rids, scores, strict=True) if score >= last]

    def scores(self, query: array[float], vectors: Sequence[bytes]) -> list[float]:
        if self._metric == "l2":
            return [-math.dist(query, unpack(vector)) for vector in vectors]
        if self._metric == "ip":
            return [sum(map(mul, query, unpack(vector))) for vector in vectors]
        square = sum(map(mul, query, query))
        return [_cosine(query, square, unpack(vector)) for vector in vectors]


def _cosine(a: array[float], square: float, b: array[float]) -> float:
    """0 when one of the two has length 0."""
    product: float = sum(map(mul, a, b))
    return product / (math.sqrt(square * sum(map(mul, b, b))) or math.inf)


def _rows_class() -> Callable[[Metric, int], Rows]:
    try:
        from .matrix import Matrix
    except ModuleNotFoundError as e:
        if e.name != "numpy":
            raise
        return Arrays
    return Matrix


class _Cached:
    """The vectors of one field and tenant as of `seq`, with memory for `capacity` of them taking `size` bytes."""

    def __init__(self, spec: VectorSpec) -> None:
        self.lock = Lock()
        self._spec = spec
        self.clear()

    def clear(self) -> None:
        self.rows = _rows_class()(self._spec.metric, self._spec.dimension)
        self.seq = self.capacity = self.size = 0


class VectorFacet:
    """The vectors of one entity type.

    A (rid, field, tenant) has one row: its vector, or NULL after a removal. Every change gives the row a new `seq`,
    larger than all before, so that a matrix in memory is brought up to date by reading what came after its own `seq`,
    whichever process wrote it. The tenant is part of the identity because SQLite gives a freed rid to another record.
    Rows of NULL are cleared away when they outnumber the others; what remains is one row of rid 0, and a matrix older
    than that row starts anew.

    Queries run on any number of threads, each with a connection of its own that holds no uncommitted changes.
    `cache_bytes` limits the matrices of all fields and tenants together; the one asked least recently goes first. A
    matrix that would not fit is never made: its vectors are read anew for each query, 1 MB at a time.
    """

    def __init__(
        self, entity: EntityType[Any], specs: Mapping[str, VectorSpec], cache_bytes: int, source: str = ""
    ) -> None:
        self._source = source or f'"{entity.name}"'
        self._etype = entity.name
        self._specs = specs
        self._cache_bytes = cache_bytes
        self._name = name = f"ps_vec_{entity.name}"
        self._record = f'CAST(t."{entity.key}" AS TEXT), t.ps_version'
        self._caches: OrderedDict[tuple[str, str], _Cached] = OrderedDict()
        self._lock = Lock()  # of `_caches`; taken for moments only, also while one of their own locks is held
        self._removed = 0
        self._create = [
            f'CREATE TABLE "{name}" (seq INTEGER PRIMARY KEY AUTOINCREMENT, rid INTEGER NOT NULL, '
            "field TEXT NOT NULL, tenant TEXT NOT NULL, vec BLOB, UNIQUE (rid, field, tenant))",
            f'CREATE INDEX "{name}_part" ON "{name}" (field, tenant)',
            f'CREATE INDEX "{name}_gone" ON "{name}" (seq) WHERE vec IS NULL',
        ]

    # -- writing ----------------------------------------------------------------------------------------------

    def create(self, db: sqlite3.Connection) -> bool:
        return follow(db, self._name, self._create)

    def remove(self, db: sqlite3.Connection, rids: Sequence[int]) -> None:
        self._forget(db, self._stored(db, rids))

    def put(self, db: sqlite3.Connection, rows: Sequence[FacetRow]) -> None:
        now = {row.rid: row for row in rows}
        stored = self._stored(db, now)
        self._forget(db, [at for at in stored if at[1] not in now[at[0]].vectors and at[1] not in now[at[0]].keep])
        self._store(db, [(row.rid, field, row.tenant, vec) for row in rows for field, vec in row.vectors.items()])

    def _stored(self, db: sqlite3.Connection, rids: Iterable[int]) -> list[tuple[int, str, str]]:
        sql = (
            f'SELECT rid, field, tenant FROM "{self._name}" '
            "WHERE rid IN (SELECT value FROM json_each(?)) AND vec IS NOT NULL"
        )
        return db.execute(sql, (json_list(rids),)).fetchall()

    def _store(self, db: sqlite3.Connection, rows: Iterable[tuple[int, str, str, bytes | None]]) -> None:
        # REPLACE deletes the old row and inserts one with the next seq.
        db.executemany(f'INSERT OR REPLACE INTO "{self._name}" (rid, field, tenant, vec) VALUES (?, ?, ?, ?)', rows)

    def _forget(self, db: sqlite3.Connection, stored: Sequence[tuple[int, str, str]]) -> None:
        self._store(db, [(*at, None) for at in stored])
        self._removed += len(stored)
        if self._removed < _COMPACT_MIN:
            return
        self._removed = 0
        gone = f'SELECT count(*) FROM "{self._name}" WHERE vec IS NULL'
        removed, present = db.execute(f'SELECT ({gone}), count(*) - ({gone}) FROM "{self._name}"').fetchone()
        if removed >= max(present, _COMPACT_MIN):
            db.execute(f'DELETE FROM "{self._name}" WHERE vec IS NULL')
            self._store(db, [(0, "", "", None)])

    # -- verify -----------------------------------------------------------------------------------------------

    def faults(self, db: sqlite3.Connection, rows: Sequence[FacetRow]) -> Mapping[int, str]:
        tenants = {row.rid: row.tenant for row in rows}
        faults: dict[int, str] = {}
        sql = (
            f'SELECT rid, field, tenant, length(vec) FROM "{self._name}" '
            "WHERE rid IN (SELECT value FROM json_each(?)) AND vec IS NOT NULL"
        )
        for rid, field, tenant, size in db.execute(sql, (json_list(tenants),)):
            spec = self._specs.get(field)
            if tenant != tenants[rid]:
                faults[rid] = f"vector of {field}: it is filed under another tenant"
            elif spec is not None and size != 4 * spec.dimension:
                faults[rid] = f"vector of {field}: it has {size} bytes instead of {4 * spec.dimension}"
        return faults

    def digests(self, db: sqlite3.Connection, rows: Sequence[FacetRow]) -> Mapping[int, Mapping[str, int]]:
        """rid -> field -> `vector_digest` of what is stored; rows without a vector are left out."""
        digests: dict[int, dict[str, int]] = {}
        sql = (
            f'SELECT rid, field, vec FROM "{self._name}" '
            "WHERE rid IN (SELECT value FROM json_each(?)) AND vec IS NOT NULL"
        )
        for rid, field, vec in db.execute(sql, (json_list(row.rid for row in rows),)):
            if field in self._specs:
                digests.setdefault(rid, {})[field] = vector_digest(vec)
        return digests

    # -- search -----------------------------------------------------------------------------------------------

    def similar(
        self, db: sqlite3.Connection, tenant: str, field: str, vector: bytes, where: Where | None, limit: int
    ) -> list[Match]:
        """See `SupportsVectorSearch.similar`. Raises DimensionMismatch; StoreCorrupt for a stored vector that has not
        the field's dimension."""
        spec = self._specs[field]
        if len(vector) != 4 * spec.dimension:
            raise DimensionMismatch(
                f"{self._etype}.{field}: the vector has {len(vector) // 4} components, the field has {spec.dimension}"
            )
        if limit <= 0:
            return []
        query = unpack(vector)
        cached = self._cached(field, tenant)
        with snapshot(db):
            with cached.lock:
                if self._refresh(db, cached, field, tenant):
                    return self._nearest(db, cached.rows, tenant, field, query, where, limit)
            return self._read_all(db, tenant, field, query, where, limit)

    def _nearest(
        self,
        db: sqlite3.Connection,
        rows: Rows,
        tenant: str,
        field: str,
        query: array[float],
        where: Where | None,
        limit: int,
    ) -> list[Match]:
        allowed: list[int] | None = None
        if where is not None:
            sql = f"SELECT t.ps_rid FROM {self._source} AS t WHERE t.ps_tenant = ? AND ({where[0]})"
            allowed = [rid for (rid,) in db.execute(sql, (tenant, *where[1]))]
        near = rows.nearest(query, allowed, limit)
        sql = (
            f'SELECT {self._record}, v.vec FROM json_each(?) AS near CROSS JOIN "{self._name}" AS v '
            f"ON v.rid = near.value AND v.field = ? AND v.tenant = ? JOIN {self._source} AS t ON t.ps_rid = v.rid"
        )
        found = db.execute(sql, (json_list(near), field, tenant)).fetchall()
        return _ranked(found, rows.scores(query, [vec for _, _, vec in found]))[:limit]

    def _read_all(
        self, db: sqlite3.Connection, tenant: str, field: str, query: array[float], where: Where | None, limit: int
    ) -> list[Match]:
        """The same without a matrix in memory: chunk by chunk, of each only what could be among the best."""
        spec = self._specs[field]
        make = _rows_class()
        condition, parameters = where or ("TRUE", ())
        cursor = db.execute(
            f'SELECT {self._record}, v.vec, v.rid FROM "{self._name}" AS v CROSS JOIN {self._source} AS t '
            f"ON t.ps_rid = v.rid WHERE v.field = ? AND v.tenant = ? AND v.vec IS NOT NULL AND ({condition})",
            (field, tenant, *parameters),
        )
        best: list[Match] = []
        while chunk := cursor.fetchmany(self._chunk(spec)):
            by_rid = {rid: found for *found, rid in chunk}
            rows = make(spec.metric, spec.dimension)
            rows.put(list(by_rid), self._checked(field, [vec for _, _, vec in by_rid.values()]))
            near = [by_rid[rid] for rid in rows.nearest(query, None, limit)]
            scores = rows.scores(query, [vec for _, _, vec in near])
            best = sorted(best + _ranked(near, scores), key=_order)[:limit]
        return best

    def _chunk(self, spec: VectorSpec) -> int:
        return max(1, _CHUNK_BYTES // (4 * spec.dimension))

    def _checked(self, field: str, vectors: Collection[bytes]) -> Sequence[bytes]:
        size = 4 * self._specs[field].dimension
        wrong = sum(len(vector) != size for vector in vectors)
        if wrong:
            raise StoreCorrupt(
                f"{self._etype}.{field}: {wrong} stored vectors have another dimension than the field; "
                "`polystore verify` names the records, a rebuild of this store's copy mends them"
            )
        return list(vectors)

    # -- the matrices in memory -------------------------------------------------------------------------------

    def _cached(self, field: str, tenant: str) -> _Cached:
        with self._lock:
            cached = self._caches.get((field, tenant))
            if cached is None:
                cached = self._caches[field, tenant] = _Cached(self._specs[field])
            self._caches.move_to_end((field, tenant))
            return cached

    def _refresh(self, db: sqlite3.Connection, cached: _Cached, field: str, tenant: str) -> bool:
        """Bring the matrix to what the connection sees. False when that cannot be: it would not fit, or the caller's
        transaction began before the matrix was last brought up to date."""
        newest, cleared = db.execute(
            f'SELECT coalesce((SELECT max(seq) FROM "{self._name}"), 0), '
            f"coalesce((SELECT seq FROM \"{self._name}\" WHERE rid = 0 AND field = '' AND tenant = ''), 0)"
        ).fetchone()
        if newest <= cached.seq:
            return bool(newest == cached.seq)
        if cleared > cached.seq:
            cached.clear()
        part = f'FROM "{self._name}" WHERE field = ? AND tenant = ? AND seq > ?'
        (changes,) = db.execute(f"SELECT count(*) {part}", (field, tenant, cached.seq)).fetchone()
        if not self._make_room(cached, self._specs[field], len(cached.rows) + changes):
            cached.clear()
            return False
        cursor = db.execute(f"SELECT rid, vec {part} ORDER BY seq", (field, tenant, cached.seq))
        while chunk := cursor.fetchmany(self._chunk(self._specs[field])):
            present = {rid: vec for rid, vec in chunk if vec is not None}
            cached.rows.drop([rid for rid, _ in chunk if rid not in present])
            cached.rows.put(list(present), self._checked(field, present.values()))
        cached.seq = newest
        return True

    def _make_room(self, cached: _Cached, spec: VectorSpec, count: int) -> bool:
        """Reserve memory for `count` rows, from the matrices asked least recently; False when it would be too much."""
        row_bytes = 4 * spec.dimension + _BOOKKEEPING_BYTES
        most = self._cache_bytes // row_bytes
        if count <= cached.capacity:
            return True
        if count > most:
            return False
        cached.capacity = min(most, max(count, 2 * cached.capacity))
        cached.size = cached.capacity * row_bytes
        with self._lock:
            total = sum(one.size for one in self._caches.values())
            for at, one in list(self._caches.items()):
                if total > self._cache_bytes and one is not cached:
                    del self._caches[at]
                    total -= one.size
        cached.rows.reserve(cached.capacity)
        return True


def _order(match: Match) -> tuple[float, str]:
    return (-match.score, match.id)


def _ranked(found: Sequence[Sequence[Any]], scores: Sequence[float]) -> list[Match]:
    return sorted((Match(one[0], score, one[1]) for one, score in zip(found, scores, strict=True)), key=_order)
