"""What the tests of an application have: architectures on data of their own, stores that fail when the test says so,
and a look at the end whether every copy holds what its home holds. `polystore.testing.plugin` gives it to pytest."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol, TypeVar, cast

from polystore.architecture import HybridDataArchitecture
from polystore.consistency import Settings
from polystore.consistency.verify import Difference, Verifier
from polystore.embedding import Embedder
from polystore.env import Env
from polystore.errors import OutcomeUnknown, StalenessTimeout, Unavailable
from polystore.model import Key
from polystore.protocols import SupportsJournal
from polystore.registry import unknown

R = TypeVar("R")
When = Literal["before", "after"]
"""Which part of a call fails. before: the store is not reached, `Unavailable`, nothing was done. after: the call is
carried out and its answer is lost, `OutcomeUnknown`."""

PROMPT = Settings(awaken_spread_s=0.01, retry_max_s=0.1)
"""What a store missed while it failed is delivered at once when it answers again."""
SETTLE_S = 10.0
SHOWN_MAX = 10
UNGUARDED = frozenset({"aclose", "prepare"})
"""What opening and closing ask: a store that fails can still be closed."""


class Failure:
    """A store that fails until `release`, or to the end of a `with` block."""

    def __init__(self, store: str, release: Callable[[], object]) -> None:
        self.store = store
        self._release = release

    def release(self) -> None:
        """The store answers again. Its breaker, when it has opened, asks it within two seconds. Idempotent."""
        self._release()

    def __enter__(self) -> Failure:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class FailStore(Protocol):
    """The type of the fixture `fail_store`."""

    def __call__(self, name: str, *, when: When = "before") -> Failure: ...


class Applications:
    """Opens architectures for one test; see `polystore.testing.plugin`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._failing: dict[str, When] = {}
        self._stores: set[str] = set()

    @asynccontextmanager
    async def __call__(
        self,
        entities: Sequence[type[Any]] = (),
        config: str | PathLike[str] | Mapping[str, Any] | None = None,
        *,
        embedders: Mapping[str, Embedder] | None = None,
        settings: Settings = PROMPT,
        verify: bool = True,
    ) -> AsyncGenerator[HybridDataArchitecture]:
        """`async with polystore([Note]) as hda`: an open architecture. What is opened again in the same test finds what
        was written before, as an application that starts again does.

        config: as `HybridDataArchitecture.open` takes it; None: `embedded:` in the test's own directory, whose stores
        are home, full_text, vector, graph, facts, state and files. At the end of the block all stores answer again,
        everything is delivered, and every copy is compared with its home: AssertionError names what differs, and the
        dead letters. A block that raises is not looked at. verify: False for a test that leaves differences on purpose.
        """
        url = f"embedded:{self._directory}" if config is None else config
        async with HybridDataArchitecture.open(
            url, entities=entities, embedders=embedders, settings=settings, env=_FailingEnv(self._failing)
        ) as hda:
            self._stores |= hda.stores.keys()
            try:
                yield hda
            finally:
                self._failing.clear()
            if verify:
                await _verify(hda)

    def fail_store(self, name: str, *, when: When = "before") -> Failure:
        """Every call to the store fails from now on, until the returned `Failure` is released. Raises
        ConfigurationError for a name that no open architecture has."""
        if name not in self._stores:
            raise unknown("the store", name, self._stores)
        self._failing[name] = when
        return Failure(name, lambda: self._failing.pop(name, None))


class _FailingEnv(Env):
    """The real world, whose stores fail when their names are in `failing`."""

    def __init__(self, failing: Mapping[str, When]) -> None:
        super().__init__()
        self._failing = failing

    def connected(self, store: str, repository: R) -> R:
        return cast(R, _FailingRepository(store, repository, self._failing))


class _FailingRepository:
    """Stands in front of a repository: has all that it has, and its calls fail while `failing` names the store."""

    def __init__(self, store: str, repository: object, failing: Mapping[str, When]) -> None:
        self._store = store
        self._repository = repository
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._repository, name)
        if name in UNGUARDED or not inspect.isroutine(value):
            return value
        guarded = self._waiting(value) if inspect.iscoroutinefunction(value) else self._inline(value)
        setattr(self, name, guarded)
        return guarded

    def _waiting(self, method: Callable[..., Coroutine[Any, Any, R]]) -> Callable[..., Coroutine[Any, Any, R]]:
        async def call(*args: Any) -> R:
            if self._failing.get(self._store) == "before":
                self._refuse()
            answer = await method(*args)
            if self._store in self._failing:
                raise OutcomeUnknown("the test lets this store fail: what it answered is lost")
            return answer

        return call

    def _inline(self, method: Callable[..., R]) -> Callable[..., R]:
        def call(*args: Any) -> R:
            if self._store in self._failing:
                self._refuse()
            return method(*args)

        return call

    def _refuse(self) -> NoReturn:
        raise Unavailable("the test lets this store fail")


async def _verify(hda: HybridDataArchitecture) -> None:
    left: list[str] = []
    try:
        await hda.settle(SETTLE_S)
    except StalenessTimeout as e:
        left.append(str(e))
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    for etype in hda.manager.placements:  # state and facts have no copies
        left += [_difference(one) async for one in verifier.differences(etype)]
    for home in dict.fromkeys(placement.authority for placement in hda.manager.placements.values()):
        rows, _ = await hda.stores[home].call(SupportsJournal.parked, None, None, SHOWN_MAX)
        left += [f"{row.target}: {_record(row.key)} is a dead letter: {row.error}" for row in rows]
    if left:
        more = [f"and {len(left) - SHOWN_MAX} more"] if len(left) > SHOWN_MAX else []
        raise AssertionError(
            "\n  ".join(["polystore: the test leaves copies that differ from their home:", *left[:SHOWN_MAX], *more])
        )


def _difference(one: Difference) -> str:
    versions = f"version {one.copy_version} there, {one.home_version} at home"
    return f"{one.store}: {_record(one.key)}: {one.problem}, {versions}" + (f", {one.detail}" if one.detail else "")


def _record(key: Key) -> str:
    return f"{key.etype} {key.id!r}" + (f" of tenant {key.tenant!r}" if key.tenant else "")
