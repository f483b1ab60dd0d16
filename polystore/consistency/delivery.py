"""One batch of changes to all their copies, and the record of how it went."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from polystore.consistency.detach import Detach
from polystore.consistency.embedding import Embedders, by_record
from polystore.consistency.gate import Gate
from polystore.consistency.leases import Leases
from polystore.consistency.refusals import NONE, Refusals
from polystore.consistency.retry import owed
from polystore.consistency.settings import Settings
from polystore.consistency.spillway import Erasures
from polystore.consistency.targets import DETACH, EMBED, STAGES, Targets
from polystore.consistency.tasks import SyncTask
from polystore.consistency.waiting import Waiters
from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import CircuitOpen, OutcomeUnknown, PolystoreError, StoreError, StoreTimeout, Unavailable
from polystore.model import Change, Done, Held, Key, RetryRow, RetryState, Settlement
from polystore.protocols import SupportsJournal
from polystore.store import Store

Failures = dict[Key, Exception]


async def nothing() -> bool:
    """Nobody rebuilds or moves anything."""
    return False


class Waiting(Exception):
    """Not a failure: the record waits for its embedder, which awakens the row."""


class Context(msgspec.Struct, frozen=True):
    """What all parts of the consistency manager share."""

    env: Env
    types: Mapping[str, EntityType[Any]]
    stores: Mapping[str, Store]
    vector_copies: Mapping[str, frozenset[str]]
    embedders: Embedders
    detach: Detach
    erasures: Erasures
    settings: Settings
    worker: str
    report: Callable[[str], None]
    caches: Mapping[str, str] = {}
    """Entity type -> the target that is its cache."""
    lent: Mapping[str, str] = {}
    """Entity type -> the target that is its home, whose bodies the journal keeps only until it holds them."""


class Delivery:
    """Applies changes of one home to its copies; a failure becomes a durable retry row before the outbox row goes."""

    def __init__(self, context: Context, home: Store, targets: Targets, waiters: Waiters) -> None:
        self.context = context
        self.home = home
        self.targets = targets
        self.waiters = waiters
        self.gate = Gate()
        self.leases = Leases(context.env, home, context.worker, context.settings)
        self.follow: Callable[[], Awaitable[bool]] = nothing
        """Goes over to what another process has rebuilt or moved."""
        self.wake_retries: Callable[[str], None] = lambda target: None
        self.caught_up: Callable[[], None] = lambda: None
        """A copy has perhaps caught up with what it was owed."""
        self._late: set[asyncio.Task[Any]] = set()
        self._behind: Counter[str] = Counter()
        """Copy -> its calls that batches have left behind and that go on."""

    # -- one batch from a lane --------------------------------------------------------------------------------

    async def deliver(self, batch: Sequence[SyncTask]) -> None:
        """Bring all copies to the newest version of each record in the batch, then settle. Returns when the result is
        durable at the home; raises only CancelledError and what settling raised that no repeat can mend."""
        if any(self.targets.outdated(task.change.key.etype, task.targets) for task in batch):
            await self.targets.refresh()
            await self.follow()  # perhaps what is new is another model
        work = self._newest(batch)
        late: dict[str, asyncio.Task[Failures]] = {}
        failures = await self._apply_all(work, late)
        self.context.env.crashpoint("delivery.applied")
        spilled = [row for name, failed in failures.items() for row in self._spill(name, work[name], failed, batch)]
        done = [
            Done(name, change.key, change.version)
            for name, changes in work.items()
            if self.targets.pace(name).owes
            for change in changes.values()
            if change.key not in failures[name]
        ]
        held = [one for name, changes in work.items() for one in self.held(name, changes.values(), failures[name])]
        await self.settle(Settlement([task.version for task in batch], spilled, done, held))
        for name in dict.fromkeys(row.target for row in spilled):  # an order that every run repeats
            self.targets.pace(name).owes = True
            self.wake_retries(name)
        for row in spilled:
            self.waiters.notify(row.target, row.key, row.version, "pending")
        for name, attempt in late.items():
            self._keep(asyncio.create_task(self._note(name, attempt, work[name])))

    def held(self, name: str, changes: Iterable[Change], failed: Collection[Key]) -> list[Held]:
        """Which of the changes that were brought to a target are now at their home, so that the journal need not keep
        their bodies."""
        lent, store = self.context.lent, self.context.stores.get(name)
        return [
            Held(change.key, change.version, store.limits.ack_durable)
            for change in changes
            if store is not None and lent.get(change.key.etype) == name
            if not change.deleted and change.key not in failed
        ]

    def _newest(self, batch: Sequence[SyncTask]) -> dict[str, dict[Key, Change]]:
        """Copy -> record -> its newest change in the batch."""
        work: dict[str, dict[Key, Change]] = {}
        for task in batch:
            change = task.change
            for name in self.targets.names(change.key.etype, task.targets):
                changes = work.setdefault(name, {})
                known = changes.get(change.key)
                if known is None or known.version < change.version:
                    changes[change.key] = change
        return work

    async def _apply_all(
        self, work: Mapping[str, Mapping[Key, Change]], late: dict[str, asyncio.Task[Failures]]
    ) -> dict[str, Failures]:
        """All copies at the same time. One that is much slower than usual is left behind with its changes owed, and
        put into `late`; what it still applies is noted when it ends. Until then it is owed all: calls would pile up."""
        ready = {name: list(changes.values()) for name, changes in work.items() if not self._behind[name]}
        tasks = {name: asyncio.create_task(self.attempt(name, changes)) for name, changes in ready.items()}
        try:
            started = self.context.env.monotonic()
            failures = {
                name: await self._patiently(name, task, work[name], started, late) for name, task in tasks.items()
            }
        except BaseException:
            for task in tasks.values():
                task.cancel()
            raise
        for name in work:
            if name in ready:
                continue
            behind = StoreTimeout("it is still at work on what an earlier batch has left it with", store=name)
            failures[name] = dict.fromkeys(work[name], behind)
        return failures

    async def _patiently(
        self,
        name: str,
        task: asyncio.Task[Failures],
        changes: Mapping[Key, Change],
        started: float,
        late: dict[str, asyncio.Task[Failures]],
    ) -> Failures:
        settings = self.context.settings
        patience = self.targets.pace(name).patience_s(
            settings.detach_s,
            settings.detach_factor,
            settings.batch_deadline_s / 2,  # the next batch waits for this one
        )
        await asyncio.wait((task,), timeout=max(0.0, patience - (self.context.env.monotonic() - started)))
        if task.done():
            return task.result()
        self._keep(task)
        self._behind[name] += 1
        task.add_done_callback(lambda _: self._ended(name))
        late[name] = task
        slow = StoreTimeout(
            f"slower than {patience:.2f} s; the batch went on without it",
            store=name,
            operation="apply",
            # The call goes on: an attempt beside it would be the same work again, on a store that is slow already.
            retry_after_s=settings.batch_deadline_s + settings.call_timeout_s,
        )
        return dict.fromkeys(changes, slow)

    def _ended(self, name: str) -> None:
        self._behind[name] -= 1
        self.caught_up()

    def left_behind(self) -> set[str]:
        """The copies that are still at work on what batches have left them with."""
        return {name for name, n in self._behind.items() if n}

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _note(self, name: str, attempt: asyncio.Task[Failures], changes: Mapping[Key, Change]) -> None:
        """What a call that was left behind has brought is owed no more; the rest is due now."""
        try:
            failures = await attempt
            brought = [change for key, change in changes.items() if key not in failures]
            done = [Done(name, change.key, change.version) for change in brought]
            await self.settle(Settlement((), (), done, self.held(name, brought, ())))
            if failures:
                await self.home.call(SupportsJournal.awaken, name, list(failures), 0)
        except Exception as e:  # noqa: BLE001 -- its rows are owed, and due before long
            self.context.report(f"{name}, which was left behind: {type(e).__name__}: {e}")
        self.wake_retries(name)

    def _spill(
        self, name: str, changes: Mapping[Key, Change], failed: Failures, batch: Sequence[SyncTask]
    ) -> list[RetryRow]:
        """The retry rows of one copy. The oldest claimed version of each record is kept: readers ask for it."""
        if not failed:
            return []
        claimed: dict[Key, int] = {}
        for task in batch:
            key = task.change.key
            if key in failed and name in self.targets.names(key.etype, task.targets):
                claimed[key] = min(task.version, claimed.get(key, task.version))
        return [self.owe(name, changes[key], claimed.get(key, changes[key].version), e) for key, e in failed.items()]

    def owe(
        self, name: str, change: Change, claimed: int, error: Exception, previous: RetryRow | None = None
    ) -> RetryRow:
        """The retry row of a failed attempt."""
        env = self.context.env
        if isinstance(error, Waiting):
            # The embedder awakens the row when it is done; a look now and then finds what an awakening missed.
            later_us = int(self.context.settings.retry_max_s * 1e6)
            return RetryRow(
                target=name,
                key=change.key,
                h=change.h,
                version=max(change.version, claimed),
                min_version=min(claimed, previous.min_version if previous else claimed),
                state=_state("b", previous),
                next_us=env.now_us() + (0 if name.startswith(STAGES) else later_us),
            )
        row = owed(
            name,
            change,
            claimed,
            error,
            settings=self.context.settings,
            rng=env.random,
            now_us=env.now_us(),
            previous=previous,
        )
        return msgspec.structs.replace(row, state=_state(row.state, previous))

    # -- one copy ---------------------------------------------------------------------------------------------

    async def attempt(self, name: str, changes: Sequence[Change], refused: Refusals = NONE) -> Failures:
        """Bring one copy to the changes. Returns the records that are not there yet, each with its reason. `refused`:
        which models make no vectors of their texts."""
        if name.startswith(EMBED):
            return dict.fromkeys((change.key for change in changes), Waiting())
        if name == DETACH:
            return {change.key: Waiting() for change in changes if change.deleted}
        store = self.context.stores.get(name)
        if store is None:
            return dict.fromkeys((c.key for c in changes), Unavailable("not configured in this process", store=name))
        if store.breaker.open:
            return dict.fromkeys((c.key for c in changes), CircuitOpen("it keeps failing", store=name))
        await self.gate.enter()
        try:
            return await self._bring(store, changes, refused)
        finally:
            self.gate.leave()

    async def _bring(self, store: Store, changes: Sequence[Change], refused: Refusals) -> Failures:
        name, started = store.name, self.context.env.monotonic()
        failures: Failures = {}
        try:
            ready = await self._with_vectors(name, changes, failures, refused)
        except PolystoreError as e:
            return dict.fromkeys((c.key for c in changes), e)
        start = 0
        while start < len(ready):
            part = ready[start : start + store.deliver_max]
            failed = await self._apply(store, part)
            failures |= failed
            start += len(part)
            outage = next((e for e in failed.values() if isinstance(e, Unavailable | OutcomeUnknown)), None)
            if outage is not None and len(failed) == len(part):  # the rest would only wait as long again
                failures |= dict.fromkeys((change.key for change in ready[start:]), outage)
                break
        self.targets.pace(name).seconds.append(self.context.env.monotonic() - started)
        self.context.env.crashpoint(f"delivery.applied.{name}")
        if self.waiters:
            for change in ready:
                if change.key not in failures:
                    self.waiters.notify(name, change.key, change.version, "applied")
        return failures

    async def _apply(self, store: Store, changes: Sequence[Change]) -> Failures:
        """One call; where it fails as a whole without being an outage, halves of it, down to the bad record."""
        try:
            outcomes = await self.leases.deliver(store, changes)
        except StoreError as e:
            return dict.fromkeys((change.key for change in changes), e)
        except Exception as e:  # noqa: BLE001 -- the adapter could not say which item: find it
            if len(changes) == 1:
                return {changes[0].key: e}
            half = len(changes) // 2
            return {**await self._apply(store, changes[:half]), **await self._apply(store, changes[half:])}
        return {
            change.key: outcome.error or StoreError("rejected without a reason", store=store.name)
            for change, outcome in zip(changes, outcomes, strict=True)
            if outcome.status == "rejected"
        }

    async def _with_vectors(
        self, name: str, changes: Sequence[Change], failures: Failures, refused: Refusals
    ) -> list[Change]:
        """The changes with the vectors a copy needs; those whose vectors are still to be made wait: never an old
        vector under a new version."""
        etypes = self.context.vector_copies.get(name, frozenset())
        embedders = self.context.embedders
        # What writes carry is for who serves; and what was queued before that changed is perhaps of the old model.
        others = {one for one in etypes if one in embedders.switched or not embedders.as_serving(one, name)}
        if others:
            changes = [msgspec.structs.replace(c, vectors={}) if c.key.etype in others else c for c in changes]
        lacking = [c for c in changes if c.key.etype in etypes and embedders.missing(c)]
        if not lacking:
            return list(changes)
        found = by_record(await self.home.call(SupportsJournal.vectors, [c.key for c in lacking]))
        completed: dict[int, Change] = {}
        for change in lacking:
            vectors = embedders.complete(change, found.get(change.key, {}), name, refused.get(change.key, ()))
            if vectors is None:
                failures[change.key] = Waiting()
            else:
                completed[id(change)] = msgspec.structs.replace(change, vectors=vectors)
        return [completed.get(id(change), change) for change in changes if change.key not in failures]

    # -- the record -------------------------------------------------------------------------------------------

    async def settle(self, settlement: Settlement) -> None:
        """Make the result durable. An outage of the home is waited out: the rows are still there, and until they are
        settled nothing is lost but the knowledge that it was done."""
        parked = [row for row in settlement.owed if row.state == "p"]
        if parked:
            self.context.env.crashpoint("delivery.park")
        attempt = 0
        while True:
            try:
                await self.home.call(SupportsJournal.settle, settlement)
                break
            except PolystoreError as e:
                if not e.retryable:
                    raise
                attempt += 1
                self.context.report(f"settling at {self.home.name} is tried again: {e}")
                await asyncio.sleep(self.context.env.random.uniform(0, min(2.0, 0.05 * 2 ** min(attempt, 6))))
        for row in parked:
            self.waiters.notify(row.target, row.key, row.version, "failed")

    async def stop(self) -> None:
        """Cancel the calls that batches left behind."""
        late = list(self._late)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def _state(now: RetryState, previous: RetryRow | None) -> RetryState:
    """What is known to be wrong in a copy stays so until it is replaced, or parked."""
    return "o" if previous is not None and previous.state == "o" and now != "p" else now
