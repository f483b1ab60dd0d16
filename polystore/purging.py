"""Adapters that keep tombstones in a store which forgets nothing by itself purge them behind what they apply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from polystore.env import Env
from polystore.model import Change

log = logging.getLogger("polystore")

PURGE_S: Final = 600.0
"""How often tombstones of a type are looked for."""
PATIENCE_S: Final = 2.0
"""How long one purge may hold up the answer of the call behind which it is done."""


class Purges:
    """`purge` removes some tombstones of a type whose time is over, and says whether there are more."""

    def __init__(self, env: Env, purge: Callable[[str], Awaitable[bool]]) -> None:
        self._env = env
        self._purge = purge
        self._next: dict[str, float] = {}

    async def behind(self, changes: Sequence[Change]) -> None:
        """Purge the types of these changes for which it is time. The changes are applied whatever becomes of that: what
        a purge raises is logged, and it is tried again at its next turn."""
        now = self._env.monotonic()
        for etype in {change.key.etype for change in changes}:
            if now < self._next.setdefault(etype, now + PURGE_S):
                continue
            self._next[etype] = now + PURGE_S  # also where the call behind which this is done is cancelled for it
            try:
                async with asyncio.timeout(PATIENCE_S):
                    if await self._purge(etype):
                        self._next[etype] = now
            except Exception as e:  # noqa: BLE001 -- what is applied is applied
                log.warning("tombstones of %s stay for now: %s: %s", etype, type(e).__name__, e)
