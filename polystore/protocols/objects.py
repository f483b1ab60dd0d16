"""Blobs: content of any size under keys that are written once."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class SupportsObjects(Protocol):
    """Content by key, streamed in and out."""
