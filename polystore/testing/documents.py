"""A store that cannot commit, made of one that can: what MongoDB is to an application, without its server."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from polystore import registry
from polystore.env import Env
from polystore.filters import Checked, Sort
from polystore.model import Change, HashSpan, Instance, Key, Limits, Match, Outcome, Page, Record
from polystore.protocols import Layout, SupportsFilter, SupportsSchema, SupportsTextSearch
from polystore.text import Phrase

SCHEME = "documents:"


class Documents:
    """Holds whole records, answers conditions and searches; no commits, no journal. `inner` does the work."""

    capabilities: frozenset[type] = frozenset({SupportsSchema, SupportsFilter, SupportsTextSearch})

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.limits: Limits = inner.limits

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        records: list[Record | None] = await self.inner.get(keys)
        return records

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        outcomes: list[Outcome] = await self.inner.apply(changes)
        return outcomes

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        page: Page = await self.inner.scan(etype, tenant, span, cursor, limit)
        return page

    async def tenants(self, etype: str) -> list[str]:
        names: list[str] = await self.inner.tenants(etype)
        return names

    async def newest(self, etype: str) -> int:
        version: int = await self.inner.newest(etype)
        return version

    async def ping(self) -> Instance:
        instance: Instance = await self.inner.ping()
        return instance

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        await self.inner.prepare(layouts, create=create)

    async def find(
        self, etype: str, tenant: str, where: Checked | None, order: Sequence[Sort], limit: int
    ) -> list[Record]:
        records: list[Record] = await self.inner.find(etype, tenant, where, order, limit)
        return records

    async def count(self, etype: str, tenant: str, where: Checked | None) -> int:
        number: int = await self.inner.count(etype, tenant, where)
        return number

    async def search(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        after: tuple[float, str] | None,
    ) -> list[Match]:
        matches: list[Match] = await self.inner.search(etype, tenant, phrases, where, limit, after)
        return matches


@contextmanager
def documents_by_url() -> Generator[None]:
    """Inside, a store's URL may be `documents:` and the URL of another store, which is then one that cannot commit."""

    async def connect(url: str, options: Mapping[str, Any], env: Env) -> Any:
        if url.startswith(SCHEME):
            return Documents(await registry.connect(url.removeprefix(SCHEME), options, env))
        return await registry.connect(url, options, env)

    with patch("polystore.store.connect", connect):
        yield
