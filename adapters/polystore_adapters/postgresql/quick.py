"""The commit of one whole record in one statement: lock, version, row and the duty to deliver, in one round trip.

Any number of such commits of one type travel together. A row that the statement leaves alone (it expired, or `create`
found a live one) is then judged by the way of all other commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from polystore.model import Commit, Committed, Key, Write, Written
from polystore_adapters.postgresql.dialect import ident
from polystore_adapters.postgresql.epoch import SAME_SQL
from polystore_adapters.postgresql.locks import LOCK_CLASS, bucket
from polystore_adapters.postgresql.pool import Pool
from polystore_adapters.postgresql.records import Tables
from polystore_adapters.postgresql.table import RecordTable, sent

KINDS = ("put", "create")
_VERSION, _UPDATED, _EXPIRES = ident("ps_version"), ident("ps_updated_at"), ident("ps_expires_at")


def is_quick(tables: Tables, commit: Commit) -> bool:
    """Whether the commit can be one statement."""
    if len(commit.writes) != 1 or commit.op is not None or commit.marks or commit.spills:
        return False
    write: Write = commit.writes[0]
    if write.kind not in KINDS or write.expect_version is not None:
        return False
    table = tables[write.key.etype]
    if table.shared:
        return False
    return table.edges is None and not table.entity.embeddings and not table.entity.files


def statement(table: RecordTable, kind: str, *, one: bool) -> str:
    """$1 buckets, $2 owners, $3 times to live, and the columns of `taken`: arrays, or values where it is for `one`
    record, whose plan the server keeps; arrays of unknown length it plans for anew each time."""
    key = ident(table.key)
    types = {name: sent(type_) for name, type_ in taken(table).items()}
    if one:
        before = ""
        locks = (
            f"(SELECT pg_advisory_xact_lock({LOCK_CLASS}, $1) IS NOT NULL AS held, ps_now_us() AS now OFFSET 0) AS k"
        )
        held = f"k.held AND {SAME_SQL}"
        given = {name: f"${i}::{type_}" for i, (name, type_) in enumerate(types.items(), 4)}
        ttl, rows = "$3::bigint", ""
        owners, of_row = "(SELECT $2::text AS owner) AS n", "TRUE"
    else:
        before = (
            f"k AS MATERIALIZED (SELECT count(l) >= 0 AND {SAME_SQL} AS held, ps_now_us() AS now FROM (SELECT "
            f"pg_advisory_xact_lock({LOCK_CLASS}, b) AS l FROM (SELECT DISTINCT b FROM unnest($1::int[]) AS b ORDER BY "
            "b) AS d OFFSET 0) AS s), "
        )
        locks, held = "k", "k.held"  # what is the same for all is found out once
        arrays = {name: f"${i}::{type_}[]" for i, (name, type_) in enumerate(types.items(), 4)}
        given = {name: f"u.{name}" for name in types}
        ttl, rows = "u.ttl", f"unnest($3::bigint[], {', '.join(arrays.values())}) AS u (ttl, {', '.join(arrays)}), "
        owners = f"unnest($2::text[], {arrays[ident('ps_tenant')]}, {arrays[key]}) AS n (owner, tenant, id)"
        of_row = "n.tenant = w.tenant AND n.id = w.id"
    given |= {name: f"{given[name]}::{type_}" for name, type_ in taken(table).items() if type_ != types[name]}
    given[_VERSION] = "nextval('ps_version')"  # after the lock: the row is made of what the locks answered
    given[_UPDATED] = "k.now"
    given[_EXPIRES] = f"k.now + {ttl}"
    changes = table.changes.replace(f"{_VERSION} = excluded.{_VERSION}", f"{_VERSION} = nextval('ps_version')")
    stands = "t.ps_expires_at > ps_now_us()"
    judged = f"t.ps_expires_at IS NULL OR {stands}" if kind == "put" else f"NOT ({stands})"
    etype = "'" + table.etype.replace("'", "''") + "'"
    return (
        f"WITH {before}w AS (INSERT INTO {table.name} AS t ({', '.join(given)}) SELECT {', '.join(given.values())} "
        f"FROM {rows}{locks} WHERE {held} "
        f"ON CONFLICT (ps_tenant, {key}) DO UPDATE SET {changes} WHERE {judged} "
        f"RETURNING ps_tenant AS tenant, {key} AS id, ps_h AS h, ps_version AS version, xmax <> 0 AS existed, "
        f"ps_updated_at AS now, ps_expires_at AS ends, (SELECT coalesce(bit_or(1::bigint << bit), 0) FROM ps_target "
        f"WHERE etype = {etype} AND status <> 'off') AS mask), "
        "o AS (INSERT INTO ps_outbox (version, tenant, etype, id, h, targets, owner, claimed_at, created_at) "
        f"SELECT w.version, w.tenant, {etype}, w.id::text, w.h, w.mask, n.owner, "
        f"CASE WHEN n.owner IS NOT NULL THEN w.now END, w.now FROM w, {owners} WHERE w.mask <> 0 AND {of_row}) "
        "SELECT tenant, id, version, existed, mask, now, ends FROM w"
    )


def taken(table: RecordTable) -> dict[str, str]:
    """The columns that come from here; the server itself makes the others."""
    return {name: type_ for name, type_ in table.written.items() if name not in (_VERSION, _UPDATED, _EXPIRES)}


class Quick:
    """The statements of one repository, made once per type and kind."""

    def __init__(self, pool: Pool, tables: Tables) -> None:
        self._pool = pool
        self._tables = tables
        self._statements: WeakKeyDictionary[RecordTable, dict[tuple[str, bool], str]] = WeakKeyDictionary()

    async def run(self, etype: str, kind: str, commits: Mapping[Key, Commit]) -> dict[Key, Committed]:
        """Carry out some commits of one type and kind; those that are not in the answer were left alone. Raises
        IntegrityViolation or InvalidData when one of them cannot be: then none was."""
        table = self._tables[etype]
        keys = sorted(commits, key=lambda key: (key.tenant, key.id))
        rows = [self._row(table, commits[key]) for key in keys]
        sql = self._statement(table, kind, one=False)
        found = await self._pool.fetch(sql, *map(list, zip(*rows, strict=True)), writes=True)
        return dict(self._answer(etype, commits, row) for row in found)

    async def alone(self, commit: Commit) -> Committed | None:
        """As `run`, of one commit. None: it was left alone."""
        (write,) = commit.writes
        table = self._tables[write.key.etype]
        found = await self._pool.fetch(
            self._statement(table, write.kind, one=True), *self._row(table, commit), writes=True
        )
        return Committed([_written(write, found[0])]) if found else None

    def _statement(self, table: RecordTable, kind: str, *, one: bool) -> str:
        of_table = self._statements.setdefault(table, {})
        sql = of_table.get((kind, one))
        if sql is None:
            sql = of_table[kind, one] = statement(table, kind, one=one)
        return sql

    @staticmethod
    def _row(table: RecordTable, commit: Commit) -> list[Any]:
        """What the statement takes of one commit."""
        (write,) = commit.writes
        key, body = write.key, write.body or {}
        columns = table.columns(key, body)
        facets = table.facet_values(body, table.layout.served(write.vectors))
        return [bucket(key), commit.owner, write.ttl_us, key.tenant, write.h, write.hash, *columns, *facets]

    @staticmethod
    def _answer(etype: str, commits: Mapping[Key, Commit], row: Sequence[Any]) -> tuple[Key, Committed]:
        key = Key(row[0], etype, str(row[1]))
        return key, Committed([_written(commits[key].writes[0], row)])


def _written(write: Write, row: Sequence[Any]) -> Written:
    _, _, version, existed, mask, updated_us, expires_us = row
    existed = existed and write.kind == "put"
    return Written(version, existed, True, mask, write.body, write.hash, updated_us, expires_us or 0)
