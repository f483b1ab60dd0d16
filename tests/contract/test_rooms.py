"""What is emptied between the tests of a class is as good as new."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from polystore.entity import EntityType
from polystore.env import Env
from polystore.protocols import Repository
from polystore.testing.conformance.base import commit, key_of, layouts, put
from polystore.testing.conformance.entities import ACCOUNT, NUMBERED, THING
from tests import mysql, postgresql
from tests.rooms import Place, Room, kept

PLACES: Mapping[str, tuple[Place, Callable[[Env, str], Awaitable[Repository]]]] = {
    "postgresql": (postgresql.Schemas(), postgresql.connected),
    "mariadb": (mysql.Databases("mariadb"), mysql.connected),
    "mysql": (mysql.Databases("mysql"), mysql.connected),
}


@pytest.mark.parametrize("server", PLACES)
def test_the_next_test_finds_tables_without_records_and_a_changed_shape_is_not_given_to_it(server: str) -> None:
    place, connect = PLACES[server]

    async def used(name: str, *types: EntityType[Any]) -> bool:
        """Whether there was a record before this wrote it."""
        store: Any = await connect(Env(), name)
        try:
            await store.prepare(layouts(store, types, home=True), create=True)
            (found,) = await store.get([key_of(THING, "a")])
            await commit(store, put("a", word="left behind"))
            return found is not None
        finally:
            await store.aclose()

    def once(room: Room, *types: EntityType[Any]) -> tuple[str, bool]:
        with room.taken() as name:
            return name, asyncio.run(used(name, *types))

    with kept(place) as room:
        first, second = once(room, THING, NUMBERED), once(room, THING, NUMBERED)
        assert first == second == (first[0], False)
        third, fourth = once(room, THING, NUMBERED, ACCOUNT), once(room, THING)
        assert third == (first[0], False)
        assert fourth[0] != third[0]
        assert not fourth[1]
