"""Reads that a copy may answer where the home does not: an old answer, for who asked for that rather than for none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from polystore.collection.scope import Scope
from polystore.errors import InvalidData, StoreError, Unavailable
from polystore.model import Key, Record
from polystore.results import Token


def check(stale_ok: bool, after: Token | None) -> None:
    """Raises InvalidData for a read that may be old and may not."""
    if stale_ok and after is not None:
        raise InvalidData("stale_ok= takes what may be older than after=: give one of the two")


async def records(
    scope: Scope[Any],
    keys: Sequence[Key],
    ask: Callable[[Sequence[Key]], Awaitable[list[Record | None]]],
    stale_ok: bool,
) -> list[Record | None]:
    """What `ask` answers; when that raises Unavailable and `stale_ok`, what the first copy says that is complete and
    answers, in the order of the placement: None there is a record that the copy does not hold, or not yet. Raises what
    `ask` has raised when there is no such copy."""
    try:
        return await ask(keys)
    except Unavailable:
        if not stale_ok:
            raise
        for name in scope.placement.copies():
            if name != scope.placement.cache:  # it was asked first
                try:
                    scope.manager.readable(scope.etype, name)
                    return await scope.wiring.store(name).get(keys)
                except StoreError:
                    continue
        raise
