"""Tables of a database that every one has. The server commits each change of a table by itself, so all are made so
that making them again, after an end in the middle, goes on where it stood; `ps_meta` says last that they are there."""

from __future__ import annotations

from polystore.errors import SchemaMismatch, Unavailable
from polystore_adapters.mysql import workers
from polystore_adapters.mysql.pool import Session

SCHEMA_VERSION = 1
"""Of the `ps_*` tables. A database of a newer one is refused."""
BUCKETS = 1024
"""Rows of `ps_lock`: a key that is gone has no row to lock, so writers lock the bucket of its hash."""
TARGETS_LOCK = BUCKETS
"""One more row: commits share it while they use the copies' bits, who changes a copy has it alone."""
PREPARE_WAIT_S = 30
_LOCK_NAME = "CONCAT('polystore ', LEFT(SHA2(DATABASE(), 256), 40))"
"""MySQL takes 64 characters, as many as the name of a database may have alone."""

# (tenant, etype, id) is 2,816 bytes of the 3,072 that an index may have, so what has more columns has a hash of them.
_KEY = "tenant VARCHAR(128) NOT NULL, etype VARCHAR(64) NOT NULL, id VARCHAR(512) NOT NULL"
_RUN = "CREATE TABLE IF NOT EXISTS ps_run (k INT PRIMARY KEY, v VARCHAR(64) NOT NULL)"
_TABLES = f"""
CREATE TABLE IF NOT EXISTS ps_meta (k VARCHAR(128) PRIMARY KEY, v LONGTEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ps_lock (b INT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS ps_placement (etype VARCHAR(64) PRIMARY KEY, placement LONGTEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ps_tombstone ({_KEY}, version BIGINT NOT NULL, h BIGINT NOT NULL, deleted_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, etype, id), KEY (deleted_at));
CREATE TABLE IF NOT EXISTS ps_vector (slot BINARY(16) PRIMARY KEY, {_KEY}, field VARCHAR(255) NOT NULL,
    embedder VARCHAR(255) NOT NULL, text_hash VARBINARY(16) NOT NULL, vec LONGBLOB NOT NULL, KEY (tenant, etype, id));
CREATE TABLE IF NOT EXISTS ps_outbox (version BIGINT PRIMARY KEY, {_KEY}, h BIGINT NOT NULL, targets BIGINT NOT NULL,
    owner VARCHAR(64), claimed_at BIGINT, claims INT NOT NULL DEFAULT 0, created_at BIGINT NOT NULL, KEY (owner),
    KEY (tenant, etype, id));
CREATE TABLE IF NOT EXISTS ps_retry (slot BINARY(16) PRIMARY KEY, target VARCHAR(255) NOT NULL, {_KEY},
    h BIGINT NOT NULL, version BIGINT NOT NULL, min_version BIGINT NOT NULL, state CHAR(1) NOT NULL,
    attempts INT NOT NULL, hard_fails INT NOT NULL, first_us BIGINT NOT NULL, next_us BIGINT NOT NULL,
    error_class LONGTEXT NOT NULL, error LONGTEXT NOT NULL, KEY (target, next_us), KEY (target, h, min_version),
    KEY (tenant, etype, id));
CREATE TABLE IF NOT EXISTS ps_target (etype VARCHAR(64) NOT NULL, name VARCHAR(255) NOT NULL, bit INT NOT NULL,
    status VARCHAR(16) NOT NULL, cur LONGTEXT, data_id VARCHAR(255) NOT NULL, PRIMARY KEY (etype, name),
    UNIQUE KEY (etype, bit));
CREATE TABLE IF NOT EXISTS ps_worker (id VARCHAR(64) PRIMARY KEY, beat_us BIGINT NOT NULL);
{workers.TABLE};
CREATE TABLE IF NOT EXISTS ps_op (tenant VARCHAR(128) NOT NULL, op_id VARCHAR(512) NOT NULL,
    request_hash LONGBLOB NOT NULL,
    answers LONGTEXT NOT NULL, created_at BIGINT NOT NULL, PRIMARY KEY (tenant, op_id), KEY (created_at));
CREATE TABLE IF NOT EXISTS ps_mark (name VARCHAR(512) PRIMARY KEY, value LONGTEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ps_series (n BIGINT AUTO_INCREMENT PRIMARY KEY, slot BINARY(16) NOT NULL,
    etype VARCHAR(64) NOT NULL, measure VARCHAR(255) NOT NULL, tenant VARCHAR(128) NOT NULL, id VARCHAR(512) NOT NULL,
    UNIQUE KEY (slot), KEY (etype, measure));
CREATE TABLE IF NOT EXISTS ps_point (series BIGINT NOT NULL, at BIGINT NOT NULL, i BIGINT, f DOUBLE, s LONGTEXT,
    PRIMARY KEY (series, at));
CREATE TABLE IF NOT EXISTS ps_spill (n BIGINT AUTO_INCREMENT PRIMARY KEY, store VARCHAR(255) NOT NULL,
    kind VARCHAR(16) NOT NULL, {_KEY}, count INT NOT NULL, payload LONGBLOB NOT NULL, created_at BIGINT NOT NULL,
    next_us BIGINT NOT NULL DEFAULT 0, attempts INT NOT NULL DEFAULT 0, aside TINYINT(1) NOT NULL DEFAULT 0,
    error LONGTEXT NOT NULL, KEY (store, aside, n), KEY (tenant, etype, id));
CREATE TABLE IF NOT EXISTS ps_file (name VARCHAR(512) PRIMARY KEY, tenant VARCHAR(128), etype VARCHAR(64),
    id VARCHAR(512), state VARCHAR(16) NOT NULL, since BIGINT NOT NULL, KEY (tenant, etype, id), KEY (state, since));
INSERT IGNORE INTO ps_lock VALUES {", ".join(f"({bucket})" for bucket in range(TARGETS_LOCK + 1))};
INSERT IGNORE INTO ps_meta (k, v) VALUES ('data_id', REPLACE(UUID(), '-', ''));
INSERT IGNORE INTO ps_meta (k, v) VALUES ('spill_bytes', '0');
INSERT IGNORE INTO ps_meta (k, v) VALUES ('schema', '{SCHEMA_VERSION}');
"""


