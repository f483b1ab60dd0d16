"""Taking over what others wrote to an application's table: versions, facets and the duty to deliver.

Whoever the writer was, the row as it stands is what counts: its content hash against the one that was noted tells
whether it changed. So following a row once more changes nothing, and nobody has to say what he did.
"""

from __future__ import annotations

from collections.abc import Mapping

from polystore.model import Body, Key, Written, key_hash
from polystore.relational.deciding import Decisions, Draft, Forget, Outgoing, Standing, Table


def changed(table: Table, standing: Standing, rows: Mapping[Key, Body | None]) -> dict[Key, bytes | None]:
    """Those of the rows that are to be taken over, with the hash of their content; None: the row is gone."""
    found: dict[Key, bytes | None] = {}
    for key, body in rows.items():
        noted = standing.rows.get(key)
        hash = None if body is None else table.entity.content_hash(body)
        if (None if noted is None else noted.hash) != hash:
            found[key] = hash
    return found


class Following(Decisions):
    """As `Decisions`, of rows that somebody else has written. A draft of no columns says so to whoever writes it."""

    def take_over(self, key: Key, body: Body | None, hash: bytes | None) -> None:
        """Decide upon one of the rows that `changed` names."""
        table, h = self._table(key.etype), key_hash("", key.etype, key.id)
        if body is None or hash is None:
            draft = Draft(next(self._versions), h, b"", self._now, None, None)
            if table.entity.embeddings:
                self.vectors.append(Forget(key))
        else:
            noted = self._given.rows.get(key)
            # What somebody wrote when its time was over is another record.
            ends = noted.expires_us if noted is not None and noted.expires_us > self._now else 0
            if table.entity.ttl_s is not None:
                ends = self._now + int(table.entity.ttl_s * 1e6)
            vectors = self._known(table, key, body, {})
            draft = Draft(next(self._versions), h, hash, self._now, body, (), vectors, ends)
        self.drafts[key] = draft
        if mask := self._given.masks.get(key.etype, 0):
            self.outbox.append(Outgoing(draft.version, key, h, mask, None))

    def written(self, key: Key) -> Written:
        """What became of a row; version 0: there is no such row, and none was known."""
        draft, noted = self.drafts.get(key), self._given.rows.get(key)
        if draft is None:
            return Written(0 if noted is None else noted.version, noted is not None, changed=False)
        return Written(draft.version, noted is not None)
