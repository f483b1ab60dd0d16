"""A purge is done behind an apply, and never makes it fail."""

from __future__ import annotations

import asyncio
import logging

import pytest

from polystore.errors import Unavailable
from polystore.model import Change, Key
from polystore.purging import PURGE_S, Purges
from polystore.testing.conformance import MovableEnv
from polystore.testing.simloop import run

APPLIED = [Change(Key("", "note", "a"), 1, 0, None, b"", 0)]


def test_a_purge_that_fails_is_told_and_tried_again_at_its_next_turn(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    async def purge(etype: str) -> bool:
        asked.append(etype)
        if len(asked) == 1:
            raise Unavailable("away", store="copy", operation="purge")
        return len(asked) == 2

    async def main() -> None:
        env = MovableEnv()
        purges = Purges(env, purge)
        await purges.behind(APPLIED)
        assert asked == [], "there is nothing to purge at first"
        for turn in (1, 2):
            env.forward(PURGE_S)
            await purges.behind(APPLIED)
            assert len(asked) == turn
        await purges.behind(APPLIED)
        assert asked == ["note"] * 3, "there were more"
        await purges.behind(APPLIED)
        assert asked == ["note"] * 3

    with caplog.at_level(logging.WARNING, "polystore"):
        asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "tombstones of note stay for now: Unavailable: copy purge: away"
    ]


async def hanging(asked: list[str]) -> Purges:
    """At its turn to purge, and a purge does not end; `asked` is told of each that begins."""

    async def purge(etype: str) -> bool:
        asked.append(etype)
        await asyncio.Event().wait()
        return False

    env = MovableEnv()
    purges = Purges(env, purge)
    await purges.behind(APPLIED)
    env.forward(PURGE_S)
    return purges


def test_a_purge_that_does_not_end_holds_no_apply_up() -> None:
    async def main(_loop: object) -> None:
        asked: list[str] = []
        purges = await hanging(asked)
        await purges.behind(APPLIED)
        assert asked == ["note"]

    run(1, main)


def test_a_purge_that_outlasts_the_deadline_of_its_call_is_not_begun_again_by_the_next() -> None:
    async def main(_loop: object) -> None:
        asked: list[str] = []
        purges = await hanging(asked)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await purges.behind(APPLIED)
        await purges.behind(APPLIED)
        assert asked == ["note"]

    run(1, main)
