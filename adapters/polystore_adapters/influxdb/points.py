"""Points as InfluxDB has them, and questions in Flux.

A point is measurement "<entity>.<measure>", tags `tenant` and `id`, its own time, and one field: `f`, `i`, `b` or `s`,
by the type of its value. With one field nothing can be read in part while it is written, and a measure of ints may
become one of floats. A tag cannot be empty, nor hold some characters: those are written as %XX, "" as %.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import unquote

from polystore.errors import InvalidData
from polystore.model import PointKind, PointRow, PointValue, Series

FIRST_US, LAST_US = -9_223_372_036_854_775, 9_223_372_036_854_775
"""1677 to 2262: InfluxDB counts nanoseconds in 64 bits."""
FIELDS: Final[dict[PointKind, tuple[str, ...]]] = {"float": ("f", "i"), "int": ("i",), "bool": ("b",), "str": ("s",)}
_UNSAFE = re.compile(r"[\x00-\x20%,=\\\"\x7f]")


_BREAKS = re.compile(r"[\r\n%]")
"""What the server's CSV would change in the text of a value: every line break comes back as two characters."""


def _escaped(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"


def tag(text: str) -> str:
    return _UNSAFE.sub(_escaped, text) or "%"


def untag(text: str) -> str:
    return "" if text == "%" else unquote(text)


def measurement(etype: str, measure: str) -> str:
    return f"{tag(etype)}.{tag(measure)}"


def line_protocol(points: Sequence[PointRow]) -> bytes:
    """https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/, times in microseconds. Raises
    InvalidData for times that the server cannot say."""
    heads: dict[Series, str] = {}
    lines: list[str] = []
    for point in points:
        head = heads.get(point.series)
        if head is None:
            one = point.series
            head = f"{measurement(one.etype, one.measure)},id={tag(one.id)},tenant={tag(one.tenant)} "
            heads[one] = head
        if not FIRST_US < point.at_us < LAST_US:
            raise InvalidData(
                f"{point.series.etype}.{point.series.measure}: InfluxDB keeps times from the year 1678 to 2261 only"
            )
        lines.append(f"{head}{_field(point.value)} {point.at_us}")
    return "\n".join(lines).encode()


def _field(value: PointValue) -> str:
    if isinstance(value, bool):
        return f"b={'t' if value else 'f'}"
    if isinstance(value, int):
        return f"i={value}i"
    if isinstance(value, float):
        return f"f={value!r}"
    kept = _BREAKS.sub(_escaped, value).replace("\\", "\\\\").replace('"', '\\"')
    return f's="{kept}"'


def parsed(field: str, text: str, kind: PointKind) -> PointValue:
    """A value of an answer."""
    if field == "f":
        return float(text)
    if field == "i":
        return float(text) if kind == "float" else int(text)
    return text == "true" if field == "b" else unquote(text)


def quoted(text: str) -> str:
    """A string of Flux; `${` would be evaluated in it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${") + '"'


def at(us: int) -> str:
    return f"time(v: {min(max(us, FIRST_US), LAST_US) * 1000})"


def source(bucket: str, name: str, start_us: int, end_us: int | None, of: str) -> str:
    """The points of a measurement from `start_us` up to `end_us` for which the condition `of` holds."""
    stop = at(LAST_US if end_us is None else end_us)
    return (
        f"from(bucket: {quoted(bucket)}) |> range(start: {at(start_us)}, stop: {stop}) "
        f"|> filter(fn: (r) => r._measurement == {quoted(name)} and {of})"
    )


def of_series(series: Iterable[Series]) -> str:
    each = [f"(r.tenant == {quoted(tag(one.tenant))} and r.id == {quoted(tag(one.id))})" for one in series]
    return f"({' or '.join(each)})"


def of_fields(kind: PointKind) -> str:
    return f"({' or '.join(f'r._field == {quoted(field)}' for field in FIELDS[kind])})"


def rows_of(answer: str) -> Iterator[dict[str, str]]:
    """Each table of an answer begins with the names of its columns, where they are not those of the one before."""
    names: list[str] = []
    for row in csv.reader(io.StringIO(answer, newline="")):
        if len(row) > 2 and row[1] == "result" and row[2] == "table":
            names = row
        elif row:
            yield dict(zip(names, row, strict=True))
