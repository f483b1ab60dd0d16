"""What hangs off a record's row in a SQLite file: its terms, its vectors, its edges.

A facet keeps tables of its own (`ps_<facet>_<entity>`), tied to the entity's table by the integer `ps_rid`. It is
written in the transaction that writes the row, and has rows of live records only. The entity's table (`source`: as it
stands behind FROM) has `ps_rid`, `ps_tenant`, the key field under its own name (an INTEGER for int keys, else TEXT),
`ps_version`, `ps_h` and the fields. Conditions are given to the query functions as SQL over that table under the
alias `t`, with their parameters.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from polystore.model import Body, Vectors


class FacetRow(NamedTuple):
    """A live record as a facet sees it.

    A vector field that is neither in `vectors` nor in `keep` has no vector any more; one in `keep` has the content of
    before, so that what is stored for it stays.
    """

    rid: int
    tenant: str
    id: str
    body: Body
    vectors: Vectors
    version: int
    keep: frozenset[str] = frozenset()


class RowFacet(Protocol):
    """One facet of one entity type in one file. Calls that write run inside the caller's transaction."""

    def create(self, db: sqlite3.Connection) -> bool:
        """Make the tables if they are missing. True when they are new: the caller then puts all rows."""
        ...

    def remove(self, db: sqlite3.Connection, rids: Sequence[int]) -> None:
        """Forget these rows; unknown ones are no error."""
        ...

    def put(self, db: sqlite3.Connection, rows: Sequence[FacetRow]) -> None:
        """Replace whatever the rows' rids had. No rid occurs twice."""
        ...

    def faults(self, db: sqlite3.Connection, rows: Sequence[FacetRow]) -> Mapping[int, str]:
        """rid -> what is wrong with what is stored for it; the rows that are as they must be are left out. `vectors`
        of these rows are empty: whether a vector belongs to its text is compared by its digest elsewhere."""
        ...
