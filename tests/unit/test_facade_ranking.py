"""How lists of matches become one, and how much of a copy is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from polystore.collection.searching import enough, fused
from polystore.model import Match


def ranked(*ids: str, version: int = 1) -> list[Match]:
    return [Match(id, 100.0 - i, version) for i, id in enumerate(ids)]


def test_ranks_count_and_scores_do_not() -> None:
    one = fused([ranked("a", "b", "c"), ranked("c", "d", "a")])
    other = fused([[Match(m.id, m.score / 1000, 1) for m in ranked("a", "b", "c")], ranked("c", "d", "a")])
    assert one == other
    assert [m.id for m in one] == ["a", "c", "b", "d"]
    assert [m.score for m in one] == pytest.approx([1 / 61 + 1 / 63, 1 / 63 + 1 / 61, 1 / 62, 1 / 62])


def test_good_in_both_lists_beats_best_in_one() -> None:
    assert fused([ranked("x", "both"), ranked("y", "both")])[0].id == "both"
    assert [m.id for m in fused([ranked("only", "x")])] == ["only", "x"]
    assert fused([[], []]) == []


def test_a_record_keeps_the_oldest_version_that_matched() -> None:
    for one, other in ((7, 5), (5, 7)):
        (match,) = fused([ranked("a", version=one), ranked("a", version=other)])
        assert match.version == 5


@pytest.mark.parametrize(
    ("live", "total", "asked"),
    [
        ([True] * 10, 10, [3]),  # enough at once
        ([True, False, True, True, True, True, True], 7, [3, 6]),  # one is gone: look further
        ([False] * 11 + [True], 12, [3, 6, 12, 24]),  # until there are no more
        ([], 0, [3]),
    ],
)
def test_more_is_asked_for_until_there_is_enough(live: list[bool], total: int, asked: list[int]) -> None:
    calls: list[int] = []

    async def ask(n: int) -> tuple[Sequence[int], bool]:
        calls.append(n)
        seen = live[:n]
        return [i for i, one in enumerate(seen) if one], len(seen) < n

    found = asyncio.run(enough(3, ask))
    assert list(found) == [i for i, one in enumerate(live) if one][:3]
    assert calls == asked
    assert total == len(live)
