"""A store: one configured, named repository under its layers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import msgspec

from polystore.config import StoreConfig
from polystore.env import Env
from polystore.errors import (
    ConfigurationError,
    StoreError,
    StoreTimeout,
    Unavailable,
    UnsupportedOperation,
)
from polystore.layers import stack, tracing
from polystore.layers.breaker import Breaker
from polystore.layers.limit import Limit
from polystore.layers.metrics import Metrics
from polystore.layers.retry import Retry
from polystore.layers.sizing import Sizing
from polystore.layers.timeout import Timeout
from polystore.layers.travelling import Commits, Gets, Records
from polystore.layers.turns import Turns
from polystore.model import Change, Commit, Committed, Key, Outcome, Record
from polystore.operations import Method, Operation
from polystore.protocols import (
    Repository,
    SupportsCache,
    SupportsCommit,
    SupportsFilter,
    SupportsInlineGet,
    SupportsJournal,
    SupportsObjects,
    SupportsSchema,
    SupportsState,
    SupportsTextSearch,
    SupportsTimeRange,
    SupportsTraversal,
    SupportsVectorSearch,
)
from polystore.registry import connect

R = TypeVar("R")
P = ParamSpec("P")

ROLE_NEEDS: dict[str, tuple[type, ...]] = {
    "home": (SupportsCommit, SupportsJournal),
    "journal": (SupportsCommit, SupportsJournal),
    "document": (SupportsFilter, SupportsSchema),
    "full_text": (SupportsTextSearch,),
    "vector": (SupportsVectorSearch,),
    "graph": (SupportsTraversal,),
    "time_series": (SupportsTimeRange,),
    "live_state": (SupportsState,),
    "file": (SupportsObjects,),
    "cache": (SupportsCache,),
}
"""Role -> what a repository must be able to do for it."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a store is asked: the deadline of an operation, how often it is tried, how many calls run and wait."""

    timeout_s: float = 10.0
    attempts: int = 4
    calls_max: int = 64
    waiting_max: int = 10_000


DEFAULTS = Settings()


class Bodies(Protocol):
    """What a journal's store needs of homes that cannot commit, see `polystore.journaled`."""

    def lends(self, etype: str) -> bool: ...

    async def completed(self, keys: Sequence[Key], read: Callable[[Sequence[Key]], Awaitable[Records]]) -> Records: ...

    async def committed(
        self,
        commit: Commit,
        send: Callable[[Commit], Awaitable[Committed]],
        read: Callable[[Sequence[Key]], Awaitable[Records]],
    ) -> Committed: ...


async def open_store(name: str, config: StoreConfig, env: Env) -> Store:
    """Connect one store of the configuration. Every error names it: ConfigurationError, StoreTimeout when there is no
    answer within the store's deadline, and whatever the adapter raises."""
    try:
        async with asyncio.timeout(config.timeout_s):
            repository = env.connected(name, await connect(config.url, config.options, env))
    except TimeoutError as error:
        raise StoreTimeout(f"no answer within {config.timeout_s:g} s", store=name, operation="connect") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"stores.{name}: {error}") from error.__cause__
    except StoreError as error:
        error.store, error.operation = error.store or name, error.operation or "connect"
        raise
    try:
        settings = Settings(timeout_s=config.timeout_s)
        return Store(name, repository, env=env, roles=config.roles, settings=settings)
    except ConfigurationError:
        await repository.aclose()
        raise


