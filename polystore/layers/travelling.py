"""Reads and commits that travel together: what goes to the store of those that were asked for in one loop tick."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from polystore.errors import PolystoreError
from polystore.layers.together import Together
from polystore.model import Commit, Committed, Key, Record
from polystore.operations import Call, Operation
from polystore.protocols import Repository, SupportsCommit

R = TypeVar("R")
Records = list[Record | None]


class Gets(Together[Sequence[Key], Records]):
    """Reads by key. One call for each type and tenant and `batch_max` keys, each key once."""

    def __init__(self, inner: Call, batch_max: int) -> None:
        super().__init__(self._get_all, self._get_alone)
        self._inner = inner
        self._batch_max = batch_max

    def _get_alone(self, keys: Sequence[Key]) -> Awaitable[Records]:
        return self._read(keys) if len(keys) == 1 else self._get_many(keys)

    async def _get_many(self, keys: Sequence[Key]) -> Records:
        return _only(await self._get_all([keys]))

    async def _get_all(self, asked: list[Sequence[Key]]) -> Sequence[Records | Exception]:
        """An outage is everybody's; after another error those who asked for that part are answered apart. Who asks for
        the same record gets a copy of his own."""
        wanted = [key for keys in asked for key in keys]
        parts = list(_by_type_and_tenant(dict.fromkeys(wanted), self._batch_max))
        results = await asyncio.gather(*map(self._read_part, parts))
        found = {
            k: one for part, result in zip(parts, results, strict=True) for k, one in zip(part, result, strict=True)
        }
        given = set[Key]()
        answers: list[Records | Exception] = []
        for keys in asked:
            answer = _hand_out(keys, found, given)
            if len(asked) > 1 and isinstance(answer, Exception) and not _outage(answer):
                (answer,) = await self._get_all([keys])
            answers.append(answer)
        return answers

    def _read(self, keys: Sequence[Key]) -> Awaitable[Records]:
        operation: Operation[Records] = Operation("get", (keys,), Repository)
        return self._inner(operation)

    async def _read_part(self, keys: Sequence[Key]) -> Sequence[Record | Exception | None]:
        try:
            return await self._read(keys)
        except Exception as error:  # noqa: BLE001 -- it is raised where the keys were asked for
            return [error] * len(keys)


class Commits(Together[Commit, Committed]):
    """One call for each `batch_max` writes."""

    def __init__(self, inner: Call, batch_max: int) -> None:
        super().__init__(self._commit_all, self._commit_alone, besides=1)  # that hands over the one before
        self._inner = inner
        self._batch_max = batch_max

    async def _commit_alone(self, commit: Commit) -> Committed:
        operation: Operation[Sequence[Committed | Exception]] = Operation("commit", ([commit],), SupportsCommit)
        return _only(await self._inner(operation))

    async def _commit_all(self, commits: list[Commit]) -> Sequence[Committed | Exception]:
        """After an error that is nobody's outage each commit is sent apart: by the contract nothing was written."""
        answers: list[Committed | Exception] = []
        for part in _by_writes(commits, self._batch_max):
            operation: Operation[list[Committed | Exception]] = Operation("commit", (part,), SupportsCommit)
            try:
                done = await self._inner(operation)
            except Exception as error:  # noqa: BLE001 -- it is raised where the commit was asked for
                if len(part) == 1 or _outage(error) or not isinstance(error, PolystoreError):
                    answers += [error] * len(part)
                else:
                    answers += [answer for one in part for answer in await self._commit_all([one])]
            else:
                answers += done
        return answers


def _only(answers: Sequence[R | Exception]) -> R:
    (answer,) = answers
    if isinstance(answer, Exception):
        raise answer
    return answer


def _outage(error: Exception) -> bool:
    return isinstance(error, PolystoreError) and error.retryable


def _hand_out(
    keys: Sequence[Key], found: Mapping[Key, Record | Exception | None], given: set[Key]
) -> Records | Exception:
    records: Records = []
    for key in keys:
        record = found[key]
        if isinstance(record, Exception):
            return record
        records.append(copy.deepcopy(record) if key in given else record)
        given.add(key)
    return records


def _by_type_and_tenant(keys: Iterable[Key], size: int) -> Iterator[list[Key]]:
    groups: dict[tuple[str, str], list[Key]] = {}
    for key in keys:
        groups.setdefault((key.etype, key.tenant), []).append(key)
    for group in groups.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _by_writes(commits: Iterable[Commit], size: int) -> Iterator[list[Commit]]:
    part: list[Commit] = []
    writes = 0
    for commit in commits:
        if part and writes + len(commit.writes) > size:
            yield part
            part, writes = [], 0
        part.append(commit)
        writes += len(commit.writes)
    yield part
