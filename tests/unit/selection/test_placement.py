from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Annotated, Any

import pytest

from polystore.entity import EntityType, entity, entity_type
from polystore.errors import ConfigurationError
from polystore.facets import Embedding, FullText, Index, Needs, Relation, Unique
from polystore.model import Placement
from polystore.protocols import (
    SupportsCache,
    SupportsCommit,
    SupportsFilter,
    SupportsJournal,
    SupportsKeptBodies,
    SupportsSchema,
    SupportsState,
    SupportsTextSearch,
    SupportsTraversal,
    SupportsVectorSearch,
)
from polystore.selection import Candidate, place

EVERYTHING = frozenset({"home", "full_text", "vector", "graph", "document"})
COMMITS = frozenset({SupportsCommit, SupportsJournal, SupportsFilter})
FACETS = frozenset({SupportsTextSearch, SupportsVectorSearch, SupportsTraversal})


def memory(needs: Needs | None = None, data_type: str | None = None) -> EntityType[Any]:
    """An entity with every facet that needs a store to serve it."""

    @entity(needs=needs, data_type=data_type)
    @dataclass
    class Memory:
        id: str
        text: Annotated[str, FullText(), Embedding()]
        about: Annotated[list[str], Relation("ABOUT", to="person")]
        agent: Annotated[str, Index()] = ""

    return entity_type(Memory)


def account(needs: Needs | None = None, data_type: str | None = None) -> EntityType[Any]:
    """An entity without any such facet."""

    @entity(needs=needs, data_type=data_type)
    @dataclass
    class Account:
        id: str
        email: Annotated[str, Unique()]

    return entity_type(Account)


def store(name: str, scheme: str, *roles: str, can: frozenset[type] | None = None) -> Candidate:
    return Candidate(name, scheme, frozenset(roles) or EVERYTHING, can)


def reasons(placement: Placement, role: str) -> dict[str, str]:
    return {one.store: one.reason for one in placement.considered if one.role == role}


