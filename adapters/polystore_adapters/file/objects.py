"""Blobs in a directory, as blocking calls.

    DIR/objects/<segment>/<segment>/<last segment>@/content, meta.json     what is complete
    DIR/uploads/<upload id>/content                                        what is on its way
    DIR/uploads/<any name>                                                 what is being removed

An object is a directory, and becomes visible by one rename of it: content and what is known of it appear together, and
a directory can never be renamed onto another one that has something in it, so of two processes only one makes it. "@"
is in no key: a key may be the beginning of another.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec

from polystore.errors import AlreadyExists, NotFound, StoreCorrupt
from polystore.model import StoredObject, Upload, check_object_key

PART_BYTES = 1 << 20
SYNCED_PARTS = 32
"""After so many parts the content is synced, so that finishing a large one does not wait for all of it."""
_CONTENT, _META, _REMOVED = "content", "meta.json", "removed-"
_decoder = msgspec.json.Decoder(StoredObject)


class Directory:
    """The objects below one directory, which must be on one file system. Methods may run in any thread."""

    def __init__(self, root: Path, umask: int) -> None:
        self.root = root
        self._objects = root / "objects"
        self._uploads = root / "uploads"
        self._rights = 0o777 & ~umask
        self._file_rights = 0o666 & ~umask

    def create(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True, mode=self._rights)
        for part in (self._objects, self._uploads):
            self._make(part)

    def exists(self) -> bool:
        return self._objects.is_dir() and self._uploads.is_dir()

    def _make(self, directory: Path) -> None:
        """Make it with what is missing above it, so that it is still there after a loss of power."""
        if not directory.is_dir():
            if directory.parent != self.root:
                self._make(directory.parent)
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, self._rights)
            _sync(directory.parent)

    def _place(self, key: str) -> Path:
        return self._objects / f"{check_object_key(key)}@"

    def _upload(self, upload: Upload) -> Path:
        check_object_key(upload.key)
        if "/" in check_object_key(upload.id):
            raise NotFound(f"no upload has the id {upload.id!r}")
        return self._uploads / upload.id

    # -- writing ----------------------------------------------------------------------------------------------

    def put_part(self, upload: Upload, index: int, data: bytes) -> None:
        place = self._upload(upload)
        if index == 0:
            with contextlib.suppress(FileExistsError):
                os.mkdir(place, self._rights)
        try:
            file = os.open(place / _CONTENT, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, self._file_rights)
        except FileNotFoundError:
            raise _gone(upload.key) from None
        try:
            position, rest = index * PART_BYTES, memoryview(data)
            while rest:
                written = os.pwrite(file, rest, position)
                position, rest = position + written, rest[written:]
            if (index + 1) % SYNCED_PARTS == 0:
                os.fsync(file)
        finally:
            os.close(file)

    def finish(self, upload: Upload, made: StoredObject, now_us: int) -> None:
        place, goal = self._upload(upload), self._place(upload.key)
        if self._is_done(goal, made):
            self.abandon(upload)
            return
        if not made.size:
            self.put_part(upload, 0, b"")
        try:
            self._complete(upload, made, now_us)
        except FileNotFoundError:
            if place.exists():
                raise
            raise _gone(upload.key) from None

    def _complete(self, upload: Upload, made: StoredObject, now_us: int) -> None:
        place, goal = self._upload(upload), self._place(upload.key)
        with open(place / _CONTENT, "rb") as content:
            if os.fstat(content.fileno()).st_size != made.size:
                raise _gone(upload.key)
            os.fsync(content.fileno())
        stored = msgspec.structs.replace(made, key=upload.key, created_us=now_us)
        with open(place / _META, "wb", opener=lambda path, flags: os.open(path, flags, self._file_rights)) as meta:
            meta.write(msgspec.json.encode(stored))
            meta.flush()
            os.fsync(meta.fileno())
        _sync(place)
        self._make(goal.parent)
        try:
            os.rename(place, goal)
        except OSError as e:
            if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self._is_done(goal, made)
            self.abandon(upload)
        _sync(goal.parent)

    def _is_done(self, goal: Path, made: StoredObject) -> bool:
        """Whether this content is there already. Raises AlreadyExists when it is another."""
        standing = self._read_meta(goal)
        if standing is not None and not standing.same_content(made):
            raise AlreadyExists(f"object {made.key!r} exists already, with other content")
        return standing is not None

    def abandon(self, upload: Upload) -> None:
        self._take_away(self._upload(upload))

    def remove(self, keys: list[str]) -> None:
        for place in [self._place(key) for key in keys]:
            self._take_away(place)

    def _take_away(self, place: Path) -> None:
        """Renamed, an object is gone at once, whatever happens before its files are; and an upload can no more become
        one when some of its files are gone already."""
        away = self._uploads / f"{_REMOVED}{uuid4()}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(place, away)
            _sync(place.parent)
            shutil.rmtree(away, ignore_errors=True)

    def discard(self, before_us: int) -> bool:
        for entry in os.scandir(self._uploads):
            with contextlib.suppress(FileNotFoundError):
                if entry.name.startswith(_REMOVED):
                    shutil.rmtree(entry.path, ignore_errors=True)
                elif _touched_us(entry.path) <= before_us:
                    self._take_away(Path(entry.path))
        return False

    # -- reading ----------------------------------------------------------------------------------------------

    def read(self, key: str, start: int, end: int) -> bytes:
        try:
            with open(self._place(key) / _CONTENT, "rb", buffering=0) as content:
                data = bytearray()
                while start < end and (more := os.pread(content.fileno(), end - start, start)):
                    data += more
                    start += len(more)
                return bytes(data)
        except FileNotFoundError:
            if self._read_meta(self._place(key)) is not None:
                raise StoreCorrupt(f"{self.root}: the content is missing; restore it from a backup", key=key) from None
            raise NotFound(f"object {key!r} does not exist") from None

    def stat(self, keys: list[str]) -> list[StoredObject | None]:
        return [self._read_meta(self._place(key)) for key in keys]

    def address(self, key: str) -> str:
        place = self._place(key)
        if self._read_meta(place) is None:
            raise NotFound(f"object {key!r} does not exist")
        return (place / _CONTENT).as_uri()

    def _read_meta(self, place: Path) -> StoredObject | None:
        """Raises StoreCorrupt when what stands there is none of ours."""
        reason = ""
        for _ in range(2):  # it may come, whole, between two looks at it
            try:
                return _decoder.decode((place / _META).read_bytes())
            except FileNotFoundError:
                if not place.is_dir():
                    return None
                reason = "meta.json is missing"
            except msgspec.DecodeError:
                reason = "meta.json is damaged"
        if not place.is_dir():
            return None  # removed while we looked
        key = str(place.relative_to(self._objects))[:-1]
        raise StoreCorrupt(f"{self.root}: {reason}; restore it from a backup, or remove {place.name!r}", key=key)

    def list(self, prefix: str, after: str, limit: int) -> list[StoredObject]:
        found: list[StoredObject] = []
        for place in self._walk(self._objects, "", prefix, after):
            if len(found) == limit:
                break
            one = self._read_meta(place)
            if one is not None:
                found.append(one)
        return found

    def _walk(self, directory: Path, above: str, prefix: str, after: str) -> Iterator[Path]:
        """The objects below, sorted by key. Folders in which no key can fit are not opened, and of a folder's names
        those that were not reached yet are kept in no order: a page of few keys sorts few."""
        try:
            with os.scandir(directory) as entries:
                names = [above + entry.name for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return
        # An object sorts as its key; a folder as what all keys in it begin with.
        keys = [(name[:-1] if name.endswith("@") else f"{name}/", name) for name in names]
        wanted = [(key, name) for key, name in keys if _may_hold(key, name, prefix, after)]
        heapq.heapify(wanted)
        while wanted:
            _, name = heapq.heappop(wanted)
            place = self._objects / name
            if name.endswith("@"):
                yield place
            else:
                yield from self._walk(place, f"{name}/", prefix, after)


def _may_hold(key: str, name: str, prefix: str, after: str) -> bool:
    if name.endswith("@"):
        return key > after and key.startswith(prefix)
    return (key > after or after.startswith(key)) and (key.startswith(prefix) or prefix.startswith(key))


def _touched_us(path: str) -> int:
    """When a part was written last, or the upload began."""
    times = [os.stat(path).st_mtime_ns]
    with contextlib.suppress(FileNotFoundError):
        times.append(os.stat(os.path.join(path, _CONTENT)).st_mtime_ns)
    return max(times) // 1000


def _gone(key: str) -> NotFound:
    return NotFound(f"object {key!r}: parts of the upload are missing; save the content again")


def _sync(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
