"""The kit through the facade, on a home whose words, vectors and relations are each found on a server made for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polystore.testing.conformance.facade import FacadeConformance
from tests import chromadb, elasticsearch, neo4j
from tests.stack import url_of


@pytest.mark.parametrize(
    ("test", "given"),
    [
        ("test_eight_writers_at_once_end_at_the_newest_versions_everywhere", {"seed": 1}),
        ("test_the_nearest_are_those_that_a_look_at_every_vector_finds", {"field": "by_cosine"}),
        ("test_related_records_are_those_that_breadth_first_search_reaches", {}),
    ],
)
def test_each_facet_on_its_own_server(test: str, given: dict[str, Any], tmp_path: Path) -> None:
    """All of the kit runs on each store; here is what needs them together."""
    urls = {name: url_of(name) for name in ("elasticsearch", "chromadb", "neo4j")}
    with (
        elasticsearch.own_prefix(urls["elasticsearch"]) as words,
        chromadb.own_prefix(urls["chromadb"]) as shapes,
        neo4j.own_label(urls["neo4j"]) as ties,
    ):
        stores = {
            "main": {"url": f"sqlite:{tmp_path}/main.db", "roles": ["home", "journal"]},
            "words": {"url": urls["elasticsearch"], "roles": ["full_text"], "options": {"prefix": words}},
            "shapes": {"url": urls["chromadb"], "roles": ["vector"], "options": {"prefix": shapes}},
            "ties": {"url": urls["neo4j"], "roles": ["graph"], "options": {"label": ties}},
        }
        kit = FacadeConformance()
        kit.config, kit.opened = {"stores": stores}, []
        getattr(kit, test)(**given)
