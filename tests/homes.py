"""A fresh home on each kind of store that can be one: what a configuration says about its stores."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests import mongodb, mysql, postgresql

Stores = Mapping[str, Mapping[str, Any]]
"""Name -> settings of a store; the home is the last one."""


@contextmanager
def memory(folder: Path) -> Generator[Stores]:
    yield {"main": {"url": f"memory:{uuid4().hex}"}}


@contextmanager
def sqlite(folder: Path) -> Generator[Stores]:
    yield {"main": {"url": f"sqlite:{folder / 'main.db'}"}}


@contextmanager
def on_postgresql(folder: Path) -> Generator[Stores]:
    with postgresql.fresh_schema() as path:
        yield {"main": postgresql.configured(path)}


@contextmanager
def on_mariadb(folder: Path) -> Generator[Stores]:
    with mysql.fresh_database() as url:
        yield {"main": {"url": url, "options": {"pool_size": 5}}}


@contextmanager
def on_mysql(folder: Path) -> Generator[Stores]:
    with mysql.fresh_database("mysql") as url:
        yield {"main": {"url": url, "options": {"pool_size": 5}}}


@contextmanager
def on_mongodb(folder: Path) -> Generator[Stores]:
    with mongodb.fresh_database() as url:
        yield {"journal": {"url": f"sqlite:{folder / 'journal.db'}"}, "documents": {"url": url}}


HOMES: Mapping[str, Callable[[Path], AbstractContextManager[Stores]]] = {
    "memory": memory,
    "sqlite": sqlite,
    "postgresql": on_postgresql,
    "mariadb": on_mariadb,
    "mysql": on_mysql,
    "mongodb": on_mongodb,
}
