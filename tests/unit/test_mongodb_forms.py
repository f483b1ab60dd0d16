"""What the MongoDB adapter makes of values, conditions and errors before a server sees them, and after."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import bson
import pytest
from bson.errors import InvalidBSON, InvalidDocument
from bson.raw_bson import RawBSONDocument
from polystore_adapters.mongodb import records
from polystore_adapters.mongodb.conditions import query, sorting
from polystore_adapters.mongodb.documents import Codec, whole_and_rest
from polystore_adapters.mongodb.driver import PLAIN, RAW, packed, unpacked
from polystore_adapters.mongodb.errors import translate
from polystore_adapters.mongodb.full_text import holds
from polystore_adapters.mongodb.held import differs
from polystore_adapters.mongodb.options import parse
from pymongo import errors as driver

from polystore import text
from polystore.errors import (
    ConfigurationError,
    DecodeError,
    IntegrityViolation,
    InvalidData,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    SchemaMismatch,
    StoreError,
    StoreFull,
    Unavailable,
    UnsupportedOperation,
    ValueTooLarge,
)
from polystore.filters import Condition, F
from polystore.model import Key
from polystore.testing.conformance.base import change
from polystore.testing.conformance.entities import THING, TIMES, Thing


@pytest.mark.parametrize("at", TIMES)
def test_a_time_is_its_milliseconds_and_the_microseconds_beyond(at: datetime) -> None:
    whole, rest = whole_and_rest(at)
    assert whole + timedelta(microseconds=rest) == at
    assert 0 <= rest < 1000
    assert unpacked(packed({"at": whole}), PLAIN)["at"] == whole


def test_a_value_that_no_document_holds_is_refused_and_not_shown() -> None:
    codec = Codec(THING, None)
    good = change(THING, Thing(id="a", at=datetime(2024, 1, 1, tzinfo=UTC)), 1)
    assert codec.decode(unpacked(RawBSONDocument(codec.encoded(good, 0)), PLAIN)) == good.body
    for field, value in (("number", 1 << 63), ("word", "\ud800"), ("extra", {"secret\0": 1}), ("price", "secret")):
        bad = change(THING, Thing(id="a"), 1)
        assert bad.body is not None
        body: Any = {**bad.body, field: value}
        with pytest.raises(InvalidData) as caught:
            codec.encoded(type(bad)(bad.key, 1, bad.h, body, b"", 0), 0)
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None


CONDITIONS: list[tuple[Condition, bool]] = [
    (F.number > 3, True),
    (~(F.at <= datetime(2024, 1, 1, tzinfo=UTC)) | F.word.contains("$x"), True),
    (F.address.city == "x", True),
    (F.address.zip.is_null() & F.address.floors.contains(3), True),
    (F.tags.contains("x") & ~F.maybe_tags.is_null(), True),
    (F.extra.a == 1, False),
    (~(F.extra.a == 1), False),
    (F.extra["$where"] == "x", False),
    (F.word.contains("x" * 2_000), False),
]


@pytest.mark.parametrize(("condition", "exact"), CONDITIONS)
def test_what_the_server_judges_by_itself_and_what_is_judged_once_more(condition: Condition, exact: bool) -> None:
    asked = query(THING.condition(condition), THING)
    assert asked.exact == exact
    bson.encode(asked.find, codec_options=RAW)  # the driver can send it


def test_what_is_free_in_its_form_is_asked_for_as_far_as_an_index_can_help() -> None:
    assert query(THING.condition((F.extra.a == 1) & (F.number == 2)), THING).find == {
        "$and": [{"extra.a": {"$eq": 1}}, {"number": {"$eq": 2}}]
    }
    assert query(THING.condition((F.extra["$x"] == 1) | (F.number == 2)), THING).find == {}
    assert query(THING.condition(~(F.extra.a == 1)), THING).find == {}


def test_only_fields_that_may_be_missing_need_more_than_a_sort() -> None:
    assert sorting(THING.sort([F.at, F.id.desc()]), THING) == [{"$sort": {"at": 1, "ps_us_at": 1, "id": -1}}]
    flagged, sort = sorting(THING.sort([F.maybe_word, F.maybe_number.desc()]), THING)
    assert [*flagged["$set"]] == ["ps_without_maybe_word"]
    assert [*sort["$sort"].items()] == [("ps_without_maybe_word", 1), ("maybe_word", 1), ("maybe_number", -1)]


def test_a_phrase_asks_the_index_first() -> None:
    assert holds(text.query("학교")[0]) == {"ps_terms": {"$all": ["학교"]}}
    assert holds(text.query("학")[0]) == {"ps_terms": {"$regex": "^학"}}
    assert holds(text.query("학교에")[0]) == {
        "ps_terms": {"$all": ["학교", "교에"]},
        "ps_line": {"$regex": r"\ 학교\ \ 교에\ "},
    }


def test_an_index_is_compared_by_keys_in_their_order_and_by_what_it_promises() -> None:
    there = {"name": "x", "v": 2, "key": {"a": 1.0, "b": -1}, "storageEngine": {}}
    assert not differs({"key": {"a": 1, "b": -1}}, there)
    assert differs({"key": {"b": -1, "a": 1}}, there)
    assert differs({"key": {"a": 1, "b": -1}, "unique": True}, there)
    assert differs({"key": {"a": 1, "b": -1}}, {**there, "expireAfterSeconds": 5})
    assert not differs({"key": {"t": "text"}}, {"key": {"_fts": "text", "_ftsx": 1}, "weights": {"t": 1}})


ERRORS: list[tuple[Exception, bool, type[Exception]]] = [
    (driver.ServerSelectionTimeoutError("secret"), True, Unavailable),
    (driver.WaitQueueTimeoutError("secret"), True, Unavailable),
    (driver.AutoReconnect("secret"), False, Unavailable),
    (driver.AutoReconnect("secret"), True, OutcomeUnknown),
    (driver.NetworkTimeout("secret"), True, OutcomeUnknown),
    (driver.NotPrimaryError("secret"), True, Unavailable),
    (driver.NotPrimaryError("secret", {"code": 13435}), True, Unavailable),
    (driver.NotPrimaryError("secret", {"code": 11602}), False, Unavailable),
    (driver.NotPrimaryError("secret", {"code": 11602}), True, OutcomeUnknown),
    (driver.NotPrimaryError("secret", {"code": 91}), True, OutcomeUnknown),
    (driver.BulkWriteError({"writeErrors": [{"code": 16908292, "errmsg": "secret"}]}), False, Unavailable),
    (driver.BulkWriteError({"writeConcernErrors": [{"code": 64, "errmsg": "secret"}]}), True, OutcomeUnknown),
    (driver.CursorNotFound("secret", 43), False, Unavailable),
    (InvalidBSON("secret"), False, DecodeError),
    (InvalidDocument("secret"), True, InvalidData),
    (driver.InvalidOperation("secret"), True, Unavailable),
    (driver.ConfigurationError("secret"), False, ConfigurationError),
    (driver.DuplicateKeyError("secret", 11000), True, IntegrityViolation),
    (driver.WTimeoutError("secret", 64), True, OutcomeUnknown),
    (OverflowError("secret"), True, InvalidData),
    *(
        (driver.OperationFailure("secret", code), sent, kind)
        for code, sent, kind in (
            (1, False, Unavailable),
            (1, True, OutcomeUnknown),
            (13, True, PermissionDenied),
            (18, False, PermissionDenied),
            (26, False, SchemaMismatch),
            (50, False, Unavailable),
            (52, True, InvalidData),
            (59, False, UnsupportedOperation),
            (85, True, SchemaMismatch),
            (112, True, Unavailable),
            (121, True, InvalidData),
            (10334, True, ValueTooLarge),
            (11600, False, Unavailable),
            (13436, False, Unavailable),
            (14031, True, StoreFull),
            (89, True, OutcomeUnknown),
            (89, False, Unavailable),
            (133, False, Unavailable),  # a router without a primary
            (134, False, Unavailable),  # a member that has just started
            (175, False, Unavailable),
            (365, True, Unavailable),
            (462, True, RateLimited),
            (67, False, SchemaMismatch),
            (171, True, InvalidData),
            (17280, True, ValueTooLarge),
            (16908292, True, Unavailable),
            (999_999, True, StoreError),
        )
    ),
]


@pytest.mark.parametrize(("error", "sent", "kind"), ERRORS)
def test_errors_are_told_by_class_and_code_and_without_their_text(error: Exception, sent: bool, kind: type) -> None:
    told = translate(error, "mongodb app", sent=sent)
    assert type(told) is kind
    assert "secret" not in str(told)


def test_what_is_not_ours_is_the_driver_s() -> None:
    known, theirs = parse({"pool_size": 3, "tlsCAFile": "ca.pem"})
    assert (known.pool_size, theirs) == (3, {"tlsCAFile": "ca.pem"})
    for wrong in (
        {"pool_size": "3"},
        {"collections": {"x": {"capped_documents": 5}}},
        {"collections": {"x": {"indexes": {"ps_text": {"keys": {"a": 1}}}}}},
        {"collections": {"x": {"sharding": 1}}},
        {"collections": {"x": {"shard_key": {"ps_tenant": 1}}}},
        {"collections": {"x": {"shard_key": {"_id": 1}, "capped_bytes": 1 << 20}}},
    ):
        with pytest.raises(ConfigurationError, match="options of a mongodb: store"):
            parse(wrong)


def test_of_a_batch_whose_parts_fail_differently_the_unknown_outcome_is_told() -> None:
    """Unavailable would say that nothing of it was done."""

    async def refused(writes: object, ordered: bool) -> None:
        errors = [{"index": i, "code": code, "errmsg": "secret"} for i, code in enumerate((112, 11602))]
        raise driver.BulkWriteError({"writeErrors": errors})

    batch: Any = vars(records)["_Batch"]
    held = SimpleNamespace(documents=SimpleNamespace(bulk_write=refused))
    keys = [Key("", "thing", id) for id in "ab"]
    with pytest.raises(OutcomeUnknown):
        asyncio.run(batch("mongodb", held, {}, {})._send(dict.fromkeys(keys, object())))
