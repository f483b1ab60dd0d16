"""The lease protocol of a cache (Facebook's memcache leases, NSDI 2013, with a version floor)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class SupportsCache(Protocol):
    """Encoded records by key, filled under leases that an invalidation revokes."""
