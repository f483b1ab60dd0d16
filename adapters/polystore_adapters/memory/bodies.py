"""Bodies that a memory server keeps for homes that cannot commit."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from polystore.model import JOURNAL_BODY, JOURNAL_HELD, Held, Key

from .tables import Row, Tables


def settle_held(tables: Tables, held: Sequence[Held]) -> None:
    """See `SupportsKeptBodies`."""
    for one in held:
        part = tables.part(one.key.etype, one.key.tenant)
        row = part.rows.get(one.key.id)
        if row is not None and row.version == one.version and row.body[JOURNAL_BODY] is not None:
            part.rows[one.key.id] = _without(row) if one.durable else _since(row, tables.env.now_us())


def release(tables: Tables, etype: str, age_us: int, limit: int) -> int:
    """See `SupportsKeptBodies.release`."""
    before_us = tables.env.now_us() - age_us
    found = [
        Key(tenant, etype, id)
        for tenant, part in tables.parts(etype)
        for id, row in part.rows.items()
        if row.body[JOURNAL_HELD] is not None and row.body[JOURNAL_HELD] < before_us
    ][:limit]
    for key in found:
        rows = tables.part(etype, key.tenant).rows
        rows[key.id] = _without(rows[key.id])
    return len(found)


def _without(row: Row) -> Row:
    return replace(row, body={**row.body, JOURNAL_BODY: None, JOURNAL_HELD: None})


def _since(row: Row, now_us: int) -> Row:
    return replace(row, body={**row.body, JOURNAL_HELD: now_us})
