"""What happens when a class changes: every change that is carried out, and every one that is refused with a mend."""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import pytest

from polystore.entity import EntityType, entity, entity_type
from polystore.errors import DecodeError, SchemaMismatch
from polystore.evolution import Migration, StoredFacet, StoredSchema, describe, load, plan
from polystore.facets import Edge, Embedding, FullText, Index, Relation, Unique

Field = tuple[str, Any] | tuple[str, Any, Any]


def declared(*fields: Field, key: str = "id", renamed: dict[str, str] | None = None) -> EntityType[Any]:
    """An entity named note with a str key, the given fields, and the defaults given with them."""
    parts: list[Any] = [("id", str), *fields]
    cls: type[Any] = dataclasses.make_dataclass("Note", parts, kw_only=True)
    return entity_type(entity(name="note", key=key, renamed=renamed)(cls))


def after(*versions: EntityType[Any]) -> StoredSchema:
    """What a store holds after it was migrated through these declarations."""
    schema = describe(versions[0])
    for version in versions[1:]:
        schema = plan(schema, version).schema
    return schema


def refused(stored: StoredSchema, new: EntityType[Any]) -> str:
    with pytest.raises(SchemaMismatch) as caught:
        plan(stored, new)
    return str(caught.value)


def test_an_unchanged_class_needs_nothing() -> None:
    note = declared(
        ("text", Annotated[str, FullText()]), ("tags", list[str], dataclasses.field(default_factory=list[str]))
    )
    migration = plan(describe(note), note)
    assert not migration.needed
    assert not migration.changes_content
    assert migration == Migration(describe(note))
    assert migration.carry_out({"id": "1", "text": "a", "tags": []}) == {"id": "1", "text": "a", "tags": []}


# -- added --------------------------------------------------------------------------------------------------------


def test_an_added_field_gives_existing_records_its_default_in_plain_form() -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    old = declared(("text", str))
    new = declared(
        ("text", str),
        ("stars", int, 3),
        ("seen", datetime, when),
        ("tags", list[str], dataclasses.field(default_factory=list[str])),
    )
    migration = plan(describe(old), new)
    assert migration.add == (("stars", 3), ("seen", when), ("tags", []))
    assert migration.changes_content
    body = migration.carry_out({"id": "1", "text": "a"})
    assert new.decode(body) == new.cls(id="1", text="a", stars=3, seen=when, tags=[])
    assert plan(migration.schema, new) == Migration(migration.schema)


def test_a_default_is_made_once_for_all_stores() -> None:
    numbers = itertools.count()
    old, new = declared(), declared(("n", int, dataclasses.field(default_factory=lambda: next(numbers))))
    assert plan(describe(old), new).add == plan(describe(old), new).add == (("n", 0),)


def test_an_added_optional_field_without_default_is_missing_in_existing_records() -> None:
    migration = plan(describe(declared()), declared(("nick", str | None)))
    assert migration.add == (("nick", None),)
    assert migration.carry_out({"id": "1"}) == {"id": "1", "nick": None}


def test_an_added_field_without_default_is_refused() -> None:
    message = refused(describe(declared()), declared(("stars", int)))
    assert message == (
        "Note.stars: the field is new, and existing records have no value for it; give it a default, or make it "
        "optional"
    )


def test_a_default_that_cannot_be_stored_is_refused() -> None:
    def naive() -> datetime:
        return datetime(2026, 1, 1)  # noqa: DTZ001

    message = refused(describe(declared()), declared(("seen", datetime, dataclasses.field(default_factory=naive))))
    assert message.startswith("Note.seen: the field is new")
    assert "its default cannot be stored: a naive datetime" in message


# -- removed and brought back -------------------------------------------------------------------------------------


def test_a_removed_field_is_retired_and_its_values_stay() -> None:
    migration = plan(describe(declared(("stars", int))), declared())
    assert migration.retired == ("stars",)
    assert list(migration.schema.fields) == ["id"]
    assert list(migration.schema.retired) == ["stars"]
    assert migration.carry_out({"id": "1", "stars": 4}) == {"id": "1", "stars": 4}
    assert plan(migration.schema, declared()).retired == ()


