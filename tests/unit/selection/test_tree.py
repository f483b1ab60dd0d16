from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polystore.errors import ConfigurationError
from polystore.selection import RULES, Choice, Requirements, select_database
from polystore.selection.tree import REQUIREMENTS

FLAGS = tuple(name for name in REQUIREMENTS if name != "data_size")
SIZES: tuple[int | str | None, ...] = (None, 0, "999 MB", 999_999_999, 1_000_000_000, "1 GB", "1GiB", "2TB")
BIG = (1_000_000_000, "1 GB", "1GiB", "2TB")


@pytest.mark.parametrize(
    ("requirements", "answer", "rule"),
    [
        ({"needs_transactions": True, "complex_relations": True}, "PostgreSQL", "transactions with complex relations"),
        ({"needs_transactions": True}, "MySQL", "transactions"),
        ({"needs_transactions": True, "real_time": True, "data_size": "2 GB"}, "MySQL", "transactions"),
        ({"needs_transactions": True, "time_series": True}, "MySQL", "transactions"),
        ({"real_time": True}, "Redis", "real time, in memory"),
        ({"real_time": True, "data_size": 0}, "Redis", "real time, in memory"),
        ({"real_time": True, "data_size": "500MB"}, "Redis", "real time, in memory"),
        ({"real_time": True, "data_size": "90000 kB"}, "Redis", "real time, in memory"),
        ({"real_time": True, "data_size": 999_999_999}, "Redis", "real time, in memory"),
        ({"real_time": True, "data_size": "0.9 GiB"}, "Redis", "real time, in memory"),
        ({"real_time": True, "data_size": 1_000_000_000}, "Kafka + Redis", "real time, too big for memory"),
        ({"real_time": True, "data_size": "1 GB"}, "Kafka + Redis", "real time, too big for memory"),
        ({"real_time": True, "data_size": "1.5 GB"}, "Kafka + Redis", "real time, too big for memory"),
        ({"real_time": True, "data_size": "10GB"}, "Kafka + Redis", "real time, too big for memory"),
        ({"real_time": True, "search_heavy": True, "full_text": True}, "Redis", "real time, in memory"),
        ({"search_heavy": True, "vector_search": True}, "ChromaDB", "search by meaning"),
        ({"search_heavy": True, "vector_search": True, "full_text": True}, "ChromaDB", "search by meaning"),
        ({"search_heavy": True, "full_text": True}, "Elasticsearch", "search by words"),
        ({"search_heavy": True}, "PostgreSQL", "search by values"),
        ({"search_heavy": True, "graph_relations": True}, "PostgreSQL", "search by values"),
        ({"graph_relations": True}, "Neo4j", "graph relations"),
        ({"graph_relations": True, "time_series": True}, "Neo4j", "graph relations"),
        ({"time_series": True}, "InfluxDB", "time series"),
        ({}, "PostgreSQL", "otherwise"),
        ({"complex_relations": True}, "PostgreSQL", "otherwise"),
        ({"data_size": "5 TB"}, "PostgreSQL", "otherwise"),
    ],
)
def test_the_first_rule_that_holds_decides(requirements: Mapping[str, object], answer: str, rule: str) -> None:
    choice = select_database(requirements)
    assert (str(choice), choice.rule) == (answer, rule)


@pytest.mark.parametrize(
    ("requirements", "mend"),
    [
        ({"vector_search": True}, r"vector_search without search_heavy; add search_heavy=True"),
        ({"full_text": True}, r"full_text without search_heavy; add search_heavy=True"),
        ({"needs_transactions": True, "full_text": True}, r"full_text without search_heavy"),
        ({"complex_relations": True, "real_time": True}, r"no joins; add needs_transactions=True"),
        ({"complex_relations": True, "time_series": True}, r"no joins; declare two types of data"),
    ],
)
def test_a_contradiction_is_refused_and_says_how_to_mend_it(requirements: Mapping[str, object], mend: str) -> None:
    with pytest.raises(ConfigurationError, match=mend):
        select_database(requirements)


@pytest.mark.parametrize("size", [-1, "-1 GB", "1 XB", "big"])
def test_a_bad_size_is_refused_whether_or_not_a_rule_would_read_it(size: object) -> None:
    with pytest.raises(ConfigurationError, match="size"):
        select_database({"data_size": size})


def test_an_unknown_requirement_is_refused_with_the_nearest_and_the_known_ones() -> None:
    with pytest.raises(
        ConfigurationError, match=r"'realtime', did you mean 'real_time'\?; known: needs_tran.*time_series"
    ):
        select_database({"realtime": True})


