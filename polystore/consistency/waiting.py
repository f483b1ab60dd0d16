"""Callers that wait until a copy holds a version."""

from __future__ import annotations

import asyncio

from polystore.model import Key
from polystore.results import StoreStatus


class Waiters:
    """Futures per (copy, record), resolved by whoever applies or parks the version in this process."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, Key], list[tuple[int, asyncio.Future[StoreStatus]]]] = {}
        self._impatient = set[asyncio.Future[StoreStatus]]()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def watch(self, target: str, key: Key, version: int, *, once: bool = False) -> asyncio.Future[StoreStatus]:
        """`once`: told "pending", too, when the first attempt has failed."""
        future: asyncio.Future[StoreStatus] = asyncio.get_running_loop().create_future()
        if once:
            self._impatient.add(future)
        self._waiting.setdefault((target, key), []).append((version, future))
        return future

    def forget(self, target: str, key: Key, future: asyncio.Future[StoreStatus]) -> None:
        self._impatient.discard(future)
        left = [pair for pair in self._waiting.get((target, key), ()) if pair[1] is not future]
        if left:
            self._waiting[target, key] = left
        else:
            self._waiting.pop((target, key), None)

    def notify(self, target: str, key: Key, version: int, status: StoreStatus) -> None:
        """`target` holds `key` at `version` (applied), has given it up for now (failed), or is owed it after an attempt
        (pending)."""
        waiting = self._waiting.get((target, key))
        if waiting is None:
            return
        for wanted, future in waiting:
            if wanted <= version and not future.done() and (status != "pending" or future in self._impatient):
                future.set_result(status)