def test_a_field_that_comes_back_finds_its_values_and_fills_the_gaps() -> None:
    with_stars = declared(("stars", int, 1))
    migration = plan(after(with_stars, declared()), with_stars)
    assert migration.revived == ("stars",)
    assert migration.add == ()
    assert migration.fill == (("stars", 1),)
    assert migration.changes_content
    assert migration.carry_out({"id": "1", "stars": 4}) == {"id": "1", "stars": 4}
    assert migration.carry_out({"id": "2"}) == {"id": "2", "stars": 1}
    assert not migration.schema.retired


def test_a_field_that_comes_back_without_a_default_is_refused() -> None:
    message = refused(after(declared(("stars", int)), declared()), declared(("stars", int)))
    assert message == (
        "Note.stars: the field was retired, and records written since have no value for it; give it a default, or make "
        "it optional"
    )


def test_a_field_that_comes_back_as_another_type_is_refused() -> None:
    message = refused(after(declared(("stars", int)), declared()), declared(("stars", str, "")))
    assert message.startswith("Note.stars: its stored values do not fit: the type was int, now it is str; ")


# -- renamed ------------------------------------------------------------------------------------------------------


def test_a_renamed_field_takes_its_values_along_once() -> None:
    old, new = declared(("txt", str)), declared(("text", str), renamed={"text": "txt"})
    migration = plan(describe(old), new)
    assert migration.rename == (("txt", "text"),)
    assert not migration.retired
    assert migration.carry_out({"id": "1", "txt": "a"}) == {"id": "1", "text": "a"}
    assert not plan(migration.schema, new).needed


def test_a_field_can_be_renamed_widened_and_made_required_at_once() -> None:
    old, new = declared(("n", int | None)), declared(("score", float, 0.5), renamed={"score": "n"})
    migration = plan(describe(old), new)
    assert (migration.rename, migration.widened, migration.fill) == ((("n", "score"),), ("score",), (("score", 0.5),))
    assert migration.carry_out({"id": "1", "n": 2}) == {"id": "1", "score": 2.0}
    assert type(migration.carry_out({"id": "1", "n": 2})["score"]) is float
    assert migration.carry_out({"id": "1", "n": None}) == {"id": "1", "score": 0.5}


def test_a_retired_field_can_come_back_under_another_name() -> None:
    migration = plan(after(declared(("txt", str)), declared()), declared(("text", str, ""), renamed={"text": "txt"}))
    assert (migration.rename, migration.revived) == ((("txt", "text"),), ("text",))
    assert migration.fill == (("text", ""),)
    assert not migration.schema.retired


def test_a_rename_carried_out_long_ago_does_not_hinder_removal_and_return() -> None:
    renamed = declared(("text", str, ""), renamed={"text": "txt"})
    schema = after(declared(("txt", str)), renamed, declared())
    assert plan(schema, renamed).revived == ("text",)


def test_a_rename_from_a_field_that_is_not_stored_is_refused() -> None:
    message = refused(describe(declared(("body", str))), declared(("text", str), renamed={"text": "txt"}))
    assert message == "Note.text: renamed= takes its values from 'txt', which is not stored; stored: id, body"


@pytest.mark.parametrize("retired", [True, False])
def test_a_rename_onto_a_name_that_has_values_is_refused(retired: bool) -> None:
    both = declared(("txt", str), ("text", str, ""))
    schema = after(both, declared(("txt", str))) if retired else describe(both)
    message = refused(schema, declared(("text", str, ""), renamed={"text": "txt"}))
    assert message.startswith("Note.text: renamed= takes its values from 'txt', but the store already has values")
    assert "take 'text' out of renamed=" in message


def test_a_name_that_differs_only_in_case_is_refused_unless_it_is_a_rename() -> None:
    old = describe(declared(("Text", str)))
    message = refused(old, declared(("text", str, "")))
    assert message.startswith("Note.text: the store has values of 'Text', a name that differs only in upper and lower")
    assert "renamed={'text': 'Text'}" in message
    assert plan(old, declared(("text", str), renamed={"text": "Text"})).rename == (("Text", "text"),)


# -- retyped ------------------------------------------------------------------------------------------------------


class Mood(enum.Enum):
    GOOD = "good"


