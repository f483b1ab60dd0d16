"""Other processes rebuild and move what is served here: this one goes over to it, and a question that met the change
half-way is asked again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Protocol, TypeVar

from polystore.consistency.embedding import Embedders
from polystore.consistency.line import Line
from polystore.consistency.moving import Mover
from polystore.env import Env
from polystore.errors import PolystoreError, SchemaMismatch
from polystore.protocols import SupportsJournal

R = TypeVar("R")


class _Manager(Protocol):
    """What is used of the consistency manager."""

    env: Env
    embedders: Embedders
    mover: Mover

    def line(self, etype: str) -> Line: ...


class Following:
    """Of one architecture."""

    def __init__(self, manager: _Manager) -> None:
        self.placed = 0
        """How often a facet has moved here."""
        self._manager = manager

    async def look(self, line: Line) -> bool:
        """Go over to what another process has rebuilt or moved; False when there is nothing new."""
        manager = self._manager
        since, texts = manager.env.monotonic(), await line.home.call(SupportsJournal.placements)
        return await manager.mover.follow(line, texts, since)

    async def where_it_is(self, etypes: Collection[str], ask: Callable[[], Awaitable[R]]) -> R:
        """The answer to a question to whoever serves these types: asked again when it was elsewhere by now, since
        another process had gone over before this one was told."""
        placed = self.placed
        try:
            return await ask()
        except SchemaMismatch:
            if not await self._went_over(map(self._manager.line, etypes), placed):
                raise
        return await ask()

    async def with_one_model(self, etype: str, ask: Callable[[], Awaitable[R]]) -> R:
        """The answer to a question that makes a vector and compares it: asked again when the vectors of the type
        changed over to another model in between."""
        line, times_served = self._manager.line(etype), self._manager.embedders.times_served
        while True:
            while line.delivery.gate.closed:
                await line.delivery.gate.changed()
            before, placed = times_served[etype], self.placed
            try:
                answer = await ask()
            except PolystoreError as e:
                followed = isinstance(e, SchemaMismatch) and await self._went_over([line], placed)
                if times_served[etype] == before and not followed:
                    raise
            else:
                if times_served[etype] == before:
                    return answer

    async def _went_over(self, lines: Iterable[Line], placed: int) -> bool:
        """Whether there was something new, now or since `placed`."""
        followed = [await self.look(line) for line in dict.fromkeys(lines)]
        return any(followed) or placed != self.placed
