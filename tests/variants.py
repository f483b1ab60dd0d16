"""Which variants of the kit's tests run. POLYSTORE_TEST_ALL=1 runs all of them.

In memory, SQLite and files a test runs bare and under all layers, for every seed. Elsewhere, above all on servers, it
runs for one seed, bare or under all layers, and on half of the servers that speak one protocol. The test's name decides
which, so that the same ones run each time, each test somewhere, and in each class some of every kind.
"""

from __future__ import annotations

import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest

IN_THIS_PROCESS = frozenset({"test_memory.py", "test_sqlite.py", "test_file.py"})
KEPT: Mapping[str, Callable[[int], int]] = {
    "seed": lambda count: 1,
    "connect": lambda count: max(1, count // 2),
    "config": lambda count: max(1, count // 2),
}
"""Parameters that make variants of one test; how many of so many values are kept."""


def all_of_them() -> bool:
    return bool(os.environ.get("POLYSTORE_TEST_ALL"))


def chosen(items: Iterable[pytest.Item]) -> set[pytest.Item]:
    """Those of `items` that run. One that was asked for by its full name has no variants beside it, and runs."""
    families: dict[str, list[pytest.Function]] = defaultdict(list)
    out: set[pytest.Item] = set()
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and item.path.name not in IN_THIS_PROCESS:
            others = sorted((name, at) for name, at in item.callspec.indices.items() if name not in KEPT)
            families[f"{item.nodeid.partition('[')[0]} {others}"].append(item)
        else:
            out.add(item)
    for family, members in families.items():
        wanted = kept(family, [member.callspec.indices for member in members])
        out |= {member for member, yes in zip(members, wanted, strict=True) if yes}
    return out


def kept(family: str, given: Sequence[Mapping[str, int]]) -> list[bool]:
    """For each variant of the test `family`, by the place of its values among those of each parameter: does it run?"""
    keep: dict[str, set[int]] = {}
    for name, count in KEPT.items():
        values = sorted({variant[name] for variant in given if name in variant})
        first = zlib.crc32(f"{name} {family}".encode())
        keep[name] = {values[(first + 2 * i) % len(values)] for i in range(count(len(values)))} if values else set()
    return [all(variant[name] in keep[name] for name in KEPT if name in variant) for variant in given]
