"""Content outside the record that names it."""

from __future__ import annotations

import msgspec


class FileRef(msgspec.Struct, frozen=True):
    """What a record holds of a file: `key` names the content in its store, `sha256` (hex) and `size` (bytes) are
    checked whenever all of it is read. Made by `hda.files.save`; one record may name it, never two."""

    key: str
    sha256: str
    size: int
    content_type: str = "application/octet-stream"
