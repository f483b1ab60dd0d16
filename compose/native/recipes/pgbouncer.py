"""PgBouncer 1.18 in transaction mode before PostgreSQL 18: the harder case, it knows no prepared statements."""

from compose.native import cache, processes
from compose.native.debian import DebianTree
from compose.native.place import HOST, PASSWORD, USER
from compose.native.processes import Process
from compose.native.recipes import postgresql
from compose.native.recipes.postgresql import TREE_18
from compose.native.server import Recipe, Site

PGBOUNCER = DebianTree(name="pgbouncer-1.18", suite="bookworm", packages=["pgbouncer"], programs=["usr/sbin/pgbouncer"])


def configure(site: Site) -> None:
    lines = [
        "[databases]",
        f"* = host={HOST} port={postgresql.POSTGRESQL.site().port}",
        "[pgbouncer]",
        f"listen_addr = {HOST}",
        f"listen_port = {site.port}",
        "unix_socket_dir =",
        "auth_type = scram-sha-256",
        f"auth_file = {site.store / 'users'}",
        f"admin_users = {USER}",
        "pool_mode = transaction",
        "max_client_conn = 500",
        "default_pool_size = 20",
        "ignore_startup_parameters = extra_float_digits",
    ]
    for name, text in {"pgbouncer.ini": "\n".join(lines), "users": f'"{USER}" "{PASSWORD}"'}.items():
        processes.run(["tee", site.store / name], site.store, f"{text}\n")


def bouncer(site: Site) -> Process:
    return Process(
        name="pgbouncer",
        command=[cache.folder(PGBOUNCER) / "tree/usr/sbin/pgbouncer", site.store / "pgbouncer.ini"],
        ready=lambda: postgresql.is_ready(TREE_18, site.port),
    )


RECIPE = Recipe(
    name="pgbouncer",
    port=16432,
    artifacts=[PGBOUNCER, TREE_18],
    url=postgresql.url,
    configure=configure,
    processes=lambda site: [bouncer(site)],
    after=["postgresql"],
)
