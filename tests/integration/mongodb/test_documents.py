"""What another program finds in the collections, read with PyMongo itself."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from bson import DatetimeMS, Decimal128
from polystore_adapters.mongodb import connect, prepare
from polystore_adapters.mongodb.prepare import _Preparation  # pyright: ignore[reportPrivateUsage]
from pymongo import MongoClient

from polystore.entity import EntityType, entity, entity_type
from polystore.env import Env
from polystore.errors import DecodeError, Unavailable
from polystore.facets import FullText, Index
from polystore.filters import Condition, F
from polystore.model import EVERYTHING, UNREADABLE, Change, Key
from polystore.protocols import Layout
from polystore.testing.conformance.base import change, key_of, removal
from polystore.text import query
from tests.mongodb import fresh_database
from tests.sockets import forgotten_connections
from tests.stack import address

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
UUID_1 = UUID(int=1)


@dataclass
class Message:
    role: str
    text: str
    at: datetime


@entity(data_type="conversation")
@dataclass(kw_only=True)
class Conversation:
    id: str
    topic: Annotated[str, FullText(), Index()]
    begun: Annotated[datetime, Index()]
    day: date
    price: Decimal
    number: int
    code: UUID
    messages: list[Message] = field(default_factory=list[Message])
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


CONVERSATION: EntityType[Conversation] = entity_type(Conversation)
PRICE = Decimal("1.10")
BEGUN = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)
REFERENCES = {"$ref": "#/a", "$id": 1 << 60, "$db": [{"$ref": None, "$id": 2.0}]}
EXTRA = {
    "schema": REFERENCES,
    "$name": "$topic",
    "a.b": {"$set": {"x": 1}},
    "": 1,
    "__proto__": [None, "$$ROOT", {"$literal": "\x01"}],
}


def conversation(id: str, version: int = 1, topic: str = "우리 학교", price: Decimal = PRICE, **fields: Any) -> Change:
    day = date(2024, 2, 29)
    value = Conversation(id=id, topic=topic, begun=BEGUN, day=day, price=price, number=7, code=UUID_1, **fields)
    return change(CONVERSATION, value, version)


@pytest.fixture(autouse=True)
def forgotten() -> Generator[None]:
    with forgotten_connections():
        yield


@pytest.fixture
def url() -> Generator[str]:
    with fresh_database() as url:
        yield url


def stored(url: str, *changes: Change, where: Condition | None = None) -> Sequence[Any]:
    """Write the changes; the records that are found under the condition, and the ids of those with 학교."""

    async def main() -> Sequence[Any]:
        mongo = await connect(url, {}, Env())
        try:
            await mongo.prepare([Layout(CONVERSATION, False, frozenset({"full_text"}))], create=True)
            assert [one.status for one in await mongo.apply(changes)] == ["applied"] * len(changes)
            by = CONVERSATION.sort([F.id])
            found = await mongo.find("conversation", "", CONVERSATION.condition(where), by, 100)
            matches = await mongo.search("conversation", "", query("학교"), None, 10, None)
            await mongo.scan("conversation", "", EVERYTHING, None, 10)
            return found, [one.id for one in matches], await mongo.newest("conversation")
        finally:
            await mongo.aclose()

    return asyncio.run(main())


def documents(url: str) -> dict[str, dict[str, Any]]:
    with MongoClient[dict[str, Any]](url, tz_aware=True, uuidRepresentation="standard") as client:
        return {one["_id"]["id"]: one for one in client.get_default_database().conversation.find()}


def test_fields_have_their_own_names_and_the_types_that_mongodb_has_for_them(url: str) -> None:
    messages = [Message("user", "안녕", BEGUN), Message("agent", "$text", BEGUN)]
    stored(url, conversation("가", messages=messages, extra=EXTRA))
    (found,) = documents(url).values()
    assert found["_id"] == {"tenant": "", "id": "가"}
    assert (found["id"], found["topic"], found["number"]) == ("가", "우리 학교", 7)
    assert (found["begun"], found["ps_us_begun"]) == (BEGUN.replace(microsecond=123_000), 456)
    assert (found["day"], found["price"]) == (datetime(2024, 2, 29, tzinfo=UTC), Decimal128("1.10"))
    assert found["code"] == UUID_1
    said = [
        {"role": role, "text": text, "at": BEGUN.isoformat()} for role, text in (("user", "안녕"), ("agent", "$text"))
    ]
    assert found["messages"] == said
    assert found["extra"] == EXTRA
    assert (found["ps_tenant"], found["ps_version"], found["ps_terms"]) == ("", 1, ["교", "리", "우리", "학교"])


def test_names_and_values_that_are_words_of_queries_are_neither_carried_out_nor_lost(url: str) -> None:
    ids = ("$name", "a.b", "__proto__", "$$ROOT", "{$ne:1}")
    found, _, _ = stored(url, *(conversation(id, topic=id, extra=EXTRA) for id in ids), where=F.topic.in_(ids))
    assert [(one.key.id, one.body["topic"], one.body["extra"]) for one in found] == [
        (id, id, EXTRA) for id in sorted(ids)
    ]
    for where in (
        F.topic == "$name",
        F.topic.startswith("$n"),
        F.extra["__proto__"].contains("$$ROOT") & (F.topic < "$o"),
    ):
        found, _, _ = stored(url, where=where)
        assert [one.key.id for one in found] in (["$name"], ["$$ROOT", "$name"])
    assert stored(url, where=F.extra["$name"] == "$topic")[0]
    assert not stored(url, where=F.extra["$name"] == "$name")[0]


def test_a_decimal_among_others_is_found_however_it_was_written(url: str) -> None:
    """FerretDB's own `$in` tells 0.1 and 0.10 apart, and it makes one of several equalities too."""
    one, other = Decimal("0.1"), Decimal(7)
    found, _, _ = stored(
        url,
        *(
            conversation(id, price=Decimal(price))
            for id, price in (("a", "0.10"), ("b", "0.1"), ("c", "1E-1"), ("d", "1"))
        ),
        where=F.price.in_([one, other]),
    )
    assert [record.key.id for record in found] == ["a", "b", "c"]
    for where in ((F.price == one) | (F.price == other), ~((F.price != one) & (F.price != other))):
        assert [record.key.id for record in stored(url, where=where)[0]] == ["a", "b", "c"], repr(where)


