"""What the SQL stores share: an entity as a table, a condition as SQL, compiled once per shape.

SQLAlchemy describes tables and compiles statements; it never executes one. What differs between stores is in their
`Dialect`. Importing this package imports SQLAlchemy: adapters do so when they connect.
"""

from polystore.relational.dialect import Dialect
from polystore.relational.statements import Statement, Statements, compiled
from polystore.relational.tables import SEGMENT_BITS, TABLE_COLUMNS, record_table

__all__ = ["SEGMENT_BITS", "TABLE_COLUMNS", "Dialect", "Statement", "Statements", "compiled", "record_table"]
