"""The name by which others ask a store past polystore."""

from __future__ import annotations

from typing import Protocol

import pytest

from polystore.errors import SchemaMismatch
from polystore.protocols import Repository, SupportsAlias
from polystore.testing.conformance.base import Conformance
from polystore.testing.conformance.entities import NUMBERED, THING


class Named(Repository, SupportsAlias, Protocol):
    pass


class AliasConformance(Conformance):
    """`take_alias`, in one place. That it changes over between two is for a test of the adapter's own, which sees what
    others see."""

    protocol = SupportsAlias

    async def test_an_alias_is_taken_only_where_that_is_said_and_then_stands(self) -> None:
        store: Named = await self.open()
        other: Named = await self.open()
        for one in (store, other):
            with pytest.raises(SchemaMismatch):
                await one.take_alias([THING.name], False)
        await store.take_alias([THING.name], True)
        for one in (store, other):
            await one.take_alias([THING.name], False)
            await one.take_alias([THING.name], True)
            with pytest.raises(SchemaMismatch):
                await one.take_alias([THING.name, NUMBERED.name], False)
        await other.take_alias([THING.name, NUMBERED.name], True)
        await store.take_alias([NUMBERED.name, THING.name], False)

    async def test_an_alias_of_what_is_not_prepared_is_refused(self) -> None:
        store: Named = await self.open()
        with pytest.raises(SchemaMismatch):
            await store.take_alias([THING.name, "nothing"], True)
        with pytest.raises(SchemaMismatch):
            await store.take_alias([THING.name], False)  # one that can be had is not taken with one that cannot
