"""An entity as a table of the file: typed columns of its fields, and the columns that polystore keeps beside them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from polystore.entity import EntityType
from polystore.errors import EntityError
from polystore_adapters.sqlite.dialect import SqliteDialect

TABLE_COLUMNS = ("ps_rid", "ps_tenant", "ps_version", "ps_h", "ps_hash", "ps_updated_at", "ps_expires_at")
"""What polystore keeps of each record: row number (what hangs off a row refers to it), tenant, version, hash of the
key, content hash, time of the last write in microseconds since the epoch, and time from which the record is absent
(missing: never)."""
SEGMENT_BITS = 13
"""The hashes of keys are indexed in segments of 2 ** 13 row numbers. They come in no order: in one index of all rows
nearly every new row of a large table touches a page of its own, each of which is then written to the log and to the
file. Here it touches a page of the last segment, which has some 40; who reads a range of hashes asks every segment."""


def record_table(entity: EntityType[Any], dialect: SqliteDialect, *, home: bool) -> sa.Table:
    """The table of an entity. Only a home holds values unique: a copy may meet two records' changes in either order.

    Fields are nullable, whatever the class says: a column that is added later has no value in the rows of before.
    Raises EntityError for a name that SQL stores keep for themselves.
    """
    if entity.name.startswith(("sqlite_", "pg_")):
        raise EntityError(f"{entity.cls.__name__}: tables cannot be named {entity.name!r}; pass @entity(name=...)")
    types = dialect.types
    fields = [
        sa.Column(name, types[spec.kind.name], nullable=name != entity.key) for name, spec in entity.fields.items()
    ]
    table = sa.Table(
        entity.name,
        sa.MetaData(),
        sa.Column("ps_rid", sa.Integer(), primary_key=True),
        sa.Column("ps_tenant", sa.Text(), nullable=False),
        sa.Column("ps_version", sa.BigInteger(), nullable=False),
        sa.Column("ps_h", sa.BigInteger(), nullable=False),
        sa.Column("ps_hash", sa.LargeBinary(), nullable=False),
        sa.Column("ps_updated_at", sa.BigInteger(), nullable=False),
        sa.Column("ps_expires_at", sa.BigInteger()),
        *fields,
    )
    name, tenant, columns = entity.name, table.c.ps_tenant, table.c
    sa.Index(f"ps_key_{name}", tenant, columns[entity.key], unique=True)
    sa.Index(f"ps_scan_{name}", columns.ps_rid.bitwise_rshift(SEGMENT_BITS), tenant, columns.ps_h)
    sa.Index(f"ps_expiry_{name}", columns.ps_expires_at, sqlite_where=columns.ps_expires_at.is_not(None))
    for field in entity.unique:
        sa.Index(f"ps_{'unique' if home else 'index'}_{name}_{field}", tenant, columns[field], unique=home)
    for field in entity.index:
        if field not in entity.unique and field != entity.key:
            sa.Index(f"ps_index_{name}_{field}", tenant, columns[field])
    return table