class Store:
    """A repository with a name. Every call goes through the layers; errors name the store, the operation and the key.

    `roles` None: all that the repository can. Raises ConfigurationError for a role that it cannot.
    """

    def __init__(
        self,
        name: str,
        repository: Repository,
        *,
        env: Env,
        roles: Collection[str] | None = None,
        settings: Settings = DEFAULTS,
    ) -> None:
        self.name = name
        self.repository = repository
        self.capabilities = repository.capabilities
        self.limits = repository.limits
        self.roles = self._possible(roles)
        self.bodies: Bodies | None = None
        self.metrics = Metrics(env.monotonic)
        self._timeout = Timeout(settings.timeout_s)
        limit = Limit(name, settings.calls_max, settings.waiting_max)
        probe = stack([self._timeout, limit], repository)
        self.breaker = Breaker(env, lambda: probe(Operation.of(Repository.ping)))
        retry = Retry(env, settings.attempts, settings.timeout_s)
        self._layered = stack([self.metrics, self.breaker, self._timeout, retry, limit], repository)
        self._sizing = Sizing(self.limits.batch_max)
        self._turns = Turns(self._sizing)
        turns = [self._turns] if self.limits.serial else []
        self._once = stack([self.metrics, *turns, self.breaker, self._sizing, self._timeout, limit], repository)
        self._tracing = tracing.Tracing(name, env.monotonic)
        self._clock = env.monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._gets = Gets(self._layered, self.limits.batch_max)
        self._commits = Commits(self._layered, self.limits.batch_max)
        inline = self.supports(SupportsInlineGet)
        self._inline = cast(SupportsInlineGet, repository).get_now if inline else None

    def __repr__(self) -> str:
        return f"Store({self.name!r}, {type(self.repository).__name__})"

    def _possible(self, roles: Collection[str] | None) -> frozenset[str]:
        able = {role for role, needs in ROLE_NEEDS.items() if self.capabilities.issuperset(needs)}
        for role in roles or ():
            if role in ROLE_NEEDS and role not in able:
                raise ConfigurationError(
                    f"stores.{self.name}.roles: this store cannot be {role!r}; it can be {', '.join(sorted(able))}"
                )
        return frozenset(able if roles is None else roles)

    def supports(self, protocol: type) -> bool:
        """True when the repository claims this protocol."""
        return protocol is Repository or protocol in self.capabilities

    @property
    def client(self) -> Any:
        """The driver's own object, where the adapter has one. What is done with it passes no layer, and is nobody's
        promise. Raises UnsupportedOperation."""
        client = getattr(self.repository, "client", None)
        if client is None:
            raise UnsupportedOperation(f"{self.name}: its adapter has no object of a driver to give")
        return client

    async def call(self, method: Method[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a method of a protocol: `await store.call(SupportsFilter.count, etype, tenant, where)`.

        Raises UnsupportedOperation before any I/O when the repository does not claim the protocol, CircuitOpen while
        the breaker is open, StoreTimeout or OutcomeUnknown after the deadline, Backpressure when too many calls wait,
        and what the method says.
        """
        operation = Operation.of(method, *args, **kwargs)
        self._require(operation.capability, operation.verb)
        return await self._run(operation, self._layered)

    @property
    def deliver_max(self) -> int:
        """How many changes it is given at once, as far as is known from those before."""
        return self._sizing.most

    async def deliver(self, changes: Sequence[Change]) -> list[Outcome]:
        """`Repository.apply`, tried once: delivery has retries of its own."""
        operation: Operation[list[Outcome]] = Operation("apply", (changes,), Repository)
        return await self._run(operation, self._once)

    def get(self, keys: Sequence[Key]) -> Coroutine[Any, Any, Records]:
        """The records in the order asked, as `Repository.get`; keys may be of several types and tenants.

        Calls of one loop tick travel as one per type and tenant, each key once; neither a cancelled call nor one that
        fails for its own reasons disturbs the others. A single key is read inline where the repository can. Of records
        whose home cannot commit, the body may be their home's.
        """
        return self._get(keys) if self.bodies is None else self.bodies.completed(keys, self._get)

    async def _get(self, keys: Sequence[Key]) -> Records:
        if self._inline is not None and len(keys) == 1:
            try:
                return [self._get_now(keys[0])]
            except Unavailable:
                pass  # it would have to be waited for
        if tracing.current.get() is None:  # as `_run`, without what the most frequent call does not need
            try:
                self._check_usable()
                return await self._gets.ask(keys)
            except StoreError as error:
                self._name(error, "get", keys[0].id if len(keys) == 1 else None)
                raise
        about: Operation[Records] = Operation("get", (keys,), Repository)
        return await self._run(about, lambda _: self._gets.ask(keys))

    def get_now(self, key: Key) -> Record | None:
        """`SupportsInlineGet.get_now`. Raises Unavailable when the record has to be waited for: use `get`."""
        self._require(SupportsInlineGet, "get")
        if self.bodies is not None and self.bodies.lends(key.etype):
            raise Unavailable("its body may be elsewhere; use get", store=self.name, operation="get", key=key.id)
        return self._get_now(key)

    def _get_now(self, key: Key) -> Record | None:
        assert self._inline is not None
        if self.breaker.open:
            raise Unavailable("it kept failing; use get", store=self.name, operation="get", key=key.id)
        started = self._clock()
        try:
            record = self._inline(key)
        except StoreError as error:
            self._name(error, "get", key.id)
            if not isinstance(error, Unavailable):  # then `get` counts
                self._count_inline(started, error)
            raise
        except Exception as error:
            self._count_inline(started, error)
            raise
        self._count_inline(started, None)
        return record

    def commit(self, commit: Commit) -> Coroutine[Any, Any, Committed]:
        """Carry out one commit, as `SupportsCommit.commit`, and raise its own error. Commits of one loop tick travel
        together; nobody's cancellation touches the others. After a cancellation it was carried out or not."""
        return self._commit(commit) if self.bodies is None else self.bodies.committed(commit, self._commit, self._get)

    async def _commit(self, commit: Commit) -> Committed:
        self._require(SupportsCommit, "commit")
        about: Operation[Committed] = Operation("commit", (commit.writes,), SupportsCommit)
        return await self._run(about, lambda _: self._commits.ask(commit))

    async def aclose(self) -> None:
        """Close the repository; calls under way end with an error or their result. Idempotent."""
        self._closed = True
        await self.breaker.aclose()
        await self.repository.aclose()
        await self._gets.drain()
        await self._commits.drain()
        await self._turns.drain()
        self._timeout.close()

    # -- how --------------------------------------------------------------------------------------------------------

    def _require(self, protocol: type, verb: str) -> None:
        if not self.supports(protocol):
            raise UnsupportedOperation(f"{self.name} {verb}: this store has no {protocol.__name__}")

    def _check_usable(self) -> None:
        """Raises before any I/O: once closed, and in another event loop, whose futures this one would never wake."""
        if self._closed:
            raise Unavailable("closed; open the architecture again")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ConfigurationError(
                f"{self.name} was opened in another event loop; open an architecture in each loop that uses one"
            )

    async def _run(self, operation: Operation[R], way: Callable[[Operation[R]], Awaitable[R]]) -> R:
        try:
            self._check_usable()
            if tracing.current.get() is None:
                return await way(operation)
            return await self._tracing.call(operation, way)
        except StoreError as error:
            self._name(error, operation.verb, operation.key)
            raise

    def _name(self, error: StoreError, verb: str, key: str | None) -> None:
        error.store = error.store or self.name
        error.operation = error.operation or verb
        error.key = key if error.key is None else error.key

    def _count_inline(self, started: float, error: Exception | None) -> None:
        seconds = self._clock() - started
        self.metrics.of("get").add(seconds, error is not None)
        if tracer := tracing.current.get():
            tracer.record(tracing.Step(self.name, "get", seconds * 1000, 1, type(error).__name__ if error else ""))
