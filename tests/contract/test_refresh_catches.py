"""The kit's class for stores that show late what others wrote, on one that keeps its word, and one that does not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from polystore_adapters.memory import MemoryRepository, MemoryServer

from polystore.env import Env
from polystore.filters import Checked
from polystore.model import Change, Match, Outcome
from polystore.protocols import Repository, SupportsRefresh
from polystore.testing.conformance import Connect, RefreshConformance
from polystore.text import Phrase

SHOWN = "test_a_search_shows_what_this_connection_wrote_and_after_a_refresh_what_any_wrote"


class Late(MemoryRepository):
    """Finds what it wrote itself, and what was there when it was last refreshed."""

    capabilities = MemoryRepository.capabilities | {SupportsRefresh}

    def __init__(self, server: MemoryServer, env: Env) -> None:
        super().__init__(server, env)
        self._shown: set[str] = set()

    async def refresh(self, etype: str) -> None:
        self._shown |= set(self.server.alive(etype, ""))

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        self._shown |= {change.key.id for change in changes}
        return await super().apply(changes)

    async def search(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        after: tuple[float, str] | None,
    ) -> list[Match]:
        found = await super().search(etype, tenant, phrases, where, limit, after)
        return [match for match in found if match.id in self._shown]


class Forgetful(Late):
    async def refresh(self, etype: str) -> None:
        """Does nothing."""


def connecting(store: type[Late]) -> Connect:
    servers: list[MemoryServer] = []

    async def connected(env: Env) -> Repository:
        if not servers:
            servers.append(MemoryServer(env))
        return store(servers[0], env)

    return connected


class TestRefresh(RefreshConformance):
    @pytest.fixture
    def connect(self) -> Connect:
        return connecting(Late)


def test_a_store_that_is_refreshed_in_vain_fails() -> None:
    kit = RefreshConformance()
    kit.use(connecting(Forgetful))
    with pytest.raises(AssertionError):
        getattr(kit, SHOWN)()