def test_a_deleted_record_leaves_what_the_server_removes_one_day_and_its_version_stays_known(url: str) -> None:
    stored(url, conversation("a", 1), conversation("b", 1))
    assert stored(url, removal(key_of(CONVERSATION, "b"), 9))[1:] == (["a"], 9)
    gone = documents(url)["b"]
    assert gone.keys() == {"_id", "ps_version", "ps_h", "ps_updated_us", "ps_deleted", "ps_purge_at"}
    assert 6 < (gone["ps_purge_at"] - datetime.now(UTC)).days + 1 <= 7
    with MongoClient[dict[str, Any]](url) as client:
        index = client.get_default_database().conversation.index_information()["ps_purge"]
        assert (index["key"], index["expireAfterSeconds"]) == ([("ps_purge_at", 1)], 0)
        client.get_default_database().conversation.delete_one({"_id": gone["_id"]})  # as the server does
    assert stored(url)[2] == 9


async def look_now(url: str, server: str) -> None:
    """The server looks for what is over by itself: FerretDB each minute, for which a job of its PostgreSQL, which has
    the port after its own, is called."""
    if server == "mongodb":
        with MongoClient[dict[str, Any]](url) as client:
            client.admin.command({"setParameter": 1, "ttlMonitorSleepSecs": 1})
        return
    asyncpg: Any = importlib.import_module("asyncpg")
    host, port = address(url)
    connection = await asyncpg.connect(host=host, port=port + 1, user="polystore", database="postgres")
    await connection.execute("CALL documentdb_api_internal.delete_expired_rows()")
    await connection.close()


def test_the_server_removes_what_is_left_of_deleted_records_and_no_others(url: str) -> None:
    async def main() -> None:
        mongo = await connect(url, {"tombstone_ttl_s": 0.001}, Env())
        try:
            await mongo.prepare([Layout(CONVERSATION, False, frozenset())], create=True)
            await mongo.apply([conversation("a", 1), removal(key_of(CONVERSATION, "b"), 9)])
            async with asyncio.timeout(60):
                while (await mongo.get([key_of(CONVERSATION, "b")])) != [None]:
                    await look_now(url, (await mongo.ping()).server)
                    await asyncio.sleep(0.05)
            assert (await mongo.get([key_of(CONVERSATION, "a")])) != [None]
            assert await mongo.newest("conversation") == 9
        finally:
            await mongo.aclose()

    asyncio.run(main())


def test_what_another_program_spoils_is_told_and_never_taken_for_missing(url: str) -> None:
    stored(url, conversation("a"))
    with MongoClient[dict[str, Any]](url) as client:
        conversations = client.get_default_database().conversation
        conversations.update_one({}, {"$set": {"number": "seven"}})
        with pytest.raises(DecodeError, match="'number' is no int") as caught:
            stored(url)
        assert "seven" not in str(caught.value)
        conversations.update_one({}, {"$set": {"number": 7, "ps_terms": ["other"]}})

    async def faults() -> list[str]:
        mongo = await connect(url, {}, Env())
        await mongo.prepare([Layout(CONVERSATION, False, frozenset({"full_text"}))], create=False)
        page = await mongo.scan("conversation", "", EVERYTHING, None, 10)
        assert await mongo.get([Key("", "conversation", "a")]) != [None]
        await mongo.aclose()
        return [one.fault for one in page.stamps]

    assert asyncio.run(faults()) == ["full text: the indexed terms are not those of the text"]


