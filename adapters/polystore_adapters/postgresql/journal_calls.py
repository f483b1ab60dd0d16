"""The verbs of commits and of the journal, as the repository has them."""

from __future__ import annotations

from collections.abc import Sequence

from polystore.env import Env
from polystore.errors import IntegrityViolation, InvalidData, PolystoreError
from polystore.model import Commit, Committed, OutboxRow, Settlement, StoredVector
from polystore.relational.calls import of_pool, of_tables
from polystore_adapters.postgresql import bodies, commit, epoch, journal, stored_vectors, workers
from polystore_adapters.postgresql.pool import Pool
from polystore_adapters.postgresql.quick import Quick, is_quick
from polystore_adapters.postgresql.records import Tables


class JournalCalls:
    """Part of `PostgresRepository`."""

    _pool: Pool
    _env: Env
    _tables: Tables
    _quick: Quick

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        return await epoch.going_on(self._pool, lambda: self._commit(commits))

    async def bump_epoch(self) -> int:
        return await epoch.begin(self._pool, always=True)

    async def _commit(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        answers = await self._quickly(commits)
        rest = [i for i, answer in enumerate(answers) if answer is None]
        if rest:
            try:
                found = await commit.run(self._pool, self._tables, [commits[i] for i in rest])
            except PolystoreError as error:
                if len(rest) == len(commits):
                    raise
                found = [error] * len(rest)  # the others are done
            for i, answer in zip(rest, found, strict=True):
                answers[i] = answer
        return [answer for answer in answers if answer is not None]

    async def _quickly(self, commits: Sequence[Commit]) -> list[Committed | Exception | None]:
        """The answers to those that could be one statement, when all are of one kind."""
        if len(commits) == 1:
            return [await self._quickly_alone(commits[0])]
        places = {one.writes[0].key: i for i, one in enumerate(commits) if is_quick(self._tables, one)}
        answers: list[Committed | Exception | None] = [None] * len(commits)
        kinds = {(commits[i].writes[0].key.etype, commits[i].writes[0].kind) for i in places.values()}
        if len(places) == len(commits) and len(kinds) == 1:  # else the order of a key's commits may count
            ((etype, kind),) = kinds
            try:
                done = await self._quick.run(etype, kind, {key: commits[i] for key, i in places.items()})
            except (IntegrityViolation, InvalidData):
                return answers  # whose it is tells the other way
            for key, answer in done.items():
                answers[places[key]] = answer
        return answers

    async def _quickly_alone(self, commit: Commit) -> Committed | None:
        if not is_quick(self._tables, commit):
            return None
        try:
            return await self._quick.alone(commit)
        except (IntegrityViolation, InvalidData):
            return None

    async def claim(self, worker: str, live: frozenset[str], etypes: Sequence[str], limit: int) -> list[OutboxRow]:
        return await journal.claim(self._pool, worker, live, etypes, limit, self._env)

    async def settle(self, settlement: Settlement) -> None:
        await journal.settle(self._pool, self._tables, settlement, self._env)

    async def put_vectors(self, vectors: Sequence[StoredVector]) -> None:
        await stored_vectors.put_vectors(self._pool, self._tables, vectors)

    beat = of_pool(workers.beat)
    retire = of_pool(workers.retire)
    hold_lease = of_pool(workers.hold_lease)
    claimed = of_pool(journal.claimed)
    due = of_pool(journal.due)
    awaken = of_pool(journal.awaken)
    pending = of_pool(journal.pending)
    parked = of_pool(journal.parked)
    redrive = of_pool(journal.redrive)
    drop = of_pool(journal.drop)
    backlog = of_tables(journal.backlog)
    placements = of_pool(journal.placements)
    remember = of_pool(journal.remember)
    targets = of_pool(journal.targets)
    set_target = of_pool(journal.set_target)
    backfill = of_tables(journal.backfill)
    written_since = of_tables(journal.written_since)
    mark = of_pool(journal.mark)
    vectors = of_pool(stored_vectors.vectors)
    forget_vectors = of_pool(stored_vectors.forget_vectors)
    expired = of_tables(journal.expired)
    release = of_tables(bodies.release)
    purge = of_pool(journal.purge)
