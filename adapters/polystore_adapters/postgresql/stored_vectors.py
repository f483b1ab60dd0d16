"""Vectors beside the home: what embedders made of texts, and callers gave, so that copies are filled without asking
again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polystore.model import CALLER, Key, StoredVector, text_hash
from polystore.relational.records import by_table
from polystore_adapters.postgresql import application
from polystore_adapters.postgresql.commit import KEEP_SQL
from polystore_adapters.postgresql.dialect import ident
from polystore_adapters.postgresql.locks import begin_sql, bucket
from polystore_adapters.postgresql.pool import Pool, Session
from polystore_adapters.postgresql.records import Tables
from polystore_adapters.postgresql.table import sent


async def vectors(pool: Pool, keys: Sequence[Key]) -> list[StoredVector]:
    sql = (
        "SELECT tenant, etype, id, field, embedder, text_hash, vec FROM ps_vector WHERE (tenant, etype, id) IN "
        "(SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))"
    )
    rows = await pool.fetch(sql, [k.tenant for k in keys], [k.etype for k in keys], [k.id for k in keys])
    return [StoredVector(Key(*row[:3]), *row[3:]) for row in rows]


async def put_vectors(pool: Pool, tables: Tables, found: Sequence[StoredVector]) -> None:
    if not found:
        return
    rows = any(tables[one.key.etype].shared for one in found)
    async with pool.transaction(begin=begin_sql((bucket(one.key) for one in found), rows=rows)) as db:
        locked = await application.locked(db, tables, {one.key for one in found})
        texts: dict[Key, Mapping[str, Any]] = {}
        for (etype, tenant), ids in by_table(one.key for one in found).items():
            table = tables[etype]
            for row in await db.fetch(table.rows_sql, tenant, [table.key_value(id) for id in ids]):
                key = Key(tenant, etype, table.id_of(row))
                if not table.shared or key in locked:
                    texts[key] = table.record(key, row).body or {}
        for one in sorted(found, key=lambda one: (one.key.tenant, one.key.etype, one.key.id, one.field)):
            text = texts.get(one.key, {}).get(one.field)
            if isinstance(text, str) and text_hash(text) == one.text_hash:  # else made of a text that is gone
                await _put_vector(db, tables, one)


async def _put_vector(db: Session, tables: Tables, one: StoredVector) -> None:
    key, table = one.key, tables[one.key.etype]
    place = (key.tenant, key.etype, key.id, one.field)
    await db.run(KEEP_SQL, *place, one.embedder, one.text_hash, one.vector)
    spec = table.layout.vectors.get(one.field) if one.field in table.vectors else None
    if spec is None or spec.embedder != one.embedder:
        return
    column = table.vectors[one.field]
    vector = column.sent(table.layout.served({one.field: one.vector})[one.field])
    given = f"$3::{sent(column.type)}::{column.type}"
    await db.run(
        f"UPDATE {table.name} SET {column.name} = {given} WHERE ps_tenant = $1 AND {ident(table.key)} = $2 "
        "AND NOT EXISTS (SELECT 1 FROM ps_vector WHERE tenant = $1 AND etype = $4 AND id = $5 AND field = $6 "
        "AND embedder = $7)",
        *(key.tenant, table.key_value(key.id), vector, key.etype, key.id, one.field, CALLER),
    )


async def forget_vectors(pool: Pool, etype: str, but_of: Sequence[str], limit: int) -> int:
    key = "tenant, etype, id, field, embedder"
    sql = (
        f"DELETE FROM ps_vector WHERE ({key}) IN (SELECT {key} FROM ps_vector WHERE etype = $1 "
        "AND NOT embedder = ANY($2::text[]) LIMIT $3)"
    )
    return await pool.run(sql, etype, [CALLER, *but_of], limit)
