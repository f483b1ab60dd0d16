"""Measures, files, logs and state: where they live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from polystore import FileRef, Measure, Needs, entity
from polystore.entity import EntityType, entity_type
from polystore.errors import ConfigurationError
from polystore.protocols import SupportsCommit, SupportsJournal, SupportsLog, SupportsState, SupportsTimeRange
from polystore.selection import Candidate, kind_of, place, reconcile, reconcile_alone

HOME = frozenset({SupportsCommit, SupportsJournal, SupportsTimeRange})
MAIN = Candidate("main", "postgresql", frozenset({"home", "time_series", "file", "full_text"}))
INFLUX = Candidate("influx", "influxdb", frozenset({"time_series"}), frozenset({SupportsTimeRange}))
FILES = Candidate("files", "file", frozenset({"file"}))
REDIS = Candidate("redis", "redis", frozenset({"live_state"}), frozenset({SupportsState}))
ELASTIC = Candidate("es", "elasticsearch", frozenset({"full_text"}), frozenset({SupportsLog}))


@entity()
@dataclass
class Memory:
    id: str
    photo: FileRef | None = None
    mood: ClassVar[Measure[float]] = Measure(float)


def declared(data_type: str | None, needs: Needs | None = None) -> EntityType[Any]:
    @entity(data_type=data_type, needs=needs)
    @dataclass
    class Thing:
        id: str

    return entity_type(Thing)


@pytest.mark.parametrize(
    ("data_type", "kind"),
    [(None, "record"), ("conversation", "record"), ("session", "state"), ("counter", "state"), ("log", "fact")],
)
def test_the_data_type_says_which_kind_of_data_a_class_is(data_type: str | None, kind: str) -> None:
    assert kind_of(declared(data_type)) == kind


@pytest.mark.parametrize(
    ("data_type", "mend"),
    [("metric", "declare a Measure()"), ("image", "a field of type FileRef"), ("sesion", "known")],
)
def test_what_no_class_can_be_is_refused_with_the_way_out(data_type: str, mend: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Thing: .*{data_type}.*") as caught:
        kind_of(declared(data_type))
    assert mend in str(caught.value)


def test_state_that_needs_transactions_is_a_contradiction() -> None:
    with pytest.raises(ConfigurationError, match="takes no part in transactions"):
        kind_of(declared("session", Needs(transactions=True)))


def test_one_store_holds_what_belongs_to_its_records_too() -> None:
    assert place(entity_type(Memory), [MAIN]).beside == {"time_series": "main", "file": "main"}


def test_a_store_that_is_made_for_it_comes_first() -> None:
    placement = place(entity_type(Memory), [MAIN, INFLUX, FILES])
    assert placement.beside == {"time_series": "influx", "file": "files"}
    assert placement.copies() == {}, "what lies beside the records is no copy of them"


def test_a_pin_is_obeyed_and_an_impossible_one_refused() -> None:
    assert place(entity_type(Memory), [MAIN, INFLUX], {"time_series": "main"}).beside["time_series"] == "main"
    with pytest.raises(ConfigurationError, match="pins time_series to 'redis', but its roles do not include"):
        place(entity_type(Memory), [MAIN, REDIS], {"time_series": "redis"})


def test_without_a_store_for_it_the_error_says_what_to_configure() -> None:
    bare = Candidate("main", "postgresql", frozenset({"home"}))
    with pytest.raises(ConfigurationError, match=r"Memory: no configured store can hold its Measure\(\) .*influxdb"):
        place(entity_type(Memory), [bare])


def test_measures_stay_where_they_are_when_a_better_store_is_configured() -> None:
    entity = entity_type(Memory)
    first = reconcile(None, place(entity, [MAIN]), [MAIN])
    later = reconcile(first.json, place(entity, [MAIN, INFLUX]), [MAIN, INFLUX])
    assert later.placement.beside["time_series"] == "main"
    with_influx = reconcile(None, place(entity, [MAIN, INFLUX]), [MAIN, INFLUX])
    with pytest.raises(ConfigurationError, match="its time_series is in the store 'influx' since its first use"):
        reconcile(with_influx.json, place(entity, [MAIN]), [MAIN])


def test_state_and_logs_have_a_home_and_nothing_else() -> None:
    state = reconcile_alone(None, declared("session"), [MAIN, REDIS, ELASTIC])
    assert (state.placement.home, state.placement.facets) == ("redis", {})
    assert reconcile_alone(None, declared("log"), [MAIN, REDIS, ELASTIC]).placement.home == "es"


def test_the_home_of_state_stays_where_it_was_first() -> None:
    entity = declared("session")
    sqlite = Candidate("sql", "sqlite", frozenset({"live_state"}))
    first = reconcile_alone(None, entity, [sqlite])
    assert reconcile_alone(first.json, entity, [sqlite, REDIS]).placement.home == "sql"
    with pytest.raises(ConfigurationError, match="lives in the store 'sql' since its first use"):
        reconcile_alone(first.json, entity, [REDIS])
