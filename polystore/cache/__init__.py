"""Reads that ask a cache before the home, see docs/explanation/caching.md.

`entries.py` says what is kept under which name, `store.py` is the cache as a store (asked by readers, invalidated by
deliveries), `records.py` reads records through it, `results.py` keeps the results of queries.
"""

from polystore.cache.entries import ABSENT_TTL_S, HARD_TTL_S, RESULT_TTL_S
from polystore.cache.records import CachedRecords
from polystore.cache.results import Answered, Results
from polystore.cache.store import CacheStore, Counts, open_caches

__all__ = [
    "ABSENT_TTL_S",
    "HARD_TTL_S",
    "RESULT_TTL_S",
    "Answered",
    "CacheStore",
    "CachedRecords",
    "Counts",
    "Results",
    "open_caches",
]
