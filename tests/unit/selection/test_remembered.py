from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

import pytest
from msgspec.structs import replace

from polystore.entity import entity, entity_type
from polystore.errors import ConfigurationError
from polystore.facets import Embedding, FullText, Relation
from polystore.model import Considered, Placement
from polystore.protocols import SupportsTextSearch, SupportsVectorSearch
from polystore.selection import Candidate, Remembered, place, reconcile
from polystore.selection.moves import other_place, write_moves

EVERYTHING = frozenset({"home", "full_text", "vector", "graph"})


@entity()
@dataclass
class Memory:
    id: str
    text: Annotated[str, FullText(), Embedding()]
    about: Annotated[list[str], Relation("ABOUT", to="person")]


@entity(name="memory")
@dataclass
class Plain:
    id: str
    text: str


@entity(name="memory")
@dataclass
class Words:
    id: str
    text: Annotated[str, FullText()]


def store(name: str, scheme: str, *roles: str) -> Candidate:
    return Candidate(name, scheme, frozenset(roles) or EVERYTHING)


LITE = store("lite", "sqlite")
POSTGRES = store("pg", "postgresql")
ELASTIC = store("es", "elasticsearch", "full_text")
NEO4J = store("neo", "neo4j", "graph")


def remember(*steps: list[Candidate], cls: type[object] = Memory) -> Remembered:
    """What holds after these configurations, one after the other."""
    remembered: Remembered | None = None
    for stores in steps:
        wanted = place(entity_type(cls), stores)
        remembered = reconcile(remembered.json if remembered else None, wanted, stores)
    assert remembered is not None
    return remembered


def moves(remembered: Remembered) -> tuple[list[str], list[str], list[str]]:
    """Copies to fill, facets to fill at the home, copies that end."""
    return sorted(remembered.backfill), sorted(remembered.fill), sorted(remembered.dropped)


def test_at_first_use_the_wanted_placement_holds_and_copies_need_no_filling() -> None:
    stores = [POSTGRES, ELASTIC]
    wanted = place(entity_type(Memory), stores)
    assert reconcile(None, wanted, stores) == Remembered(wanted, remember(stores).json, changed=True)


def test_the_same_configuration_changes_nothing() -> None:
    remembered = remember([POSTGRES, ELASTIC], [POSTGRES, ELASTIC])
    assert remembered == Remembered(place(entity_type(Memory), [POSTGRES, ELASTIC]), remembered.json, changed=False)


def test_what_is_stored_is_small_versioned_and_stays_readable() -> None:
    assert json.loads(remember([POSTGRES, ELASTIC]).json) == {
        "format": 1,
        "home": "pg",
        "facets": {"full_text": "es", "graph": "pg", "vector": "pg"},
        "rule": "otherwise",
        "made_of": {},
        "beside": {},
        "why": ["nothing special is asked for: one relational store does it all, joins included"],
    }


# -- the home -----------------------------------------------------------------------------------------------------


def test_a_home_never_moves_because_a_better_store_appeared() -> None:
    remembered = remember([LITE], [POSTGRES, LITE])
    placement = remembered.placement
    assert placement.home == "lite"
    assert placement.facets == {"full_text": "lite", "vector": "lite", "graph": "lite"}
    assert not remembered.changed
    assert not remembered.backfill
    assert remembered.advice == (
        "memory lives in 'lite' since its first use and stays there. Today the rule 'otherwise' would choose 'pg'. "
        "A home does not move because the configuration changed: `polystore transfer` brings everything to the stores "
        "of another configuration, on 'pg'.",
    )


def test_the_explanation_of_a_home_that_stayed_is_its_own() -> None:
    placement = remember([LITE], [POSTGRES, LITE]).placement
    assert [one for one in placement.considered if one.role == "home"] == [
        Considered("home", "lite", True, "the home since first use"),
        Considered("home", "pg", False, "today's answer, but the home stays lite"),
    ]
    assert Considered("vector", "lite", True, "the home serves it, in its own commit") in placement.considered
    assert "PostgreSQL" not in placement.cost
    assert "No copies" in placement.cost


def test_a_pinned_home_does_not_move_one_either() -> None:
    stores = [POSTGRES, LITE]
    wanted = place(entity_type(Memory), stores, {"home": "lite"})
    remembered = reconcile(remember([POSTGRES]).json, wanted, stores)
    assert remembered.placement.home == "pg"
    assert "would choose 'lite'" in remembered.advice[0]


