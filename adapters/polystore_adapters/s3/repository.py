"""The store: `Bucket` under the contract, with the drivers' errors by type and code."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from polystore.env import Env
from polystore.errors import (
    PermissionDenied,
    RateLimited,
    SchemaMismatch,
    StoreError,
    StoreFull,
    Unavailable,
)
from polystore.model import Instance, Limits, ObjectPage, StoredObject, Upload
from polystore.protocols import Layout, SupportsObjects, SupportsSchema
from polystore.protocols.without_records import WithoutRecords
from polystore_adapters.s3 import administration
from polystore_adapters.s3.driver import BotoCoreError, ClientError, code_of
from polystore_adapters.s3.objects import Bucket
from polystore_adapters.s3.options import Place

T = TypeVar("T")
_DENIED = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "403"})
_FULL = frozenset({"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "EntityTooLarge"})
_SLOW = frozenset({"SlowDown", "RequestLimitExceeded", "TooManyRequests", "XMinioServerBusy"})
_MISSING = frozenset({"NoSuchBucket", "404"})


class S3Repository(WithoutRecords):
    """Blobs in one bucket. `client`: the driver's own object of botocore, for what is not data (policies, replication,
    tags of objects)."""

    holds = "an S3 store holds blobs"
    capabilities: frozenset[type] = frozenset({SupportsObjects, SupportsSchema})

    def __init__(self, place: Place, env: Env) -> None:
        self._bucket = Bucket(place)
        self._name, self._options = place.bucket, place.options
        self._env = env
        self._closed = False
        self.limits = Limits(part_bytes=self._bucket.part_bytes)
        self.client: Any = self._bucket.control

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except (BaseError, FileNotFoundError, BotoCoreError, ClientError) as error:
            raise self._translated(error) from error

    def _check(self) -> Bucket:
        if self._closed:
            raise Unavailable("closed; connect again")
        return self._bucket

    def _translated(self, error: Exception) -> StoreError | SchemaMismatch:
        code = code_of(error)
        if isinstance(error, FileNotFoundError) or code in _MISSING:
            return SchemaMismatch(f"the bucket {self._name!r} does not exist; run `polystore init`")
        if isinstance(error, PermissionDeniedError | UnauthenticatedError) or code in _DENIED:
            return PermissionDenied(f"the server refuses this key on the bucket {self._name!r}; change its policy")
        if code in _FULL:
            return StoreFull(f"the bucket {self._name!r} has no room left, or reached its quota; nothing was kept")
        if code in _SLOW:
            return RateLimited("the server asks for fewer requests")
        return Unavailable(f"the server does not answer as it should ({code or type(error).__name__})")

    # -- life -------------------------------------------------------------------------------------------------

    async def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        self.refuse(layouts)
        try:
            await self._call(self._check().ask("head_bucket"))
        except SchemaMismatch:
            if not create:
                raise
            await self._call(self._check().create())
        different = await self._call(administration.differences(self._check(), self._options))
        if different and not create:
            raise SchemaMismatch(
                f"the bucket {self._name!r} is not as the options ask: {', '.join(different)}; run `polystore init`"
            )
        if different:
            await self._call(administration.carry_out(self._check(), self._options))

    async def ping(self) -> Instance:
        answer = await self._call(self._check().ask("head_bucket"))
        server = answer["ResponseMetadata"]["HTTPHeaders"].get("server", "S3")
        return Instance(server, "", self._name)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._bucket.close()

    # -- blobs ------------------------------------------------------------------------------------------------

    async def put_part(self, upload: Upload, index: int, data: bytes) -> None:
        await self._call(self._check().put_part(upload, index, data))
        self._env.crashpoint("s3.put_part")

    async def finish_object(self, upload: Upload, made: StoredObject) -> None:
        await self._call(self._check().finish(upload, made, self._env.now_us()))

    async def abandon_object(self, upload: Upload) -> None:
        await self._call(self._check().abandon(upload))

    async def read_object(self, key: str, start: int, end: int) -> bytes:
        return await self._call(self._check().read(key, start, end))

    async def stat_objects(self, keys: Sequence[str]) -> list[StoredObject | None]:
        return await self._call(self._check().stat(list(keys)))

    async def list_objects(self, prefix: str, after: str, limit: int) -> ObjectPage:
        return ObjectPage(await self._call(self._check().list(prefix, after, limit)), self._env.now_us())

    async def remove_objects(self, keys: Sequence[str]) -> None:
        await self._call(self._check().remove(list(keys)))

    async def discard_parts(self, idle_us: int) -> bool:
        return await self._call(self._check().discard(self._env.now_us() - idle_us))

    async def object_url(self, key: str, expires_s: int) -> str:
        return await self._call(self._check().address(key, expires_s))
