"""One write transaction at a time, and in it all that came while the one before ran."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from polystore.errors import PolystoreError
from polystore.model import Change, Outcome

CHANGES_MAX: Final = 500
"""Of one transaction, unless a call alone has more. With 2,000 all that came together ran into its deadline at once,
and was sent again."""
Apply = Callable[[Sequence[Change]], Awaitable[list[Outcome]]]


class Lane:
    """Calls at the same time travel together: thirty that wait for one another would each take thirty turns. Whoever is
    cancelled leaves the others, and what was sent, as they are."""

    def __init__(self, apply: Apply) -> None:
        self._apply = apply
        self._waiting: list[tuple[Sequence[Change], asyncio.Future[list[Outcome]]]] = []
        self._running: asyncio.Task[None] | None = None

    async def ask(self, changes: Sequence[Change]) -> list[Outcome]:
        answer: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiting.append((changes, answer))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await answer

    async def aclose(self) -> None:
        """Returns when what was asked for has been answered."""
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting:
            together = [self._waiting.pop(0)]
            size = len(together[0][0])
            while self._waiting and size + len(self._waiting[0][0]) <= CHANGES_MAX:
                together.append(self._waiting.pop(0))
                size += len(together[-1][0])
            await self._answer([one for one in together if not one[1].done()])

    async def _answer(self, together: Sequence[tuple[Sequence[Change], asyncio.Future[list[Outcome]]]]) -> None:
        if not together:
            return
        try:
            outcomes = await self._apply([change for changes, _ in together for change in changes])
        except PolystoreError as error:
            if len(together) > 1:  # whose fault it was is found one by one
                for one in together:
                    await self._answer([one])
            elif not together[0][1].done():
                together[0][1].set_exception(error)
            return
        for changes, answer in together:
            mine, outcomes = outcomes[: len(changes)], outcomes[len(changes) :]
            if not answer.done():
                answer.set_result(mine)