def test_a_facet_that_the_remaining_home_cannot_serve_becomes_a_copy() -> None:
    plain = store("plain", "sqlite", "home", "full_text")
    before = reconcile(None, place(entity_type(Plain), [plain]), [plain])
    stores = [POSTGRES, plain]
    remembered = reconcile(before.json, place(entity_type(Memory), stores), stores)
    assert remembered.placement.home == "plain"
    assert remembered.placement.facets == {"full_text": "plain", "vector": "pg", "graph": "pg"}
    assert remembered.backfill == {"pg"}
    assert remembered.fill == {"full_text"}


def test_a_home_that_is_not_configured_is_an_error_that_names_it() -> None:
    wanted = place(entity_type(Memory), [POSTGRES])
    with pytest.raises(ConfigurationError) as caught:
        reconcile(remember([store("pgs", "sqlite")]).json, wanted, [POSTGRES])
    assert str(caught.value) == (
        "memory: its home is the store 'pgs', which is not configured, did you mean 'pg'?; configure it again under "
        "this name: a home never moves because the configuration changed"
    )


def test_a_home_whose_name_went_to_a_store_that_cannot_commit_is_an_error() -> None:
    impostor = Candidate("lite", "elasticsearch", frozenset({"full_text"}), frozenset({SupportsTextSearch}))
    stores = [impostor, POSTGRES]
    with pytest.raises(ConfigurationError, match=r"lite \(Elasticsearch\) cannot commit; give the name back"):
        reconcile(remember([LITE]).json, place(entity_type(Memory), stores), stores)


def test_a_home_that_lost_its_role_stays_while_it_can_commit() -> None:
    stores = [store("lite", "sqlite", "full_text"), POSTGRES]
    remembered = reconcile(remember([LITE]).json, place(entity_type(Memory), stores), stores)
    assert remembered.placement.home == "lite"
    assert remembered.advice


# -- the copies ---------------------------------------------------------------------------------------------------


def test_a_new_copy_is_filled_while_the_store_that_served_goes_on() -> None:
    remembered = remember([POSTGRES], [POSTGRES, ELASTIC])
    assert remembered.changed
    assert remembered.backfill == {"es"}
    assert remembered.dropped == frozenset()
    assert remembered.placement.facets["full_text"] == "pg"
    assert remembered.placement.upcoming == {"full_text": "es"}
    again = remember([POSTGRES], [POSTGRES, ELASTIC], [POSTGRES, ELASTIC])
    assert not again.backfill
    assert again.placement.upcoming == {"full_text": "es"}


def test_a_move_ends_where_it_began_when_its_store_is_taken_out_again() -> None:
    back = remember([POSTGRES], [POSTGRES, ELASTIC], [POSTGRES])
    assert (back.placement.facets["full_text"], back.placement.upcoming) == ("pg", {})
    assert back.dropped == {"es"}


def test_what_moved_stays_where_it_is_and_leaves_until_every_process_has_gone_over() -> None:
    stores = [POSTGRES, ELASTIC]
    moving = remember([POSTGRES], stores)
    facets = {**moving.placement.facets, "full_text": "es"}
    over = replace(moving.placement, facets=facets, upcoming={}, leaving={"full_text": "pg"})
    after = reconcile(write_moves(moving.json, over), place(entity_type(Memory), stores), stores)
    assert not after.changed
    assert (after.placement.facets["full_text"], after.placement.leaving) == ("es", {"full_text": "pg"})
    assert after.placement.held("pg") == {"full_text", "vector", "graph"}
    assert after.placement.copies() == {"es": {"full_text"}}


def test_a_place_that_a_rebuild_has_chosen_stays_and_so_does_a_rebuild_under_way() -> None:
    stores = [POSTGRES, ELASTIC]
    begun = remember(stores)
    going = replace(begun.placement, upcoming={"full_text": other_place("es")})
    after = reconcile(write_moves(begun.json, going), place(entity_type(Memory), stores), stores)
    assert (after.changed, after.placement.upcoming) == (False, {"full_text": "es~2"})
    facets = {**begun.placement.facets, "full_text": "es~2"}
    over = replace(begun.placement, facets=facets, previous={"full_text": "es"})
    done = reconcile(write_moves(begun.json, over), place(entity_type(Memory), stores), stores)
    assert (done.changed, done.placement.facets["full_text"], moves(done)) == (False, "es~2", ([], [], []))
    gone = reconcile(done.json, place(entity_type(Memory), [POSTGRES]), [POSTGRES], {"es~2": 0})
    assert (gone.placement.facets["full_text"], gone.placement.previous) == ("pg", {})
    assert gone.dropped == {"es~2"}
    with pytest.raises(ConfigurationError, match="the store 'es~2' is not configured, but 3 deliveries"):
        reconcile(done.json, place(entity_type(Memory), [POSTGRES]), [POSTGRES], {"es~2": 3})


