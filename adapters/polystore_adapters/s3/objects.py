"""Blobs in a bucket.

    objects/<key>!             content of one part, with its sha256, type and time as metadata; or, of more parts, a
                               note that says where the content is
    parts/<key>/<upload id>    content of more parts, seen once the note names it
    pending/<upload id>        what is on its way, or was left there: the key

Whatever makes content visible is one PUT that creates and never replaces: of two at once the server lets one win. What
is known of content (its sha256) is only known when all of it was sent, and S3 takes metadata before the first byte;
hence the note, which is written last.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import obstore
from obstore.exceptions import AlreadyExistsError, GenericError

from polystore.errors import AlreadyExists, NotFound, StoreCorrupt, ValueTooLarge
from polystore.model import StoredObject, Upload, check_object_key
from polystore_adapters.s3.driver import ClientError, code_of, listed
from polystore_adapters.s3.options import Place

PARTS_MAX = 10_000
"""Of one upload, as S3 has it."""
KNOWN_MAX = 10_000
AT_ONCE = 16
PAGE = 100
_END = "!"
"""Behind each key, and in none: MinIO lists no object below another, and sorts before all that a key can go on with."""
_PART, _DIGEST, _TIME, _SIZE = "polystore-part", "polystore-sha256", "polystore-created-us", "polystore-size"


@dataclass
class _Sending:
    """What this process knows of an upload: its first part while there is no second, then the server's name of it and
    the ETag and size of the parts that it has."""

    first: bytes | None = None
    server_id: str = ""
    parts: dict[int, tuple[str, int]] = field(default_factory=dict[int, tuple[str, int]])
    beginning: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class _Known:
    """An object that stands, and the path of its bytes."""

    stored: StoredObject
    path: str


class Bucket:
    """The objects below one prefix of a bucket. Raises the clients' own errors where it does not say more."""

    def __init__(self, place: Place) -> None:
        self._bucket, self.prefix = place.bucket, place.prefix
        self.part_bytes = place.options.part_mb << 20
        self.data = place.store()
        self.control = place.control()
        self._threads = ThreadPoolExecutor(place.options.connections, "polystore-s3")
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._sending: dict[str, _Sending] = {}
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        self.control.close()

    def _object(self, key: str) -> str:
        return f"{self.prefix}objects/{check_object_key(key)}{_END}"

    def _parts(self, upload: Upload) -> str:
        return f"{self.prefix}parts/{check_object_key(upload.key)}/{check_object_key(upload.id)}"

    def _pending(self, upload_id: str) -> str:
        return f"{self.prefix}pending/{upload_id}"

    async def ask(self, operation: str, **given: Any) -> Any:
        """One operation of S3, by its name in the driver, in a thread."""
        call = partial(getattr(self.control, operation), Bucket=self._bucket, **given)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def create(self) -> None:
        """Make the bucket; somebody else may have done it meanwhile."""
        region = self.control.meta.region_name
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            await self.ask("create_bucket", **where)
        except ClientError as error:
            if code_of(error) != "BucketAlreadyOwnedByYou":
                raise

    # -- writing ----------------------------------------------------------------------------------------------

    async def put_part(self, upload: Upload, index: int, data: bytes) -> None:
        path = self._parts(upload)
        if index >= PARTS_MAX:
            raise ValueTooLarge(
                f"object {upload.key!r}: an object has at most {PARTS_MAX} parts of {self.part_bytes} bytes; open the "
                "store with a larger part_mb"
            )
        sending = self._sending.setdefault(upload.id, _Sending())
        if index == 0 and not sending.server_id:
            sending.first = data
            return
        async with sending.beginning:
            if not sending.server_id:
                await obstore.put_async(self.data, self._pending(upload.id), upload.key.encode())
                sending.server_id = (await self.ask("create_multipart_upload", Key=path))["UploadId"]
        await self._send(path, sending, index, data)
        if sending.first is not None:
            await self._send(path, sending, 0, sending.first)
            sending.first = None  # not before it is there: the call may be tried again

    async def _send(self, path: str, sending: _Sending, index: int, data: bytes) -> None:
        given = {"Key": path, "UploadId": sending.server_id, "PartNumber": index + 1, "Body": data}
        try:
            answer = await self.ask("upload_part", **given)
        except ClientError as error:
            if code_of(error) == "NoSuchUpload":
                raise _gone(path) from None
            raise
        sending.parts[index] = (answer["ETag"], len(data))

    async def finish(self, upload: Upload, made: StoredObject, now_us: int) -> None:
        """Make it visible. A repeat finds that it is."""
        path, sending = self._parts(upload), self._sending.get(upload.id, _Sending())
        about = {_DIGEST: made.sha256, _TIME: str(now_us), _SIZE: str(made.size), "Content-Type": made.content_type}
        data = b"" if made.size == 0 else sending.first
        if data is not None and len(data) == made.size:
            await self._create(made, data, about)
        elif await self._complete(path, sending, made):
            await self._create(made, path.encode(), about | {_PART: path})
            await self._forget_pending(upload.id)
        elif (standing := await self._find(upload.key)) is None or not standing.stored.same_content(made):
            raise AlreadyExists(_other(made.key)) if standing else _gone(upload.key)
        self._sending.pop(upload.id, None)

    async def _complete(self, path: str, sending: _Sending, made: StoredObject) -> bool:
        """Whether the parts are content now: all of them were there."""
        sizes = [sending.parts[index][1] for index in sorted(sending.parts)]
        if len(sizes) < 2 or max(sending.parts) + 1 != len(sizes) or sum(sizes) != made.size:
            return False
        parts = [{"PartNumber": index + 1, "ETag": sending.parts[index][0]} for index in sorted(sending.parts)]
        given = {"Key": path, "UploadId": sending.server_id, "MultipartUpload": {"Parts": parts}}
        try:
            await self.ask("complete_multipart_upload", **given)
        except ClientError as error:
            if code_of(error) != "NoSuchUpload":
                raise
            try:  # it may have been completed by a call whose answer was lost
                return bool((await obstore.head_async(self.data, path))["size"] == made.size)
            except FileNotFoundError:
                return False
        return True

    async def _create(self, made: StoredObject, data: bytes, about: dict[str, str]) -> None:
        """Raises AlreadyExists when other content stands at the key."""
        path = self._object(made.key)
        try:
            await obstore.put_async(self.data, path, data, mode="create", attributes=about, use_multipart=False)
        except AlreadyExistsError:
            await self._already(made, about)
        except GenericError:
            # The one client tells by its words alone why the server refused: the other one asks again, and has a code.
            meta = {name: value for name, value in about.items() if name != "Content-Type"}
            given = {"Key": path, "Body": data, "ContentType": made.content_type, "Metadata": meta}
            try:
                await self.ask("put_object", **given, IfNoneMatch="*")
            except ClientError as error:
                if code_of(error) != "PreconditionFailed":
                    raise
                await self._already(made, about)

    async def _already(self, made: StoredObject, about: dict[str, str]) -> None:
        standing = await self._find(made.key)
        if _PART in about and (standing is None or standing.path != about[_PART]):
            await obstore.delete_async(self.data, about[_PART])
        if standing is None or not standing.stored.same_content(made):
            raise AlreadyExists(_other(made.key))

    async def abandon(self, upload: Upload) -> None:
        path, sending = self._parts(upload), self._sending.pop(upload.id, None)
        if sending is not None and sending.server_id:
            await self._drop(path, upload.key)
            await self._forget_pending(upload.id)

    async def _drop(self, path: str, key: str) -> None:
        """Abort what is on its way to `path`, and remove what got there unless it is the content of the key."""
        under_way = await self.ask("list_multipart_uploads", Prefix=path)
        for one in under_way.get("Uploads", ()):
            try:
                await self.ask("abort_multipart_upload", Key=one["Key"], UploadId=one["UploadId"])
            except ClientError as error:
                if code_of(error) != "NoSuchUpload":
                    raise
        standing = await self._find(key)
        if standing is None or standing.path != path:
            await obstore.delete_async(self.data, path)

    async def _forget_pending(self, upload_id: str) -> None:
        await obstore.delete_async(self.data, self._pending(upload_id))

    async def remove(self, keys: list[str]) -> None:
        """The bytes before the note: a removal that was cut off is found, and done again."""
        paths = [self._object(key) for key in keys]
        found = await asyncio.gather(*(self._find(key) for key in keys))
        apart = [one.path for one, path in zip(found, paths, strict=True) if one is not None and one.path != path]
        for key in keys:
            self._known.pop(key, None)
        for some in (apart, paths):
            if some:
                await obstore.delete_async(self.data, some)

    async def discard(self, before_us: int) -> bool:
        """An upload counts from its beginning, which its id tells."""
        done = 0
        async for chunk in listed(self.data, f"{self.prefix}pending/", page=PAGE):
            for one in chunk:
                upload_id = one["path"].rpartition("/")[2]
                if _begun_us(upload_id) > before_us:
                    continue
                if done == PAGE:
                    return True
                done += 1
                try:
                    key = bytes(await (await obstore.get_async(self.data, one["path"])).bytes_async()).decode()
                except FileNotFoundError:
                    continue  # somebody else has just discarded it, or finished it
                self._sending.pop(upload_id, None)
                await self._drop(self._parts(Upload(key, upload_id)), key)
                await self._forget_pending(upload_id)
        return False

    # -- reading ----------------------------------------------------------------------------------------------

    async def read(self, key: str, start: int, end: int) -> bytes:
        path, known = self._object(key), self._known.get(key)
        if known is None and start < end:
            try:
                answer = await obstore.get_async(self.data, path, options={"range": (start, end)})
            except FileNotFoundError:
                raise _absent(key) from None
            except GenericError:
                pass  # the range begins behind the end, or it is an outage: the next request tells
            else:
                known = self._learn(key, dict(answer.attributes), path)
                if known.path == path:
                    return bytes(await answer.bytes_async())
        known = known or await self._find(key)
        if known is None:
            raise _absent(key)
        end = min(end, known.stored.size)
        if start >= end:
            return b""
        try:
            return bytes(await obstore.get_range_async(self.data, known.path, start=start, end=end))
        except FileNotFoundError:
            self._known.pop(key, None)
            if await self._find(key) is None:
                raise _absent(key) from None
            raise StoreCorrupt("the content is missing; restore it from a backup", key=key) from None

    async def stat(self, keys: list[str]) -> list[StoredObject | None]:
        for key in keys:
            self._object(key)
        found = await asyncio.gather(*(self._find(key) for key in keys))
        return [None if one is None else one.stored for one in found]

    async def _find(self, key: str) -> _Known | None:
        """What stands at the key now."""
        path = self._object(key)
        async with self._at_once:
            try:
                answer = await obstore.get_async(self.data, path, options={"range": (0, 1)})
            except FileNotFoundError:
                return None
            except GenericError:  # no byte 0: it is empty; or an outage, which the next request tells
                try:
                    answer = await obstore.get_async(self.data, path)
                except FileNotFoundError:
                    return None
        return self._learn(key, dict(answer.attributes), path)

    def _learn(self, key: str, about: dict[str, str], path: str) -> _Known:
        try:
            size, created_us = int(about[_SIZE]), int(about[_TIME])
            stored = StoredObject(key, size, about[_DIGEST], about["Content-Type"], created_us)
        except (KeyError, ValueError):
            raise StoreCorrupt(f"{path} was not put there by polystore; move it out of the prefix", key=key) from None
        known = self._known[key] = _Known(stored, about.get(_PART, path))
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return known

    async def list(self, prefix: str, after: str, limit: int) -> list[StoredObject]:
        base = f"{self.prefix}objects/"
        folder = f"{base}{prefix.rpartition('/')[0]}"
        keys: list[str] = []
        async for chunk in listed(self.data, folder, offset=f"{base}{after}{_END}" if after else None):
            found = [one["path"].removeprefix(base).removesuffix(_END) for one in chunk]
            keys += [key for key in found if key.startswith(prefix) and key > after]
            if len(keys) >= limit or (prefix and found[-1] > prefix and not found[-1].startswith(prefix)):
                break
        known = await asyncio.gather(*(self._find(key) for key in keys[:limit]))
        return [one.stored for one in known if one is not None]

    async def address(self, key: str, expires_s: int) -> str:
        known = await self._find(key)
        if known is None:
            raise _absent(key)
        return await obstore.sign_async(self.data, "GET", known.path, timedelta(seconds=expires_s))


def _begun_us(upload_id: str) -> int:
    """The time in a UUIDv7; 0, long ago, for an id of another kind."""
    try:
        return (UUID(upload_id).int >> 80) * 1000
    except ValueError:
        return 0


def _gone(key: str) -> NotFound:
    return NotFound(f"object {key!r}: parts of the upload are missing; save it again")


def _absent(key: str) -> NotFound:
    return NotFound(f"object {key!r} does not exist")


def _other(key: str) -> str:
    return f"object {key!r} exists already, with other content"
