"""Which broken adapter must fail on which test of the kit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from polystore_adapters.memory import MemoryRepository, MemoryServer

from polystore.testing.conformance import Conformance

B = TypeVar("B", bound=type[MemoryServer | MemoryRepository])


class Case(NamedTuple):
    broken: type[MemoryServer | MemoryRepository]
    kit: type[Conformance]
    test: str
    given: Mapping[str, Any]


CASES: list[Case] = []


def fails(kit: type[Conformance], test: str, /, **given: Any) -> Callable[[B], B]:
    """The class below is a memory server or repository with one fault, on which this test of the kit must fail."""

    def register(broken: B) -> B:
        CASES.append(Case(broken, kit, test, given))
        return broken

    return register