def test_a_copy_that_gets_another_facet_is_built_anew_beside_itself_with_all_that_it_serves() -> None:
    both = store("es", "elasticsearch", "full_text", "vector")
    begun = remember([POSTGRES, ELASTIC], [POSTGRES, both])
    assert begun.backfill == {"es~2"}
    assert (begun.placement.facets["full_text"], begun.placement.facets["vector"]) == ("es", "pg")
    assert begun.placement.upcoming == {"full_text": "es~2", "vector": "es~2"}
    again = remember([POSTGRES, ELASTIC], [POSTGRES, both], [POSTGRES, both])
    assert (moves(again), again.placement.upcoming) == (([], [], []), begun.placement.upcoming)
    back = remember([POSTGRES, ELASTIC], [POSTGRES, both], [POSTGRES, ELASTIC])
    assert (back.placement.facets["vector"], back.placement.upcoming["full_text"]) == ("pg", "es~2")


def test_a_facet_that_nobody_served_begins_beside_those_that_its_store_serves() -> None:
    stores = [store("pg", "postgresql", "home"), store("es", "elasticsearch", "full_text", "vector", "graph")]
    before = reconcile(None, place(entity_type(Words), stores), stores)
    assert before.placement.facets == {"full_text": "es"}
    begun = reconcile(before.json, place(entity_type(Memory), stores), stores)
    assert begun.placement.facets == {"full_text": "es", "vector": "es~2", "graph": "es~2"}
    assert begun.placement.upcoming == {"full_text": "es~2"}
    assert begun.backfill == {"es~2"}


def test_a_copy_without_a_second_place_is_filled_again_as_it_is() -> None:
    search = Candidate("search", "memory", frozenset({"full_text"}), frozenset({SupportsTextSearch}))
    able = frozenset({SupportsTextSearch, SupportsVectorSearch})
    both = replace(search, roles=frozenset({"full_text", "vector"}), capabilities=able)
    begun = remember([POSTGRES, search], [POSTGRES, both])
    assert begun.backfill == {"search"}
    assert begun.placement.upcoming == {"vector": "search"}


def test_a_copy_that_loses_a_facet_goes_on() -> None:
    both = store("es", "elasticsearch", "full_text", "vector")
    fewer = remember([POSTGRES, both], [POSTGRES, ELASTIC])
    assert moves(fewer) == ([], ["vector"], [])


def test_a_copy_that_is_no_longer_wanted_is_dropped_and_the_home_takes_over() -> None:
    remembered = remember([POSTGRES, ELASTIC, NEO4J], [POSTGRES, NEO4J])
    assert remembered.dropped == {"es"}
    assert remembered.fill == {"full_text"}
    assert remembered.backfill == frozenset()
    assert remembered.changed


def test_one_copy_can_take_the_place_of_another() -> None:
    opensearch = store("os", "opensearch", "full_text")
    remembered = remember([POSTGRES, ELASTIC], [POSTGRES, opensearch])
    assert moves(remembered) == (["os"], [], [])
    assert (remembered.placement.facets["full_text"], remembered.placement.upcoming) == ("es", {"full_text": "os"})
    pinned = [POSTGRES, opensearch, store("es", "elasticsearch", "document")]
    assert remember([POSTGRES, ELASTIC], pinned).placement.upcoming == {"full_text": "os"}


def test_who_is_opened_without_the_store_that_serves_turns_it_off_for_nobody() -> None:
    """The configuration of before, while a new one is rolled out: others have the store, and are owed an answer."""
    old, opensearch = [POSTGRES, ELASTIC], store("os", "opensearch", "full_text")
    pinned = [POSTGRES, opensearch, store("es", "elasticsearch", "document")]
    moving = remember(old, pinned)
    facets = {**moving.placement.facets, "full_text": "os"}
    over = write_moves(moving.json, replace(moving.placement, facets=facets, upcoming={}, leaving={"full_text": "es"}))
    straggler = reconcile(over, place(entity_type(Memory), old), old, {"os": 3})
    assert moves(straggler) == (["es"], [], [])
    assert (straggler.placement.facets["full_text"], straggler.placement.upcoming) == ("os", {"full_text": "es"})
    assert straggler.placement.leaving == {}
    again = reconcile(straggler.json, place(entity_type(Memory), pinned), pinned)
    assert (again.placement.facets["full_text"], again.placement.upcoming) == ("os", {})
    assert again.dropped == {"es"}


