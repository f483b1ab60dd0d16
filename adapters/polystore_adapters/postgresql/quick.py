"""The commit of one whole record in one statement: lock, version, row and the duty to deliver, in one round trip.

Any number of such commits of one type travel together. A row that the statement leaves alone (it expired, or `create`
found a live one) is then judged by the way of all other commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polystore.model import Commit, Committed, Key, Write, Written
from polystore_adapters.postgresql.dialect import ident
from polystore_adapters.postgresql.locks import LOCK_CLASS, bucket
from polystore_adapters.postgresql.pool import Pool
from polystore_adapters.postgresql.records import Tables
from polystore_adapters.postgresql.table import Draft, RecordTable

KINDS = ("put", "create")
_KEPT = ("ps_version", "ps_updated_at", "ps_expires_at")


def is_quick(tables: Tables, commit: Commit) -> bool:
    """Whether the commit can be one statement."""
    if len(commit.writes) != 1 or commit.op is not None or commit.marks or commit.spills:
        return False
    write: Write = commit.writes[0]
    if write.kind not in KINDS or write.expect_version is not None:
        return False
    table = tables[write.key.etype]
    return table.edges is None and not table.entity.embeddings and not table.entity.files


def statement(table: RecordTable, kind: str) -> str:
    """$1 buckets, $2 owners, $3 times to live, and the columns of `RecordTable.written`."""
    key = ident(table.key)
    columns = list(table.written)
    arrays = ", ".join(
        f"${i}::{'text' if type_ == 'tsvector' else type_}[]" for i, type_ in enumerate(table.written.values(), 4)
    )
    own = {
        "ps_version": "nextval('ps_version')",  # after the lock: the rows are made of what the locks answered
        "ps_updated_at": "m.now",
        "ps_expires_at": "m.now + u.ttl",
    }
    values = [
        own.get(one.strip('"')) or (f"u.{one}::tsvector" if table.written[one] == "tsvector" else f"u.{one}")
        for one in columns
    ]
    changes = table.changes.replace('"ps_version" = excluded."ps_version"', "\"ps_version\" = nextval('ps_version')")
    stands = "t.ps_expires_at > ps_now_us()"
    judged = f"t.ps_expires_at IS NULL OR {stands}" if kind == "put" else f"NOT ({stands})"
    return (
        "WITH k AS MATERIALIZED (SELECT count(l) AS n FROM (SELECT "
        f"pg_advisory_xact_lock({LOCK_CLASS}, b) AS l FROM (SELECT DISTINCT b FROM unnest($1::int[]) AS b ORDER BY b) "
        "AS d OFFSET 0) AS s), "
        "m AS MATERIALIZED (SELECT ps_now_us() AS now, (SELECT coalesce(bit_or(1::bigint << bit), 0) FROM ps_target "
        f"WHERE etype = {_text(table.etype)} AND status <> 'off') AS mask), "
        f"w AS (INSERT INTO {table.name} AS t ({', '.join(columns)}) SELECT {', '.join(values)} FROM "
        f"unnest($3::bigint[], {arrays}) AS u (ttl, {', '.join(columns)}), k, m WHERE k.n >= 0 "
        f"ON CONFLICT (ps_tenant, {key}) DO UPDATE SET {changes} WHERE {judged} "
        f"RETURNING ps_tenant, {key} AS id, ps_h, ps_version, ps_updated_at, ps_expires_at, xmax <> 0 AS existed), "
        "o AS (INSERT INTO ps_outbox (version, tenant, etype, id, h, targets, owner, claimed_at, created_at) SELECT "
        f"w.ps_version, w.ps_tenant, {_text(table.etype)}, w.id::text, w.ps_h, m.mask, n.owner, "
        "CASE WHEN n.owner IS NOT NULL THEN m.now END, m.now FROM w, m, unnest($2::text[], "
        f"${4 + columns.index(ident('ps_tenant'))}::text[], ${4 + columns.index(key)}::{table.key_type}[]) "
        "AS n (owner, tenant, id) WHERE m.mask <> 0 AND n.tenant = w.ps_tenant AND n.id = w.id) "
        "SELECT w.ps_tenant, w.id, w.ps_version, w.existed, m.mask, w.ps_updated_at, w.ps_expires_at FROM w, m"
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


class Quick:
    """The statements of one repository, made once per type and kind."""

    def __init__(self, pool: Pool, tables: Tables) -> None:
        self._pool = pool
        self._tables = tables
        self._statements: dict[tuple[int, str], str] = {}

    async def run(self, etype: str, kind: str, commits: Mapping[Key, Commit]) -> dict[Key, Committed]:
        """Carry out these commits of one type and kind; those that are not in the answer were left alone. Raises
        IntegrityViolation or InvalidData when one of them cannot be: then none was."""
        table = self._tables[etype]
        drafts: dict[Key, Draft] = {}
        keys = sorted(commits, key=lambda key: (key.tenant, key.id))
        for key in keys:
            (write,) = commits[key].writes
            body = write.body or {}
            vectors = table.layout.served(write.vectors)
            drafts[key] = Draft(0, write.h, write.hash, 0, body, table.columns(key, body), vectors)
        sql = self._statements.get((id(table), kind))
        if sql is None:
            sql = self._statements[id(table), kind] = statement(table, kind)
        rows = await self._pool.fetch(
            sql,
            [bucket(key) for key in keys],
            [commits[key].owner for key in keys],
            [commits[key].writes[0].ttl_us for key in keys],
            *table.arrays(drafts),
            writes=True,
        )
        return dict(self._answer(etype, commits, row) for row in rows)

    @staticmethod
    def _answer(etype: str, commits: Mapping[Key, Commit], row: Sequence[Any]) -> tuple[Key, Committed]:
        tenant, id, version, existed, mask, updated_us, expires_us = row
        key = Key(tenant, etype, str(id))
        write = commits[key].writes[0]
        existed = existed and write.kind == "put"
        written = Written(version, existed, True, mask, write.body, write.hash, updated_us, expires_us or 0)
        return key, Committed([written])
