"""Blobs of a memory server."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import msgspec

from polystore.env import Env
from polystore.errors import AlreadyExists, NotFound, UnsupportedOperation
from polystore.model import ObjectPage, StoredObject, Upload, check_object_key

PART_BYTES = 256 << 10


class _Parts(msgspec.Struct):
    """An upload: its parts, and when it was touched last."""

    touched_us: int
    data: dict[int, bytes]


class Objects:
    """Content, and uploads that nobody sees. Every method is one atomic step."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self.objects: dict[str, tuple[StoredObject, Sequence[bytes]]] = {}
        self.object_keys: list[str] = []
        self.uploads: dict[str, _Parts] = {}

    def put_part(self, upload: Upload, index: int, data: bytes) -> None:
        check_object_key(upload.key)
        parts = self.uploads.setdefault(upload.id, _Parts(0, {}))
        parts.touched_us = self.env.now_us()
        parts.data[index] = bytes(data)

    def finish_object(self, upload: Upload, made: StoredObject) -> None:
        check_object_key(upload.key)
        if (standing := self.objects.get(upload.key)) is not None:
            if not standing[0].same_content(made):
                raise AlreadyExists(f"object {upload.key!r} exists already, with other content")
            self.uploads.pop(upload.id, None)
            return
        parts = self.uploads.get(upload.id, _Parts(0, {})).data
        data = [parts[i] for i in sorted(parts)]
        if sorted(parts) != list(range(len(data))) or sum(map(len, data)) != made.size:
            raise NotFound(f"object {upload.key!r}: parts of the upload are missing; save the content again")
        self.uploads.pop(upload.id, None)
        stored = msgspec.structs.replace(made, key=upload.key, created_us=self.env.now_us())
        self.objects[upload.key] = (stored, data)
        bisect.insort(self.object_keys, upload.key)

    def abandon_object(self, upload: Upload) -> None:
        self.uploads.pop(upload.id, None)

    def read_object(self, key: str, start: int, end: int) -> bytes:
        if check_object_key(key) not in self.objects:
            raise NotFound(f"object {key!r} does not exist")
        _, data = self.objects[key]
        first = start // PART_BYTES
        joined = b"".join(data[first : -(-end // PART_BYTES)])
        return joined[start - first * PART_BYTES : end - first * PART_BYTES]

    def stat_objects(self, keys: Sequence[str]) -> list[StoredObject | None]:
        found = [self.objects.get(check_object_key(key)) for key in keys]
        return [None if one is None else one[0] for one in found]

    def list_objects(self, prefix: str, after: str, limit: int) -> ObjectPage:
        found: list[StoredObject] = []
        keys = self.object_keys
        start = bisect.bisect_left(keys, prefix)
        for key in keys[max(start, bisect.bisect_right(keys, after)) :]:
            if len(found) == limit or not key.startswith(prefix):
                break
            found.append(self.objects[key][0])
        return ObjectPage(found, self.env.now_us())

    def remove_objects(self, keys: Sequence[str]) -> None:
        for key in keys:
            if self.objects.pop(check_object_key(key), None) is not None:
                del self.object_keys[bisect.bisect_left(self.object_keys, key)]

    def discard_parts(self, idle_us: int) -> bool:
        before_us = self.env.now_us() - idle_us
        for id in [id for id, parts in self.uploads.items() if parts.touched_us <= before_us]:
            del self.uploads[id]
        return False

    def object_url(self, key: str, expires_s: int) -> str:
        raise UnsupportedOperation("a memory store has no addresses that others could read; open the file instead")
