"""The triggers that note which rows of an application's table change, whoever writes them."""

from __future__ import annotations

from polystore_adapters.postgresql.application import HAS_TRIGGER_SQL, ApplicationTable
from polystore_adapters.postgresql.dialect import ident
from polystore_adapters.postgresql.pool import Session

TABLES = """
CREATE TABLE IF NOT EXISTS ps_touch (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tx xid8 NOT NULL DEFAULT pg_current_xact_id(), etype text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL);
CREATE INDEX IF NOT EXISTS ps_touch_tx ON ps_touch (tx);
"""
"""Each transaction has notes of its own: one that is dropped was seen with all that it tells."""
_EVENTS = {
    "insert": "NEW TABLE AS ps_new",
    "update": "OLD TABLE AS ps_old NEW TABLE AS ps_new",
    "delete": "OLD TABLE AS ps_old",
}


def _function(table: ApplicationTable) -> str:
    """Runs with the rights and the search path of whoever installed it, so that every writer can note."""
    name, etype, side = ident("ps_touch", table.etype), _text(table.etype), table.name
    note = f"INSERT INTO ps_touch (etype, id) SELECT {etype}, {table.id_sql(table.pk)} FROM"
    key = ident(table.key)
    return f"""
CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $ps$
BEGIN
    IF TG_OP = 'INSERT' THEN
        {note} ps_new;
    ELSIF TG_OP = 'UPDATE' THEN
        {note} (SELECT {table.pk} FROM ps_new UNION SELECT {table.pk} FROM ps_old) AS u;
    ELSIF TG_OP = 'DELETE' THEN
        {note} ps_old;
        -- Who inserts the key again makes another record, of which nobody has set an end.
        IF to_regclass({_text(side)}) IS NOT NULL THEN
            UPDATE {side} r SET ps_expires_at = NULL, ps_hash = '' FROM ps_old o
            WHERE r.ps_tenant = '' AND r.{key} = o.{table.pk} AND r.ps_expires_at IS NOT NULL;
        END IF;
    ELSIF to_regclass({_text(side)}) IS NOT NULL THEN
        INSERT INTO ps_touch (etype, id) SELECT {etype}, {table.id_sql(key)} FROM {side};
    END IF;
    RETURN NULL;
END $ps$
"""


async def install(db: Session, table: ApplicationTable) -> None:
    """Idempotent."""
    await db.run(TABLES)
    await db.run(_function(table))
    path = await db.value("SELECT quote_ident(current_schema())")
    function = ident("ps_touch", table.etype)
    await db.run(f"ALTER FUNCTION {function}() SET search_path = {path}, pg_temp")
    for event, rows in _EVENTS.items():
        await db.run(
            f"CREATE OR REPLACE TRIGGER {table.trigger(event)} AFTER {event.upper()} ON {table.table} REFERENCING "
            f"{rows} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )
    await db.run(
        f"CREATE OR REPLACE TRIGGER {table.trigger('truncate')} AFTER TRUNCATE ON {table.table} FOR EACH STATEMENT "
        f"EXECUTE FUNCTION {function}()"
    )


async def remove(db: Session, table: ApplicationTable) -> None:
    """Idempotent."""
    for event in (*_EVENTS, "truncate"):
        await db.run(f"DROP TRIGGER IF EXISTS {table.trigger(event)} ON {table.table}")
    await db.run(f"DROP FUNCTION IF EXISTS {ident('ps_touch', table.etype)}()")


async def installed(db: Session, table: ApplicationTable) -> bool:
    return await db.value(HAS_TRIGGER_SQL, table.trigger("update")[1:-1], table.table) is not None


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
