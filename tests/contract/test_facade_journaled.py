"""The kit through the facade, on homes that cannot commit: with a journal that keeps no more than it has to, and with
one that serves facets itself, and so keeps whole records."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polystore.testing.conformance.entities import KIT
from polystore.testing.conformance.facade import Config, FacadeConformance
from polystore.testing.documents import documents_by_url
from tests.mongodb import fresh_database
from tests.postgresql import configured, fresh_schema

PINS: dict[str, dict[str, Any]] = {etype: {"home": "documents"} for etype in KIT}


class TestBodiesAtTheirHome(FacadeConformance):
    @pytest.fixture(name="config")
    def given_config(self, tmp_path: Path) -> Iterator[Config]:
        stores = {
            "main": {"url": f"sqlite:{tmp_path}/journal.db", "roles": ["journal"]},
            "documents": {"url": f"documents:sqlite:{tmp_path}/documents.db"},
            "facets": {"url": f"sqlite:{tmp_path}/facets.db", "roles": ["vector", "graph"]},
        }
        with documents_by_url():
            yield {"stores": stores, "pins": PINS}


class TestHomesThatForgetWithTheProcess(FacadeConformance):
    @pytest.fixture(name="config")
    def given_config(self) -> Iterator[Config]:
        stores = {
            "main": {"url": "memory:", "roles": ["journal"]},
            "documents": {"url": "documents:memory:"},
            "facets": {"url": "memory:", "roles": ["vector", "graph"]},
        }
        with documents_by_url():
            yield {"stores": stores, "pins": PINS}


class TestAJournalWithWholeRecords(FacadeConformance):
    @pytest.fixture(name="config")
    def given_config(self, tmp_path: Path) -> Iterator[Config]:
        stores = {
            "main": {"url": f"sqlite:{tmp_path}/journal.db"},
            "documents": {"url": f"documents:sqlite:{tmp_path}/documents.db"},
        }
        with documents_by_url():
            yield {"stores": stores, "pins": PINS}


@pytest.mark.parametrize(
    ("test", "given"),
    [
        ("test_every_value_comes_back_exactly", {}),
        ("test_eight_writers_at_once_end_at_the_newest_versions_everywhere", {"seed": 1}),
    ],
)
def test_mongodb_with_a_journal_in_postgresql(test: str, given: dict[str, Any], tmp_path: Path) -> None:
    """The whole kit runs with SQLite; what is particular to these two servers is in few of its tests."""
    with fresh_schema() as path, fresh_database() as url:
        stores = {
            "main": configured(path, roles=["journal"]),
            "documents": {"url": url},
            "facets": {"url": f"sqlite:{tmp_path}/facets.db", "roles": ["vector", "graph"]},
        }
        kit = FacadeConformance()
        kit.config, kit.opened = {"stores": stores, "pins": PINS}, []
        getattr(kit, test)(**given)
