"""Tables of the application's own in a home: what others write to them is taken over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from polystore.entity import EntityType
from polystore.model import Commit, Committed, Key, Written

if TYPE_CHECKING:
    import sqlalchemy as sa


@runtime_checkable
class SupportsApplicationTables(Protocol):
    """A home in whose database an application has tables that are entities (`EntityType.mapped`).

    Reads see every row. One that was written by somebody else has version 0 until it is taken over: then it gets a
    version, its facets, and the copies are owed it. Taking a row over once more changes nothing.
    """

    async def adopt(self, etype: str, cursor: str | None, limit: int) -> tuple[int, str | None]:
        """Take over the next `limit` rows that polystore does not know, and those that it knows and that are gone.
        Returns how many, and where to go on; None: that was all. Rows whose content changed are not looked for."""
        ...

    async def follow(self, etype: str, ids: Sequence[str]) -> int:
        """Take over these rows as they stand, or that they are gone. Returns how many had changed."""
        ...

    async def touched(self, etypes: Sequence[str], limit: int) -> int:
        """Take over at most `limit` of the rows that triggers noted. Returns how many they were."""
        ...

    async def strays(self, etype: str, limit: int) -> list[Key]:
        """Rows that `adopt` would take over. Changes nothing."""
        ...

    def commit_on(
        self, connection: sa.Connection, commit: Commit, rows: Mapping[str, Sequence[str]]
    ) -> tuple[Committed, Mapping[Key, Written]]:
        """Write in the transaction of another connection to the same database, which is the caller's to end: the
        commit, and entity name -> ids of rows that the connection wrote itself, which are taken over. Waits for the
        write lock as the connection does.

        Raises ConfigurationError for a connection to another database, and what a commit raises.
        """
        ...


class CapturesTables(Protocol):
    """What an adapter offers to processes that only write the application's tables; the object behind the entry point
    of the group `polystore.sqlalchemy` with the name of SQLAlchemy's dialect. All within the connection's transaction.
    """

    def knows(self, connection: sa.Connection, entity: EntityType[Any]) -> bool:
        """Whether an architecture with this entity was ever opened upon the database. If not, there is nothing to do:
        the first to be opened takes all rows over."""
        ...

    def follow(self, connection: sa.Connection, entity: EntityType[Any], ids: Sequence[str]) -> None:
        """As `SupportsApplicationTables.follow`, of a type that the database `knows`. Raises SchemaMismatch when it
        knows the type with other fields or facets."""
        ...

    def has_trigger(self, connection: sa.Connection, entity: EntityType[Any]) -> bool: ...

    def install_trigger(self, connection: sa.Connection, entity: EntityType[Any]) -> None:
        """Have the database note which rows change, whoever writes them. Idempotent."""
        ...

    def remove_trigger(self, connection: sa.Connection, entity: EntityType[Any]) -> None:
        """The opposite. Idempotent."""
        ...
