"""The verbs of blobs and of the files that records name, as the repository has them."""

from __future__ import annotations

from collections.abc import Sequence

from polystore.env import Env
from polystore.errors import UnsupportedOperation
from polystore.model import ObjectPage, StoredObject, Upload, check_object_key
from polystore_adapters.sqlite import claims, objects
from polystore_adapters.sqlite.database import Database


class ObjectCalls:
    """Part of `SqliteRepository`."""

    path: str
    _db: Database
    _env: Env

    async def put_part(self, upload: Upload, index: int, data: bytes) -> None:
        check_object_key(upload.key)
        now = self._env.now_us()
        await self._db.write_one(
            lambda db, part: objects.put_part(db, upload, index, part, now), data, "put_part", durable=False
        )

    async def finish_object(self, upload: Upload, made: StoredObject) -> None:
        check_object_key(upload.key)
        now = self._env.now_us()
        await self._db.write_one(lambda db, one: objects.finish(db, upload, one, now), made, "finish_object")

    async def abandon_object(self, upload: Upload) -> None:
        await self._db.write_one(objects.abandon, upload, durable=False)
        await self._free(0)

    async def read_object(self, key: str, start: int, end: int) -> bytes:
        return await self._db.read(objects.read, self.path, check_object_key(key), start, end)

    async def stat_objects(self, keys: Sequence[str]) -> list[StoredObject | None]:
        return await self._db.read(objects.stat, [check_object_key(key) for key in keys])

    async def list_objects(self, prefix: str, after: str, limit: int) -> ObjectPage:
        return ObjectPage(await self._db.read(objects.listed, prefix, after, limit), self._env.now_us())

    async def remove_objects(self, keys: Sequence[str]) -> None:
        await self._db.write_one(objects.remove, keys, "remove_objects")
        await self._free(0)

    async def discard_parts(self, idle_us: int) -> bool:
        return await self._free(self._env.now_us() - idle_us)

    async def _free(self, before_us: int) -> bool:
        """Free what nobody touched since then, as much as one call may. True when more is left."""
        for _ in range(objects.ROUNDS_MAX):
            if await self._db.read(objects.idle, before_us) is None:
                return False
            await self._db.write_one(objects.free, before_us, durable=False)
        return True

    async def object_url(self, key: str, expires_s: int) -> str:
        raise UnsupportedOperation(
            "a SQLite file has no addresses that others could read; open the file instead, or give the role file to a "
            "file: store"
        )

    async def condemn(self, keys: Sequence[str], released_us: int, only_ask: bool) -> list[bool]:
        now = self._env.now_us()
        if only_ask:
            return await self._db.read(claims.condemn, keys, released_us, now, only_ask=True)
        return await self._db.write_one(
            lambda db, given: claims.condemn(db, given, released_us, now, only_ask=False), keys
        )