async def exists(db: Session, name: str) -> bool:
    """Whether the database has a table of this bare name."""
    sql = "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = %s"
    return await db.value(sql, name) is not None


async def comment_of(db: Session, name: str) -> str | None:
    """The comment of a table; None: there is none of this name."""
    sql = "SELECT table_comment FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = %s"
    found = await db.value(sql, name)
    return None if found is None else str(found)


async def columns_of(db: Session, table: str) -> set[str]:
    """The bare names of the columns that a table has; none: there is no such table."""
    sql = "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s"
    return {str(name) for (name,) in await db.fetch(sql, table)}


async def has_index(db: Session, table: str, name: str) -> bool:
    """Whether the table has an index of this bare name."""
    sql = (
        "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = %s AND "
        "index_name = %s LIMIT 1"
    )
    return await db.value(sql, table, name) is not None


async def check_database(db: Session, place: str) -> bool:
    """Whether there are polystore's tables. Raises SchemaMismatch for those of a newer polystore."""
    if not await exists(db, "ps_meta"):
        return False
    found = await db.value("SELECT v FROM ps_meta WHERE k = 'schema'")
    if found is None:
        return False  # somebody is making them, or came to an end meanwhile
    if not found.isdigit() or int(found) > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{place}: written by a newer polystore (schema version {found}, this one knows {SCHEMA_VERSION}); update "
            "polystore"
        )
    return True


async def run_id_of(db: Session) -> str:
    """What lives as long as the server does: a row in its memory, made by the first who asks."""
    found = await db.value("SELECT v FROM ps_run")
    if found is None:
        await db.run("INSERT IGNORE INTO ps_run (k, v) VALUES (1, UUID())")
        found = await db.value("SELECT v FROM ps_run")
    return str(found)


async def lock(db: Session, place: str) -> None:
    """One process at a time makes or changes tables. Held until `unlock` or the end of the connection. Raises
    Unavailable."""
    if await db.value(f"SELECT GET_LOCK({_LOCK_NAME}, %s)", PREPARE_WAIT_S) != 1:
        raise Unavailable(f"{place}: another process has been changing the tables for {PREPARE_WAIT_S} s; try again")


async def unlock(db: Session) -> None:
    await db.run(f"DO RELEASE_LOCK({_LOCK_NAME})")


async def create_tables(db: Session, place: str) -> None:
    """Make them where they are missing."""
    if await check_database(db, place):
        await db.create(workers.TABLE)  # which an earlier polystore did not make
        return
    await db.run(db.flavour.counter)
    await db.run(f"{_RUN} {db.flavour.table_options.replace('InnoDB', 'MEMORY')}")
    for statement in _TABLES.split(";\n"):
        if statement.strip().startswith("CREATE TABLE"):
            await db.create(statement)
        elif statement.strip():
            await db.run(statement)
