"""Tests that are coroutines."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from polystore import HybridDataArchitecture, Unavailable

P = ParamSpec("P")


def in_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run the test in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def settled(hda: HybridDataArchitecture) -> None:
    """All is delivered. While a server starts, this machine may be too slow for any store: then asked again."""
    for _ in range(5):
        try:
            await hda.settle(60)
            return
        except Unavailable:
            await asyncio.sleep(2)
    await hda.settle(60)
