"""Entities: what can be declared and in which words the rest is refused; values in, plain bodies, values out."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Optional, cast
from uuid import UUID

import msgspec
import pydantic
import pytest

from polystore.entity import EntityType, entity, entity_type, entity_types, is_entity
from polystore.errors import ConfigurationError, DecodeError, DimensionMismatch, EntityError, InvalidData, ValueTooLarge
from polystore.facets import Edge, Embedding, Facet, FullText, Index, Needs, Relation, Unique

Hints = dict[str, Any]
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SOME_UUID = UUID("0190b6a0-0000-7000-8000-000000000001")


def note(hints: Hints, class_name: str = "Note", **arguments: Any) -> EntityType[Any]:
    """The compiled entity of a dataclass with these fields; a hint with a default is a pair."""
    fields: list[Any] = [(name, *hint) if isinstance(hint, tuple) else (name, hint) for name, hint in hints.items()]
    cls: type[Any] = dataclasses.make_dataclass(class_name, fields, kw_only=True)
    return entity_type(entity(**arguments)(cls))


def refused(hints: Hints, **arguments: Any) -> str:
    with pytest.raises(EntityError) as caught:
        note(hints, **arguments)
    return str(caught.value)


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


@dataclasses.dataclass
class Place:
    city: str
    seen: datetime
    price: Decimal | None = None


class How(msgspec.Struct):
    since: int


@entity(needs=Needs(transactions=True), data_type="conversation")
@dataclasses.dataclass(kw_only=True)
class Diary:
    """Every type of field that a record can have."""

    id: str
    text: Annotated[str, FullText(), Embedding()]
    count: int
    weight: float
    done: bool
    raw: bytes
    at: datetime
    day: date
    price: Decimal
    ref: UUID
    mood: Mood
    size: Literal["s", "m"]
    nick: Annotated[str | None, Unique()] = None
    tags: list[str] = dataclasses.field(default_factory=list[str])
    places: list[Place] = dataclasses.field(default_factory=list[Place])
    extra: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    about: Annotated[list[Edge[How]], Relation("ABOUT", to="person")] = dataclasses.field(
        default_factory=list[Edge[How]]
    )
    unit: ClassVar[str] = "not a field"


DIARY = Diary(
    id="d1",
    text="오늘 날씨가 좋다",
    count=3,
    weight=1.5,
    done=False,
    raw=b"\x00\x01",
    at=NOON,
    day=date(2026, 5, 1),
    price=Decimal("1.50"),
    ref=SOME_UUID,
    mood=Mood.GOOD,
    size="s",
    tags=["a"],
    places=[Place("서울", NOON, Decimal("2.0"))],
    extra={"a": [1, None, {"b": True}]},
    about=[Edge("p1", How(2020))],
)


class Struct(msgspec.Struct, kw_only=True):
    id: int
    text: Annotated[str, FullText()] = ""
    places: list[Place] = []


class Model(pydantic.BaseModel):
    id: UUID
    title: Annotated[str, FullText()] = pydantic.Field(default="", alias="theTitle")
    places: list[Place] = []

    @pydantic.computed_field
    def shout(self) -> str:
        return self.title.upper()


# -- declaring ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_name", "name"),
    [("Note", "note"), ("AgentMemory", "agent_memory"), ("HTTPLog2Line", "http_log2_line"), ("A", "a")],
)
def test_an_entity_is_named_after_its_class(class_name: str, name: str) -> None:
    assert note({"id": str}, class_name).name == name


def test_declaring_returns_the_class_itself_and_keeps_what_was_said() -> None:
    declared = entity_type(Diary)
    assert declared.cls is Diary
    assert (declared.name, declared.key, declared.data_type) == ("diary", "id", "conversation")
    assert declared.needs == Needs(transactions=True)
    assert declared.full_text == ("text",)
    assert declared.embeddings == {"text": Embedding()}
    assert declared.relations == {"about": Relation("ABOUT", "person")}
    assert declared.unique == ("nick",)
    assert "unit" not in declared.fields


def test_facets_can_be_given_beside_a_class_that_cannot_be_edited() -> None:
    declared = note({"id": str, "text": str, "n": int}, facets={"text": [FullText(), Index()], "n": (Index(),)})
    assert (declared.full_text, declared.index) == (("text",), ("text", "n"))


@pytest.mark.parametrize(
    "hint",
    [
        Annotated[str, FullText(), "other libraries' metadata", pydantic.Field(max_length=3)],
        Optional[Annotated[str, FullText()]],  # noqa: UP045
        Annotated[str | None, FullText()],
    ],
)
def test_facets_are_found_wherever_annotated_stands(hint: Any) -> None:
    assert note({"id": str, "text": hint}).full_text == ("text",)


def test_a_subclass_does_not_inherit_the_declaration() -> None:
    class Special(Diary):
        pass

    assert is_entity(Diary)
    assert not is_entity(Special)
    assert not is_entity("Diary")
    with pytest.raises(ConfigurationError, match=r"Special is not an entity: put @entity\(\) above the class"):
        entity_type(Special)


@entity()
@dataclasses.dataclass
class Early:
    id: str
    later: Later


@dataclasses.dataclass
class Later:
    x: int


def test_a_type_declared_further_down_is_found_at_open() -> None:
    declared = entity_types([Early])["early"]
    assert declared.encode(Early("e", Later(1))) == {"id": "e", "later": {"x": 1}}


def test_a_type_that_is_nowhere_is_refused_at_open() -> None:
    lost: type[Any] = dataclasses.make_dataclass("Lost", [("id", str), ("x", "Nowhere")])
    assert is_entity(entity()(lost))
    with pytest.raises(EntityError, match="Lost: the type 'Nowhere' is not known; import or declare it at the top"):
        entity_types([lost])


# -- declarations that make no sense ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Note", "1st", "ps_note", "a-b", "n" * 49, "ключ"])
def test_an_entity_name_must_be_one_that_every_store_takes(name: str) -> None:
    assert refused({"id": str}, name=name) == (
        f"Note: {name!r} cannot be an entity's name: it must be lower-case letters, digits and _, begin with a letter "
        "and not with ps_, and have at most 48 characters; pass @entity(name=...)"
    )


class OwnFacet(Facet, frozen=True):
    pass


VECTOR = Annotated[list[float], Embedding(dimension=3)]
FIELD_ERRORS: list[tuple[Hints, Mapping[str, Any], str]] = [
    # the key
    (
        {"key": str, "text": str},
        {},
        "Note.id: the key field does not exist; its fields are key, text; name it with @entity(key=...)",
    ),
    (
        {"uid": str},
        {"key": "uidd"},
        "Note.uidd: the key field does not exist, did you mean 'uid'?; name it with @entity(key=...)",
    ),
    ({"id": float}, {}, "Note.id: the key must be str, int or UUID, and not optional"),
    ({"id": str | None}, {}, "Note.id: the key must be str, int or UUID, and not optional"),
    ({"id": list[str]}, {}, "Note.id: the key must be str, int or UUID, and not optional"),
    (
        {"id": Annotated[str, FullText()]},
        {},
        "Note.id: the key is unique and found by itself: it takes no facets",
    ),
    ({"id": Annotated[str, Index()]}, {}, "Note.id: the key is unique and found by itself: it takes no facets"),
    ({"id": Annotated[str, Unique()]}, {}, "Note.id: the key is unique and found by itself: it takes no facets"),
    (
        {"a": str, "b": str},
        {"key": ("a", "b")},
        "Note: key= names one field; a key of several fields is not supported, make one text of them",
    ),
    # names of fields
    (
        {"id": str, "ps_version": int},
        {},
        "Note.ps_version: a field's name must be letters, digits and _, begin with a letter and not with ps_, and have "
        "at most 48 characters; name the field otherwise",
    ),
    (
        {"id": str, "_x": int},
        {},
        "Note._x: a field's name must be letters, digits and _, begin with a letter and not with ps_, and have at most "
        "48 characters; name the field otherwise",
    ),
    (
        {"id": str, "날짜": int},
        {},
        "Note.날짜: a field's name must be letters, digits and _, begin with a letter and not with ps_, and have at "
        "most 48 characters; name the field otherwise",
    ),
    (
        {"id": str, "Text": str, "text": str},
        {},
        "Note: two fields differ only in upper and lower case, which stores cannot tell apart; name one anew",
    ),
    # types
    ({"id": str, "x": set[str]}, {}, "Note.x: the type set is not supported; use str, int, float, bool, bytes, "),
    ({"id": str, "x": int | str}, {}, "Note.x: the union int | str is not supported; only X | None is"),
    # defaults
    (
        {"id": str, "x": (float, None)},
        {},
        "Note.x: its default does not fit its type: a float is needed, not NoneType",
    ),
    ({"id": str, "x": (Mood, "ugly")}, {}, "Note.x: its default does not fit its type: the value is not a Mood"),
    # facets
    ({"id": str, "x": Annotated[int, FullText()]}, {}, "Note.x: FullText() needs a str field"),
    ({"id": str, "x": Annotated[list[str], FullText()]}, {}, "Note.x: FullText() needs a str field"),
    (
        {"id": str, "x": Annotated[int, Embedding()]},
        {},
        "Note.x: Embedding() needs a str field, or list[float] with dimension=",
    ),
    (
        {"id": str, "x": Annotated[dict[str, float], Embedding(dimension=3)]},
        {},
        "Note.x: Embedding() needs a str field, or list[float] with dimension=",
    ),
    (
        {"id": str, "x": Annotated[list[float], Embedding()]},
        {},
        "Note.x: Embedding() on list[float] needs dimension=, the length of the lists",
    ),
    (
        {"id": str, "x": Annotated[int, Relation("A", to="b")]},
        {},
        "Note.x: Relation() needs a str, str | None, list[str] or list[Edge[...]] field",
    ),
    (
        {"id": str, "x": Annotated[dict[str, str], Relation("A", to="b")]},
        {},
        "Note.x: Relation() needs a str, str | None, list[str] or list[Edge[...]] field",
    ),
    (
        {"id": str, "x": Annotated[list[Place], Relation("A", to="b")]},
        {},
        "Note.x: Relation() needs a str, str | None, list[str] or list[Edge[...]] field",
    ),
    (
        {"id": str, "x": Annotated[Edge[Place], Relation("A", to="b")]},
        {},
        "Note.x: Relation() needs a str, str | None, list[str] or list[Edge[...]] field",
    ),
    (
        {"id": str, "x": Annotated[str, Relation("is a", to="b")]},
        {},
        "Note.x: 'is a' cannot be a relation's type; use at most 64 letters, digits and _",
    ),
    ({"id": str, "x": Annotated[list[str], Unique()]}, {}, "Note.x: Unique() needs a field with a single value"),
    ({"id": str, "x": Annotated[dict[str, str], Index()]}, {}, "Note.x: Index() needs a field with a single value"),
    (
        {"id": str, "x": Annotated[str, FullText]},
        {},
        "Note.x: FullText is a class here; write FullText() with parentheses",
    ),
    ({"id": str, "x": Annotated[str, Index]}, {}, "Note.x: Index is a class here; write Index() with parentheses"),
    (
        {"id": str, "x": Annotated[str, Relation]},
        {},
        "Note.x: Relation is a class here; write Relation() with parentheses",
    ),
    ({"id": str, "x": Annotated[str, FullText(), FullText()]}, {}, "Note.x: FullText() stands twice; leave one"),
    (
        {"id": str, "x": Annotated[str, Embedding(), Embedding("own")]},
        {},
        "Note.x: Embedding() stands twice; leave one",
    ),
    (
        {"id": str, "x": Annotated[str, OwnFacet()]},
        {},
        "Note.x: OwnFacet is no facet that polystore knows",
    ),
    # facets=
    (
        {"id": str, "text": str},
        {"facets": {"txt": [FullText()]}},
        "Note.txt: facets= names a field that does not exist, did you mean 'text'?",
    ),
    (
        {"id": str, "text": str},
        {"facets": {"text": FullText()}},
        "Note.text: facets= maps a field to a list of facets; put the facet into [...]",
    ),
    (
        {"id": str, "text": str},
        {"facets": {"text": FullText}},
        "Note.text: facets= maps a field to a list of facets; put the facet into [...]",
    ),
    (
        {"id": str, "text": str},
        {"facets": {"text": "FullText"}},
        "Note.text: facets= takes FullText(), Embedding() and so on, not str",
    ),
    (
        {"id": str, "text": str},
        {"facets": {"text": [FullText]}},
        "Note.text: FullText is a class here; write FullText() with parentheses",
    ),
    # renamed=
    (
        {"id": str, "text": str},
        {"renamed": {"txet": "body"}},
        "Note.txet: renamed= names a field that does not exist, did you mean 'text'?",
    ),
    (
        {"id": str, "text": str, "body": str},
        {"renamed": {"text": "body"}},
        "Note.body: renamed= says this field has a new name, but the class still has it; drop one of them",
    ),
    (
        {"id": str, "a": str, "b": str},
        {"renamed": {"a": "c", "b": "c"}},
        "Note.a: renamed= gives the values of 'c' to two fields; leave one",
    ),
    # data_type= and needs=
    ({"id": str}, {"data_type": Needs()}, "Note: data_type= takes a text such as 'conversation', not Needs"),
    ({"id": str}, {"needs": {"transactions": True}}, "Note: needs= takes Needs(...), not dict"),
]


@pytest.mark.parametrize(("hints", "arguments", "message"), FIELD_ERRORS, ids=[m for _, _, m in FIELD_ERRORS])
def test_a_declaration_that_makes_no_sense_names_class_field_reason_and_mend(
    hints: Hints, arguments: Mapping[str, Any], message: str
) -> None:
    assert refused(hints, **arguments).startswith(message)


def test_the_decorator_below_dataclass_says_where_it_belongs() -> None:
    class Bare:
        id: str

    with pytest.raises(EntityError) as caught:
        entity()(Bare)
    assert str(caught.value) == (
        "Bare: an entity is a dataclass, a msgspec.Struct, a pydantic model or a mapped class; put @entity above it"
    )


def test_a_class_that_could_not_be_read_back_is_refused() -> None:
    class Camel(msgspec.Struct, rename="camel"):
        id: str
        made_at: datetime

    with pytest.raises(EntityError, match="Camel: Camel uses array_like= or rename=; records are kept by field name"):
        entity()(Camel)


def test_a_class_that_holds_itself_is_refused() -> None:
    with pytest.raises(EntityError, match=r"Tree\.kids: its class holds itself; .* Relation\(\)"):
        entity()(Tree)


@dataclasses.dataclass
class Tree:
    id: str
    kids: list[Tree]


FACET_ERRORS: list[tuple[Callable[[], object], str]] = [
    (lambda: Embedding(metric="dot"), "Embedding(metric='dot'): the metrics are cosine, l2 and ip"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    (lambda: Embedding(dimension=0), "Embedding(dimension=0): must be from 1 to 8192"),
    (lambda: Embedding(dimension=8193), "Embedding(dimension=8193): must be from 1 to 8192"),
    (lambda: Needs(transactions=1), "Needs(transactions=...): must be True or False"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    (lambda: Needs(data_size="500"), "Needs(data_size=...): size '500' has no unit; write '500 B' for bytes; units: "),
    (lambda: Needs(data_size=-1), "Needs(data_size=...): size -1 is negative; a size is 0 bytes or more"),
    (
        lambda: Needs(complex_relations=True, real_time=True),
        "Needs(complex_relations=True, real_time=True): a store for live state has no joins; add transactions=True",
    ),
]


@pytest.mark.parametrize(("make", "message"), FACET_ERRORS, ids=[m for _, m in FACET_ERRORS])
def test_facets_and_needs_that_make_no_sense_fail_where_they_are_made(make: Callable[[], object], message: str) -> None:
    with pytest.raises(EntityError) as caught:
        make()
    assert str(caught.value).startswith(message)


def test_needs_that_can_be_met_are_accepted() -> None:
    assert Needs(complex_relations=True, real_time=True, transactions=True)
    assert Needs(real_time=True, data_size="1.5 GB").data_size == "1.5 GB"


# -- several entities ---------------------------------------------------------------------------------------------


@entity()
@dataclasses.dataclass
class Person:
    id: str
    friend: Annotated[str | None, Relation("KNOWS", to="Person")] = None


@entity()
@dataclasses.dataclass
class Letter:
    id: str
    to: Annotated[str, Relation("TO", to=Person)]
    via: Annotated[list[str], Relation("VIA", to="person")] = dataclasses.field(default_factory=list[str])


def test_the_ends_of_relations_are_found_by_class_class_name_or_entity_name() -> None:
    types = entity_types([Letter, Person, Letter])
    assert list(types) == ["letter", "person"]
    assert {field: relation.to for field, relation in types["letter"].relations.items()} == {
        "to": "person",
        "via": "person",
    }
    assert types["person"].relations["friend"].to == "person"


def test_a_relation_to_nothing_names_the_known_entities() -> None:
    with pytest.raises(EntityError) as caught:
        entity_types([Letter])
    assert str(caught.value) == "Letter.to: Relation(to='Person') names no entity of this application; known: Letter"


def test_two_entities_of_one_name_are_refused() -> None:
    @entity(name="person")
    @dataclasses.dataclass
    class Human:
        id: str

    with pytest.raises(EntityError) as caught:
        entity_types([Person, Human])
    assert str(caught.value) == "Human: Person has the same entity name 'person'; pass @entity(name=...)"


# -- values in and out --------------------------------------------------------------------------------------------


def test_every_type_of_field_survives_the_plain_form() -> None:
    declared = entity_type(Diary)
    body = declared.encode(DIARY)
    assert body == {
        "id": "d1",
        "text": "오늘 날씨가 좋다",
        "count": 3,
        "weight": 1.5,
        "done": False,
        "raw": b"\x00\x01",
        "at": NOON,
        "day": date(2026, 5, 1),
        "price": Decimal("1.50"),
        "ref": SOME_UUID,
        "mood": "good",
        "size": "s",
        "nick": None,
        "tags": ["a"],
        "places": [{"city": "서울", "seen": "2026-05-01T12:00:00+00:00", "price": "2.0"}],
        "extra": {"a": [1, None, {"b": True}]},
        "about": [{"to": "p1", "properties": {"since": 2020}}],
    }
    assert declared.decode(body) == DIARY


@pytest.mark.parametrize(
    "value",
    [
        Struct(id=1, text="가", places=[Place("서울", NOON)]),
        Model(id=SOME_UUID, theTitle="가", places=[Place("서울", NOON)]),
    ],
)
def test_structs_and_pydantic_models_survive_it_too(value: Any) -> None:
    cls = cast(type[Any], type(value))
    declared = entity_type(entity()(cls))
    body = declared.encode(value)
    assert list(body) == list(declared.fields)
    assert body["places"] == [{"city": "서울", "seen": "2026-05-01T12:00:00+00:00", "price": None}]
    assert declared.decode(body) == value


def test_a_pydantic_model_inside_a_dataclass_survives() -> None:
    declared = note({"id": str, "model": Model})
    value = declared.cls(id="1", model=Model(id=SOME_UUID, theTitle="가"))
    assert declared.decode(declared.encode(value)) == value


def test_a_slotted_frozen_dataclass_survives() -> None:
    @entity()
    @dataclasses.dataclass(frozen=True, slots=True)
    class Fixed:
        id: str
        made: int = dataclasses.field(init=False, default=3)

    declared = entity_type(Fixed)
    assert declared.decode(declared.encode(Fixed("a"))) == Fixed("a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": "3"}, "Diary.count: an int is needed, not str"),
        ({"at": datetime(2026, 1, 1)}, "Diary.at: a naive datetime has no instant; give it a time zone, "),  # noqa: DTZ001
        ({"places": [Place("a", NOON), None]}, "Diary.places: item 1: a Place is needed, not NoneType"),
        ({"places": [Place("a\0", NOON)]}, "Diary.places: item 0: city: the text holds a NUL character"),
        ({"about": [Edge("", How(1))]}, "Diary.about: item 0: to: the key is empty"),
    ],
)
def test_a_bad_value_names_class_and_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidData) as caught:
        entity_type(Diary).encode(dataclasses.replace(DIARY, **change))
    assert str(caught.value).startswith(message)


def test_a_value_of_another_class_is_refused() -> None:
    with pytest.raises(InvalidData, match="diary holds Diary values, not Person"):
        entity_type(Diary).encode(Person("p"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_subclass_passes_only_when_nothing_of_it_would_be_lost() -> None:
    class Loud(Person):
        def shout(self) -> str:
            return self.id.upper()

    @dataclasses.dataclass
    class Rich(Person):
        money: int = 0

    declared = entity_type(Person)
    assert declared.encode(Loud("p")) == {"id": "p", "friend": None}
    with pytest.raises(InvalidData, match=r"Rich has fields that Person lacks \(money\), which would be lost"):
        declared.encode(Rich("p"))


def test_a_value_with_an_unset_field_is_refused() -> None:
    declared = entity_type(entity()(Model))
    with pytest.raises(InvalidData, match=r"Model\.id: the field has no value"):
        declared.encode(Model.model_construct(theTitle="a"))


@pytest.mark.parametrize(("vector", "fits"), [([1.0, 2.0, 3.0], True), ([1.0], False), ([], False)])
def test_a_vector_has_the_declared_dimension(vector: list[float], fits: bool) -> None:
    declared = note({"id": str, "v": VECTOR})
    if fits:
        assert declared.encode(declared.cls(id="1", v=vector))["v"] == vector
        assert declared.encode_patch({"v": vector}) == {"v": vector}
        return
    message = rf"Note\.v: the vector has {len(vector)} components, the field declares 3"
    with pytest.raises(DimensionMismatch, match=message):
        declared.encode(declared.cls(id="1", v=vector))
    with pytest.raises(DimensionMismatch, match=message):
        declared.encode_patch({"v": vector})


# -- patches ------------------------------------------------------------------------------------------------------


def test_a_patch_holds_the_plain_form_of_what_changes() -> None:
    assert entity_type(Diary).encode_patch({"mood": Mood.BAD, "nick": None}) == {"mood": "bad", "nick": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "update of diary: the mapping names no field to change"),
        ({"tetx": "a"}, "Diary has no field 'tetx', did you mean 'text'?"),
        ({"id": "d2"}, "Diary.id: the key of a record cannot change; put a new record"),
        ({"count": None}, "Diary.count: an int is needed, not NoneType"),
    ],
)
def test_a_patch_that_cannot_be_carried_out_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidData) as caught:
        entity_type(Diary).encode_patch(changes)
    assert str(caught.value) == message


# -- corrupt bodies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"count": "s3cret"},
            "diary 'd1': the stored record does not fit Diary: Expected `int`, got `str` - at `$.count`",
        ),
        ({"mood": "s3cret"}, "diary 'd1': the stored record does not fit Diary: Invalid enum value - at `$.mood`"),
        (
            {"size": "s3 - at cret"},
            "diary 'd1': the stored record does not fit Diary: Invalid enum value - at `$.size`",
        ),
        (
            {"places": [{"city": 1}]},
            "diary 'd1': the stored record does not fit Diary: Expected `str`, got `int` - at ",
        ),
    ],
)
def test_a_body_that_does_not_fit_is_corrupt_and_its_value_is_not_shown(change: dict[str, Any], message: str) -> None:
    declared = entity_type(Diary)
    with pytest.raises(DecodeError) as caught:
        declared.decode(declared.encode(DIARY) | change)
    assert str(caught.value).startswith(message)
    assert "cret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_missing_field_is_corrupt() -> None:
    with pytest.raises(DecodeError, match="Object missing required field `text`"):
        entity_type(Diary).decode({"id": "d1"})


def test_a_body_that_a_pydantic_model_refuses_is_corrupt_and_its_value_is_not_shown() -> None:
    declared = entity_type(entity()(Model))
    with pytest.raises(DecodeError) as caught:
        declared.decode({"id": SOME_UUID, "title": 123456, "places": []})
    assert str(caught.value) == (f"model {SOME_UUID!r}: the stored record does not fit Model: string_type at title")


# -- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [(str, "a b/ㄱ", "a b/ㄱ"), (int, -7, "-7"), (UUID, SOME_UUID, str(SOME_UUID))],
)
def test_a_key_has_a_text_form_and_comes_back(hint: Any, value: object, text: str) -> None:
    declared = note({"id": hint})
    assert declared.key_id(value) == text
    assert declared.key_value(text) == value


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (str, "", "Note.id: the key is empty"),
        (str, 1, "Note.id: a str is needed, not int"),
        (str, "a\0", "Note.id: the text holds a NUL character, which not every store can keep"),
        (str, "\ud800", "Note.id: the text holds a lone surrogate, which is no valid Unicode"),
        (int, True, "Note.id: an int is needed, not bool"),
        (int, 2**63, "Note.id: the integer does not fit 64 bits; keep larger numbers as Decimal or str"),
        (UUID, str(SOME_UUID), "Note.id: a UUID is needed, not str"),
    ],
)
def test_an_impossible_key_is_refused(hint: Any, value: object, message: str) -> None:
    with pytest.raises(InvalidData) as caught:
        note({"id": hint}).key_id(value)
    assert str(caught.value) == message


def test_an_oversized_key_is_refused_in_keys_bodies_and_references() -> None:
    declared = note({"id": str, "to": Annotated[str, Relation("TO", to="x")]})
    long = "k" * 10_000
    for encode in (
        lambda: declared.key_id(long),
        lambda: declared.encode(declared.cls(id=long, to="a")),
        lambda: declared.encode(declared.cls(id="a", to=long)),
    ):
        with pytest.raises(ValueTooLarge, match="the key has 10000 bytes of UTF-8, the limit is 512"):
            encode()


def test_a_key_typed_in_another_unicode_form_is_the_same_key_everywhere() -> None:
    composed, decomposed = "\ud55c", "\u1112\u1161\u11ab"
    declared = note(
        {
            "id": str,
            "one": Annotated[str | None, Relation("ONE", to="note")],
            "many": Annotated[list[str], Relation("MANY", to="note")],
            "edges": Annotated[list[Edge[How]] | None, Relation("EDGES", to="note")],
        }
    )
    value = declared.cls(id=decomposed, one=decomposed, many=[decomposed], edges=[Edge(decomposed, How(1))])
    body = declared.encode(value)
    assert declared.key_id(decomposed) == body["id"] == composed
    assert {edge.to_id for edge in declared.edges(body)} == {composed}


# -- relations ----------------------------------------------------------------------------------------------------


def test_edges_are_the_relations_of_a_body_each_once() -> None:
    types = entity_types([Letter, Person])
    edges = types["letter"].edges({"id": "l1", "to": "p1", "via": ["p2", "p3", "p2"]})
    assert [(e.type, e.to_etype, e.to_id, dict(e.properties)) for e in edges] == [
        ("TO", "person", "p1", {}),
        ("VIA", "person", "p2", {}),
        ("VIA", "person", "p3", {}),
    ]
    assert types["person"].edges({"id": "p1", "friend": None}) == []


def test_edges_carry_their_properties() -> None:
    (edge,) = entity_type(Diary).edges(entity_type(Diary).encode(DIARY))
    assert (edge.type, edge.to_etype, edge.to_id, edge.properties) == ("ABOUT", "person", "p1", {"since": 2020})


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (str, "", "Note.to: the key is empty"),
        (list[str], ["a", ""], "Note.to: item 1: the key is empty"),
        (list[str], "a", "Note.to: a list is needed, not str"),
        (list[Edge[How]], [Edge("a\0", How(1))], "Note.to: item 0: to: the text holds a NUL character"),
    ],
)
def test_a_relation_names_possible_keys(hint: Any, value: object, message: str) -> None:
    declared = note({"id": str, "to": Annotated[hint, Relation("TO", to="x")]})
    with pytest.raises(InvalidData) as caught:
        declared.encode(declared.cls(id="1", to=value))
    assert str(caught.value).startswith(message)


# -- defaults and hashes ------------------------------------------------------------------------------------------


def test_a_default_is_made_once_and_in_plain_form() -> None:
    made: list[int] = []

    def factory() -> list[Place]:
        made.append(1)
        return [Place("서울", NOON)]

    @dataclasses.dataclass
    class Trip:
        id: str
        places: list[Place] = dataclasses.field(default_factory=factory)
        mood: Mood = Mood.GOOD
        nick: str | None = None

    declared = entity_type(entity()(Trip))
    assert not made, "a factory is not called at declaration"
    plain = [{"city": "서울", "seen": "2026-05-01T12:00:00+00:00", "price": None}]
    assert declared.default_of("places") == declared.default_of("places") == plain
    assert len(made) == 1
    assert (declared.default_of("mood"), declared.default_of("nick")) == ("good", None)
    with pytest.raises(KeyError):
        declared.default_of("id")


def test_pydantic_defaults_are_found() -> None:
    class WithDefaults(pydantic.BaseModel):
        id: str
        a: int = 3
        b: list[int] = pydantic.Field(default_factory=lambda: [1])
        c: str | None
        d: int = pydantic.Field(default_factory=lambda data: len(data))

    declared = entity_type(entity()(WithDefaults))
    assert (declared.default_of("a"), declared.default_of("b"), declared.default_of("c")) == (3, [1], None)
    with pytest.raises(KeyError):
        declared.default_of("d")  # it depends on the other fields, so there is none for all records


def test_the_content_hash_stays_what_it_is() -> None:
    """Stores hold these hashes: another value would make every copy look different from its home."""
    declared = entity_type(Diary)
    assert declared.content_hash(declared.encode(DIARY)).hex() == "dabdf27acb5631ed147432d1c4f2ca92"


def test_the_content_hash_follows_the_content_and_nothing_else() -> None:
    declared = entity_type(Diary)
    body = declared.encode(DIARY)
    same = {name: body[name] for name in reversed(body)}
    same["extra"] = dict(reversed(body["extra"].items()))
    assert declared.content_hash(same) == declared.content_hash(body)
    assert declared.content_hash(body | {"retired": 1}) == declared.content_hash(body)
    for name in declared.fields:
        assert declared.content_hash(body | {name: "another"}) != declared.content_hash(body), name
