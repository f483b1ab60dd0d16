"""For adapters of stores that hold facts or blobs, and no records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from polystore.errors import UnsupportedOperation
from polystore.model import Change, HashSpan, Key, Outcome, Page, Record
from polystore.protocols.records import Layout


class WithoutRecords:
    """What `Repository` has for records: each raises UnsupportedOperation, before any I/O."""

    holds: ClassVar[str]
    """What the store holds instead, as errors begin: "an S3 store holds blobs"."""

    def refuse(self, layouts: Sequence[Layout]) -> None:
        """To begin `prepare` with: raises UnsupportedOperation where there is any type to keep records of."""
        if layouts:
            names = ", ".join(repr(layout.entity.name) for layout in layouts)
            raise UnsupportedOperation(f"{self.holds}, and no records of {names}")

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        raise self._no_records()

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        raise self._no_records()

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        raise self._no_records()

    async def tenants(self, etype: str) -> list[str]:
        raise self._no_records()

    async def newest(self, etype: str) -> int:
        raise self._no_records()

    def _no_records(self) -> UnsupportedOperation:
        return UnsupportedOperation(f"{self.holds} and no records")
