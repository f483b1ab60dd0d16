"""What the parts of the facade share: the wiring of one open architecture, and one entity type of one tenant in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

from polystore.cache import CachedRecords, CacheStore, Results
from polystore.collection.sweeping import FileRoom
from polystore.consistency import DataConsistencyManager
from polystore.consistency.facts import Facts
from polystore.declaration import TTL_S_MAX
from polystore.embedding import pack
from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import (
    ConfigurationError,
    DimensionMismatch,
    InvalidData,
    InvalidFilter,
    NotFound,
    Unavailable,
    UnsupportedOperation,
)
from polystore.model import (
    Key,
    Placement,
    Record,
    Vectors,
    Write,
    key_hash,
)
from polystore.protocols import SupportsRefresh
from polystore.results import Stored, Token
from polystore.selection import kind_of
from polystore.store import Store

T = TypeVar("T")

KeyValue = str | int | UUID
"""What a record is called by: the type of the entity's key field."""
Facet = Literal["full_text", "vector", "graph"]

LIMIT_MAX = 10_000
"""Most results of one call; more are had page by page, or by `stream`."""

_DECLARED: Mapping[Facet, str] = {
    "full_text": "FullText() on a str field",
    "vector": "Embedding() on a str field",
    "graph": "Relation() on a field of ids",
}
_NO_VECTORS: Vectors = {}
_NOTHING_KEPT: frozenset[str] = frozenset()
"""Of nearly all writes: made anew for each, they would be most of what Python's collector has to count in an import."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Wiring:
    """The parts of an open architecture. `stores` holds those that answered when it was opened; `placements` says where
    records live, `alone` where facts and state do that are entities by themselves; `journal` keeps what is owed to
    stores without one; `caches` are asked before the homes, by entity type, `result_cache` keeps results of queries;
    `files` holds the content of files, None when no entity has any."""

    def __init__(
        self,
        env: Env,
        types: Mapping[str, EntityType[Any]],
        stores: Mapping[str, Store],
        placements: Mapping[str, Placement],
        manager: DataConsistencyManager,
        facts: Facts,
        alone: Mapping[str, Placement] = {},
        journal: Store | None = None,
        live_state: str | None = None,
        caches: Mapping[str, CacheStore] = {},
        files: FileRoom | None = None,
        result_cache: CacheStore | None = None,
    ) -> None:
        self.env = env
        self.types = types
        self.stores = stores
        self.placements = placements
        self.manager = manager
        self.facts = facts
        self.alone = alone
        self.journal = journal
        self._live_state = live_state
        self.caches = caches
        self.result_cache = result_cache
        self.files = files
        self._by_class: Mapping[type[Any], EntityType[Any]] = {one.cls: one for one in types.values()}

    def entity(self, cls: type[T]) -> EntityType[T]:
        """The compiled type of a class. Raises ConfigurationError when it was not given to `open`."""
        one = self._by_class.get(cls)
        if one is None:
            known = ", ".join(sorted(known.__name__ for known in self._by_class))
            name = getattr(cls, "__name__", repr(cls))
            raise ConfigurationError(
                f"{name} is not an entity of this architecture; known: {known}. Give it to open(entities=[...]), or "
                "name its module under entities in polystore.toml"
            )
        return one

    def store(self, name: str) -> Store:
        """Raises Unavailable while a store does not answer since `open`, which only optional stores may do, or was
        taken out of the configuration and serves until what takes its place is filled."""
        store = self.stores.get(name)
        if store is None:
            raise Unavailable(
                "it has not answered since this architecture was opened, and is asked again; or it is not configured "
                "here any more, and what takes its place is being filled",
                store=name,
            )
        return store

    @property
    def live_state(self) -> Store:
        """The store of limits and channels. Raises UnsupportedOperation when no store is configured for that,
        Unavailable as `store`."""
        if self._live_state is None:
            raise UnsupportedOperation(
                "no configured store keeps live state; configure one that can (redis, sqlite, memory), or add "
                "'live_state' to its roles"
            )
        return self.store(self._live_state)


class Scope(Generic[T]):
    """One entity type of one tenant: where it lives, how values become writes, how records come back."""

    def __init__(self, wiring: Wiring, entity: EntityType[T], tenant: str) -> None:
        self.wiring = wiring
        self.manager = wiring.manager
        self.entity = entity
        self.etype = entity.name
        self.tenant = tenant
        if entity.name in wiring.alone:
            way = "state" if kind_of(entity) == "state" else "log"
            raise UnsupportedOperation(
                f"{entity.cls.__name__} is no record: its data_type is {entity.data_type!r}; use "
                f"hda.{way}({entity.cls.__name__})"
            )
        if tenant and entity.mapped is not None:
            raise UnsupportedOperation(
                f"{entity.cls.__name__} is a table of the application, which has one tenant; leave out hda.tenant()"
            )
        self.home = wiring.store(self.placement.authority)
        self.found_at = self.home if not self.placement.journal else wiring.store(self.placement.home)
        """Who answers conditions: a home that cannot commit does that itself, and may be a moment behind."""
        cache = wiring.caches.get(entity.name)
        self.cached = None if cache is None else CachedRecords(cache, self.home, entity, tenant)
        self.results = None if wiring.result_cache is None else Results(wiring.result_cache, tenant)

    @property
    def placement(self) -> Placement:
        """Where the type lives now: facets move."""
        return self.wiring.placements[self.etype]

    def __repr__(self) -> str:
        return f"{self.entity.cls.__name__} of tenant {self.tenant!r} in {self.placement.home}"

    def key(self, value: object) -> Key:
        """The identity of a record. Raises InvalidData for an impossible key."""
        return Key(self.tenant, self.etype, self.entity.key_id(value))

    # -- values become writes ---------------------------------------------------------------------------------

    def whole(
        self,
        kind: Literal["create", "put", "skip", "insert"],
        value: T,
        *,
        expect_version: int | None = None,
        vectors: Mapping[str, Sequence[float]] | None = None,
        ttl_s: float | None = None,
    ) -> Write:
        """A write of a whole value. Raises InvalidData, ValueTooLarge, DimensionMismatch: nothing was written."""
        return self.measured(kind, value, expect_version=expect_version, vectors=vectors, ttl_s=ttl_s)[0]

    def measured(
        self,
        kind: Literal["create", "put", "skip", "insert"],
        value: T,
        *,
        expect_version: int | None = None,
        vectors: Mapping[str, Sequence[float]] | None = None,
        ttl_s: float | None = None,
    ) -> tuple[Write, int]:
        """As `whole`, with the bytes of the content."""
        check_version(expect_version)
        entity = self.entity
        ttl_us = microseconds(entity.ttl_s if ttl_s is None else ttl_s)
        body = entity.encode(value)
        id = entity.id_of(body)
        hash, size = entity.sealed(body, bounded=True)
        given = self._given(vectors, body) if vectors else _NO_VECTORS
        write = Write(
            kind,
            Key(self.tenant, self.etype, id),
            key_hash(self.tenant, self.etype, id),
            body,
            hash,
            expect_version,
            self._vectors(body, given) if entity.embeddings else _NO_VECTORS,
            frozenset(given) if given else _NOTHING_KEPT,
            ttl_us,
        )
        return write, size

    def patch(
        self,
        key: Key,
        changes: Mapping[str, object],
        *,
        expect_version: int | None = None,
        vectors: Mapping[str, Sequence[float]] | None = None,
    ) -> Write:
        """A write of some fields of a standing record. Raises InvalidData: nothing was written."""
        if not hasattr(changes, "items"):
            raise InvalidData(
                f"update of {self.etype}: a mapping or a function is needed, not {type(changes).__name__}"
            )
        check_version(expect_version)
        body = self.entity.encode_patch(changes)
        given = self._given(vectors, body) if vectors else {}
        made: Vectors = self._vectors(body, given) if self.entity.embeddings else {}
        return Write("update", key, self.hash_of(key), body, b"", expect_version, made, frozenset(given))

    def extension(self, key: Key, ttl_s: float) -> Write:
        """A write that changes nothing but when the record expires."""
        return Write("update", key, self.hash_of(key), {}, ttl_us=microseconds(ttl_s))

    def removal(self, key: Key, *, expect_version: int | None = None) -> Write:
        check_version(expect_version)
        return Write("delete", key, self.hash_of(key), None, expect_version=expect_version)

    @staticmethod
    def hash_of(key: Key) -> int:
        return key_hash(key.tenant, key.etype, key.id)

    def _vectors(self, body: Mapping[str, Any], given: Vectors) -> Vectors:
        """The vectors that travel with a write: those given, and those that can be made at once."""
        rest = {field: body.get(field) for field in self.entity.embeddings if field not in given}
        try:
            return {**self.manager.inline_vectors(self.etype, rest), **given}
        except (ValueError, OverflowError) as e:
            raise InvalidData(f"{self.entity.cls.__name__}: {e}") from None

    def _given(self, vectors: Mapping[str, Sequence[float]], body: Mapping[str, Any]) -> dict[str, bytes]:
        """The caller's own vectors of text fields, packed."""
        if not isinstance(vectors, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidData(f"vectors= is a mapping from fields to vectors, not {type(vectors).__name__}")
        packed: dict[str, bytes] = {}
        for field, vector in vectors.items():
            where = f"{self.entity.cls.__name__}.{field}"
            if field not in self.entity.embeddings:
                fields = ", ".join(self.entity.embeddings) or "none"
                raise InvalidData(f"vectors=: {where} has no Embedding(); fields that have: {fields}")
            if field not in self.entity.embedded_texts:
                raise InvalidData(f"vectors=: {where} is itself a vector; give it as the value of the field")
            if body.get(field) is None:
                raise InvalidData(f"vectors=: {where} has no text in this write that the vector could belong to")
            packed[field] = self.packed(field, vector)
        return packed

    def packed(self, field: str, vector: Sequence[float]) -> bytes:
        """A vector given by the application, checked. Raises DimensionMismatch, InvalidData."""
        where = f"{self.entity.cls.__name__}.{field}"
        wanted = self.manager.embedders.dimension(self.entity, field)
        if isinstance(vector, (str, bytes)) or not isinstance(vector, Sized):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidData(f"{where}: a vector of {wanted} numbers is needed, not {type(vector).__name__}")
        if len(vector) != wanted:
            raise DimensionMismatch(f"{where}: the vector has {len(vector)} components, the field has {wanted}")
        try:
            return pack(vector)
        except (ValueError, TypeError, OverflowError) as e:
            raise InvalidData(f"{where}: {e}") from None

    # -- records come back ------------------------------------------------------------------------------------

    def stored(self, record: Record) -> Stored[T]:
        """A live record with its version and time."""
        body = record.body
        assert body is not None
        expires_at = _EPOCH + timedelta(microseconds=record.expires_us) if record.expires_us else None
        written_at = _EPOCH + timedelta(microseconds=record.updated_us)
        return Stored(self.entity.decode(body), record.version, written_at, expires_at)

    def not_found(self, key: Key) -> NotFound:
        return NotFound(f"{self.etype} {key.id!r} does not exist")

    # -- who answers ------------------------------------------------------------------------------------------

    def serving(self, facet: Facet) -> Store:
        """The store of a facet. Raises UnsupportedOperation when no field has it."""
        name = self.placement.facets.get(facet)
        if name is None:
            raise UnsupportedOperation(f"{self.entity.cls.__name__} is not placed for this: put {_DECLARED[facet]}")
        return self.wiring.store(name)

    async def ready(self, store: Store, after: Token | None, stale_ok: bool = False) -> None:
        """Return when `store` may be asked about this type: it is complete, or need not be, and holds what `after`
        names. Raises Unavailable, StalenessTimeout, InvalidData."""
        self.manager.readable(self.etype, store.name, whole=not stale_ok)
        if after is not None:
            await self.manager.caught_up(self.etype, store.name, Token(after))
            if store.supports(SupportsRefresh):  # another process may have delivered it
                await store.call(SupportsRefresh.refresh, self.etype)

    async def vectors_ready(self, store: Store, after: Token | None, stale_ok: bool = False) -> None:
        """As `ready`, for the vectors: at a home that serves them itself, an embedder may still be at work."""
        await self.ready(store, after, stale_ok)
        if after is not None and store is self.home:
            for stage in self.manager.embedders.pseudo_targets(self.etype):
                await self.manager.caught_up(self.etype, stage, Token(after))


def check_limit(limit: int, more: str = "read on with cursor=, or use stream()") -> None:
    if type(limit) is not int:
        raise InvalidFilter(f"limit= is an int from 1 to {LIMIT_MAX}, not {type(limit).__name__}")
    if not 1 <= limit <= LIMIT_MAX:
        raise InvalidFilter(f"limit={limit}: from 1 to {LIMIT_MAX}; {more}")


def microseconds(ttl_s: float | None) -> int | None:
    """A time to live as homes take it. Raises InvalidData."""
    if ttl_s is None:
        return None
    if type(ttl_s) not in (int, float) or not 0 < ttl_s <= TTL_S_MAX:
        raise InvalidData(f"ttl_s= takes a number of seconds above 0 and at most {TTL_S_MAX}")
    return max(1, round(ttl_s * 1e6))


def check_version(expected: int | None) -> None:
    if expected is not None and type(expected) is not int:
        raise InvalidData(
            f"expect_version= is the int of WriteResult.version or Stored.version, not {type(expected).__name__}"
        )


def check_token(after: Token | None) -> None:
    """A home holds every committed write, so there a token has nothing to wait for but must be one."""
    if after is not None:
        Token(after).pairs()
