"""Following what others write to the application's tables, in a transaction that may have written it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

from polystore.errors import DecodeError
from polystore.model import CALLER, Body, Key, Written
from polystore.relational.deciding import Standing
from polystore.relational.following import Following, changed
from polystore_adapters.postgresql.application import ApplicationTable, lock
from polystore_adapters.postgresql.commit import BURY_SQL, FORGET_SQL, MASKS_SQL, OUTBOX_SQL
from polystore_adapters.postgresql.dialect import decode_json
from polystore_adapters.postgresql.epoch import SAME_SQL, Moved
from polystore_adapters.postgresql.locks import ROWS_SQL
from polystore_adapters.postgresql.pool import Pool, Session
from polystore_adapters.postgresql.records import Tables

log = logging.getLogger("polystore.postgresql")

GONE, BEHIND = "gone", "behind:"
EVERYBODY = (1 << 62) - 1
"""The mask of all copies that a type can have: the bits of those that it has not are passed over."""
_LEVEL_SQL = "current_setting('transaction_isolation')"
_KNOWN_SQL = (
    "SELECT id, field, embedder, text_hash, vec FROM ps_vector WHERE tenant = '' AND etype = $1 "
    "AND id = ANY($2::text[]) AND embedder <> $3"
)
_DRAW_SQL = "SELECT nextval('ps_version') FROM generate_series(1, $1::int)"
_TOUCHED_SQL = "SELECT n, etype, id FROM ps_touch WHERE etype = ANY($1::text[]) ORDER BY n LIMIT $2"


async def follow(db: Session, table: ApplicationTable, ids: Iterable[str]) -> dict[str, Written]:
    """Bring what stands beside these rows in step with them. Returns what became of each that can be read; version 0:
    there is no such row, and none was known."""
    wanted = sorted(set(ids))
    found, noted = await lock(db, table, wanted)
    rows = {Key("", table.etype, id): body for id, body in (await _bodies(db, table, wanted, found)).items()}
    same, now, masks, level = (await db.fetch(f"SELECT {SAME_SQL}, ps_now_us(), {MASKS_SQL}, {_LEVEL_SQL}"))[0]
    if not same:
        raise Moved
    # A transaction that sees the past does not see a copy that has come since: it owes its changes to whoever may be.
    current = level in ("read committed", "read uncommitted")
    standing = Standing(now, (decode_json(masks) if masks else {}) if current else {table.etype: EVERYBODY})
    standing.rows = {Key("", table.etype, id): row for id, row in noted.items()}
    todo = changed(table, standing, rows)
    if table.vectors and todo:
        for id, field, embedder, *made in await db.fetch(_KNOWN_SQL, table.etype, [key.id for key in todo], CALLER):
            standing.known[Key("", table.etype, id), field, embedder] = (made[0], made[1])
    versions = sorted(version for (version,) in await db.fetch(_DRAW_SQL, len(todo))) if todo else []
    decided = Following(lambda etype: table, standing, iter(versions))
    for key, hash in todo.items():
        decided.take_over(key, rows[key], hash)
    await _write(db, table, decided, noted)
    return {key.id: decided.written(key) for key in rows}


async def _bodies(
    db: Session, table: ApplicationTable, ids: Sequence[str], standing: Collection[str]
) -> dict[str, Body | None]:
    """The rows as they stand, None for those that do not. One whose values are not of its columns' types is left alone:
    it disturbs no other, and reading it says what is wrong."""
    bodies: dict[str, Body | None] = dict.fromkeys(ids)
    for id, *values in await db.fetch(table.bodies_sql, [table.key_value(id) for id in ids if id in standing]):
        try:
            bodies[str(id)] = table.codec.decode(str(id), values)
        except DecodeError as e:
            log.warning("not taken over: %s", e)
            del bodies[str(id)]
    return bodies


async def _write(db: Session, table: ApplicationTable, decided: Following, noted: Collection[str]) -> None:
    drafts = decided.drafts
    await table.write(db, drafts, {key for key in drafts if key.id in noted})
    for one in decided.vectors:
        await db.run(FORGET_SQL, one.key.tenant, one.key.etype, one.key.id)
    buried = [
        (key.tenant, key.etype, key.id, one.version, one.h, one.updated_us)
        for key, one in drafts.items()
        if one.columns is None
    ]
    if buried:
        await db.run(BURY_SQL, *map(list, zip(*buried, strict=True)))
    rows = [
        (one.version, one.key.tenant, one.key.etype, one.key.id, one.h, one.targets, None, None)
        for one in decided.outbox
    ]
    if rows:
        now = [drafts[one.key].updated_us for one in decided.outbox]
        await db.run(OUTBOX_SQL, *map(list, zip(*rows, strict=True)), now)


async def unknown(pool: Pool, table: ApplicationTable, cursor: str | None, limit: int) -> tuple[list[str], str | None]:
    """The next rows that are gone, then the next that polystore does not know; and where to go on."""
    if cursor is None or cursor == GONE:
        gone = [str(id) for (id,) in await pool.fetch(table.gone_sql, limit)]
        return gone, GONE if len(gone) == limit else BEHIND
    after = cursor.removeprefix(BEHIND)
    if after:
        rows = await pool.fetch(table.strays_sql, limit, table.key_value(after))
    else:
        rows = await pool.fetch(table.first_strays_sql, limit)
    found = [str(id) for (id,) in rows]
    return found, BEHIND + found[-1] if len(found) == limit else None


async def touched(pool: Pool, tables: Tables, etypes: Sequence[str], limit: int) -> int:
    """Take over rows that triggers noted. A note is dropped with the taking over of what it saw: one that comes
    meanwhile stays."""
    notes: dict[str, list[tuple[int, str]]] = {}
    for n, etype, id in await pool.fetch(_TOUCHED_SQL, list(etypes), limit):
        notes.setdefault(etype, []).append((n, id))
    for etype, seen in notes.items():
        table = tables[etype]
        assert isinstance(table, ApplicationTable)
        async with pool.transaction(begin=ROWS_SQL) as db:
            await follow(db, table, (id for _, id in seen))
            await db.run("DELETE FROM ps_touch WHERE n = ANY($1::bigint[])", [n for n, _ in seen])
    return sum(map(len, notes.values()))


def applications(tables: Mapping[str, object], etypes: Iterable[str]) -> list[str]:
    """Those of the types that are at home in a table of the application."""
    return [etype for etype in etypes if isinstance(tables.get(etype), ApplicationTable)]