class MoreMoods(enum.Enum):
    GOOD = "good"
    BAD = "bad"


@dataclasses.dataclass
class Place:
    city: str


@dataclasses.dataclass
class PlaceWithZip:
    city: str
    zip: str | None = None


@dataclasses.dataclass
class PlaceNeedsZip:
    city: str
    zip: str


@dataclasses.dataclass
class PlaceOfNumber:
    city: int


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (int, float),
        (str, str | None),
        (int, float | None),
        (Literal["a"], Literal["a", "b"]),
        (Mood, MoreMoods),
        (MoreMoods, Mood),  # noticed when an old value is read
        (str, Mood),
        (Place, PlaceWithZip),
        (PlaceWithZip, Place),
        (list[Place], list[PlaceWithZip]),
        (list[int], list[float]),
        (list[str], list[str | None]),
        (dict[str, int], dict[str, float]),
        (dict[str, int], Any),
        (list[str], Any),
        (Place, Any),
    ],
)
def test_a_wider_type_leaves_the_values_as_they_are(old: Any, new: Any) -> None:
    migration = plan(describe(declared(("x", old))), declared(("x", new)))
    assert not migration.add
    assert not migration.fill
    assert migration.schema == describe(declared(("x", new)))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (float, int, "the type was float, now it is int"),
        (str, int, "the type was str, now it is int"),
        (int, bool, "the type was int, now it is bool"),
        (str, datetime, "the type was str, now it is datetime"),
        (str, list[str], "the type was str, now it is json"),
        (list[str], dict[str, str], "the value was a list, now it is a dict"),
        (Place, dict[str, str], "the value was of a nested class, now it is a dict"),
        (Any, list[str], "the value was free-form, now it is a list"),
        (list[float], list[int], "in its items, the type was float, now it is int"),
        (list[str | None], list[str], "in its items, a nested value was optional and now is not"),
        (Place, PlaceNeedsZip, "the nested field 'zip' is new and has no default"),
        (Place, PlaceOfNumber, "in its field 'city', the type was str, now it is int"),
        (PlaceWithZip, PlaceNeedsZip, "in its field 'zip', a nested value was optional and now is not"),
        (
            list[Edge[Place]],
            list[Edge[PlaceOfNumber]],
            "in its items, in its field 'properties', in its field 'city', the",
        ),
    ],
)
def test_a_type_that_the_stored_values_do_not_fit_is_refused(old: Any, new: Any, reason: str) -> None:
    message = refused(describe(declared(("x", old))), declared(("x", new)))
    assert message.startswith(f"Note.x: its stored values do not fit: {reason}")
    assert "give the field a new name and a default" in message


def test_the_mismatch_of_a_renamed_field_names_the_old_one() -> None:
    message = refused(describe(declared(("n", str))), declared(("count", int), renamed={"count": "n"}))
    assert message.startswith("Note.count: its stored values (of the field 'n') do not fit: the type was str")


def test_an_optional_field_made_required_takes_the_default_where_values_are_missing() -> None:
    migration = plan(describe(declared(("nick", str | None))), declared(("nick", str, "-")))
    assert migration.fill == (("nick", "-"),)
    assert migration.carry_out({"id": "1", "nick": None}) == {"id": "1", "nick": "-"}
    assert migration.carry_out({"id": "1", "nick": "x"}) == {"id": "1", "nick": "x"}


def test_an_optional_field_made_required_without_default_is_refused() -> None:
    message = refused(describe(declared(("nick", str | None))), declared(("nick", str)))
    assert message == (
        "Note.nick: the field was optional, and some records may have no value for it; give it a default, or make it "
        "optional"
    )


def test_a_value_that_is_no_longer_among_the_allowed_ones_is_corrupt_and_not_missing() -> None:
    narrow = declared(("mood", Mood))
    with pytest.raises(DecodeError, match=r"note 'n1': the stored record does not fit Note: Invalid enum value"):
        narrow.decode({"id": "n1", "mood": "bad"})


# -- key and facets -----------------------------------------------------------------------------------------------


def test_another_key_is_refused() -> None:
    message = refused(describe(declared(("slug", str))), declared(("slug", str), key="slug"))
    assert message == (
        "Note.slug: the key was 'id', and the key of stored records cannot change; declare key='id' again"
    )


