"""What failed once: tried again per copy until it is there or parked. Also the embedding stage and backfills, which are
rows of the same kind."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from polystore.consistency.delivery import Context, Delivery, Waiting
from polystore.consistency.detach import RECORDS_MAX
from polystore.consistency.embedding import by_record
from polystore.consistency.loading import load_each
from polystore.consistency.refusals import Refusals, refusals
from polystore.consistency.stage import Stage
from polystore.consistency.targets import DETACH, EMBED, Targets
from polystore.embedders import model_of
from polystore.errors import DecodeError, IntegrityViolation, PolystoreError, SchemaMismatch, StoreError
from polystore.model import Backlog, Change, Done, Key, RetryRow, Settlement, StoredVector, text_hash
from polystore.protocols import SupportsJournal
from polystore.store import Store

_LOST = IntegrityViolation("its home does not hold it at this version any more; `polystore verify` lists such records")
"""Why a record whose home cannot commit is not brought to a copy: nobody has its body."""


class Retries:
    """One loop per copy, so that a copy that is down never holds up another."""

    def __init__(self, context: Context, home: Store, targets: Targets, delivery: Delivery) -> None:
        self.context = context
        self.home = home
        self.targets = targets
        self.delivery = delivery
        self.brought: Callable[[str], None] = lambda target: None
        """Some of what a copy was owed has arrived."""
        self._wake: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._due: dict[str, list[float]] = {}
        self._open: set[str] = set()
        self._refusing: set[str] = set()
        """Embedders that have refused a text for good."""
        self._started = False
        self.busy: set[str] = set()
        """Copies that are brought what they are owed at this moment, and take it."""

    def start(self) -> None:
        self._started = True
        for name in self.targets.all_names():
            self._ensure(name)

    def _ensure(self, name: str) -> None:
        if self._started and name not in self._tasks:
            self._wake.setdefault(name, asyncio.Event()).set()
            self._tasks[name] = asyncio.create_task(self._run(name))

    def wake(self, target: str) -> None:
        """Rows of this copy may be due now."""
        self._ensure(target)
        event = self._wake.get(target)
        if event is not None:
            event.set()

    def look(self, backlog: Backlog) -> None:
        """What the journal owes, as the relay just saw it."""
        for name in self.targets.all_names():
            owes = bool(backlog.retry.get(name) or backlog.parked.get(name))
            self.targets.pace(name).owes = owes
            if backlog.retry.get(name):
                self.wake(name)
        self._refusing = {name for name in backlog.parked if name.startswith(EMBED)}

    async def stop(self) -> None:
        self._started = False
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    # -- the loop of one copy ---------------------------------------------------------------------------------

    async def _run(self, name: str) -> None:
        event, due = self._wake[name], self._due.setdefault(name, [])
        while True:
            await self._until_due(event, due)
            try:
                try:
                    while await self._round(name):
                        pass
                except SchemaMismatch:  # by another process, unless it is something else, which is then said
                    if not await self.delivery.follow():
                        self.context.report(f"retries for {name} do not fit what the stores are prepared for")
            except Exception as e:  # noqa: BLE001 -- the rows are still there; without this loop nobody would look
                self.context.report(f"retries for {name} could not work: {type(e).__name__}: {e}")
            finally:
                self._bring_no_more(name)

    def _bring_no_more(self, name: str) -> None:
        self.busy.discard(name)
        self.delivery.caught_up()

    async def _until_due(self, event: asyncio.Event, due: list[float]) -> None:
        wait_s = due[0] - self.context.env.monotonic() if due else None
        if wait_s is None or wait_s > 0:
            try:
                async with asyncio.timeout(wait_s):
                    await event.wait()
            except TimeoutError:
                pass
        event.clear()
        now = self.context.env.monotonic()
        while due and due[0] <= now:
            heapq.heappop(due)

    async def _round(self, name: str) -> bool:
        """Try the rows that are due. True when there may be more."""
        store = self.context.stores.get(name)
        if name.startswith(EMBED):
            stage = self.context.embedders.stage(name)
            if stage is None or not await self._willing(name, stage):  # None: of processes with another configuration
                return False
            limit = stage.embedder.batch_max
        elif name == DETACH:
            limit = RECORDS_MAX
        elif store is None or not await self._answers(name, store) or not await self.delivery.leases.held(store):
            return False
        else:
            limit = min(store.limits.batch_max, self.context.settings.batch_max)
        # Off for one type and not for another, it is still brought what it was owed, or asked for nothing: that counts.
        on = self.targets.etypes(name)
        etypes = on if name == DETACH else [row.etype for row in self.targets.rows() if row.name == name]
        etypes = [etype for etype in etypes if etype in self.context.types]
        if name.startswith(EMBED):  # another process may want vectors of this model before this one has heard of it
            etypes = [one for one in etypes if one not in on or self.context.embedders.wants(one, name)]
        now_us = self.context.env.now_us()
        rows = await self.home.call(SupportsJournal.due, name, etypes, now_us, limit)
        if not rows:
            return False
        by_type: dict[tuple[str, str], list[RetryRow]] = {}
        for row in rows:
            by_type.setdefault((row.key.etype, row.key.tenant), []).append(row)
        for group in by_type.values():
            await self._retry(name, group)
        return len(rows) == limit

    async def _answers(self, name: str, store: Store) -> bool:
        """False while the copy's breaker is open. When it has just closed, its rows become due, spread a little so
        that the copy is not run over."""
        if store.breaker.open:
            self._open.add(name)
            return False
        if name in self._open:
            spread_us = int(self.context.settings.awaken_spread_s * 1e6)
            await self.home.call(SupportsJournal.awaken, name, None, spread_us)
            self._open.discard(name)  # not before it is done: the home may have failed, too
        return True

    async def _willing(self, name: str, stage: Stage) -> bool:
        """False while an embedder is not to be asked. When it has just answered again, all its rows become due."""
        if stage.open:
            self._open.add(name)
        elif name in self._open:
            await self.home.call(SupportsJournal.awaken, name, None, 0)
            self._open.discard(name)
        if rest_s := stage.rest_s():
            heapq.heappush(self._due[name], self.context.env.monotonic() + rest_s)
        return not rest_s

    async def _retry(self, name: str, rows: Sequence[RetryRow]) -> None:
        try:
            changes, damaged = await load_each(self.home, {row.key: row.version for row in rows})
        except DecodeError as e:
            self.context.report(f"{rows[0].key.etype} is left to other workers: {e}")
            return
        except StoreError as e:
            if rows[0].key.etype not in self.context.lent:
                raise
            self.context.report(f"{rows[0].key.etype} is delivered to {name} later: {e}")  # the others need not wait
            return
        for key in [row.key for row in rows if row.state == "o" and row.key in changes]:
            changes[key] = replace(changes[key], overwrites=True)
        self.context.env.crashpoint("retry.loaded")
        if name.startswith(EMBED):
            failures = await self._embed(name, list(changes.values()))
            # Before the settlement: who dies in between embeds nothing again, but awakens again.
            await self._awaken([key for key in changes if key not in failures])
        elif name == DETACH:
            failures = await self.context.detach.work(list(changes.values()))
        else:
            failures = await self.delivery.attempt(name, list(changes.values()))
            waiting = [changes[key] for key, error in failures.items() if isinstance(error, Waiting)]
            if refused := await self._refused(name, waiting):
                failures = {key: error for key, error in failures.items() if key not in refused}
                failures |= await self.delivery.attempt(name, [changes[key] for key in refused], refused)
        for row in rows:
            if row.key not in changes:
                changes[row.key] = Change(row.key, row.version, row.h, None, b"", 0)
                failures[row.key] = damaged.get(row.key, _LOST)
        # The claimed version counts as done too: what was loaded after the claim is never older, unless the home was
        # restored to the past, and then nothing newer exists.
        done = [
            Done(name, row.key, max(row.version, changes[row.key].version)) for row in rows if row.key not in failures
        ]
        owed = [
            self.delivery.owe(name, changes[row.key], row.version, failures[row.key], row)
            for row in rows
            if row.key in failures
        ]
        if done:
            self.busy.add(name)
        else:
            self._bring_no_more(name)
        held = self.delivery.held(name, changes.values(), failures)
        await self.delivery.settle(Settlement((), owed, done, held))
        self.context.env.crashpoint("retry.settled")
        if done:
            self.brought(name)
        for row in owed:
            if row.state in ("r", "o"):
                wait_s = (row.next_us - self.context.env.now_us()) / 1e6
                heapq.heappush(self._due[name], self.context.env.monotonic() + wait_s)
        if name.startswith(EMBED):
            await self._give_up(name, [row.key for row in owed if row.state == "p"])
        else:
            await self._look_again(name, [changes[row.key] for row in owed if isinstance(failures[row.key], Waiting)])

    async def _look_again(self, name: str, waiting: Sequence[Change]) -> None:
        """Vectors that were stored while this attempt ran: their awakening came before the row was put to sleep. What
        is still to be made is owed to its model once more: one that another field is served by, or that somebody who
        knew of fewer fields has worked for, may owe nothing of this text."""
        if not waiting:
            return
        found = by_record(await self.home.call(SupportsJournal.vectors, [change.key for change in waiting]))
        now_us, ready = self.context.env.now_us(), list[Key]()
        owed: list[RetryRow] = []
        for one in waiting:
            awaited = self.context.embedders.awaited(one, found.get(one.key, {}), name)
            off = {row.name for row in self.targets.rows(one.key.etype) if row.status == "off"}
            for model in sorted(model for model in awaited if EMBED + model not in off):
                versions = (one.version, one.version)
                owed.append(RetryRow(EMBED + model, one.key, one.h, *versions, "b", first_us=now_us, next_us=now_us))
            if not awaited:
                ready.append(one.key)
        if owed:
            await self.delivery.settle(Settlement(owed=owed))
            for target in sorted({row.target for row in owed}):
                self.targets.pace(target).owes = True
                self.wake(target)
        if ready:
            await self.home.call(SupportsJournal.awaken, name, ready, 0)
            self.wake(name)

    # -- the embedding stage ----------------------------------------------------------------------------------

    async def _embed(self, name: str, changes: Sequence[Change]) -> dict[Key, Exception]:
        """Embed what has no current vector and keep the result beside the home."""
        embedders, stage = self.context.embedders, self.context.embedders.stage(name)
        assert stage is not None
        live = [change for change in changes if change.body is not None]
        found = by_record(await self.home.call(SupportsJournal.vectors, [change.key for change in live]))
        wanted: list[tuple[Change, str, str]] = []
        for change in live:
            texts = embedders.texts(name, change, found.get(change.key, {}))
            wanted += [(change, field, text) for field, text in texts.items()]
        if not wanted:
            return {}
        results = await stage.each([text for _, _, text in wanted], self.context.settings.embed_timeout_s)
        made: list[StoredVector] = []
        failures: dict[Key, Exception] = {}
        for (change, field, text), result in zip(wanted, results, strict=True):
            if isinstance(result, bytes):
                made.append(StoredVector(change.key, field, model_of(stage.embedder), text_hash(text), result))
            else:
                failures[change.key] = result
        if made:
            await self.home.call(SupportsJournal.put_vectors, made)
            self.context.env.crashpoint("embed.stored")
        if all(isinstance(one, PolystoreError) and one.retryable for one in failures.values()) and failures:
            self.context.report(f"{name} is tried again: {next(iter(failures.values()))}")
        return failures

    async def _give_up(self, name: str, keys: Sequence[Key]) -> None:
        """These texts are refused for good: the copies get the records without their vectors."""
        if keys:
            self._refusing.add(name)
            await self._awaken(keys)

    async def _refused(self, name: str, changes: Sequence[Change]) -> Refusals:
        """Of the changes that wait for vectors of this copy, those that wait in vain for some."""
        embedders = self.context.embedders
        asked = {one.model for c in changes for one in embedders.makings(c.key.etype).at(name).values()}
        asked = {model for model in asked if EMBED + model in self._refusing}
        versions = {change.key: change.version for change in changes}
        return await refusals(self.home, asked, versions, self.context.settings.batch_max)

    async def _awaken(self, keys: Sequence[Key]) -> None:
        """The vector copies of these records were waiting for their vectors."""
        for copy, etypes in list(self.context.vector_copies.items()):  # one may come or go meanwhile
            waiting = [key for key in keys if key.etype in etypes]
            if waiting:
                await self.home.call(SupportsJournal.awaken, copy, waiting, 0)
                self.wake(copy)
