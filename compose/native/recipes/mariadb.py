"""MariaDB 10.11, as Debian bookworm has it."""

from pathlib import Path

from compose.native import cache, processes
from compose.native.debian import DebianTree
from compose.native.place import COMPOSE, DATABASE, HOST, PASSWORD, USER, answers
from compose.native.processes import Process
from compose.native.server import Recipe, Site

MARIADB = DebianTree(
    name="mariadb-10.11",
    suite="bookworm",
    packages=["mariadb-server", "mariadb-client"],
    programs=["usr/sbin/mariadbd", "usr/bin/mariadb", "usr/bin/my_print_defaults"],
)


def base() -> Path:
    return cache.folder(MARIADB) / "tree/usr"


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
    install = [base() / "bin/mariadb-install-db", *options(site), "--auth-root-authentication-method=normal"]
    processes.run([*install, "--skip-test-db", "--skip-name-resolve"], site.store)


def server(site: Site) -> Process:
    network = [f"--bind-address={HOST}", f"--port={site.port}", f"--socket={site.store / 'socket'}"]
    sizes = ["--max-connections=300", "--innodb-buffer-pool-size=128M", "--skip-name-resolve"]
    sizes.append("--innodb-file-per-table=0")  # a test makes and drops a database: one file is three times as quick
    init = f"--init-file={COMPOSE / 'mariadb/create.sql'}"
    return Process(
        name="mariadbd",
        command=[base() / "sbin/mariadbd", *options(site), *network, *sizes, init],
        ready=lambda: answers(site.port, expect=b"MariaDB"),
    )


def url(port: int) -> str:
    return f"mysql://{USER}:{PASSWORD}@{HOST}:{port}/{DATABASE}"


RECIPE = Recipe(
    name="mariadb", port=13306, artifacts=[MARIADB], url=url, create=create, processes=lambda site: [server(site)]
)
