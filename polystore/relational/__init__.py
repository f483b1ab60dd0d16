"""What the SQL stores share: a condition as SQL, compiled once per shape.

SQLAlchemy compiles statements; it never executes one. What differs between stores is in their
`Dialect`. Importing this package imports SQLAlchemy: adapters do so when they connect.
"""

from polystore.relational.dialect import Dialect
from polystore.relational.statements import Statement, Statements, compiled

__all__ = ["Dialect", "Statement", "Statements", "compiled"]
