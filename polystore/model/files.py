"""Content outside the record that names it."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

import msgspec

from polystore.errors import InvalidData
from polystore.model.records import Value

OBJECT_KEY_BYTES_MAX = 512
SEGMENT_MAX = 200
"""Characters between two slashes of a key: it must do for the name of a directory."""
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_SEGMENT = rf"(?!\.{{1,2}}(?:/|\Z))[A-Za-z0-9_.~%-]{{1,{SEGMENT_MAX}}}"
_OBJECT_KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_FILE_KEY = re.compile(r"([^/]+)/([0-9a-f]{2})/[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


class FileRef(msgspec.Struct, frozen=True):
    """What a record holds of a file: `key` names the content in its store, `sha256` (hex) and `size` (bytes) are
    checked whenever all of it is read. Made by `hda.files.save`; one record may name it, never two."""

    key: str
    sha256: str
    size: int
    content_type: str = "application/octet-stream"


class Upload(Value, frozen=True, gc=False):
    """Content on its way to `key`. `id` is new for every try to save it, so that two tries never mix."""

    key: str
    id: str


class StoredObject(Value, frozen=True, gc=False):
    """Content that is complete. `created_us` is the time by the store's own clock."""

    key: str
    size: int
    sha256: str
    content_type: str
    created_us: int = 0

    def same_content(self, other: StoredObject) -> bool:
        """Whether saving the one is the other's repeat."""
        ours, theirs = (self.size, self.sha256, self.content_type), (other.size, other.sha256, other.content_type)
        return ours == theirs


class ObjectPage(Value, frozen=True, gc=False):
    """Objects sorted by key, and what the store's clock said when it listed them."""

    objects: Sequence[StoredObject]
    now_us: int


def check_object_key(key: str) -> str:
    """Raises InvalidData unless the key is segments of ASCII letters, digits and `_.~%-` between slashes, none of them
    "." or "..", of at most 512 bytes: a name that means the same in every store and on every file system."""
    if len(key) > OBJECT_KEY_BYTES_MAX or not _OBJECT_KEY.fullmatch(key):
        raise InvalidData(
            "the key of an object is made of letters, digits and _.~%- between slashes, without . and .. between them, "
            f"of at most {OBJECT_KEY_BYTES_MAX} bytes"
        )
    return key


def tenant_segment(tenant: str) -> str:
    """The first part of the keys of a tenant's files, and of no other tenant's: its name, with other characters than
    letters, digits, _ and - as %XX; "~" for the tenant "", and "~" with a hash for a name that is too long."""
    if not tenant:
        return "~"
    plain = "".join(chr(c) if chr(c) in _PLAIN else f"%{c:02X}" for c in tenant.encode())
    return plain if len(plain) <= SEGMENT_MAX else "~" + hashlib.blake2b(tenant.encode(), digest_size=20).hexdigest()


def file_key(tenant: str, uuid: UUID) -> str:
    """`<tenant>/<two hex digits of the CRC-32 of the uuid>/<uuid>`: spread evenly over 256 folders of a tenant."""
    return f"{tenant_segment(tenant)}/{zlib.crc32(uuid.bytes) >> 24:02x}/{uuid}"


def file_key_owner(key: str) -> str | None:
    """The first segment of a key that `file_key` may have made; None for every other key."""
    match = _FILE_KEY.fullmatch(key)
    return None if match is None else match[1]


def refs_of(fields: Iterable[str], body: Mapping[str, Any]) -> list[FileRef]:
    """The files that a body names in these fields."""
    found: list[FileRef] = []
    for field in fields:
        value = body.get(field)
        named = cast(list[Any], value) if isinstance(value, list) else [value]
        found += [msgspec.convert(one, FileRef) for one in named if one is not None]
    return found
