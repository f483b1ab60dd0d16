"""Tables as entities, entities as tables, and the triggers on the former."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import orm

from polystore.entity import EntityType, entity, entity_type
from polystore.errors import ConfigurationError
from polystore.facets import Needs
from polystore.sqlalchemy.capturing import adapter_of, table_of


def entity_of(
    table: sa.Table[Any],
    *,
    name: str | None = None,
    facets: Mapping[str, Sequence[object]] | None = None,
    needs: Needs | None = None,
    data_type: str | None = None,
) -> type[Any]:
    """A mapped class for a table that has none, declared as an entity: give it to `open`, to `hda.collection`, and make
    its values with it. `name` is the entity's; default: the table's. The other arguments are those of `entity`.

    Each call makes another class. Raises EntityError.
    """
    etype = name or table.name.lower()

    def init(self: Any, **values: Any) -> None:
        for field, value in values.items():
            if field not in fields:
                raise TypeError(f"{etype} has no field {field!r}")
            setattr(self, field, value)

    cls = type("".join(part.capitalize() for part in etype.split("_")), (), {"__init__": init})
    fields = orm.registry().map_imperatively(cls, table).columns.keys()
    return entity(name=etype, facets=facets, needs=needs, data_type=data_type)(cls)


def table(cls: type[Any]) -> sa.Table[Any]:
    """The table of an entity, for the application's own queries and joins, with the columns that an application can
    use: of a mapped class its own; of any other the one that its relational home keeps, to be read and never written.

    There the key columns are `ps_tenant` and the key field; `ps_expires_at` is when a row ends, in microseconds since
    the epoch, or NULL: a query says itself which tenant it means and leaves out what is over. Values are as the home
    keeps them (times and decimals as text, lists and nested objects as JSON text). Raises ConfigurationError for a
    class that is no entity.
    """
    one = entity_type(cls)
    if one.mapped is not None:
        return one.mapped.table
    columns = [sa.Column(name, _type(one, name), primary_key=name == one.key) for name in one.fields]
    return sa.Table(
        one.name,
        sa.MetaData(),
        sa.Column("ps_tenant", sa.Text(), primary_key=True),
        *columns,
        sa.Column("ps_version", sa.BigInteger()),
        sa.Column("ps_updated_at", sa.BigInteger()),
        sa.Column("ps_expires_at", sa.BigInteger()),
    )


def _type(one: EntityType[Any], field: str) -> sa.types.TypeEngine[Any]:
    types: Mapping[str, sa.types.TypeEngine[Any]] = {
        "int": sa.BigInteger(),
        "float": sa.Double(),
        "bool": sa.Boolean(),
        "bytes": sa.LargeBinary(),
        "json": sa.JSON(),
    }
    return types.get(one.fields[field].kind.name, sa.Text())


def install_trigger(engine: sa.Engine | sa.Connection, entities: Iterable[type[Any]]) -> None:
    """Have the database itself note which rows of these entities' tables change, whoever writes them: SQL by hand,
    Core, other programs, cascades of foreign keys. A process with an open architecture takes the rows over, as a rule
    within a second or two. Idempotent. A connection is left with its transaction to be committed.

    Whoever drops and makes a table anew, as migrations in SQLite do, drops its triggers: install them again afterwards.
    Raises ConfigurationError for a class that is no mapped entity, and for a database that no adapter knows.
    """
    _each(engine, entities, "install_trigger")


def remove_trigger(engine: sa.Engine | sa.Connection, entities: Iterable[type[Any]]) -> None:
    """Undo `install_trigger`. Idempotent."""
    _each(engine, entities, "remove_trigger")


def _each(
    engine: sa.Engine | sa.Connection, entities: Iterable[type[Any]], act: Literal["install_trigger", "remove_trigger"]
) -> None:
    types = [entity_type(cls) for cls in entities]
    for one in types:
        table_of(one)
    if isinstance(engine, sa.Engine):
        with engine.begin() as connection:
            for one in types:
                getattr(adapter_of(connection), act)(connection, one)
    elif isinstance(engine, sa.Connection):  # pyright: ignore[reportUnnecessaryIsInstance]
        for one in types:
            getattr(adapter_of(engine), act)(engine, one)
    else:
        raise ConfigurationError(f"a sync Engine or Connection is needed, not {type(engine).__name__}")