@pytest.mark.parametrize("value", [None, 1, 0, "yes"])
@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_of_another_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is True or False, not {type(value).__name__}"):
        select_database({name: value})


def test_a_size_of_another_type_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not float"):
        select_database({"real_time": True, "data_size": 1.5e9})


def test_requirements_that_contradict_themselves_cannot_be_made_at_all() -> None:
    with pytest.raises(ConfigurationError, match="vector_search without search_heavy"):
        Requirements(vector_search=True)
    with pytest.raises(ConfigurationError, match="negative"):
        Requirements(data_size=-1)


def test_the_answer_for_two_stores_lists_alternatives_for_each() -> None:
    choice = select_database({"real_time": True, "data_size": "2 GB"})
    assert choice.stores == ("kafka", "redis")
    assert [part.role for part in choice.parts] == ["stream", "live_state"]
    assert choice.alternatives["kafka"][0] == "redis"
    assert choice.alternatives["redis"][0] == "valkey"


def test_mysql_stands_in_by_its_kin_before_anything_else() -> None:
    choice = select_database({"needs_transactions": True})
    assert choice.alternatives == {"mysql": ("postgresql", "mariadb", "sqlite", "memory")}


def test_the_answer_says_which_condition_held_and_why_each_other_rule_did_not_decide() -> None:
    choice = select_database({"needs_transactions": True, "real_time": True})
    assert choice.condition == "needs_transactions"
    assert "ACID" in choice.why
    assert choice.cost.startswith("MySQL: ")
    why_not = {passed.rule: passed.why_not for passed in choice.passed_over}
    assert why_not["transactions with complex relations"] == "not asked for: complex_relations"
    assert why_not["real time, in memory"] == "applies too, but the rule 'transactions' comes first"
    assert why_not["search by meaning"] == "not asked for: search_heavy, vector_search"
    assert set(why_not) == {rule.name for rule in RULES} - {"transactions"}


def test_rules_have_names_of_their_own_and_the_last_one_always_holds() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert RULES[-1].all_of == ()


def contradicts(wanted: Mapping[str, object]) -> bool:
    loose_search = (wanted["vector_search"] or wanted["full_text"]) and not wanted["search_heavy"]
    no_joins = wanted["complex_relations"] and (wanted["real_time"] or wanted["time_series"])
    return bool(loose_search or (no_joins and not wanted["needs_transactions"]))


def tree_by_hand(wanted: Mapping[str, object]) -> str:
    """The same tree written as plain branches, to compare the rules with."""
    if wanted["needs_transactions"]:
        return "PostgreSQL" if wanted["complex_relations"] else "MySQL"
    if wanted["real_time"]:
        return "Kafka + Redis" if wanted["data_size"] in BIG else "Redis"
    if wanted["search_heavy"]:
        if wanted["vector_search"]:
            return "ChromaDB"
        return "Elasticsearch" if wanted["full_text"] else "PostgreSQL"
    if wanted["graph_relations"]:
        return "Neo4j"
    return "InfluxDB" if wanted["time_series"] else "PostgreSQL"


def test_every_combination_is_answered_as_the_tree_says_or_refused_as_a_contradiction() -> None:
    answered: list[Choice] = []
    for size, *flags in product(SIZES, *((False, True),) * len(FLAGS)):
        wanted: dict[str, object] = {"data_size": size, **dict(zip(FLAGS, flags, strict=True))}
        if contradicts(wanted):
            with pytest.raises(ConfigurationError, match="contradict"):
                select_database(wanted)
        else:
            answered.append(select_database(wanted))
            assert str(answered[-1]) == tree_by_hand(wanted), wanted
    assert {choice.rule for choice in answered} == {rule.name for rule in RULES}


@given(
    flags=st.fixed_dictionaries({}, optional={name: st.booleans() for name in FLAGS}),
    size=st.none() | st.integers(0, 10**15),
)
def test_equal_requirements_give_an_equal_choice_and_are_left_as_they_were(
    flags: dict[str, bool], size: int | None
) -> None:
    wanted: dict[str, object] = {**flags, "data_size": size}
    before = dict(wanted)
    if contradicts({**dict.fromkeys(FLAGS, False), **wanted}):
        return
    choice = select_database(wanted)
    assert wanted == before
    assert choice == select_database(dict(reversed(wanted.items())))
    assert choice == select_database(Requirements(**wanted))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    large_real_time = flags.get("real_time") and not flags.get("needs_transactions") and (size or 0) >= 10**9
    assert (choice.stores == ("kafka", "redis")) == bool(large_real_time)
