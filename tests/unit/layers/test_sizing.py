"""How many changes are sent at once."""

import asyncio
from typing import Any

import pytest

from polystore.errors import StoreError, StoreTimeout
from polystore.layers.sizing import Sizing
from polystore.operations import Operation
from polystore.protocols import Repository


def _apply(sizing: Sizing, count: int, error: Exception | None = None) -> None:
    operation: Operation[Any] = Operation("apply", (range(count),), Repository)

    async def inner(operation: Operation[Any]) -> Any:
        if error is not None:
            raise error

    asyncio.run(sizing.call(operation, inner))


def test_half_of_what_took_too_long_and_twice_as_many_after_so_many_that_did_not() -> None:
    sizing = Sizing(500)
    for expected in (250, 125, 62):
        with pytest.raises(StoreTimeout):
            _apply(sizing, sizing.most, StoreTimeout("slow"))
        assert sizing.most == expected
    _apply(sizing, 61)
    assert sizing.most == 62
    for expected in (124, 248, 496, 500, 500):
        _apply(sizing, sizing.most)
        assert sizing.most == expected


def test_one_at_least_and_only_slowness_makes_it_less() -> None:
    sizing = Sizing(500)
    with pytest.raises(StoreTimeout):
        _apply(sizing, 3, StoreTimeout("slow"))
    assert sizing.most == 1
    with pytest.raises(StoreTimeout):
        _apply(sizing, 1, StoreTimeout("slow"))
    assert sizing.most == 1
    with pytest.raises(StoreError):
        _apply(sizing, 1, StoreError("broken"))
    assert sizing.most == 1
