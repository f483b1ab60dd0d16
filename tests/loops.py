"""Tests that are coroutines."""

import asyncio
import contextlib
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
    """All is delivered, within two minutes: a store whose breaker opened while a server started is asked again."""
    async with asyncio.timeout(120):
        while True:
            with contextlib.suppress(Unavailable):
                return await hda.settle(60)
            await asyncio.sleep(0.05)
