"""A PostgreSQL database for tests: a schema of its own for each, and a clock that the test sets forward.

The server is that of `tests.stack`; without one these tests are skipped.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from uuid import uuid4

from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.places import postgresql
from tests.stack import url_of


def server() -> postgresql.Statements:
    """Statements to the test server, without a loop."""
    return postgresql.statements(url_of("postgresql"))


@contextmanager
def fresh_schema() -> Generator[str]:
    """The search path of a new schema; skips without a server."""
    with postgresql.fresh_schema(url_of("postgresql")) as path:
        yield path


@contextmanager
def fresh_database() -> Generator[str]:
    """The name of a new database of the server; skips without one."""
    name = f"kit_{uuid4().hex[:16]}"
    server().run(f"CREATE DATABASE {name}")
    try:
        yield name
    finally:
        server().run(f"DROP DATABASE {name} WITH (FORCE)")


def sqlalchemy_url(search_path: str, driver: str = "psycopg") -> str:
    """SQLAlchemy's URL of the schema, for an application."""
    return postgresql.sqlalchemy_url(url_of("postgresql"), search_path, driver)


def configured(search_path: str, **settings: Any) -> dict[str, Any]:
    """A store's settings in a configuration."""
    return {"url": url_of("postgresql"), "options": {"schema": search_path, "pool_size": 5}, **settings}


async def connected(env: Env, search_path: str, **options: Any) -> Repository:
    """A repository of the schema."""
    from polystore_adapters.postgresql import connect

    postgresql.follow_clock(env, url_of("postgresql"), search_path)
    return await connect(url_of("postgresql"), {"schema": search_path, "pool_size": 5, **options}, env)


_NOTED = "(k IN ('schema', 'data_id', 'timeline', 'spill_bytes') OR k ~ '^(schema|served|vectors):')"
"""What `ps_meta` says of the tables themselves."""


class Schemas:
    """Schemas as rooms, see `tests.rooms`."""

    def fresh(self) -> AbstractContextManager[str]:
        return fresh_schema()

    def shape(self, name: str) -> str:
        schema = name.partition(",")[0]
        columns = server().value(
            "SELECT string_agg(concat_ws(' ', c.relname, c.relkind, a.attname, a.atttypid), ';' ORDER BY c.relname, "
            "a.attnum) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
            f"WHERE c.relnamespace = '{schema}'::regnamespace AND a.attnum > 0"
        )
        if "ps_meta r" not in columns:
            return str(columns)
        types = "k ~ '^(schema|served|vectors):'"
        noted = server().value(f"SELECT string_agg(k || v, ';' ORDER BY k) FROM {schema}.ps_meta WHERE {types}")
        return f"{columns} {noted}"

    def empty(self, name: str) -> None:
        schema = name.partition(",")[0]
        server().run(
            "DO $$ DECLARE t regclass; BEGIN FOR t IN SELECT oid FROM pg_class WHERE relkind IN ('r', 'p') "
            f"AND NOT relispartition AND relnamespace = '{schema}'::regnamespace ORDER BY relname LOOP "
            "EXECUTE format('LOCK TABLE %s', t); IF t::text !~ '(ps_meta|test_clock)$' THEN "
            f"EXECUTE format('DELETE FROM %s', t); END IF; END LOOP; UPDATE {schema}.test_clock SET ahead = '0'; "
            f"IF to_regclass('{schema}.ps_meta') IS NOT NULL THEN DELETE FROM {schema}.ps_meta WHERE NOT {_NOTED}; "
            f"UPDATE {schema}.ps_meta SET v = '0' WHERE k = 'spill_bytes'; END IF; END $$"
        )
