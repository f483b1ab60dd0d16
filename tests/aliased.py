"""Stores in memory that others ask by a name which stays the same, for the kit's class and for what moves the name."""

from __future__ import annotations

from collections.abc import Sequence

from polystore_adapters.memory import MemoryRepository, MemoryServer

from polystore.env import Env
from polystore.errors import SchemaMismatch
from polystore.protocols import SupportsAlias


class Aliased(MemoryRepository):
    """A connection to one place. `names`, which all places share: entity -> the place that its name stands for."""

    capabilities = MemoryRepository.capabilities | {SupportsAlias}

    def __init__(self, server: MemoryServer, env: Env, names: dict[str, str], place: str = "here") -> None:
        super().__init__(server, env)
        self.names = names
        self.place = place

    async def take_alias(self, etypes: Sequence[str], create: bool) -> None:
        if unknown := set(etypes) - self.server.layouts.keys():
            raise SchemaMismatch(f"nothing is prepared for {unknown}")
        off = [one for one in etypes if self.names.get(one) != self.place]
        if off and not create:
            raise SchemaMismatch(f"{off} stands for another place")
        self.names.update(dict.fromkeys(off, self.place))