def test_a_key_of_another_type_is_refused() -> None:
    numbered: type[Any] = dataclasses.make_dataclass("Note", [("id", int)])
    message = refused(describe(declared()), entity_type(entity(name="note")(numbered)))
    assert message.startswith("Note.id: the key was of type str, now it is int; declare the old type again")


def text(*facets: object) -> EntityType[Any]:
    hint: Any = str
    for facet in facets:
        hint = Annotated[hint, facet]
    return declared(("text", hint))


@pytest.mark.parametrize(
    ("facet", "stored"),
    [
        (FullText(), StoredFacet("text", "full_text")),
        (Unique(), StoredFacet("text", "unique")),
        (Index(), StoredFacet("text", "index")),
        (Embedding(), StoredFacet("text", "vector", "default - cosine")),
        (Embedding("own", dimension=8, metric="l2"), StoredFacet("text", "vector", "own 8 l2")),
        (Relation("ABOUT", to="person"), StoredFacet("text", "graph", "ABOUT person")),
    ],
)
def test_facets_come_and_go_without_touching_the_content(facet: object, stored: StoredFacet) -> None:
    added = plan(describe(text()), text(facet))
    assert (added.facets_added, added.facets_removed) == ((stored,), ())
    assert added.needed
    assert not added.changes_content
    removed = plan(added.schema, text())
    assert (removed.facets_added, removed.facets_removed) == ((), (stored,))


def test_a_facet_with_other_arguments_is_another_facet() -> None:
    migration = plan(describe(text(Embedding())), text(Embedding(metric="ip")))
    assert migration.facets_removed == (StoredFacet("text", "vector", "default - cosine"),)
    assert migration.facets_added == (StoredFacet("text", "vector", "default - ip"),)


# -- the stored form ----------------------------------------------------------------------------------------------


def test_a_schema_survives_its_json() -> None:
    rich = declared(
        ("text", Annotated[str, FullText(), Embedding()]),
        ("places", list[PlaceWithZip]),
        ("any", Any),
        ("about", Annotated[list[Edge[Place]], Relation("ABOUT", to="person")]),
    )
    schema = after(rich, declared(("text", str)))
    assert schema.retired
    assert load(schema.json()) == schema
    assert load(describe(rich).json()) == describe(rich)


def test_the_stored_form_stays_readable() -> None:
    stored = (
        '{"etype":"note","key":"id","fields":{"id":{"name":"str"},"stars":{"name":"int","optional":true},'
        '"tags":{"name":"json","shape":"list","item":{"name":"str"}}},'
        '"facets":[{"field":"tags","facet":"graph","detail":"ABOUT person"}],"retired":{},"format":1}'
    )
    now = declared(("stars", int | None), ("tags", Annotated[list[str], Relation("ABOUT", to="person")]))
    assert load(stored) == describe(now)
    assert describe(now).json() == stored


@pytest.mark.parametrize("text", ["", "{", "[]", '{"etype":"note"}'])
def test_a_damaged_schema_is_no_schema(text: str) -> None:
    with pytest.raises(SchemaMismatch, match="cannot be read; restore the store"):
        load(text)


def test_the_schema_of_a_newer_polystore_is_refused_whatever_it_looks_like() -> None:
    with pytest.raises(SchemaMismatch, match=r"note: .*newer polystore \(schema format 2.*upgrade polystore"):
        load('{"format": 2, "etype": "note", "unheard": []}')


CHANGES: dict[str, Callable[[], tuple[EntityType[Any], EntityType[Any]]]] = {
    "added": lambda: (declared(), declared(("stars", int, 3))),
    "removed": lambda: (declared(("stars", int)), declared()),
    "renamed": lambda: (declared(("a", str)), declared(("b", str), renamed={"b": "a"})),
    "widened": lambda: (declared(("n", int)), declared(("n", float))),
    "required": lambda: (declared(("n", int | None)), declared(("n", int, 0))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_content_change_says_that_stored_hashes_no_longer_hold(change: str) -> None:
    old, new = CHANGES[change]()
    assert plan(describe(old), new).changes_content
