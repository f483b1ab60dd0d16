"""Nothing that an adapter claims is left out: every class of the kit runs against each adapter that has them."""

from types import ModuleType

import pytest
from polystore_adapters.memory import MemoryRepository
from polystore_adapters.mongodb.repository import MongoRepository
from polystore_adapters.postgresql.repository import PostgresRepository
from polystore_adapters.sqlite.repository import SqliteRepository

from polystore.protocols import Repository, SupportsCommit
from polystore.testing import conformance
from polystore.testing.conformance import Conformance
from tests.contract import test_memory, test_mongodb, test_postgresql, test_sqlite

KIT = {one for one in vars(conformance).values() if isinstance(one, type) and issubclass(one, Conformance)}


@pytest.mark.parametrize(
    ("module", "repository"),
    [
        (test_memory, MemoryRepository),
        (test_sqlite, SqliteRepository),
        (test_postgresql, PostgresRepository),
        (test_mongodb, MongoRepository),
    ],
)
def test_every_class_of_the_kit_and_every_claim_is_run(module: ModuleType, repository: type) -> None:
    run = [one for name, one in vars(module).items() if name.startswith("Test") and issubclass(one, Conformance)]
    claims: set[type] = {Repository, *getattr(repository, "capabilities")}  # noqa: B009
    fit = {one for one in KIT if SupportsCommit in claims or not one.home}
    wanted = {one for one in fit if getattr(one, "protocol", Repository) in claims}
    assert {base for one in run for base in one.__mro__} >= wanted
    assert {one.protocol for one in run} >= claims


def test_every_class_of_the_kit_is_run() -> None:
    run = [one for module in (test_memory, test_sqlite) for one in vars(module).values() if isinstance(one, type)]
    assert {base for one in run for base in one.__mro__} >= KIT
