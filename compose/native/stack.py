"""All servers together: up in parallel, down, and what they are doing."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from compose.native import cache, processes, server
from compose.native.place import StackError
from compose.native.recipes import (
    chromadb,
    elasticsearch,
    influxdb,
    mariadb,
    minio,
    mongodb,
    mysql,
    neo4j,
    pgbouncer,
    postgresql,
    redis,
    toxiproxy,
)
from compose.native.server import Recipe

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (  # the slowest to have first
        influxdb.RECIPE,
        minio.RECIPE,
        mongodb.RECIPE,
        neo4j.RECIPE,
        chromadb.RECIPE,
        elasticsearch.RECIPE,
        postgresql.POSTGRESQL,
        postgresql.POSTGRESQL_OLD,
        mysql.RECIPE,
        mariadb.RECIPE,
        redis.SINGLE,
        redis.SENTINEL,
        redis.CLUSTER,
        redis.VALKEY_SINGLE,
        pgbouncer.RECIPE,
        toxiproxy.RECIPE,
    )
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a server: `error` says why it does not serve, and the mend."""

    fresh: bool = False
    error: str | None = None
    took_s: float = 0.0


def up(names: Sequence[str], say: Callable[[str, str], None]) -> dict[str, Answer]:
    """Get and start the servers, all at once but for those that need another; none stops the others."""
    wanted = {name: RECIPES[name] for given in names for name in [*RECIPES[given].after, given]}
    began = time.monotonic()
    serving: dict[str, Future[Answer]] = {}

    def one(recipe: Recipe) -> Answer:
        tell = partial(say, recipe.name)
        try:
            for artifact in recipe.artifacts:  # while those that it needs start
                cache.obtain(artifact, tell)
            if missing := [other for other in recipe.after if serving[other].result().error is not None]:
                raise StackError(f"needs {', '.join(missing)}")
            fresh = server.up(recipe, recipe.site(), tell)
        except StackError as error:
            tell(str(error))
            return Answer(error=str(error))
        return Answer(fresh=fresh, took_s=time.monotonic() - began)

    with ThreadPoolExecutor(len(wanted)) as threads:
        for recipe in sorted(wanted.values(), key=lambda recipe: len(recipe.after)):
            serving[recipe.name] = threads.submit(one, recipe)
        return {name: answer.result() for name, answer in serving.items()}


def down(names: Sequence[str]) -> dict[str, bool]:
    """Stop the servers, those that need others first; False: it did not run."""
    before = sorted(names, key=lambda name: -len(RECIPES[name].after))
    return {name: server.down(RECIPES[name], RECIPES[name].site()) for name in before}


def serving(name: str) -> bool:
    return server.serves(RECIPES[name], RECIPES[name].site())


def version(name: str) -> str:
    """The version of the server, the first of what its recipe needs."""
    return cache.found(RECIPES[name].artifacts[0]) or "not built"


def memory_mb(name: str) -> int:
    return sum(processes.memory_mb(one) for one in server.noted(RECIPES[name].site()).values())
