"""Taking over what others wrote to an application's table: versions, facets and the duty to deliver.

Whoever the writer was, the row as it stands is what counts: its content hash against the one that was noted tells
whether it changed. So following a row once more changes nothing, and nobody has to say what he did.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Sequence

from polystore.errors import DecodeError
from polystore.model import Key, Written, key_hash
from polystore_adapters.sqlite.application import ApplicationTable, Noted
from polystore_adapters.sqlite.commit import FORGET_SQL, Commits
from polystore_adapters.sqlite.table import Draft, Row

log = logging.getLogger("polystore.sqlite")

GONE, BEHIND = "gone", "behind:"


class Following(Commits):
    """Rows of application tables, in a transaction that may have written them. The caller holds the write lock."""

    def follow(self, etype: str, ids: Iterable[str]) -> dict[str, Written]:
        """Bring what stands beside these rows in step with them. Returns what became of each that can be read; version
        0: there is no such row, and none was known."""
        first, table, db = self._version, self._tables[etype], self._db
        assert isinstance(table, ApplicationTable)
        rows = self._readable(table, list(dict.fromkeys(ids)))
        ids = list(rows)
        known = table.known(db, ids)
        for id in ids:
            key, row, noted = Key("", etype, id), rows[id], known.get(id)
            if row is None or row.body is None:
                if noted is not None:
                    self._gone(table, key)
                continue
            hash = table.entity.content_hash(row.body)
            if noted is None or noted[2] != hash:
                # What somebody wrote when its time was over is another record.
                ends = noted[3] if noted is not None and noted[3] > self._now else 0
                if table.entity.ttl_s is not None:
                    ends = self._now + int(table.entity.ttl_s * 1e6)
                self._version += 1
                vectors = self._known_vectors(table, key, row.body, ()) if table.vector is not None else {}
                self._note(
                    key,
                    Draft(
                        self._version, key_hash("", etype, id), hash, self._now, row.body, (), vectors, expires_us=ends
                    ),
                )
        self._stored = {Key("", etype, id): Row(rid, version, hash, 0) for id, (rid, version, hash, _) in known.items()}
        self._write(first)
        db.executemany("DELETE FROM ps_touch WHERE etype = ? AND id = ?", [(etype, table.key_value(id)) for id in ids])
        return {id: self._written(Key("", etype, id), known.get(id)) for id in ids}

    def _readable(self, table: ApplicationTable, ids: Sequence[str]) -> dict[str, Row | None]:
        """The rows as they stand, None for those that do not. One whose values are not of its columns' types is left
        alone: it disturbs no other, and reading it says what is wrong."""
        try:
            return {**dict.fromkeys(ids), **table.stored(self._db, "", ids, bodies=True)}
        except DecodeError as e:
            if len(ids) == 1:
                log.warning("not taken over: %s", e)
                return {}
        return {id: row for one in ids for id, row in self._readable(table, [one]).items()}

    def _gone(self, table: ApplicationTable, key: Key) -> None:
        self._version += 1
        h = key_hash("", key.etype, key.id)
        self._note(key, Draft(self._version, h, b"", self._now, None, None))
        if table.entity.embeddings:
            self._vectors.append((FORGET_SQL, (key.tenant, key.etype, key.id)))

    def _written(self, key: Key, noted: Noted | None) -> Written:
        draft = self._drafts.get(key)
        if draft is None:
            return Written(0 if noted is None else noted[1], noted is not None, changed=False)
        return Written(draft.version, noted is not None)

    def _note(self, key: Key, draft: Draft) -> None:
        self._drafts[key] = draft
        if mask := self._masks.get(key.etype, 0):
            self._outbox.append((draft.version, "", key.etype, key.id, draft.h, mask, None, None, 0, self._now))


def unknown(
    db: sqlite3.Connection, table: ApplicationTable, cursor: str | None, limit: int
) -> tuple[list[str], str | None]:
    """The next rows that are gone, then the next that polystore does not know; and where to go on."""
    if cursor is None or cursor == GONE:
        gone = [str(id) for (id,) in db.execute(table.gone_sql, (limit,))]
        return gone, GONE if len(gone) == limit else BEHIND
    after = cursor.removeprefix(BEHIND)
    first = float("-inf") if table.int_key else ""
    rows = db.execute(table.strays_sql, (table.key_value(after) if after else first, limit))
    found = [str(id) for (id,) in rows]
    return found, BEHIND + found[-1] if len(found) == limit else None


def touched(db: sqlite3.Connection, etypes: Sequence[str], limit: int) -> dict[str, list[str]]:
    """Entity name -> ids of rows that the trigger noted."""
    sql = "SELECT etype, id FROM ps_touch WHERE etype IN (SELECT value FROM json_each(?)) LIMIT ?"
    found: dict[str, list[str]] = {}
    for etype, id in db.execute(sql, (json.dumps(list(etypes)), limit)):
        found.setdefault(etype, []).append(str(id))
    return found
