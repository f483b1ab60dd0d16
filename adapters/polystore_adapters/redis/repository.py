"""A server as a repository, which holds live state and caches, and no records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from polystore.env import Env
from polystore.errors import UnsupportedOperation
from polystore.model import Change, HashSpan, Instance, Key, Limits, Outcome, Page, Record
from polystore.protocols import Layout, SupportsCache, SupportsSchema, SupportsState
from polystore_adapters.redis.cache import CacheCalls
from polystore_adapters.redis.channels import ChannelCalls
from polystore_adapters.redis.limits import LimitCalls
from polystore_adapters.redis.server import Server
from polystore_adapters.redis.state import StateCalls
from polystore_adapters.redis.urls import Client


class RedisRepository(CacheCalls, StateCalls, LimitCalls, ChannelCalls):
    """Any number of processes may share a server. `client` is the driver's own object."""

    capabilities: frozenset[type] = frozenset({SupportsSchema, SupportsState, SupportsCache})
    limits: Limits = Limits(ack_durable=False)

    def __init__(self, server: Server, env: Env) -> None:
        self._server = server
        self._env = env
        self._begin_channels()

    @property
    def client(self) -> Client:
        return self._server.client

    async def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        records = [layout.entity.name for layout in layouts if layout.kind != "state"]
        if records:
            raise UnsupportedOperation(f"a redis: store holds state and caches, and no records of {', '.join(records)}")

    async def ping(self) -> Instance:
        info = await self._server.info()
        name = info.get("server_name", "redis")
        return Instance(name, info.get(f"{name}_version", info["redis_version"]), info["run_id"])

    async def aclose(self) -> None:
        await self._end_channels()
        await self._server.aclose()

    # -- records, of which there are none ---------------------------------------------------------------------

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        _no_records()

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        _no_records()

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        _no_records()

    async def tenants(self, etype: str) -> list[str]:
        _no_records()

    async def newest(self, etype: str) -> int:
        _no_records()


def _no_records() -> NoReturn:
    raise UnsupportedOperation("a redis: store holds state and caches, and no records")