def test_a_class_that_gained_or_lost_facets_changes_its_copies_only() -> None:
    stores = [POSTGRES, ELASTIC]
    plain, memory = entity_type(Plain), entity_type(Memory)
    before = reconcile(None, place(plain, stores), stores)
    gained = reconcile(before.json, place(memory, stores), stores)
    assert moves(gained) == (["es"], ["graph", "vector"], [])
    lost = reconcile(gained.json, place(plain, stores), stores)
    assert moves(lost) == ([], [], ["es"])


def test_a_facet_that_is_made_differently_is_made_anew_wherever_it_is() -> None:
    vectors = store("vec", "chromadb", "vector")
    for stores, copies, at_home in (([POSTGRES, vectors], ["vec"], []), ([POSTGRES], [], ["vector"])):
        wanted = place(entity_type(Memory), stores)
        before = reconcile(None, wanted, stores, made_of={"vector": "cosine"})
        same = reconcile(before.json, wanted, stores, made_of={"vector": "cosine"})
        assert (same.changed, moves(same)) == (False, ([], [], []))
        other = reconcile(before.json, wanted, stores, made_of={"vector": "l2"})
        assert (other.changed, moves(other)) == (True, (copies, at_home, []))
        again = reconcile(other.json, wanted, stores, made_of={"vector": "l2"})
        assert (again.changed, moves(again)) == (False, ([], [], []))


def test_what_nobody_said_about_the_making_of_a_facet_changes_nothing() -> None:
    wanted = place(entity_type(Memory), [POSTGRES])
    silent = reconcile(None, wanted, [POSTGRES])
    said = reconcile(silent.json, wanted, [POSTGRES], made_of={"vector": "cosine"})
    assert (said.changed, moves(said)) == (True, ([], [], []))
    assert moves(reconcile(said.json, wanted, [POSTGRES])) == ([], [], [])


def test_a_removed_store_that_is_owed_deliveries_is_an_error() -> None:
    wanted = place(entity_type(Memory), [POSTGRES])
    before = remember([POSTGRES, ELASTIC]).json
    with pytest.raises(ConfigurationError) as caught:
        reconcile(before, wanted, [POSTGRES], {"es": 3})
    assert str(caught.value) == (
        "memory: the store 'es' is not configured, but 3 deliveries to it are not done; configure it again and let "
        "them end. If it never answers again, configure it with `required = false`, pin what it served "
        '([pins.memory]: full_text = "pg") and open once; then remove both'
    )
    assert reconcile(before, wanted, [POSTGRES], {"es": 0, "other": 9}).dropped == {"es"}


def test_a_configured_store_that_is_no_copy_any_more_may_be_owed_deliveries() -> None:
    stores = [POSTGRES, store("es", "elasticsearch", "document")]
    before = remember([POSTGRES, ELASTIC]).json
    assert reconcile(before, place(entity_type(Memory), stores), stores, {"es": 3}).dropped == {"es"}


# -- the stored text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", ["", "{", "[]", "{}", '{"home": 3, "facets": {}}'])
def test_a_damaged_placement_is_an_error_and_no_first_use(stored: str) -> None:
    wanted = place(entity_type(Memory), [POSTGRES])
    with pytest.raises(ConfigurationError, match="memory: its stored placement cannot be read"):
        reconcile(stored, wanted, [POSTGRES])


def test_the_placement_of_a_newer_polystore_is_an_error() -> None:
    wanted = place(entity_type(Memory), [POSTGRES])
    with pytest.raises(ConfigurationError, match=r"memory: .* newer polystore \(format 2, .*\); upgrade polystore"):
        reconcile('{"format": 2, "homes": ["pg"]}', wanted, [POSTGRES])


def test_a_placement_in_words_of_its_own_is_kept_as_it_is() -> None:
    wanted = Placement("memory", "pg", {}, rule="r", why=("w",))
    assert json.loads(reconcile(None, wanted, [POSTGRES]).json)["why"] == ["w"]
