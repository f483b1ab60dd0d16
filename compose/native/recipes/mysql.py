"""MySQL 9.7, as Debian sid has it."""

from pathlib import Path

from compose.native import cache, processes
from compose.native.debian import DebianTree
from compose.native.place import COMPOSE, DATABASE, HOST, PASSWORD, USER, answers
from compose.native.processes import Process
from compose.native.server import Recipe, Site

MYSQL = DebianTree(
    name="mysql-9",
    suite="sid",
    packages=["mysql-server-core", "mysql-client-core"],
    programs=["usr/sbin/mysqld", "usr/bin/mysql"],
)


def base() -> Path:
    return cache.folder(MYSQL) / "tree/usr"


def options(site: Site) -> list[str | Path]:
    return [
        "--no-defaults",
        f"--basedir={base()}",
        f"--datadir={site.store / 'db'}",
        f"--plugin-dir={base() / 'lib/mysql/plugin'}",
        f"--lc-messages-dir={base() / 'share/mysql'}",
        f"--character-sets-dir={base() / 'share/mysql/charsets'}",
    ]


def create(site: Site) -> None:
    processes.run([base() / "sbin/mysqld", *options(site), "--initialize-insecure"], site.store)


def server(site: Site) -> Process:
    network = [f"--bind-address={HOST}", f"--port={site.port}", f"--socket={site.store / 'socket'}", "--mysqlx=OFF"]
    sizes = ["--max-connections=300", "--innodb-buffer-pool-size=128M", "--performance-schema=OFF"]
    others = ["--skip-name-resolve", "--skip-log-bin", "--secure-file-priv=NULL", "--innodb-file-per-table=0"]
    init = f"--init-file={COMPOSE / 'mysql/create.sql'}"
    return Process(
        name="mysqld",
        command=[base() / "sbin/mysqld", *options(site), *network, *sizes, *others, init],
        ready=lambda: answers(site.port, expect=b"caching_sha2_password"),
    )


def url(port: int) -> str:
    return f"mysql://{USER}:{PASSWORD}@{HOST}:{port}/{DATABASE}"


RECIPE = Recipe(
    name="mysql", port=13307, artifacts=[MYSQL], url=url, create=create, processes=lambda site: [server(site)]
)
