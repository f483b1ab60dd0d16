"""The kit's class for stores that others ask by a name, on one that keeps its word, and on some that do not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from polystore_adapters.memory import MemoryServer

from polystore.env import Env
from polystore.errors import SchemaMismatch
from polystore.protocols import Repository
from polystore.testing.conformance import AliasConformance, Connect, layered
from tests.aliased import Aliased

STANDS = "test_an_alias_is_taken_only_where_that_is_said_and_then_stands"
REFUSED = "test_an_alias_of_what_is_not_prepared_is_refused"


class InVain(Aliased):
    async def take_alias(self, etypes: Sequence[str], create: bool) -> None:
        if not create:
            await super().take_alias(etypes, create)


class Eager(Aliased):
    """Changes what it was to compare."""

    async def take_alias(self, etypes: Sequence[str], create: bool) -> None:
        await super().take_alias(etypes, True)


class FirstOnly(Aliased):
    async def take_alias(self, etypes: Sequence[str], create: bool) -> None:
        await super().take_alias(etypes[:1], create)


class OneByOne(Aliased):
    async def take_alias(self, etypes: Sequence[str], create: bool) -> None:
        for one in etypes:
            await super().take_alias([one], create)


class Unasked(Aliased):
    """Takes the names of what it does not hold."""

    async def take_alias(self, etypes: Sequence[str], create: bool) -> None:
        if create:
            self.names.update(dict.fromkeys(etypes, self.place))
        elif any(one not in self.names for one in etypes):
            raise SchemaMismatch("another place")


def connecting(store: type[Aliased]) -> Connect:
    servers: list[MemoryServer] = []
    names: dict[str, str] = {}

    async def connected(env: Env) -> Repository:
        if not servers:
            servers.append(MemoryServer(env))
        return store(servers[0], env, names)

    return connected


class TestAlias(AliasConformance):
    @pytest.fixture(params=["bare", "under all layers"])
    def connect(self, request: pytest.FixtureRequest) -> Connect:
        bare = connecting(Aliased)
        return bare if request.param == "bare" else layered(bare)


@pytest.mark.parametrize(
    ("store", "test"),
    [(InVain, STANDS), (Eager, STANDS), (FirstOnly, STANDS), (OneByOne, REFUSED), (Unasked, REFUSED)],
)
def test_a_store_that_breaks_its_word_fails(store: type[Aliased], test: str) -> None:
    kit = AliasConformance()
    kit.use(connecting(store))
    with pytest.raises((AssertionError, SchemaMismatch, pytest.fail.Exception)):
        getattr(kit, test)()
