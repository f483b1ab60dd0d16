"""Read the records of a file, one after the other, as values of an entity."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import msgspec

from polystore.conditions import nearest
from polystore.entity import entity_type
from polystore.errors import ConfigurationError, InvalidData
from polystore.model import VALUE_BYTES_MAX
from polystore.sources.formats import Format, arrow, format_of, is_gzip
from polystore.sources.rows import JSON_COLUMN, Rows

T = TypeVar("T")

LINE_CHARS_MAX = 2 * VALUE_BYTES_MAX
"""A longer line is no record that a store takes, and must not fill the memory."""
BATCH = 1_000
"""Rows that are taken from a Parquet file at a time."""

_Row = Mapping[str, Any] | InvalidData
_Place = tuple[str, int]
"""("line", 3) or ("row", 3), counted from 1."""


class FileSource(Generic[T]):
    """The records of a CSV file (with a header), a file of JSON lines, or a Parquet file, for
    `Collection.import_many`. Memory does not grow with the file.

    Values are of the class `cls`; the texts of a CSV file are converted to the types of its fields. In the place of a
    row that does not fit stands an InvalidData that names the line. format: "csv", "jsonl" or "parquet"; None: by the
    ending of the name, `.gz` behind the first two means compressed. encoding: of CSV and JSON lines; None is UTF-8 with
    or without a byte order mark, Korean files of Excel are often "cp949". renamed: column of the file -> field.
    ignore_unknown: leave out what `cls` has no field for, instead of taking such rows as unfit.

    Raises ConfigurationError for an unknown format or field, and, without pyarrow, for Parquet. Each iteration reads
    the file anew, and raises InvalidData where the file as a whole cannot be read: what was yielded before stands.
    """

    def __init__(
        self,
        cls: type[T],
        path: str | PathLike[str],
        *,
        format: Format | None = None,  # noqa: A002
        encoding: str | None = None,
        renamed: Mapping[str, str] | None = None,
        ignore_unknown: bool = False,
    ) -> None:
        self._path = Path(path)
        self._format = format_of(self._path, format)
        self._encoding = encoding or "utf-8-sig"
        self._how = msgspec.json.encode((self._format, self._encoding, sorted((renamed or {}).items()), ignore_unknown))
        entity = entity_type(cls)
        for name in (renamed or {}).values():
            if name not in entity.fields:
                raise ConfigurationError(f"renamed: {cls.__name__} has no field {name!r}{nearest(name, entity.fields)}")
        self._rows = Rows(entity, renamed or {}, ignore_unknown=ignore_unknown)
        self._read: Callable[[], float] = _nothing
        if self._format == "parquet":
            arrow()

    @property
    def done(self) -> float:
        """Which part of the file the last iteration has read, 0 to 1."""
        return self._read()

    def name(self) -> str:
        """A text that changes with the file's name, its content and how it is read: a good `resume=`. Reads it all."""
        with self._path.open("rb") as raw:
            digest = hashlib.file_digest(raw, "blake2b")
        digest.update(self._how)
        return f"{self._path.name}-{digest.hexdigest()[:16]}"

    def __iter__(self) -> Iterator[T | InvalidData]:
        rows = {"csv": self._csv, "jsonl": self._jsonl, "parquet": self._parquet}[self._format]()
        for (unit, number), row in rows:
            try:
                if isinstance(row, InvalidData):
                    raise row
                yield self._rows.value(row, cells=self._format == "csv")
            except InvalidData as e:
                yield type(e)(f"{self._path.name}, {unit} {number}: {e}")

    # -- formats ------------------------------------------------------------------------------------------------

    def _jsonl(self) -> Iterator[tuple[_Place, _Row]]:
        with self._lines() as lines:
            for number, line in enumerate(lines, 1):
                if not line.isspace():
                    yield ("line", number), _json_object(line)

    def _csv(self) -> Iterator[tuple[_Place, _Row]]:
        csv.field_size_limit(VALUE_BYTES_MAX)
        with self._lines() as lines:
            reader = csv.reader(lines, strict=True)
            try:
                header = next(reader, list[str]())
                if len(set(header)) < len(header):
                    raise InvalidData(f"{self._path.name}: two columns have the same name; rename one of them")
                line = reader.line_num
                for cells in reader:
                    if cells:
                        yield ("line", line + 1), _named(header, cells)
                    line = reader.line_num
            except csv.Error as e:
                raise InvalidData(f"{self._path.name}, line {reader.line_num}: this is no CSV: {e}") from None

    @contextmanager
    def _lines(self) -> Generator[Iterator[str]]:
        """The lines as they stand, ends included."""
        size = max(1, self._path.stat().st_size)
        with self._path.open("rb") as raw:
            self._read = lambda: 1.0 if raw.closed else raw.tell() / size
            plain = cast(io.BufferedReader, gzip.GzipFile(fileobj=raw)) if is_gzip(self._path) else raw
            with io.TextIOWrapper(plain, self._encoding, newline="\n") as text:
                yield self._checked(text)

    def _checked(self, text: io.TextIOWrapper) -> Iterator[str]:
        number = 0
        try:
            while line := text.readline(LINE_CHARS_MAX + 1):
                number += 1
                if len(line) > LINE_CHARS_MAX:
                    raise InvalidData(f"{self._path.name}, line {number}: it has more than {LINE_CHARS_MAX} characters")
                yield line
        except UnicodeDecodeError as e:
            raise InvalidData(
                f"{self._path.name}, behind line {number}: this is no {self._encoding.removesuffix('-sig')} "
                f"({e.reason}); say the encoding, for instance cp949 for a Korean file of Excel"
            ) from None
        except (EOFError, gzip.BadGzipFile) as e:
            raise InvalidData(f"{self._path.name}, behind line {number}: the compressed file is damaged: {e}") from None

    def _parquet(self) -> Iterator[tuple[_Place, _Row]]:
        pa = arrow()
        try:
            with arrow("pyarrow.parquet").ParquetFile(self._path) as file:
                total = max(1, file.metadata.num_rows)
                texts = _json_columns(file.schema_arrow)
                number = 0
                self._read = lambda: number / total
                for batch in file.iter_batches(batch_size=BATCH):
                    for row in batch.to_pylist():
                        number += 1
                        yield ("row", number), _decoded(row, texts)
        except (pa.ArrowException, ValueError) as e:
            raise InvalidData(f"{self._path.name}: this Parquet file cannot be read: {type(e).__name__}") from e


def _nothing() -> float:
    return 0.0


def _json_object(line: str) -> _Row:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return InvalidData("this is no JSON object")


def _named(header: list[str], cells: list[str]) -> _Row:
    if len(cells) == len(header):
        return dict(zip(header, cells, strict=True))
    more = "more" if len(cells) > len(header) else "fewer"
    return InvalidData(f"it has {more} cells than the header has columns")


def _json_columns(schema: Any) -> list[str]:
    """The columns that `export` wrote as JSON."""
    return [field.name for field in schema if (field.metadata or {}).items() >= JSON_COLUMN.items()]


def _decoded(row: dict[str, Any], texts: list[str]) -> _Row:
    try:
        return row | {name: msgspec.json.decode(row[name]) for name in texts if row[name] is not None}
    except msgspec.DecodeError:
        return InvalidData("a column of JSON texts holds another text")
