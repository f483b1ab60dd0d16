"""Tables of a PostgreSQL database: what each has, made in one transaction."""

from __future__ import annotations

from polystore.errors import SchemaMismatch
from polystore.model import FIRST_VERSION
from polystore_adapters.postgresql import facts, objects, state
from polystore_adapters.postgresql.pool import Session

SCHEMA_VERSION = 1
"""Of the `ps_*` tables. A database of a newer one is refused."""
PREPARE_LOCK = "SELECT pg_advisory_xact_lock(1886614643, hashtext(current_schema()))"
"""One process at a time makes or changes the tables of a schema."""

_TABLES = f"""
CREATE SEQUENCE ps_version AS bigint START {FIRST_VERSION + 1} CACHE 1;
CREATE FUNCTION ps_now_us() RETURNS bigint LANGUAGE sql STABLE AS
    $$SELECT (extract(epoch FROM now()) * 1000000)::bigint$$;
CREATE TABLE ps_meta (k text COLLATE "C" PRIMARY KEY, v text NOT NULL);
CREATE TABLE ps_placement (etype text COLLATE "C" PRIMARY KEY, placement text NOT NULL);
CREATE TABLE ps_tombstone (tenant text COLLATE "C" NOT NULL, etype text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL, version bigint NOT NULL, h bigint NOT NULL, deleted_at bigint NOT NULL,
    PRIMARY KEY (tenant, etype, id));
CREATE TABLE ps_vector (tenant text COLLATE "C" NOT NULL, etype text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL, field text NOT NULL, embedder text NOT NULL, text_hash bytea NOT NULL,
    vec bytea NOT NULL, PRIMARY KEY (tenant, etype, id, field, embedder));
CREATE TABLE ps_outbox (version bigint PRIMARY KEY, tenant text COLLATE "C" NOT NULL, etype text NOT NULL,
    id text COLLATE "C" NOT NULL, h bigint NOT NULL, targets bigint NOT NULL, owner text, claimed_at bigint,
    claims integer NOT NULL DEFAULT 0, created_at bigint NOT NULL)
    WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE TABLE ps_retry (target text COLLATE "C" NOT NULL, tenant text COLLATE "C" NOT NULL,
    etype text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, h bigint NOT NULL, version bigint NOT NULL,
    min_version bigint NOT NULL, state text NOT NULL, attempts integer NOT NULL, hard_fails integer NOT NULL,
    first_us bigint NOT NULL, next_us bigint NOT NULL, error_class text NOT NULL, error text NOT NULL,
    PRIMARY KEY (target, tenant, etype, id));
CREATE INDEX ps_retry_due ON ps_retry (target, next_us) WHERE state <> 'p';
CREATE INDEX ps_retry_h ON ps_retry (h, target, etype, min_version);
CREATE TABLE ps_target (etype text COLLATE "C" NOT NULL, name text NOT NULL, bit integer NOT NULL,
    status text NOT NULL, cursor text, data_id text NOT NULL, PRIMARY KEY (etype, name), UNIQUE (etype, bit));
CREATE TABLE ps_worker (id text PRIMARY KEY, beat_us bigint NOT NULL);
CREATE TABLE ps_op (tenant text COLLATE "C" NOT NULL, op_id text COLLATE "C" NOT NULL, request_hash bytea NOT NULL,
    answers text NOT NULL, created_at bigint NOT NULL, PRIMARY KEY (tenant, op_id));
CREATE TABLE ps_mark (name text PRIMARY KEY, value text NOT NULL);
INSERT INTO ps_meta (k, v) VALUES ('schema', '{SCHEMA_VERSION}'),
    ('data_id', replace(gen_random_uuid()::text, '-', ''));
"""
LEASES = "CREATE TABLE ps_lease (name text PRIMARY KEY, owner text NOT NULL, until_us bigint NOT NULL);"
"""Which a database that an earlier polystore made has not."""

_EXISTS = """SELECT EXISTS (SELECT FROM pg_class WHERE relname = (parse_ident($1))[1]
    AND relnamespace = quote_ident(current_schema())::regnamespace)"""


async def exists(db: Session, name: str) -> bool:
    """Whether the schema that new tables go to has one of this name, which is bare or in quotes.

    The catalogue is read, not asked by `to_regclass`: that answers from what the session remembers, which a wait for
    another's PREPARE_LOCK does not refresh.
    """
    return bool(await db.value(_EXISTS, name))


async def check_database(db: Session, place: str) -> bool:
    """Whether there are polystore's tables. Raises SchemaMismatch for those of a newer polystore."""
    if not await exists(db, "ps_meta"):
        return False
    found = await db.value("SELECT v FROM ps_meta WHERE k = 'schema'")
    if found is None or not found.isdigit() or int(found) > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{place}: written by a newer polystore (schema version {found}, this one knows {SCHEMA_VERSION}); update "
            "polystore"
        )
    return True


async def create_tables(db: Session, place: str) -> None:
    """Make them where they are missing, inside the caller's transaction."""
    if not await check_database(db, place):
        await db.run("".join((_TABLES, LEASES, state.TABLES, facts.TABLES, objects.TABLES)))
