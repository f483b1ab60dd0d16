from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

from polystore.entity import entity, entity_type
from polystore.facets import FullText, Needs
from polystore.selection import Candidate, as_builtins, explanation, place, reconcile


@entity(needs=Needs(transactions=True))
@dataclass
class Order:
    id: str
    text: Annotated[str, FullText()]


LITE = Candidate("lite", "sqlite", frozenset({"home", "full_text"}))
MYSQL = Candidate("my", "mysql", frozenset({"home", "full_text"}))
ELASTIC = Candidate("es", "elasticsearch", frozenset({"full_text"}))
SPARE = Candidate("spare", "opensearch", frozenset({"full_text"}))


def test_a_placement_explains_itself_in_lines() -> None:
    assert explanation(place(entity_type(Order), [LITE, ELASTIC, SPARE])).split("\n") == [
        "order",
        "  rule       transactions",
        "  why        transactions over simple records need ACID, and no more",
        "  home       lite: stands in for MySQL, which is not configured",
        "  full_text  es (copy): dedicated to it by its roles; the first choice: full-text search and analysis",
        "  not        PostgreSQL (rule transactions with complex relations: not asked for: complex_relations)",
        "             Redis (rule real time, in memory: not asked for: real_time)",
        "             Kafka + Redis (rule real time, too big for memory: not asked for: real_time)",
        "             PostgreSQL (rule otherwise: applies too, but the rule 'transactions' comes first)",
        "             es, spare for home: its roles do not include home",
        "             spare for full_text: comes after es (Elasticsearch) in the order of preference",
        "             lite for full_text: es is dedicated to it",
        "  cost       SQLite: no server; one machine, one writer at a time",
        "             Elasticsearch: a Java server (800 MB idle); new text is found after its refresh (1 s)",
        "             1 copy: a delivery to each, a moment after the commit",
    ]


def test_a_remembered_placement_also_says_what_happens_and_what_would_be_better() -> None:
    one = entity_type(Order)
    before = reconcile(None, place(one, [LITE, SPARE]), [LITE, SPARE])
    stores = [LITE, MYSQL, ELASTIC]
    lines = explanation(reconcile(before.json, place(one, stores), stores)).split("\n")
    assert "  home       lite: the home since first use" in lines
    assert "  moves      full_text: to es, when it is complete; spare serves" in lines
    assert lines[-2] == "  to fill    es: a new copy, filled from the home"
    assert lines[-1].startswith("  advice     order lives in 'lite' since its first use and stays there.")
    back = explanation(reconcile(before.json, place(one, [LITE]), [LITE])).split("\n")
    assert "  to fill    full_text: at the home, for existing records" in back
    assert "  to end     spare: no copy any more" in back


def test_a_remembered_placement_that_is_settled_adds_no_lines() -> None:
    placement = place(entity_type(Order), [LITE])
    assert explanation(reconcile(None, placement, [LITE])) == explanation(placement)


def test_the_plain_form_says_the_same_and_is_json() -> None:
    one = entity_type(Order)
    stores = [LITE, ELASTIC]
    before = reconcile(None, place(one, [LITE, SPARE]), [LITE, SPARE])
    plain = as_builtins(reconcile(before.json, place(one, stores), stores))
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["etype"], plain["home"], plain["rule"]) == ("order", "lite", "transactions")
    assert (plain["copies"], plain["upcoming"]) == ({"spare": ["full_text"]}, {"full_text": "es"})
    assert plain["backfill"] == ["es"]
    assert plain["changed"] is True
    assert (plain["fill"], plain["advice"]) == ([], [])
    assert {"role": "home", "store": "es", "chosen": False, "reason": "its roles do not include home"} in plain[
        "considered"
    ]
    assert as_builtins(place(one, stores)).keys() == plain.keys() - {"backfill", "fill", "dropped", "changed", "advice"}
