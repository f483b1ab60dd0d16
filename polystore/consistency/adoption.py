"""Rows of an application's table that were there before polystore, or came while nobody told it."""

from __future__ import annotations

import logging

from polystore.errors import ConfigurationError
from polystore.protocols import SupportsApplicationTables
from polystore.store import Store

log = logging.getLogger("polystore.consistency")

ADOPT_CHUNK = 500
_SAY_EVERY = 20_000


def check_home(home: Store, etype: str) -> None:
    """Raises ConfigurationError where a table of the application cannot be at home."""
    if not home.supports(SupportsApplicationTables):
        raise ConfigurationError(
            f"{etype} is mapped to a table of the application, and {home.name!r}, its home, has no such tables: pin it "
            f'to the store that has it, with [pins.{etype}] home = "..."'
        )


async def adopt(home: Store, etype: str) -> int:
    """Take over the rows that polystore does not know, and those that are gone, a chunk in each transaction: what was
    done stays done if it ends early. Returns how many."""
    adopted = said = 0
    cursor: str | None = None
    while True:
        count, cursor = await home.call(SupportsApplicationTables.adopt, etype, cursor, ADOPT_CHUNK)
        adopted += count
        if adopted - said >= _SAY_EVERY:
            said = adopted
            log.info("%s: %d rows taken over so far", etype, adopted)
        if cursor is None:
            break
    if adopted:
        log.info("%s: %d rows taken over", etype, adopted)
    return adopted