def refused(one: EntityType[Any], stores: list[Candidate], pins: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        place(one, stores, pins or {})
    return str(caught.value)


LITE = store("lite", "sqlite")
POSTGRES = store("pg", "postgresql")
MYSQL = store("my", "mysql", "home", "full_text", "graph")
ELASTIC = store("es", "elasticsearch", "full_text", "vector")
CHROMA = store("chroma", "chromadb", "vector")
NEO4J = store("neo", "neo4j", "graph")
MONGO = store("mongo", "mongodb", "document", "full_text", can=frozenset({SupportsTextSearch}))


# -- few stores ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", [LITE, POSTGRES, store("m", "memory"), store("x", "of-a-third-party")])
def test_with_one_store_everything_goes_there_in_one_commit(one: Candidate) -> None:
    placement = place(memory(), [one])
    assert placement.etype == "memory"
    assert placement.home == one.name
    assert placement.facets == {"full_text": one.name, "vector": one.name, "graph": one.name}
    assert placement.copies() == {}
    assert "No copies: a write is one commit and nothing more." in placement.cost


def test_a_home_that_can_serve_a_facet_serves_it_and_spares_a_store() -> None:
    placement = place(memory(), [LITE, POSTGRES])
    assert placement.home == "pg"
    assert set(placement.facets.values()) == {"pg"}
    assert reasons(placement, "full_text") == {
        "pg": "the home serves it, in the same commit as the record",
        "lite": "pg is the home and serves it in its own commit: one store less",
    }


def test_the_home_serves_a_facet_even_where_another_home_would_do_it_better() -> None:
    placement = place(memory(Needs(transactions=True)), [POSTGRES, store("my", "mysql")])
    assert placement.home == "my"
    assert set(placement.facets.values()) == {"my"}


def test_an_entity_without_facets_has_no_copies_whatever_is_configured() -> None:
    placement = place(account(), [POSTGRES, ELASTIC, CHROMA, NEO4J])
    assert placement.facets == {}
    assert placement.copies() == {}


def test_stores_dedicated_to_a_role_win_over_the_home() -> None:
    embedded = [store(role, "sqlite", role) for role in ("home", "full_text", "vector", "graph")]
    placement = place(memory(), embedded)
    assert placement.home == "home"
    assert placement.facets == {"full_text": "full_text", "vector": "vector", "graph": "graph"}
    assert placement.copies() == {name: frozenset({name}) for name in ("full_text", "vector", "graph")}
    assert reasons(placement, "vector") == {
        "home": "its roles do not include vector",
        "full_text": "its roles do not include vector",
        "graph": "its roles do not include vector",
        "vector": "dedicated to it by its roles; stands in for ChromaDB, which is not configured",
    }


def test_the_whole_stack_gives_every_facet_the_store_of_its_kind() -> None:
    placement = place(memory(), [LITE, NEO4J, CHROMA, ELASTIC, MYSQL, POSTGRES])
    assert placement.home == "pg"
    assert placement.facets == {"full_text": "es", "vector": "chroma", "graph": "neo"}
    assert reasons(placement, "vector")["es"] == "comes after chroma (ChromaDB) in the order of preference"
    assert reasons(placement, "full_text")["my"] == "es is dedicated to it"


def test_stores_added_one_by_one_take_their_facet_over() -> None:
    stores = [POSTGRES]
    copies: list[dict[str, frozenset[str]]] = [place(memory(), stores).copies()]
    for one in (ELASTIC, CHROMA, NEO4J):
        stores.append(one)
        copies.append(place(memory(), stores).copies())
    assert copies == [
        {},
        {"es": frozenset({"full_text", "vector"})},
        {"es": frozenset({"full_text"}), "chroma": frozenset({"vector"})},
        {"es": frozenset({"full_text"}), "chroma": frozenset({"vector"}), "neo": frozenset({"graph"})},
    ]


def test_of_two_equal_stores_the_one_that_is_used_anyway_takes_the_next_facet() -> None:
    first = store("a", "elasticsearch", "vector")
    second = store("b", "elasticsearch", "full_text", "vector")
    placement = place(memory(), [POSTGRES, first, second])
    assert placement.facets == {"full_text": "b", "vector": "b", "graph": "pg"}
    assert reasons(placement, "vector")["a"] == "b is of the same kind, and fewer stores are better"


def test_of_two_equal_homes_the_one_that_serves_more_facets_is_chosen() -> None:
    plain, full = store("plain", "sqlite", "home"), LITE
    assert place(memory(), [plain, full]).home == "lite"
    assert place(account(), [plain, full]).home == "plain"


def test_another_home_serves_a_facet_that_the_home_cannot() -> None:
    placement = place(memory(Needs(transactions=True)), [MYSQL, LITE])
    assert placement.home == "my"
    assert placement.facets == {"full_text": "my", "vector": "lite", "graph": "my"}
    assert reasons(placement, "vector")["lite"] == "stands in for ChromaDB, which is not configured"


# -- the home -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "home", "rule"),
    [
        (None, "pg", "otherwise"),
        (Needs(), "pg", "otherwise"),
        (Needs(complex_relations=True), "pg", "otherwise"),
        (Needs(data_size="5TB"), "pg", "otherwise"),
        (Needs(transactions=True), "my", "transactions"),
        (Needs(transactions=True, real_time=True, data_size="5TB"), "my", "transactions"),
        (Needs(transactions=True, complex_relations=True), "pg", "transactions with complex relations"),
        (Needs(real_time=True), "pg", "real time, in memory"),
        (Needs(real_time=True, data_size="999 MB"), "pg", "real time, in memory"),
        (Needs(real_time=True, data_size="1 GB"), "pg", "real time, too big for memory"),
    ],
)
def test_needs_choose_the_home(needs: Needs | None, home: str, rule: str) -> None:
    placement = place(account(needs), [LITE, POSTGRES, MYSQL])
    assert (placement.home, placement.rule) == (home, rule)
    assert placement.why


@pytest.mark.parametrize(
    ("data_type", "rule"),
    [
        ("user_profile", "data_type user_profile"),
        ("audit_trail", "data_type user_profile"),
        ("conversation", "data_type conversation"),
        ("memory", "data_type conversation"),
        ("graph", "data_type graph"),
        ("embedding", "data_type embedding"),
    ],
)
def test_a_data_type_chooses_the_home_by_its_row(data_type: str, rule: str) -> None:
    placement = place(memory(data_type=data_type), [POSTGRES, LITE])
    assert (placement.home, placement.rule) == ("pg", rule)
    assert placement.why[0].startswith(f"data_type {data_type!r}: ")


def test_a_document_store_that_commits_is_the_home_of_a_conversation() -> None:
    commits = store("mongo", "mongodb", "document", can=COMMITS)
    placement = place(account(data_type="conversation"), [POSTGRES, commits])
    assert placement.home == "mongo"
    assert place(account(), [POSTGRES, commits]).home == "pg"


def test_a_document_store_that_cannot_commit_is_passed_over_and_named() -> None:
    placement = place(account(data_type="conversation"), [MONGO, POSTGRES])
    assert placement.home == "pg"
    home = reasons(placement, "home")
    assert home["mongo"] == "it cannot commit records together with their outbox, so it only ever holds copies"
    assert home["pg"] == "stands in for MongoDB, which does not fit here"


def test_transactions_decide_over_the_data_type() -> None:
    placement = place(account(Needs(transactions=True), "conversation"), [POSTGRES, MYSQL])
    assert (placement.home, placement.rule) == ("my", "transactions")
    assert placement.why[0] == "data_type 'conversation' is passed over: transactions are needed, and decide"


