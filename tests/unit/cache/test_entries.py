"""What is kept of a record, and under which name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from polystore.cache.entries import Entries, name_of
from polystore.entity import entity, entity_type
from polystore.model import Body, Key, Record
from polystore.testing.conformance import MovableEnv
from polystore.testing.conformance.base import same
from polystore.testing.conformance.entities import THING, VALUES, Thing

MINUTE_US = 60_000_000


def record(body: Body | None, *, version: int = 5, expires_us: int = 0) -> Record:
    return Record(Key("acme", "kit_thing", "a"), version, body, b"", 17, expires_us)


@pytest.mark.parametrize("field", VALUES)
def test_a_record_comes_back_as_its_home_would_give_it(field: str) -> None:
    entries = Entries(THING, MovableEnv())
    for one in VALUES[field]:
        fields: dict[str, Any] = {field: one}
        body = THING.encode(Thing(id="a", **fields))
        kept = entries.encode(record(body))
        back = entries.record(Key("acme", "kit_thing", "a"), kept)
        assert back.body is not None
        assert same(dict(back.body), body)
        assert (back.version, back.updated_us, back.expires_us) == (5, 17, 0)
        value = entries.value(kept)
        assert value is not None
        assert same(THING.encode(value), body)


def test_no_such_record_is_an_entry_too() -> None:
    entries = Entries(THING, MovableEnv())
    kept = entries.encode(record(None, version=7))
    assert entries.value(kept) is None
    back = entries.record(Key("acme", "kit_thing", "a"), kept)
    assert (back.version, back.body) == (7, None)


def test_what_a_class_with_other_fields_wrote_is_not_read() -> None:
    @entity(name="note")
    @dataclass
    class Before:
        id: str
        text: str = ""

    @entity(name="note")
    @dataclass
    class Between:
        id: str
        text: str | None = ""

    @entity(name="note")
    @dataclass
    class After:
        id: str
        body: str = ""

    before, after = Entries(entity_type(Before), MovableEnv()), Entries(entity_type(After), MovableEnv())
    kept = before.encode(record({"id": "a", "text": "x"}))
    assert before.value(kept) == Before("a", "x")
    with pytest.raises(ValueError, match="required field"):
        after.value(kept)
    same_but_optional = Entries(entity_type(Between), MovableEnv())
    with pytest.raises(ValueError, match="other fields"):
        same_but_optional.value(kept)
    with pytest.raises(ValueError, match="other fields"):
        same_but_optional.record(Key("", "note", "a"), kept)
    with pytest.raises(ValueError):
        before.value(b"\xc1 no MessagePack")


def test_a_struct_and_a_pydantic_model_come_back() -> None:
    import pydantic

    @entity(name="one")
    class One(msgspec.Struct):
        id: str
        n: int

    @entity(name="two")
    class Two(pydantic.BaseModel):
        id: str
        n: int

    for cls in (One, Two):
        entries: Entries[Any] = Entries(entity_type(cls), MovableEnv())
        assert entries.value(entries.encode(record({"id": "a", "n": 3}))) == cls(id="a", n=3)


def test_an_entry_lives_as_long_as_it_may() -> None:
    env = MovableEnv()
    entries = Entries(THING, env)
    body = THING.encode(Thing(id="a"))
    lives = [entries.ttl_us(record(body)) / 1e6 for _ in range(200)]
    assert 270 <= min(lives) < 290 < 310 < max(lives) <= 330, "five minutes, a tenth more or less"
    assert 27 <= entries.ttl_us(record(None)) / 1e6 <= 33
    soon = entries.ttl_us(record(body, expires_us=env.now_us() + MINUTE_US))
    assert 59e6 < soon <= MINUTE_US
    assert entries.ttl_us(record(body, expires_us=env.now_us() - 1)) == 0


def test_an_entry_that_was_on_its_way_for_long_shows_no_expired_record() -> None:
    env = MovableEnv()
    entries = Entries(THING, env)
    kept = entries.encode(record(THING.encode(Thing(id="a")), expires_us=env.now_us() + MINUTE_US))
    assert entries.value(kept) is not None
    env.forward(61)
    assert entries.value(kept) is None
    assert entries.record(Key("acme", "kit_thing", "a"), kept).body is None


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (Key("", "note", "01932c5e-7a7b-7000-8000-000000000000"), "/note/01932c5e-7a7b-7000-8000-000000000000"),
        (Key("ac/me", "note", "a{b}%"), "ac%2Fme/note/a%7Bb%7D%25"),
        (Key("", "note", "가"), "/note/%EA%B0%80"),
        (Key("", "note_line", "a b:c"), "/note_line/a%20b%3Ac"),
    ],
)
def test_names_are_encoded(key: Key, name: str) -> None:
    assert name_of(key) == name