@pytest.mark.parametrize(
    ("spoiled", "named"),
    [
        ({"$unset": {"ps_version": 1}}, "'ps_version' is no int"),
        ({"$set": {"ps_expires_us": "soon"}}, "'ps_expires_us' is no int"),
        ({"$unset": {"ps_hash": 1}}, "'ps_hash' is no bytes"),
        ({"$set": {"begun": DatetimeMS(1 << 60)}}, "'begun' is no datetime"),  # one that Python has not
    ],
)
def test_one_spoiled_document_is_told_found_by_a_comparison_and_mended(
    spoiled: Mapping[str, Any], named: str, url: str
) -> None:
    good = conversation("a", 3)

    async def main() -> None:
        mongo = await connect(url, {}, Env())
        try:
            await mongo.prepare([Layout(CONVERSATION, False, frozenset())], create=True)
            await mongo.apply([good, conversation("b", 3)])
            conversations = mongo.client.get_default_database().conversation
            await conversations.insert_one({"_id": "a stranger's"})
            await conversations.update_one({"_id.id": "a"}, spoiled)
            for call in (lambda: mongo.get([good.key]), lambda: mongo.find("conversation", "", None, (), 10)):
                with pytest.raises(DecodeError, match=named):
                    await call()
            page = await mongo.scan("conversation", "", EVERYTHING, None, 10)
            assert {one.id: one.fault for one in page.stamps} == {"a": UNREADABLE, "b": ""}
            assert await mongo.newest("conversation") == 3
            (mended,) = await mongo.apply([msgspec.structs.replace(good, overwrites=True)])
            assert mended.status == "applied"
            (found,) = await mongo.get([good.key])
            assert found is not None
            assert (found.version, found.body) == (3, good.body)
        finally:
            await mongo.aclose()

    asyncio.run(main())


@entity(name="note")
@dataclass(kw_only=True)
class Note:
    id: str
    text: Annotated[str, FullText()]
    since: datetime | None = None
    owner: str = "nobody"


@entity(name="note")
@dataclass(kw_only=True)
class Shortened:
    id: str
    text: str


def test_a_field_that_the_class_has_no_more_stays_when_its_record_is_written_again(url: str) -> None:
    note, shortened = entity_type(Note), entity_type(Shortened)

    async def prepared(etype: EntityType[Any], *changes: Change) -> Sequence[Any]:
        mongo = await connect(url, {}, Env())
        try:
            facets: frozenset[Any] = frozenset({"full_text"} if etype.full_text else ())
            await mongo.prepare([Layout(etype, False, facets)], create=True)
            await mongo.apply(changes)
            matches = await mongo.search("note", "", query("학교"), None, 10, None) if facets else []
            return [*await mongo.get([Key("", "note", "a")]), [one.id for one in matches]]
        finally:
            await mongo.aclose()

    before = Note(id="a", text="학교", since=BEGUN, owner="me")
    asyncio.run(prepared(note, change(note, before, 1)))
    asyncio.run(prepared(shortened, change(shortened, Shortened(id="a", text="$new"), 2)))
    found, matches = asyncio.run(prepared(note))
    assert (found.version, note.decode(found.body)) == (2, Note(id="a", text="$new", since=BEGUN, owner="me"))
    assert matches == []


@entity(name="note", renamed={"words": "text", "at": "since"})
@dataclass(kw_only=True)
class Reworded:
    id: str
    words: Annotated[str, FullText()]
    at: datetime | None = None
    owner: str = "nobody"
    mood: str = "calm"


def test_a_change_of_the_class_that_ends_in_the_middle_is_carried_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    note, reworded = entity_type(Note), entity_type(Reworded)
    given = [Note(id=id, text=f"학교 {id}", since=BEGUN, owner="me") for id in "abcde"]
    wanted = [Reworded(id=one.id, words=one.text, at=BEGUN, owner="me") for one in given]
    replace: Any = _Preparation._replace  # pyright: ignore[reportPrivateUsage]
    pages: list[int] = []

    async def once(self: _Preparation, page: Mapping[Any, Any]) -> None:
        pages.append(len(page))
        if len(pages) == 2:
            raise Unavailable("lost")
        await replace(self, page)

    async def main() -> None:
        mongo = await connect(url, {}, Env())
        try:
            await mongo.prepare([Layout(note, False, frozenset({"full_text"}))], create=True)
            await mongo.apply([change(note, one, 1) for one in given])
            monkeypatch.setattr(prepare, "PAGE", 2)
            monkeypatch.setattr(_Preparation, "_replace", once)
            layout = Layout(reworded, False, frozenset({"full_text"}))
            with pytest.raises(Unavailable):
                await mongo.prepare([layout], create=True)
            there = [one async for one in mongo.client.get_default_database().note.find()]
            assert (pages, sum("words" in one for one in there), sum("text" in one for one in there)) == ([2, 2], 2, 3)
            await mongo.prepare([layout], create=True)
            found = await mongo.get([Key("", "note", one.id) for one in wanted])
            assert [one and one.body and reworded.decode(one.body) for one in found] == wanted
            assert [one and one.hash for one in found] == [change(reworded, one, 1).hash for one in wanted]
            assert not [one async for one in mongo.client.get_default_database().note.find({"text": {"$exists": True}})]
            matches = await mongo.search("note", "", query("학교"), None, 10, None)
            assert sorted(one.id for one in matches) == list("abcde")
        finally:
            await mongo.aclose()

    asyncio.run(main())
