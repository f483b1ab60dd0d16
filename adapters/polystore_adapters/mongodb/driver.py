"""PyMongo, and motor, which has the same methods: what a program's own client is, its types leave open."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC
from typing import Any, TypeAlias

import bson
from bson import Decimal128, Int64
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from pymongo import AsyncMongoClient

Client: TypeAlias = Any
"""An AsyncMongoClient, or motor's AsyncIOMotorClient."""
Database: TypeAlias = Any
Collection: TypeAlias = Any
Document: TypeAlias = dict[str, Any]


class _Int(TypeDecoder):
    @property
    def bson_type(self) -> Any:
        return Int64

    def transform_bson(self, value: Any) -> int:
        return int(value)


class _Decimal(TypeDecoder):
    @property
    def bson_type(self) -> Any:
        return Decimal128

    def transform_bson(self, value: Any) -> Any:
        return value.to_decimal()


RAW: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC, uuid_representation=UuidRepresentation.STANDARD)
"""Values as the driver has them: what is read can be written again."""
PLAIN: CodecOptions[Document] = RAW.with_options(type_registry=TypeRegistry([_Int(), _Decimal()]))
"""Values as bodies have them."""


def as_plain(raw: Mapping[str, Any]) -> Document:
    """A document of `RAW` values as one of `PLAIN` values."""
    module: Any = bson
    found: Document = module.decode(module.encode(raw, codec_options=RAW), codec_options=PLAIN)
    return found


def made(url: str, **options: Any) -> Client:
    """A client that has not connected yet."""
    return AsyncMongoClient(url, **options)


def is_client(value: object) -> bool:
    """Whether a program's object can be asked as PyMongo's asynchronous client is."""
    return isinstance(value, AsyncMongoClient) or type(value).__name__ == "AsyncIOMotorClient"


async def each(cursor: Any) -> AsyncGenerator[Document]:
    """The documents of a cursor; PyMongo's methods that aggregate are awaited for theirs, motor's are not. Close the
    generator where it is left early."""
    found: Any = await cursor if inspect.isawaitable(cursor) else cursor
    try:
        async for document in found:
            yield document
    finally:
        await found.close()


async def listed(cursor: Any) -> list[Document]:
    """All documents of a cursor."""
    return [document async for document in each(cursor)]
