"""`HybridDataArchitecture`: opens the stores, places the entities, hands out collections, closes everything."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import UUID

import msgspec

from polystore import opening
from polystore.architecture.upkeep import Upkeep
from polystore.cache import CacheStore
from polystore.collection import (
    Channel,
    Collection,
    KeyValue,
    Limiter,
    Log,
    Scope,
    State,
    Transaction,
    Wiring,
    rate_of,
    untyped,
)
from polystore.collection.files import Files
from polystore.consistency import DataConsistencyManager, Settings
from polystore.consistency.facts import Facts
from polystore.embedding import Embedder
from polystore.entity import EntityType
from polystore.env import SYSTEM_ENV, Env
from polystore.errors import ConfigurationError, InvalidData, ValueTooLarge
from polystore.kinds import encode_reference
from polystore.layers import tracing
from polystore.model import TENANT_BYTES_MAX
from polystore.rates import RateKind
from polystore.registry import unknown
from polystore.results import Ack, WriteResult
from polystore.selection import Remembered
from polystore.store import Store

if TYPE_CHECKING:
    from polystore.sqlalchemy.joining import Join

T = TypeVar("T")


class HybridDataArchitecture(Upkeep):
    """One application, its entities and its stores.

    Made by `open`. An object is one tenant's view (at first the tenant ""), `tenant` gives another's; all views share
    the stores, and closing one closes all.
    """

    def __init__(
        self, wiring: Wiring, remembered: Mapping[str, Remembered], exits: AsyncExitStack, tenant: str = ""
    ) -> None:
        self._wiring = wiring
        self._remembered = remembered
        self._exits = exits
        self._tenant = tenant

    @classmethod
    def open(
        cls,
        config: str | PathLike[str] | Mapping[str, Any] | None = None,
        *,
        entities: Sequence[type[Any]] = (),
        embedders: Mapping[str, Embedder] | None = None,
        schema: Literal["create", "validate"] | None = None,
        env: Env | None = None,
        settings: Settings | None = None,
    ) -> Opening:
        """Connect the stores, place the entities, begin to deliver: `await` it, or use it as `async with`.

        config: path of a polystore.toml, a URL such as "embedded:./data", or a mapping of the same shape; None:
        `POLYSTORE_CONFIG`, else ./polystore.toml, else "embedded:./.polystore". entities: classes beside those that
        the configuration names. embedders: by the name that `Embedding(embedder=...)` uses; "default" is the hashed
        one of `polystore.embedding` unless another is given. schema: "create" (the default of embedded stores) makes
        what is missing and carries out changes that lose nothing; "validate" only compares.

        Raises ConfigurationError, EntityError, SchemaMismatch and what a required store raises; then everything that
        was opened is closed again. A store with `required = false` that does not answer is left out until it does: its
        copies are owed what they miss, and searches that need it raise. It gets nothing that it did not have before.
        """

        async def start() -> HybridDataArchitecture:
            exits = AsyncExitStack()
            try:
                wiring, remembered = await opening.open_all(
                    exits,
                    config,
                    entities,
                    embedders or {},
                    create=schema != "validate",
                    env=env or SYSTEM_ENV,
                    settings=settings,
                )
            except BaseException:
                await exits.aclose()
                raise
            return cls(wiring, remembered, exits)

        return Opening(start)

    async def close(self) -> None:
        """Deliver what is in hand (at most `settings.drain_s`), stop, close all stores. What is not delivered yet is
        durable: the next one to open the stores goes on with it. Idempotent; everything is closed even when something
        fails, and the first failure is raised."""
        await self._exits.aclose()

    # -- views --------------------------------------------------------------------------------------------------

    def collection(self, cls: type[T]) -> Collection[T]:
        """The records of an entity class. Raises ConfigurationError for a class that was not given to `open`."""
        return Collection(Scope(self._wiring, self._wiring.entity(cls), self._tenant))

    def tenant(self, tenant: str) -> HybridDataArchitecture:
        """The view of one tenant: records of others cannot be reached from it, equal keys are different records.

        Raises InvalidData: a tenant's name follows the rules of keys and has at most 128 bytes of UTF-8.
        """
        try:
            name = encode_reference(tenant)
        except InvalidData as e:
            raise type(e)(f"tenant: {e}") from None
        if len(name.encode()) > TENANT_BYTES_MAX:
            raise ValueTooLarge(f"tenant: the name has more than {TENANT_BYTES_MAX} bytes of UTF-8")
        return HybridDataArchitecture(self._wiring, self._remembered, self._exits, name)

    # -- files --------------------------------------------------------------------------------------------------

    @property
    def files(self) -> Files:
        """Content of any size, which records name by fields of type FileRef. Raises UnsupportedOperation when no entity
        has such a field: content that no record can name would be swept away."""
        return Files(self._file_room(), self._tenant)

    # -- state --------------------------------------------------------------------------------------------------

    def state(self, cls: type[T]) -> State[T]:
        """The values of a class that is state, `@entity(data_type="session")` and the like. Raises UnsupportedOperation
        for one that is none, ConfigurationError for one that was not given to `open`."""
        return State(self._wiring, self._wiring.entity(cls), self._tenant)

    def limiter(
        self,
        name: str,
        *,
        limit: int,
        per_s: float,
        kind: RateKind = "sliding_window",
        burst: int | None = None,
    ) -> Limiter:
        """A rate limit: `limit` in `per_s` seconds for each key, see `Limiter`. `burst` is the size of a token bucket;
        None: `limit`. What was taken is remembered by the name, so a limiter may be made anew for each use.

        Raises ConfigurationError for a rate that cannot be, UnsupportedOperation when no store has the role live_state.
        """
        rate = rate_of(name, limit, per_s, kind, burst)
        return Limiter(self._wiring.live_state, self._tenant, _named("limiter", name), rate)

    def channel(self, name: str, *, type: type[T]) -> Channel[T]:  # noqa: A002 -- as people say it
        """A channel for messages of this type, see `Channel`: anything that a field of an entity can be, or an entity.

        Raises ConfigurationError for another type, UnsupportedOperation when no store has the role live_state.
        """
        return Channel(self._wiring.live_state, self._tenant, _named("channel", name), type)

    # -- logs ---------------------------------------------------------------------------------------------------

    def log(self, cls: type[T]) -> Log[T]:
        """The lines of a class under `@entity(data_type="log")`. Raises UnsupportedOperation for one that is no log,
        ConfigurationError for one that was not given to `open`."""
        return Log(self._wiring, self._wiring.entity(cls), self._tenant)

    # -- what a store's driver can do beside ----------------------------------------------------------------------

    def client(self, name: str) -> Any:
        """The driver's own object of a store, for what only that store can do: `hda.client("cache").zadd(...)`. It is
        shared with polystore, so do not close it, and keep away from keys and tables that begin with ps.

        Raises ConfigurationError for a name that is not configured or did not answer, UnsupportedOperation where the
        adapter has no such object.
        """
        store = self._wiring.stores.get(name)
        if store is None:
            raise unknown("the store", name, self._wiring.stores)
        return store.client

    # -- several records ----------------------------------------------------------------------------------------

    def transaction(
        self,
        *,
        op_id: UUID | None = None,
        ack: Ack = "committed",
        ack_timeout_s: float = 10.0,
        join: Join | None = None,
    ) -> AbstractAsyncContextManager[Transaction]:
        """Collect writes inside the block and send them as one commit at its end; types of one home only.

        An exception inside the block sends nothing. The commit raises what its writes raise, and then none is done.

        join: a SQLAlchemy session or connection, sync or async, to the home's own database. Then the block's end only
        writes in its transaction: what was written is durable, and `tx.result` no longer "pending", when the caller
        commits, and gone when he rolls back. Raises ConfigurationError for another database, and for any other `ack`
        than "committed", which would have to wait for the caller.
        """
        if join is not None:
            from polystore.sqlalchemy.joining import JoinedTransaction  # imports SQLAlchemy

            if ack != "committed":
                raise ConfigurationError("a joined transaction ends when the caller commits: ack= does not go with it")
            return JoinedTransaction(self._wiring, self._tenant, op_id, join)
        return Transaction(self._wiring, self._tenant, op_id, ack, ack_timeout_s)

    # -- untyped ------------------------------------------------------------------------------------------------

    async def write_operation(
        self,
        data: untyped.Parts,
        *,
        entity: str | type[Any],
        key: KeyValue,
        op_id: UUID | None = None,
        expect_version: int | None = None,
        ack: Ack = "committed",
        ack_timeout_s: float = 10.0,
    ) -> WriteResult:
        """Write a record given as parts, see `Parts`: as `Collection.put` with the part `core`, else as
        `Collection.update`. Raises UnsupportedOperation for a part that no store takes, InvalidData for values."""
        scope = untyped.scope_of(self._wiring, entity, self._tenant)
        return await untyped.write(scope, data, key, op_id, expect_version, ack, ack_timeout_s)

    async def read_operation(self, query: untyped.Query) -> untyped.ReadResult:
        """Ask the store that is made for the kind of query, see `Query`; the result says who answered."""
        return await untyped.read(self._wiring, self._tenant, query)

    # -- what is going on ---------------------------------------------------------------------------------------

    def trace(self) -> AbstractContextManager[tracing.Trace]:
        """Collect which store answered what, and in how many ms: `with hda.trace() as trace: ...; trace.steps`."""
        return tracing.collect()

    # for tools that look at the parts: the command line, monitoring, tests

    @property
    def types(self) -> Mapping[str, EntityType[Any]]:
        """Entity name -> compiled type."""
        return self._wiring.types

    @property
    def stores(self) -> Mapping[str, Store]:
        """The stores that answered when this was opened, by name."""
        return self._wiring.stores

    @property
    def remembered(self) -> Mapping[str, Remembered]:
        """Entity name -> its placement as it holds now, and what would be better."""
        placements = self._wiring.placements
        return {
            name: msgspec.structs.replace(one, placement=placements.get(name, one.placement))
            for name, one in self._remembered.items()
        }

    @property
    def caches(self) -> Mapping[str, CacheStore]:
        """Entity name -> the cache that its reads by key ask; its `counts` say what they met."""
        return self._wiring.caches

    @property
    def facts(self) -> Facts:
        """What delivers facts that a journal keeps for a store that was down; `kept` says how many."""
        return self._wiring.facts

    @property
    def manager(self) -> DataConsistencyManager:
        """What delivers the changes; its `placements` say where each entity type lives."""
        return self._wiring.manager


def _named(what: str, name: str) -> str:
    try:
        return encode_reference(name)
    except InvalidData as e:
        raise ConfigurationError(f"{what}: the name: {e}") from None


class Opening:
    """An architecture about to be opened: `hda = await ...` (then `close` it), or `async with ... as hda`."""

    def __init__(self, start: Callable[[], Coroutine[Any, Any, HybridDataArchitecture]]) -> None:
        self._start = start
        self._opened: HybridDataArchitecture | None = None

    def __await__(self) -> Generator[Any, None, HybridDataArchitecture]:
        return self._start().__await__()

    async def __aenter__(self) -> HybridDataArchitecture:
        self._opened = await self._start()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._opened.close()
