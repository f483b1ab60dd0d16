"""Changes of copies and commits of homes: many at once, and each alone where the database refuses them together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from polystore.errors import IntegrityViolation, InvalidData, PolystoreError, SchemaMismatch
from polystore.model import APPLIED, STALE, Change, Commit, Committed, Key, Outcome
from polystore.relational.deciding import Draft, Table

T = TypeVar("T", bound=Table)


class Prepared(dict[str, T]):
    """Entity name -> its table, of the types that a repository was prepared for."""

    def __missing__(self, etype: str) -> T:
        raise SchemaMismatch(f"nothing is prepared for {etype!r}: prepare it with create=True first")


def by_table(keys: Iterable[Key]) -> dict[tuple[str, str], list[str]]:
    """(entity name, tenant) -> ids, each once, sorted."""
    out: dict[tuple[str, str], set[str]] = {}
    for key in keys:
        out.setdefault((key.etype, key.tenant), set()).add(key.id)
    return {place: sorted(out[place]) for place in sorted(out)}


def _draft(table: Table, change: Change) -> Draft:
    """The row of a change. Raises InvalidData, DimensionMismatch."""
    if change.body is None:
        return Draft(change.version, change.h, b"", change.updated_us, None, None, overwrites=change.overwrites)
    columns = table.columns(change.key, change.body)
    vectors = table.layout.served(change.vectors)
    return Draft(
        *(change.version, change.h, change.hash, change.updated_us, change.body, columns, vectors),
        expires_us=change.expires_us,
        overwrites=change.overwrites,
    )


async def apply(
    tables: Mapping[str, T],
    changes: Sequence[Change],
    write: Callable[[T, Mapping[Key, Draft]], Awaitable[Iterable[Key]]],
) -> list[Outcome]:
    """See `Repository.apply`: of a key's changes only the newest is sent. `write` brings the rows of one table to the
    drafts that are newer than what stands, and tells which were; either all of them overwrite, or none."""
    newest: dict[Key, int] = {}
    drafts: dict[str, dict[Key, Draft]] = {}
    outcomes: list[Outcome] = [STALE] * len(changes)
    for i, change in sorted(enumerate(changes), key=lambda pair: (pair[1].version, pair[1].overwrites)):
        try:
            one = _draft(tables[change.key.etype], change)
        except PolystoreError as error:
            outcomes[i] = Outcome("rejected", error)
            continue
        drafts.setdefault(change.key.etype, {})[change.key] = one
        newest[change.key] = i
    for etype in sorted(drafts):
        for some in _by_guard(drafts[etype]):
            for key, why in (await _apply(tables[etype], some, write)).items():
                outcomes[newest[key]] = APPLIED if why is None else Outcome("rejected", why)
    return outcomes


def _by_guard(drafts: Mapping[Key, Draft]) -> list[Mapping[Key, Draft]]:
    """Those that overwrite and those that do not, apart."""
    parts = [{k: one for k, one in drafts.items() if one.overwrites is which} for which in (False, True)]
    return [part for part in parts if part]


async def _apply(
    table: T, drafts: Mapping[Key, Draft], write: Callable[[T, Mapping[Key, Draft]], Awaitable[Iterable[Key]]]
) -> dict[Key, PolystoreError | None]:
    """The keys that were written, and those that cannot be."""
    try:
        return dict.fromkeys(await write(table, drafts))
    except (InvalidData, IntegrityViolation) as error:
        if len(drafts) == 1:
            return dict.fromkeys(drafts, error)
    found: dict[Key, PolystoreError | None] = {}
    for key, one in drafts.items():
        found.update(await _apply(table, {key: one}, write))
    return found


async def commit(
    commits: Sequence[Commit], together: Callable[[Sequence[Commit]], Awaitable[list[Committed | Exception]]]
) -> list[Committed | Exception]:
    """The answer to each commit. What the database itself refuses is tried with each commit alone."""
    try:
        return await together(commits)
    except (IntegrityViolation, InvalidData) as error:
        if len(commits) == 1:
            return [error]
    answers: list[Committed | Exception] = []
    for one in commits:
        try:
            answers += await commit([one], together)
        except PolystoreError as error:  # those before it are done
            answers.append(error)
    return answers
