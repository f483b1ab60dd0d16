"""The kit is tested too: adapters broken on purpose, each of which must fail on the test that is there for it."""

import pytest
from polystore_adapters.memory import MemoryRepository, MemoryServer

from polystore.env import Env
from polystore.errors import PolystoreError
from polystore.protocols import Repository
from polystore.testing.conformance import Connect
from tests.contract.broken import (
    bodies,
    cache,
    copies,
    counts,
    ends,
    epochs,
    expiry,
    facts,
    graphs,
    homes,
    journals,
    objects,
    queries,
    rebuild,
    state,
)
from tests.contract.broken.registry import CASES, Case

MODULES = (
    bodies,
    cache,
    copies,
    counts,
    ends,
    epochs,
    expiry,
    facts,
    graphs,
    homes,
    journals,
    objects,
    queries,
    rebuild,
    state,
)


def connection(broken: type[MemoryServer | MemoryRepository]) -> Connect:
    """Connections to one server, of which either the server or the connection is broken."""
    servers: list[MemoryServer] = []

    async def connected(env: Env) -> Repository:
        if not servers:
            servers.append(broken(env) if issubclass(broken, MemoryServer) else MemoryServer(env))
        return broken(servers[0], env) if issubclass(broken, MemoryRepository) else MemoryRepository(servers[0], env)

    return connected


def run(case: Case, broken: type[MemoryServer | MemoryRepository]) -> None:
    """The test of the kit, without pytest around it."""
    instance = case.kit()
    instance.use(connection(broken))
    instance.given_back_s = 0.1
    getattr(instance, case.test)(**case.given)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.broken.__name__}-{case.test}")
def test_a_broken_adapter_fails_where_it_should(case: Case) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, PolystoreError)):
        run(case, case.broken)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.broken.__name__}-{case.test}")
def test_the_sound_adapter_passes_where_the_broken_one_fails(case: Case) -> None:
    run(case, MemoryServer)


def test_every_broken_adapter_is_tried() -> None:
    kinds = (MemoryServer, MemoryRepository)
    classes = [one for module in MODULES for one in vars(module).values() if isinstance(one, type)]
    written = {one for one in classes if issubclass(one, kinds) and one not in kinds and one.__name__[0] != "_"}
    assert written == {case.broken for case in CASES}
    assert len(written) > 40
