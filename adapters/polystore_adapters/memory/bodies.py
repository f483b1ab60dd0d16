"""Bodies that a memory server keeps for homes that cannot commit."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from polystore.model import JOURNAL_BODY, JOURNAL_HELD, Held

from .tables import Row, Tables


class KeptBodies(Tables):
    """See `SupportsKeptBodies`."""

    def settle_held(self, held: Sequence[Held]) -> None:
        for one in held:
            rows = self.part(one.key.etype, one.key.tenant).rows
            row = rows.get(one.key.id)
            if row is not None and row.version == one.version and row.body[JOURNAL_BODY] is not None:
                rows[one.key.id] = _without(row) if one.durable else _since(row, self.env.now_us())

    def release(self, etype: str, age_us: int, limit: int) -> int:
        before_us = self.env.now_us() - age_us
        found = [
            (part.rows, id)
            for _, part in self.parts(etype)
            for id, row in part.rows.items()
            if row.body[JOURNAL_HELD] is not None and row.body[JOURNAL_HELD] < before_us
        ][:limit]
        for rows, id in found:
            rows[id] = _without(rows[id])
        return len(found)


def _without(row: Row) -> Row:
    return replace(row, body={**row.body, JOURNAL_BODY: None, JOURNAL_HELD: None})


def _since(row: Row, now_us: int) -> Row:
    return replace(row, body={**row.body, JOURNAL_HELD: now_us})
