"""MongoDB's protocol: FerretDB on a PostgreSQL of its own, with the extension documentdb."""

from functools import partial

from compose.native import cache
from compose.native.golang import GoProgram
from compose.native.place import HOST, PASSWORD, USER, answers
from compose.native.processes import Process
from compose.native.recipes import postgresql
from compose.native.recipes.postgresql import BUILTIN_LOCALE, TREE_18
from compose.native.server import Recipe, Site

FERRETDB = GoProgram(
    name="ferretdb", version="2.7.0", package="github.com/FerretDB/FerretDB/v2/cmd/ferretdb", needs_go=(1, 24)
)
PRELOADED = [
    "shared_preload_libraries=pg_cron,pg_documentdb_core,pg_documentdb",
    "cron.database_name=postgres",
    "cron.use_background_workers=on",  # deletes what has expired; no connection of its own
]


def documents(site: Site) -> Process:
    """The PostgreSQL, on the port after FerretDB's. It asks for no password: documentdb connects to itself."""
    return postgresql.process(TREE_18, PRELOADED, Site(site.data, site.port + 1))


def extend(site: Site) -> None:
    postgresql.psql(TREE_18, site.port + 1, "postgres", "CREATE EXTENSION IF NOT EXISTS documentdb CASCADE", site.store)


def ferretdb(site: Site) -> Process:
    return Process(
        name="ferretdb",
        command=[
            cache.folder(FERRETDB) / "bin/ferretdb",
            f"--listen-addr={HOST}:{site.port}",
            "--debug-addr=-",
            f"--state-dir={site.store}",
            "--telemetry=disable",
            f"--postgresql-url=postgres://{USER}:{PASSWORD}@{HOST}:{site.port + 1}/postgres",
        ],
        ready=lambda: answers(site.port),
    )


def processes(site: Site) -> list[Process]:
    return [documents(site), ferretdb(site)]


def url(port: int) -> str:
    return f"mongodb://{USER}:{PASSWORD}@{HOST}:{port}/?authSource=admin"


RECIPE = Recipe(
    name="mongodb",
    port=17017,
    ports=2,
    artifacts=[FERRETDB, TREE_18],
    url=url,
    create=partial(postgresql.create, TREE_18, BUILTIN_LOCALE, authentication="trust"),
    configure=postgresql.forget_killed,
    processes=processes,
    settle=extend,
)
