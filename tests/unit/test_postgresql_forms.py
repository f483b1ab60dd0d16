"""What the PostgreSQL adapter makes of values, names and errors before a server sees them."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
import pytest
from polystore_adapters.postgresql.dialect import Codec, encode_json, ident
from polystore_adapters.postgresql.errors import by_state, translate
from polystore_adapters.postgresql.full_text import FullText, needle
from polystore_adapters.postgresql.options import Options
from polystore_adapters.postgresql.placeholders import shifted
from polystore_adapters.postgresql.pool import Pool
from polystore_adapters.postgresql.quick import Quick
from polystore_adapters.postgresql.records import Tables
from polystore_adapters.postgresql.table import RecordTable

from polystore.env import Env
from polystore.errors import (
    IntegrityViolation,
    InvalidData,
    OutcomeUnknown,
    PermissionDenied,
    SchemaMismatch,
    StoreCorrupt,
    StoreError,
    StoreFull,
    Unavailable,
    ValueTooLarge,
)
from polystore.protocols import Layout
from polystore.testing.conformance.entities import ACCOUNT, THING
from polystore.text import query


def test_floats_keep_their_point_in_json_and_texts_that_look_like_one_stay() -> None:
    for value in (1e22, -1e300, [1e16, {"a": 5e20}], {"x": "1e22", "y": 1.5}, 1e-7, 10, "2e+9"):
        text = encode_json(value)
        assert json.loads(text) == value
        assert "e+" not in text.replace('"2e+9"', "")
    assert encode_json(1e22) == "10000000000000000000000.0"


@pytest.mark.parametrize(("text", "kept"), [("1.10", False), ("1E+2", True), ("-0", True), ("0E-5", False)])
def test_decimals_that_numeric_writes_in_another_way_are_kept_beside(text: str, kept: bool) -> None:
    exact = Codec(THING).exact({"price": Decimal(text)})
    assert exact == (json.dumps({"price": text}, separators=(",", ":")) if kept else None)


def test_names_are_quoted_and_long_ones_stay_apart() -> None:
    assert ident("ps_h", 'a"b') == '"ps_h_a""b"'
    first, second = ident("ps_index", "x" * 60, "one"), ident("ps_index", "x" * 60, "two")
    assert first != second
    assert all(len(name.encode()) <= 65 for name in (first, second, ident("ps_index", "가" * 40)))


def test_parameters_are_shifted_and_what_stands_in_quotes_is_not() -> None:
    assert shifted("a = $1 AND b -> '$1' = \"c$2\" || 'it''s $3' AND $12", 4) == (
        "a = $5 AND b -> '$1' = \"c$2\" || 'it''s $3' AND $16"
    )


def test_neighbouring_phrases_are_counted_apart_and_fields_are_no_neighbours() -> None:
    line = FullText.line([["a", "a", "b"], ["c"]])
    assert line.count(needle(query("a b")[0])) == 2
    assert needle(query("학교에")[0]) in FullText.line([["학교", "교에", "에"]])
    assert needle(query("학교에")[0]) not in FullText.line([["학교"], ["교에", "에"]])


ERRORS: list[tuple[type[Any], type[Exception]]] = [
    (asyncpg.SerializationError, Unavailable),
    (asyncpg.DeadlockDetectedError, Unavailable),
    (asyncpg.UniqueViolationError, IntegrityViolation),
    (asyncpg.NotNullViolationError, IntegrityViolation),
    (asyncpg.ReadOnlySQLTransactionError, Unavailable),
    (asyncpg.InsufficientPrivilegeError, PermissionDenied),
    (asyncpg.InvalidPasswordError, PermissionDenied),
    (asyncpg.DiskFullError, StoreFull),
    (asyncpg.ProgramLimitExceededError, ValueTooLarge),
    (asyncpg.NumericValueOutOfRangeError, InvalidData),
    (asyncpg.AdminShutdownError, Unavailable),
    (asyncpg.TooManyConnectionsError, Unavailable),
    (asyncpg.DataCorruptedError, StoreCorrupt),
    (asyncpg.PostgresSyntaxError, StoreError),
]


@pytest.mark.parametrize(("error", "wanted"), ERRORS)
def test_errors_are_told_by_their_code_and_never_show_what_the_server_said(
    error: type[Any], wanted: type[Exception]
) -> None:
    for sent in (False, True):
        ours = translate(error("the secret value"), "postgresql db/app", sent=sent)
        assert type(ours) is wanted, "the server answered: nothing is unknown"
        assert "secret" not in str(ours)


def test_a_lost_connection_is_unknown_only_when_something_was_sent() -> None:
    cut = asyncpg.ConnectionDoesNotExistError("cut")
    assert type(translate(cut, "p", sent=True)) is OutcomeUnknown
    assert type(translate(cut, "p")) is Unavailable
    assert type(translate(ConnectionResetError(), "p", sent=True)) is OutcomeUnknown
    for refused in (asyncpg.InterfaceError("closed"), asyncpg.InternalClientError("busy")):
        assert type(translate(refused, "p", sent=True)) is Unavailable
    mistake = ValueError("ours")
    assert translate(mistake, "p", sent=True) is mistake


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        ("25P04", Unavailable),  # the server's own limit for transactions, since 17, which the driver has no class for
        ("57P05", Unavailable),
        ("57014", Unavailable),
        ("53300", Unavailable),
        ("55P03", Unavailable),
        ("28000", PermissionDenied),
        ("42704", SchemaMismatch),
        ("42P01", SchemaMismatch),
        ("P0001", IntegrityViolation),
        ("44000", IntegrityViolation),
        ("22021", InvalidData),
    ],
)
def test_codes_are_told_whichever_driver_says_them(state: str, wanted: type[Exception]) -> None:
    error = by_state(state, "postgresql db/app")
    assert type(error) is wanted
    assert "SQLSTATE" not in str(error), "it is said in words"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://app:secret@db:5432/app?sslmode=require", "postgresql db:5432/app"),
        ("postgresql://app:sec@ret@db/app", "postgresql db/app"),
        ("postgresql://db/app?user=a@secret", "postgresql"),
        ("postgresql://app:sec?ret@db/app", "postgresql"),
        ("postgresql:///app?host=/run/postgresql&password=secret", "postgresql /app"),
    ],
)
def test_where_a_store_is_never_shows_a_part_of_the_password(url: str, shown: str) -> None:
    assert Pool(url, Options(), Env()).place == shown


def test_the_statement_of_a_table_goes_with_it_and_never_serves_another_type() -> None:
    """A table that is made when another is gone often lies where that one lay."""
    tables = Tables()
    quick = Quick(Pool("postgresql://db/app", Options(), Env()), tables)
    for etype in (ACCOUNT, THING) * 20:
        table = tables[etype.name] = RecordTable(Layout(etype, True, frozenset()))
        assert f"INSERT INTO {table.name} " in quick._statement(table, "put", one=True)  # pyright: ignore[reportPrivateUsage]
        del tables[etype.name], table