def test_the_data_type_decides_over_needs_that_are_no_transactions_and_says_so() -> None:
    placement = place(account(Needs(real_time=True), "user_profile"), [POSTGRES])
    assert placement.rule == "data_type user_profile"
    assert placement.why[1].startswith("the needs are passed over")


def test_real_time_without_data_type_is_a_record_with_a_home_that_commits() -> None:
    redis = store("redis", "redis", "live_state", "cache")
    placement = place(account(Needs(real_time=True)), [redis, LITE])
    assert placement.home == "lite"
    assert placement.why == (
        "the rule says Redis, which keeps state; this is a record, with versions and copies, so its home is a store "
        "that commits",
    )
    assert reasons(placement, "home")["redis"] == "its roles do not include home"


def test_real_time_lives_where_live_state_does_if_that_store_keeps_records_and_has_a_journal() -> None:
    able = frozenset({SupportsFilter, SupportsSchema, SupportsState, SupportsCache})
    redis = store("redis", "redis", "document", "live_state", can=able)
    journal = store(
        "pg", "postgresql", "home", "journal", can=frozenset({*COMMITS, SupportsSchema, SupportsKeptBodies})
    )
    placement = place(account(Needs(real_time=True)), [journal, redis])
    assert (placement.home, placement.journal, placement.rule) == ("redis", "pg", "real time, in memory")
    assert placement.why == ("data under 1 GB fits in memory, where latency is lowest",)
    assert place(account(Needs(real_time=True, data_size="1 GB")), [journal, redis]).home == "pg"
    assert place(account(), [journal, redis]).home == "pg"
    assert place(account(Needs(real_time=True)), [store("lite", "sqlite", can=COMMITS), redis]).home == "lite"


def test_the_first_choice_that_is_absent_is_named_with_the_one_that_stands_in() -> None:
    assert reasons(place(account(), [POSTGRES, LITE]), "home") == {
        "pg": "the first choice: ACID, integrity, joins, JSON, rich indexes",
        "lite": "comes after pg (PostgreSQL) in the order of preference",
    }
    assert reasons(place(account(), [MYSQL, LITE]), "home")["my"] == (
        "stands in for PostgreSQL, which is not configured"
    )
    assert reasons(place(account(), [LITE]), "home") == {"lite": "the only configured store"}


def test_rules_that_needs_could_have_asked_for_are_passed_over_with_the_reason() -> None:
    passed = [one.reason for one in place(memory(), [POSTGRES]).considered if one.role == "rule"]
    assert passed == [
        "transactions with complex relations: not asked for: needs_transactions, complex_relations",
        "transactions: not asked for: needs_transactions",
        "real time, in memory: not asked for: real_time",
        "real time, too big for memory: not asked for: real_time",
    ]


def test_the_order_of_the_configuration_decides_between_strangers_only() -> None:
    a, b = store("a", "cockroach"), store("b", "cockroach")
    assert place(account(), [a, b]).home == "a"
    assert place(account(), [b, a]).home == "b"
    for order in permutations([LITE, POSTGRES, MYSQL]):
        assert place(account(), order).home == "pg"


def test_placing_is_pure() -> None:
    stores = [LITE, POSTGRES, ELASTIC, CHROMA]
    assert place(memory(), stores) == place(memory(), stores)


def test_every_store_is_considered_once_for_every_role_and_one_is_chosen() -> None:
    stores = [LITE, NEO4J, CHROMA, ELASTIC, MYSQL, POSTGRES, MONGO]
    placement = place(memory(), stores)
    for role in ("home", "full_text", "vector", "graph"):
        considered = [one for one in placement.considered if one.role == role]
        assert sorted(one.store for one in considered) == sorted(one.name for one in stores)
        chosen = [one.store for one in considered if one.chosen]
        assert chosen == [placement.home if role == "home" else placement.facets[role]]
        assert all(one.reason for one in considered)


def test_the_cost_names_every_kind_of_store_once_and_the_copies() -> None:
    embedded = [store(role, "sqlite", role) for role in ("home", "full_text", "vector", "graph")]
    assert place(memory(), embedded).cost == (
        "SQLite: no server; one machine, one writer at a time. 3 copies: a delivery to each, a moment after the commit."
    )
    assert place(account(), [store("x", "of-a-third-party")]).cost == (
        "No copies: a write is one commit and nothing more."
    )
    assert "1 copy: a delivery to each" in place(memory(), [POSTGRES, ELASTIC]).cost


# -- capabilities -------------------------------------------------------------------------------------------------


def test_what_a_store_can_counts_more_than_its_roles() -> None:
    fits = store("a", "postgresql", can=COMMITS)
    placement = place(memory(), [fits, store("b", "sqlite", can=COMMITS | FACETS)])
    assert placement.home == "a"
    assert set(placement.facets.values()) == {"b"}
    assert reasons(placement, "vector")["a"] == "it lacks the capability (SupportsVectorSearch)"


