"""Waiting until copies hold a version, or all of them: told by this process, or seen in the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from polystore.consistency.line import Line
from polystore.errors import PolystoreError, StalenessTimeout
from polystore.model import Key
from polystore.protocols import SupportsJournal
from polystore.results import StoreStatus

POLL_FIRST_S, POLL_MAX_S = 0.01, 0.1


class Wait(msgspec.Struct, frozen=True):
    """Write number `index` of a call waits for copy `store`. `once`: for what the first attempt to bring it there comes
    to, and as long as a call to a store may take."""

    index: int
    store: str
    key: Key
    h: int
    version: int
    told: asyncio.Future[StoreStatus]
    once: bool = False


async def await_all(line: Line, waits: Sequence[Wait], timeout_s: float) -> dict[int, dict[str, StoreStatus]]:
    """Write number -> store -> how far it got when it was there, failed, or the time was over. Raises nothing."""
    deadline = line.context.env.monotonic() + timeout_s
    statuses: dict[int, dict[str, StoreStatus]] = {}
    attempts = [wait for wait in waits if wait.once]
    try:
        if attempts:
            await asyncio.wait([wait.told for wait in attempts], timeout=line.context.settings.call_timeout_s)
        for wait in attempts:
            statuses.setdefault(wait.index, {})[wait.store] = wait.told.result() if wait.told.done() else "pending"
        for wait in waits:
            if not wait.once:
                statuses.setdefault(wait.index, {})[wait.store] = await _holds(line, wait, deadline)
    finally:
        for wait in waits:
            line.waiters.forget(wait.store, wait.key, wait.told)
    return statuses


async def catch_up(line: Line, etype: str, store: str, pairs: Sequence[tuple[int, int]], timeout_s: float) -> None:
    """Return once `store` holds all (key hash, version) pairs. Raises StalenessTimeout."""
    deadline = line.context.env.monotonic() + timeout_s
    for h, version in pairs:
        task = line.in_hand.get(version)
        key = task.change.key if task is not None else Key("", etype, "")
        wait = Wait(0, store, key, h, version, line.waiters.watch(store, key, version))
        try:
            status = await _holds(line, wait, deadline)
        finally:
            line.waiters.forget(store, key, wait.told)
        if status != "applied":
            raise StalenessTimeout(
                f"{store} does not hold the write that after= names after {timeout_s} s ({status}); read without "
                "after=, wait longer, or look at `polystore status`"
            )


async def settled(line: Line, deadline: float, timeout_s: float) -> None:
    """Return once every change committed at this home is applied everywhere or parked, and no copy is being filled with
    types of this process.
    Raises StalenessTimeout at the deadline."""
    pause_s = POLL_FIRST_S
    while True:
        backlog = await line.home.call(SupportsJournal.backlog)
        # A copy that is off is filled anew should it come back: what it was owed then waits for nobody.
        retry = {name: n for name in line.targets.all_names() if (n := backlog.retry.get(name, 0))}
        types = line.context.types
        filling = {row.name for row in line.targets.rows() if row.status == "backfilling" and row.etype in types}
        if not backlog.outbox and not retry and not filling:
            before = line.targets.rows()
            await line.targets.refresh()  # another process may have begun to fill, or an epoch, since our last look
            if line.targets.rows() == before:
                return
            continue
        if line.context.env.monotonic() >= deadline:
            owed = ", ".join(f"{name} {n}" for name, n in retry.items())
            raise StalenessTimeout(
                f"{line.home.name} still owes {backlog.outbox} changes"
                + (f" and retries: {owed}" if owed else "")
                + (f", and fills: {', '.join(sorted(filling))}" if filling else "")
                + f" after {timeout_s} s; `polystore status` shows which store does not answer"
            )
        if not line.in_hand:
            line.wake()
        await asyncio.sleep(pause_s)
        pause_s = min(POLL_MAX_S, pause_s * 2)


async def _holds(line: Line, wait: Wait, deadline: float) -> StoreStatus:
    pause_s = POLL_FIRST_S
    while not wait.told.done():
        if wait.version not in line.in_hand:
            try:
                pairs = [(wait.h, wait.version)]
                if not await line.home.call(SupportsJournal.pending, wait.key.etype, wait.store, pairs):
                    return "applied"
            except PolystoreError:
                pass  # the write is committed: whatever the home says now only leaves its status open
            if wait.told.done():
                break
        left_s = deadline - line.context.env.monotonic()
        if left_s <= 0:
            return "pending"
        await asyncio.wait((wait.told,), timeout=min(left_s, pause_s))
        pause_s = min(POLL_MAX_S, pause_s * 2)
    return wait.told.result()
