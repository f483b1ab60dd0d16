"""PyMongo, and motor, which has the same methods: what a program's own client is, its types leave open."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator
from datetime import UTC
from typing import Any, TypeAlias, cast

import bson
from bson import Decimal128, Int64
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion, TypeDecoder, TypeRegistry
from bson.raw_bson import RawBSONDocument
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


RAW: CodecOptions[Document] = CodecOptions(
    tz_aware=True,
    tzinfo=UTC,
    uuid_representation=UuidRepresentation.STANDARD,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,  # one that Python has not is no reason to read nothing
)
"""Values as the driver has them: what is read can be written again."""
PLAIN: CodecOptions[Document] = RAW.with_options(type_registry=TypeRegistry([_Int(), _Decimal()]))
"""Values as bodies have them."""
UNREAD: CodecOptions[RawBSONDocument] = CodecOptions(
    document_class=RawBSONDocument, uuid_representation=UuidRepresentation.STANDARD
)
"""Documents as bytes, for `unpacked`."""
_REFERENCE = b"$ref\0"


def unpacked(document: RawBSONDocument, options: CodecOptions[Document]) -> Document:
    """The values of a document. Where there is a `$ref`, the driver by itself would make other objects of what to us is
    a name like any other."""
    if _REFERENCE not in document.raw:
        decode: Any = getattr(bson, "decode")  # noqa: B009 -- what it takes is half unknown to type checkers
        found: Document = decode(document.raw, codec_options=options)
        return found
    by_steps: Any = options.with_options(document_class=RawBSONDocument)
    return {name: _stepped(value) for name, value in RawBSONDocument(document.raw, by_steps).items()}


def _stepped(value: Any) -> Any:
    if isinstance(value, RawBSONDocument):
        return {name: _stepped(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_stepped(one) for one in cast(list[Any], value)]
    return value


def packed(document: Document) -> RawBSONDocument:
    return RawBSONDocument(bson.encode(document, codec_options=RAW))


def made(url: str, **options: Any) -> Client:
    """A client that has not connected yet."""
    return AsyncMongoClient(url, **options)


def is_client(value: object) -> bool:
    """Whether a program's object can be asked as PyMongo's asynchronous client is."""
    return isinstance(value, AsyncMongoClient) or type(value).__name__ == "AsyncIOMotorClient"


async def each(cursor: Any, options: CodecOptions[Document] = PLAIN) -> AsyncGenerator[Document]:
    """The documents of a cursor; PyMongo's methods that aggregate are awaited for theirs, motor's are not. Close the
    generator where it is left early."""
    found: Any = await cursor if inspect.isawaitable(cursor) else cursor
    try:
        async for document in found:
            yield unpacked(document, options) if isinstance(document, RawBSONDocument) else document
    finally:
        await found.close()


async def listed(cursor: Any) -> list[Document]:
    """All documents of a cursor."""
    return [document async for document in each(cursor)]
