"""What an application gets: results of writes, reads and searches."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar, cast, overload

import msgspec

from polystore import notebook
from polystore.errors import InvalidData
from polystore.model import Value

T = TypeVar("T")
R = TypeVar("R")
V = TypeVar("V")

StoreStatus = Literal["committed", "applied", "pending", "failed"]
"""How far a write got in one store. committed: durable at the home. applied: a copy holds it, or something newer.
pending: a copy is owed it. failed: a copy refused it for good; it is a dead letter."""
Ack = Literal["committed", "applied", "visible"] | Sequence[str]
"""What a write waits for. committed: the home. applied: all copies too. visible: and searches there see it, which in
every adapter of this version is the same. Or the names of the copies to wait for."""


class Token(str):
    """What a write returns and a read takes as `after=`: the read sees that write or something newer.

    Tokens merge by `|`. The text is `1.` and the URL-safe base64 of MessagePack (home, [[h, version], ...]).
    """

    __slots__ = ()

    @classmethod
    def of(cls, home: str, pairs: Sequence[tuple[int, int]]) -> Token:
        raw = msgspec.msgpack.encode({home: pairs})
        return cls("1." + base64.urlsafe_b64encode(raw).rstrip(b"=").decode())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        """A text to pydantic, so that a parameter of FastAPI may be a token; whether it is one, the read says."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())

    def pairs(self) -> dict[str, list[tuple[int, int]]]:
        """Home -> (key hash, version) pairs. Raises InvalidData when the text is not a token."""
        if not self:
            return {}
        try:
            head, _, text = self.partition(".")
            if head != "1":
                raise ValueError(head)
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            return msgspec.msgpack.decode(raw, type=dict[str, list[tuple[int, int]]])
        except (ValueError, binascii.Error, msgspec.DecodeError) as e:
            raise InvalidData("after=: this is not a token of polystore; pass the token of a write result") from e

    def __or__(self, other: Token) -> Token:
        merged: dict[str, dict[int, int]] = {}
        for token in (self, other):
            for home, pairs in Token.pairs(token).items():
                known = merged.setdefault(home, {})
                for h, version in pairs:
                    known[h] = max(version, known.get(h, 0))
        raw = msgspec.msgpack.encode({home: list(known.items()) for home, known in merged.items()})
        return Token("1." + base64.urlsafe_b64encode(raw).rstrip(b"=").decode())


class WriteResult(Value, frozen=True, gc=False):
    """What one write did. `version` None: nothing was there to delete. `stores` says per store how far it got.

    `changed` False: nothing was written, because nothing was there to delete, the content was the same
    (`skip_unchanged`), the record was there already (an import that skips), or the same op_id had done it before.
    """

    key: str
    version: int | None
    existed: bool
    token: Token
    stores: Mapping[str, StoreStatus]
    changed: bool = True

    def _repr_html_(self) -> str:
        done = f"{self.key}: version {self.version}" if self.changed else f"{self.key}: nothing to change"
        return notebook.table([{"store": name, "status": status} for name, status in self.stores.items()], done)


class Stored(msgspec.Struct, Generic[T], frozen=True):
    """A record with its version, the time of its last write, and the time from which it will be absent (None: never);
    both UTC."""

    value: T
    version: int
    written_at: datetime

    def _repr_html_(self) -> str:
        caption = f"version {self.version}, written at {self.written_at.isoformat(timespec='seconds')}"
        return notebook.table([notebook.fields(self.value)], caption)

    expires_at: datetime | None = None


class Hit(msgspec.Struct, Generic[T], frozen=True):
    """A search result. `value` and `version` are current; `match_version` is what the copy had indexed.

    `highlights` maps field to fragments of the original text with the matches marked.
    """

    value: T
    version: int
    score: float
    match_version: int
    highlights: Mapping[str, Sequence[str]] = {}

    def _repr_html_(self) -> str:
        return notebook.table([_cells(self)], f"version {self.version}")


class Related(msgspec.Struct, Generic[R], frozen=True):
    """A related record: shortest `depth`, one such `path` of (from id, relation, to id), its last edge's properties."""

    value: R
    depth: int
    path: Sequence[tuple[str, str, str]]
    properties: Mapping[str, Any]

    def _repr_html_(self) -> str:
        way = "".join(f"{start} –{relation}→ " for start, relation, _ in self.path)
        end = self.path[-1][2] if self.path else ""
        return notebook.table([{"depth": self.depth, **notebook.fields(self.value), **self.properties}], way + end)


class Explored(msgspec.Struct, Generic[R], frozen=True):
    """What a search along relations found: `depth` steps from the record `seed`, which is its key as text, over `path`
    as `Related` has it; a seed itself at depth 0. `score` is of ranks, and compares within one answer only."""

    value: R
    score: float
    seed: str
    depth: int
    path: Sequence[tuple[str, str, str]]

    def _repr_html_(self) -> str:
        way = "".join(f"{start} –{relation}→ " for start, relation, _ in self.path)
        cells = {"score": round(self.score, 4), "depth": self.depth, **notebook.fields(self.value)}
        return notebook.table([cells], way + (self.path[-1][2] if self.path else ""))


class Point(msgspec.Struct, Generic[V], frozen=True):
    """A point of a measure, or the aggregate of a window, whose beginning is `at`."""

    at: datetime
    value: V


Path = Sequence[tuple[str, str, str]]
"""Edges as (from id, relation, to id), from one record to another. Each reads from the record that has it, also where
it was walked against its direction."""


class Found(Sequence[T]):
    """A page of results; `cursor` continues after it, None at the end."""

    __slots__ = ("_items", "cursor")

    def __init__(self, items: Sequence[T], cursor: str | None = None) -> None:
        self._items = items
        self.cursor = cursor

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def _repr_html_(self) -> str:
        rows = [_cells(item) for item in self._items]
        return notebook.table(rows, f"{len(rows)} found" + (", and more behind the cursor" if self.cursor else ""))

    def __repr__(self) -> str:
        return f"Found({list(self._items)!r}, cursor={self.cursor!r})"


class ImportReport(Value, frozen=True, gc=False):
    """Progress of an import: values read, written, skipped (already there or unchanged), rejected.

    `errors` holds the first 100 rejections as (position from 0, message).
    """

    read: int = 0
    written: int = 0
    skipped: int = 0
    rejected: int = 0
    errors: Sequence[tuple[int, str]] = ()


def _cells(item: object) -> dict[str, object]:
    """What a page holds, a hit or a record, as a row of a table."""
    if not isinstance(item, Hit):
        return notebook.fields(item)
    hit = cast(Hit[object], item)
    marked = {"highlights": notebook.highlighted(hit.highlights)} if hit.highlights else {}
    return {"score": hit.score, **notebook.fields(hit.value), **marked}
