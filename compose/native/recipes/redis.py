"""Redis alone, with Sentinel, as a Cluster; and Valkey, which is started in the same way."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from compose.native import cache, processes
from compose.native.debian import DebianTree
from compose.native.place import HOST, PASSWORD, StackError, answers
from compose.native.processes import Command, Process
from compose.native.server import Recipe, Site

REDIS = DebianTree(
    name="redis-7",
    suite="bookworm",
    packages=["redis-server", "redis-sentinel"],
    programs=["usr/bin/redis-server", "usr/bin/redis-check-rdb", "usr/bin/redis-cli"],
)
VALKEY = DebianTree(
    name="valkey-8",
    suite="trixie",
    packages=["valkey-server"],
    programs=["usr/bin/valkey-server", "usr/bin/valkey-cli"],
)
MASTER = "polystore"  # the name that clients ask the sentinels for
REPLICAS, SENTINELS, NODES = 2, 3, 6
AT_ONCE = ["--repl-diskless-sync-delay", "0"]  # replicas get their first copy without a wait for others


def program(tree: DebianTree, name: str) -> Path:
    return cache.folder(tree) / "tree/usr/bin" / name


def is_ready(port: int) -> bool:
    return answers(port, f"AUTH {PASSWORD}\r\nPING\r\n".encode(), b"PONG")


def node(tree: DebianTree, server: str, site: Site, index: int = 0, more: Sequence[str] = ()) -> Process:
    """One server at the port `index` of the site, with a folder of its own."""
    port, home = site.port + index, site.store / f"node-{index}"
    options = ["--bind", HOST, "--port", str(port), "--dir", str(home), "--appendonly", "yes", "--save", ""]
    secret = ["--requirepass", PASSWORD, "--masterauth", PASSWORD]
    return Process(
        name=f"node-{index}",
        command=[program(tree, server), *options, *secret, *more],
        ready=lambda: is_ready(port),
    )


def create(count: int, site: Site) -> None:
    processes.run(["mkdir", *(f"node-{index}" for index in range(count))], site.store)


def sentinel_processes(site: Site) -> list[Process]:
    replicas = [
        node(REDIS, "redis-server", site, index, [*AT_ONCE, "--replicaof", HOST, str(site.port)])
        for index in range(1, 1 + REPLICAS)
    ]
    return [
        node(REDIS, "redis-server", site, 0, AT_ONCE),
        *replicas,
        *(sentinel(site, 1 + REPLICAS + index) for index in range(SENTINELS)),
    ]


def sentinel(site: Site, index: int) -> Process:
    port = site.port + index
    return Process(
        name=f"sentinel-{index}",
        command=[program(REDIS, "redis-server"), site.store / f"node-{index}" / "sentinel.conf", "--sentinel"],
        ready=lambda: is_ready(port),
    )


def create_sentinels(site: Site) -> None:
    """A sentinel rewrites its file: it is made once, and remembers who is master."""
    create(1 + REPLICAS + SENTINELS, site)
    for index in range(1 + REPLICAS, 1 + REPLICAS + SENTINELS):
        home = site.store / f"node-{index}"
        lines = [
            f"bind {HOST}",
            f"port {site.port + index}",
            f"dir {home}",
            f"requirepass {PASSWORD}",
            f"sentinel sentinel-pass {PASSWORD}",
            f"sentinel monitor {MASTER} {HOST} {site.port} 2",
            f"sentinel auth-pass {MASTER} {PASSWORD}",
            f"sentinel down-after-milliseconds {MASTER} 1500",
            f"sentinel failover-timeout {MASTER} 5000",
        ]
        processes.run(["tee", home / "sentinel.conf"], site.store, "\n".join(lines) + "\n")


def cluster_processes(site: Site) -> list[Process]:
    options = [*AT_ONCE, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
    return [node(REDIS, "redis-server", site, index, options) for index in range(NODES)]


def form_cluster(site: Site) -> None:
    """Three masters with a replica each; returns when every node says that the cluster is whole."""
    everyone = range(site.port, site.port + NODES)
    if not all(is_whole(port) for port in everyone):
        command: Command = [program(REDIS, "redis-cli"), "-a", PASSWORD, "--no-auth-warning", "--cluster", "create"]
        fresh = answers(site.port, ask("CLUSTER INFO"), b"cluster_known_nodes:1\r")
        if fresh:
            nodes = [f"{HOST}:{port}" for port in everyone]
            processes.run([*command, *nodes, "--cluster-replicas", "1", "--cluster-yes"], site.store)
    if not processes.wait_until(lambda: all(is_whole(port) for port in everyone), 30):
        raise StackError("the nodes of the Redis Cluster do not find each other")


def ask(command: str) -> bytes:
    return f"AUTH {PASSWORD}\r\n{command}\r\n".encode()


def is_whole(port: int) -> bool:
    return answers(port, ask("CLUSTER INFO"), b"cluster_state:ok")


def single_url(port: int) -> str:
    return f"redis://:{PASSWORD}@{HOST}:{port}/0"


def sentinel_url(port: int) -> str:
    first = port + 1 + REPLICAS
    sentinels = ",".join(f"{HOST}:{one}" for one in range(first, first + SENTINELS))
    return f"redis+sentinel://:{PASSWORD}@{sentinels}/{MASTER}/0"


def cluster_url(port: int) -> str:
    return f"redis+cluster://:{PASSWORD}@{HOST}:{port}"


SINGLE = Recipe(
    name="redis",
    port=16379,
    artifacts=[REDIS],
    url=single_url,
    create=partial(create, 1),
    processes=lambda site: [node(REDIS, "redis-server", site)],
)
VALKEY_SINGLE = Recipe(
    name="valkey",
    port=16380,
    artifacts=[VALKEY],
    url=single_url,
    create=partial(create, 1),
    processes=lambda site: [node(VALKEY, "valkey-server", site)],
)
SENTINEL = Recipe(
    name="redis-sentinel",
    port=16390,
    ports=1 + REPLICAS + SENTINELS,
    artifacts=[REDIS],
    url=sentinel_url,
    create=create_sentinels,
    processes=sentinel_processes,
)
CLUSTER = Recipe(
    name="redis-cluster",
    port=16400,
    ports=NODES,
    artifacts=[REDIS],
    url=cluster_url,
    create=partial(create, NODES),
    processes=cluster_processes,
    settle=form_cluster,
)