@pytest.mark.parametrize("missing", [SupportsCommit, SupportsJournal])
def test_a_home_needs_to_commit_and_to_keep_the_journal(missing: type) -> None:
    message = refused(account(), [store("a", "sqlite", can=COMMITS - {missing})])
    assert message == (
        "Account: no configured store can be its home (a: it cannot commit records together with their outbox, so it "
        "only ever holds copies); configure one that commits, for example [stores.main] url = 'sqlite:app.db', or add "
        "'home' to the roles of a store that can"
    )


# -- pins ---------------------------------------------------------------------------------------------------------


def test_pins_override_home_and_facets() -> None:
    pins = {"home": "lite", "vector": "es", "graph": "pg"}
    placement = place(memory(), [POSTGRES, LITE, ELASTIC, CHROMA, NEO4J], pins)
    assert placement.home == "lite"
    assert placement.facets == {"full_text": "es", "vector": "es", "graph": "pg"}
    assert reasons(placement, "home") == {
        "lite": "pinned by the configuration",
        "pg": "the configuration pins lite",
        "es": "its roles do not include home",
        "chroma": "its roles do not include home",
        "neo": "its roles do not include home",
    }
    assert reasons(placement, "vector")["chroma"] == "the configuration pins es"


def test_a_facet_pinned_to_the_home_is_pinned_and_not_chosen() -> None:
    placement = place(memory(), [POSTGRES, ELASTIC], {"full_text": "pg"})
    assert placement.facets["full_text"] == "pg"
    assert reasons(placement, "full_text") == {
        "pg": "pinned by the configuration",
        "es": "the configuration pins pg",
    }


@pytest.mark.parametrize(
    ("pins", "message"),
    [
        (
            {"home": "psg"},
            "Memory: the configuration pins home to 'psg', did you mean 'pg'?; known stores: pg, es, mongo",
        ),
        (
            {"home": "es"},
            "Memory: the configuration pins home to 'es', but its roles do not include home; pin another store, or "
            "mend that",
        ),
        (
            {"full_text": "mango"},
            "Memory: the configuration pins full_text to 'mango', did you mean 'mongo'?; known stores: pg, es, mongo",
        ),
        (
            {"graph": "es"},
            "Memory: the configuration pins graph to 'es', but its roles do not include graph; pin another store, or "
            "mend that",
        ),
        (
            {"stream": "es"},
            "Memory: the configuration pins 'stream', which is no part of a placement; known: home, journal, "
            "full_text, vector, graph, time_series, cache",
        ),
    ],
)
def test_a_pin_that_cannot_be_obeyed_says_why(pins: dict[str, str], message: str) -> None:
    assert refused(memory(), [POSTGRES, ELASTIC, MONGO], pins) == message


def test_a_pin_for_a_facet_that_the_entity_lacks_is_an_error() -> None:
    assert refused(account(), [POSTGRES], {"full_text": "pg"}) == (
        "Account: the configuration pins full_text, but no field has FullText(); drop the pin"
    )


# -- what cannot be placed ----------------------------------------------------------------------------------------


def test_without_stores_there_is_no_placement() -> None:
    assert refused(account(), []) == ("Account: no store is configured; name one, for example url = 'embedded:data'")


def test_stores_that_only_hold_copies_make_no_home() -> None:
    message = refused(memory(), [ELASTIC, CHROMA])
    assert message.startswith(
        "Memory: no configured store can be its home (es: its roles do not include home; chroma: its roles do not"
    )


def test_a_facet_that_no_store_serves_names_the_fields_and_the_stores_that_would() -> None:
    assert refused(memory(), [store("a", "sqlite", "home", "full_text", "graph")]) == (
        "Memory: no configured store can serve Embedding() of text; add 'vector' to the roles of a store that can, "
        "configure one (chromadb, pgvector, milvus, pinecone, postgresql, elasticsearch, opensearch, mariadb, sqlite, "
        "memory), or drop Embedding()"
    )


@pytest.mark.parametrize(("data_type", "facet"), [("graph", "Relation()"), ("embedding", "Embedding()")])
def test_a_data_type_that_the_fields_contradict_is_refused(data_type: str, facet: str) -> None:
    assert refused(account(data_type=data_type), [POSTGRES]) == (
        f"Account: data_type {data_type!r} contradicts the fields: none of them has {facet}; add it to a field, or "
        "leave data_type out"
    )


def test_an_unknown_data_type_names_the_nearest_and_the_class() -> None:
    message = refused(account(data_type="converzation"), [POSTGRES])
    assert message.startswith("Account: unknown data_type 'converzation', did you mean 'conversation'?; known: ")
