"""Whose vectors a file serves: another process may have prepared it for another embedder since this one did."""

from __future__ import annotations

import json
import sqlite3

from polystore.errors import SchemaMismatch
from polystore_adapters.sqlite.table import RecordTable


def check_serves(db: sqlite3.Connection, table: RecordTable) -> None:
    """Raises SchemaMismatch when vectors of this process do not belong among those in the file. In the transaction that
    writes or compares them: between the two nothing changes."""
    row = db.execute("SELECT v FROM ps_meta WHERE k = ?", (f"served:{table.etype}",)).fetchone()
    stored: dict[str, dict[str, object]] = {} if row is None else json.loads(row[0])["vectors"]
    for field, spec in table.layout.vectors.items():
        other = stored.get(field)
        if other is not None and (other["embedder"], other["dimension"]) != (spec.embedder, spec.dimension):
            raise SchemaMismatch(
                f"{table.etype}.{field}: another process has rebuilt its vectors with {other['embedder']!r}, this one "
                f"has {spec.embedder!r}; open it again with the configuration of the other"
            )
