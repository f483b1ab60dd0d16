"""SQLite files with records of one small entity, opened as the adapter opens them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from polystore_adapters.sqlite import connect
from polystore_adapters.sqlite.repository import SqliteRepository

from polystore.entity import EntityType, entity, entity_types
from polystore.env import Env
from polystore.facets import Unique
from polystore.model import Change, Commit, Committed, Key, Write, key_hash
from polystore.protocols import Layout


@entity()
@dataclass(kw_only=True)
class Account:
    id: str
    email: Annotated[str | None, Unique()] = None
    note: str = ""


ACCOUNT: EntityType[Any] = entity_types([Account])["account"]


def key(id: str, tenant: str = "") -> Key:
    return Key(tenant, "account", id)


def body(id: str, note: str = "", email: str | None = None) -> dict[str, Any]:
    return ACCOUNT.encode(Account(id=id, email=email, note=note))


def write(
    kind: Literal["create", "put", "update", "delete", "skip", "insert"],
    id: str,
    fields: Mapping[str, Any] | None = None,
    *,
    expect_version: int | None = None,
) -> Write:
    """A write of an account; without `fields` of one that has only its id."""
    whole = None if kind == "delete" else fields if fields is not None else body(id)
    hash = b"" if whole is None or kind == "update" else ACCOUNT.content_hash(whole)
    return Write(kind, key(id), key_hash("", "account", id), whole, hash, expect_version)


def change(id: str, version: int, fields: Mapping[str, Any] | None) -> Change:
    hash = b"" if fields is None else ACCOUNT.content_hash(fields)
    return Change(key(id), version, key_hash("", "account", id), fields, hash, version)


async def commit(store: SqliteRepository, *writes: Write) -> Committed:
    """One commit of these writes; raises its error."""
    (answer,) = await store.commit([Commit(writes)])
    if isinstance(answer, Exception):
        raise answer
    return answer


@asynccontextmanager
async def opened(
    path: Path,
    *,
    env: Env | None = None,
    home: bool = True,
    options: Mapping[str, Any] | None = None,
    types: Sequence[EntityType[Any]] = (ACCOUNT,),
    create: bool = True,
) -> AsyncGenerator[SqliteRepository]:
    """The file, prepared, and closed at the end."""
    store = await connect(f"sqlite:{path}", options or {}, env or Env())
    try:
        await store.prepare([Layout(one, home, frozenset()) for one in types], create=create)
        yield store
    finally:
        await store.aclose()
