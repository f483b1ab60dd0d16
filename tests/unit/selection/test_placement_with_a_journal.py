"""Where an entity type lives when its home cannot commit: with which journal, and when not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from polystore import ConfigurationError, Embedding, FullText, entity
from polystore.entity import EntityType, entity_type
from polystore.protocols import (
    SupportsCommit,
    SupportsFilter,
    SupportsJournal,
    SupportsKeptBodies,
    SupportsSchema,
    SupportsTextSearch,
    SupportsVectorSearch,
)
from polystore.selection import Candidate, place, reconcile

DOCUMENTS = frozenset({SupportsFilter, SupportsSchema, SupportsTextSearch})
COMMITS = DOCUMENTS | {SupportsCommit, SupportsJournal, SupportsKeptBodies, SupportsVectorSearch}
RELATIONAL = frozenset({"home", "journal", "document", "full_text", "vector"})

MONGO = Candidate("mongo", "mongodb", frozenset({"document", "full_text"}), DOCUMENTS)
PG = Candidate("pg", "postgresql", RELATIONAL, COMMITS)
LITE = Candidate("lite", "sqlite", RELATIONAL, COMMITS)
CHROMA = Candidate("chroma", "chromadb", frozenset({"vector"}), frozenset({SupportsVectorSearch}))


def talk(data_type: str | None = "conversation") -> EntityType[Any]:
    @entity(name="talk", data_type=data_type)
    @dataclass
    class Talk:
        id: str
        text: Annotated[str, FullText(), Embedding()]

    return entity_type(Talk)


def test_documents_go_to_the_store_of_documents_with_the_best_journal() -> None:
    placement = place(talk(), [LITE, MONGO, PG, CHROMA])
    assert (placement.home, placement.journal, placement.authority) == ("mongo", "pg", "pg")
    assert placement.facets == {"full_text": "mongo", "vector": "chroma"}
    assert placement.lent
    assert placement.copies() == {"mongo": {"full_text"}, "chroma": {"vector"}}


def test_a_journal_that_serves_a_facet_keeps_whole_records() -> None:
    placement = place(talk(), [MONGO, PG])
    assert placement.facets == {"full_text": "mongo", "vector": "pg"}
    assert placement.whole
    assert not placement.lent
    assert placement.copies() == {"mongo": {"full_text"}}


def test_what_is_no_document_stays_with_the_store_that_commits() -> None:
    placement = place(talk(None), [MONGO, PG])
    assert (placement.home, placement.journal) == ("pg", "")
    assert placement.facets == {"full_text": "pg", "vector": "pg"}


def test_a_pin_chooses_the_home_and_the_journal() -> None:
    placement = place(talk(None), [PG, LITE, MONGO, CHROMA], {"home": "mongo", "journal": "lite"})
    assert (placement.home, placement.journal) == ("mongo", "lite")
    for pins, message in (
        ({"journal": "chroma"}, "which cannot be the journal of 'mongo'; stores that can: pg, lite"),
        ({"home": "pg", "journal": "lite"}, "'pg' commits by itself; drop the pin"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            place(talk(), [PG, LITE, MONGO, CHROMA], pins)


@pytest.mark.parametrize(
    "others",
    [[CHROMA], [CHROMA, Candidate("pg", "postgresql", frozenset({"vector"}), COMMITS)]],
    ids=["none", "one without the role"],
)
def test_without_a_journal_it_is_refused_with_the_mend(others: list[Candidate]) -> None:
    with pytest.raises(ConfigurationError, match="so its records need a journal: a store that commits, with the role"):
        place(talk(), [MONGO, *others])


def test_a_search_index_is_no_home_though_it_answers_conditions() -> None:
    index = Candidate("es", "elasticsearch", frozenset({"document", "full_text"}), DOCUMENTS)
    with pytest.raises(ConfigurationError, match="it only ever holds copies"):
        place(talk(), [index, Candidate("pg", "postgresql", frozenset({"journal"}), COMMITS)], {"home": "es"})


def test_home_and_journal_stay_what_they_were() -> None:
    first = reconcile(None, place(talk(), [MONGO, LITE, CHROMA]), [MONGO, LITE, CHROMA])
    stores = [MONGO, LITE, PG, CHROMA]
    later = reconcile(first.json, place(talk(), stores), stores)
    assert (later.placement.home, later.placement.journal, later.changed) == ("mongo", "lite", False)
    with pytest.raises(ConfigurationError, match="the journal of its home is the store 'lite' since its first use"):
        reconcile(first.json, place(talk(), [MONGO, PG, CHROMA]), [MONGO, PG, CHROMA])
    with pytest.raises(ConfigurationError, match=r"'lite' is the journal .* cannot serve vector"):
        reconcile(first.json, place(talk(), [MONGO, LITE]), [MONGO, LITE])


def test_a_home_that_commits_does_not_get_a_journal_later() -> None:
    first = reconcile(None, place(talk(), [LITE]), [LITE])
    later = reconcile(first.json, place(talk(), [LITE, MONGO]), [LITE, MONGO])
    assert (later.placement.home, later.placement.journal) == ("lite", "")
    assert "would choose 'mongo'" in later.advice[0]
