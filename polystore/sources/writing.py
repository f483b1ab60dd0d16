"""Write records into a file, which appears under its name when it is complete."""

from __future__ import annotations

import csv
import gzip
import io
import os
import sys
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import msgspec

from polystore.entity import EntityType, entity_type
from polystore.sources.formats import Format, arrow, format_of, is_gzip
from polystore.sources.rows import JSON_COLUMN, cells, is_json, json_line

T = TypeVar("T")

CHUNK = 1_000
"""Records that are written at a time, and are a row group in Parquet: memory grows with these alone."""


async def export(
    values: AsyncIterable[T],
    cls: type[T],
    path: str | PathLike[str],
    *,
    format: Format | None = None,  # noqa: A002
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write the values, those of `Collection.stream` for instance, as CSV, JSON lines or Parquet; returns how many.

    path: the file, or "-" for standard output; the file is written beside its name and renamed when it is complete, so
    that nobody finds half of it, and an older one stays until then. format: as of `FileSource`. progress: called with
    the number written so far. Memory does not grow with the number. What a record is, comes back by `FileSource`; its
    version, time to live and the vectors that a caller gave do not.

    Raises ConfigurationError for an unknown format and, without pyarrow, for Parquet; InvalidData for what CSV cannot
    say; OSError; and what `values` raises. Then the file is as it was.
    """
    target = Path(path)
    make = _WRITERS[format_of(target, format)]
    count = 0
    with _opened(target) as file, closing(make(entity_type(cls), file)) as writer:
        chunk: list[T] = []
        async for value in values:
            chunk.append(value)
            if len(chunk) == CHUNK:
                writer.write(chunk)
                count += len(chunk)
                chunk = []
                if progress is not None:
                    progress(count)
        writer.write(chunk)
        count += len(chunk)
    if progress is not None:
        progress(count)
    return count


@contextmanager
def _opened(path: Path) -> Generator[BinaryIO]:
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as raw:
            if is_gzip(path):
                with gzip.GzipFile(filename="", fileobj=raw, mode="wb") as packed:
                    yield cast(BinaryIO, packed)
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


class _JsonLines:
    def __init__(self, entity: EntityType[Any], file: BinaryIO) -> None:
        self._entity = entity
        self._file = file

    def write(self, chunk: Sequence[Any]) -> None:
        self._file.write(b"".join(json_line(self._entity, value) for value in chunk))

    def close(self) -> None:
        """Nothing is held back."""


class _Csv:
    def __init__(self, entity: EntityType[Any], file: BinaryIO) -> None:
        self._entity = entity
        self._file = file
        self._write([list(entity.fields)])

    def write(self, chunk: Sequence[Any]) -> None:
        self._write(cells(self._entity, value) for value in chunk)

    def _write(self, rows: Iterable[list[str]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self._file.write(text.getvalue().encode())

    def close(self) -> None:
        """Nothing is held back."""


class _Parquet:
    def __init__(self, entity: EntityType[Any], file: BinaryIO) -> None:
        self._pa = pa = arrow()
        self._entity = entity
        types = {
            "int": pa.int64(),
            "float": pa.float64(),
            "bool": pa.bool_(),
            "bytes": pa.binary(),
            "datetime": pa.timestamp("us", tz="UTC"),
            "date": pa.date32(),
        }
        self._schema = pa.schema(
            [
                pa.field(name, types.get(spec.kind.name, pa.string()), metadata=JSON_COLUMN if is_json(spec) else None)
                for name, spec in entity.fields.items()
            ]
        )
        self._writer = arrow("pyarrow.parquet").ParquetWriter(file, self._schema)

    def write(self, chunk: Sequence[Any]) -> None:
        rows = [self._row(value) for value in chunk]
        self._writer.write_table(self._pa.Table.from_pylist(rows, self._schema))

    def _row(self, value: Any) -> dict[str, Any]:
        row = self._entity.encode(value)
        for name, spec in self._entity.fields.items():
            if is_json(spec):
                row[name] = msgspec.json.encode(row[name]).decode()
            elif spec.kind.name in ("decimal", "uuid") and row[name] is not None:
                row[name] = str(row[name])
        return row

    def close(self) -> None:
        self._writer.close()


_WRITERS: dict[Format, type[_Csv] | type[_JsonLines] | type[_Parquet]] = {
    "csv": _Csv,
    "jsonl": _JsonLines,
    "parquet": _Parquet,
}
