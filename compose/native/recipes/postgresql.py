"""PostgreSQL 18 with pgvector and pg_trgm, and the PostgreSQL 15 of Debian bookworm, the oldest that is supported."""

import signal
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from compose.native import cache, processes
from compose.native.debian import DebianTree
from compose.native.place import COMPOSE, DATABASE, HOST, PASSWORD, USER
from compose.native.processes import Command, Process
from compose.native.server import Recipe, Site

EXTENSIONS = "usr/share/postgresql/18/extension"
# documentdb is what FerretDB keeps documents with; it needs PostGIS, whose files Debian names by version
TREE_18 = DebianTree(
    name="postgresql-18",
    suite="forky",
    packages=[
        "postgresql-18",
        "postgresql-18-pgvector",
        "postgresql-18-documentdb",
        "postgresql-18-timescaledb",
        "postgresql-18-age",
        "postgresql-18-hypopg",
        "postgresql-18-pg-qualstats",
    ],
    programs=["usr/lib/postgresql/18/bin/*"],
    links={f"{EXTENSIONS}/postgis.control": "postgis-3.control"},
)
TREE_15 = DebianTree(
    name="postgresql-15", suite="bookworm", packages=["postgresql-15"], programs=["usr/lib/postgresql/15/bin/*"]
)


def programs(tree: DebianTree) -> Path:
    return cache.folder(tree) / "tree/usr/lib/postgresql" / tree.name.removeprefix("postgresql-") / "bin"


def create(tree: DebianTree, locale: Sequence[str], site: Site, *, authentication: str = "scram-sha-256") -> None:
    secret = site.store / "password"
    processes.run(["sh", "-c", f"umask 077; cat > '{secret}'"], site.store, PASSWORD)
    initdb: Command = [programs(tree) / "initdb", "--no-sync", "-D", site.store / "db", "-E", "UTF8", *locale]
    processes.run([*initdb, "-U", USER, "--pwfile", secret, "-A", authentication], site.store)


def forget_killed(site: Site) -> None:
    """Without this, one that was killed is taken for running as long as nobody has waited for its process."""
    (site.store / "db" / "postmaster.pid").unlink(missing_ok=True)


def process(tree: DebianTree, settings: Sequence[str], site: Site) -> Process:
    options = [f"listen_addresses={HOST}", f"port={site.port}", "unix_socket_directories=", "max_connections=300"]
    bin_, given = programs(tree), [word for one in [*options, *settings] for word in ("-c", one)]
    return Process(
        name="postgres",
        command=[bin_ / "postgres", "-D", site.store / "db", *given],
        ready=lambda: is_ready(tree, site.port),
        stop=signal.SIGINT,  # "fast": sessions are ended, nothing is lost
    )


def is_ready(tree: DebianTree, port: int) -> bool:
    command: Command = [programs(tree) / "pg_isready", "-q", "-h", HOST, "-p", str(port), "-U", USER, "-d", "postgres"]
    return subprocess.run(command, check=False).returncode == 0


def psql(tree: DebianTree, port: int, database: str, statements: str, data: Path) -> str:
    command: Command = [programs(tree) / "psql", "-h", HOST, "-p", str(port), "-U", USER, "-d", database, "-qAtX"]
    return processes.run([*command, "-v", "ON_ERROR_STOP=1"], data, statements, PGPASSWORD=PASSWORD)


def settle(tree: DebianTree, script: str, site: Site) -> None:
    exists = f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"
    if not psql(tree, site.port, "postgres", exists, site.store).strip():
        psql(tree, site.port, "postgres", f"CREATE DATABASE {DATABASE}", site.store)
    psql(tree, site.port, DATABASE, (COMPOSE / script).read_text(), site.store)


def url(port: int) -> str:
    return f"postgresql://{USER}:{PASSWORD}@{HOST}:{port}/{DATABASE}"


BUILTIN_LOCALE = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]

POSTGRESQL = Recipe(
    name="postgresql",
    port=15432,
    artifacts=[TREE_18],
    url=url,
    create=partial(create, TREE_18, BUILTIN_LOCALE),
    configure=forget_killed,
    processes=lambda site: [process(TREE_18, [], site)],
    settle=partial(settle, TREE_18, "postgresql/create.sql"),
)
POSTGRESQL_OLD = Recipe(
    name="postgresql-old",
    port=15433,
    artifacts=[TREE_15],
    url=url,
    create=partial(create, TREE_15, ["--locale=C"]),
    configure=forget_killed,
    processes=lambda site: [process(TREE_15, [], site)],
    settle=partial(settle, TREE_15, "postgresql-old/create.sql"),
)
