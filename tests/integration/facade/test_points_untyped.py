"""Points as a part of `write_operation`, and a range of time as a kind of `read_operation`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polystore import HybridDataArchitecture, InvalidData, InvalidFilter, Point, Unavailable
from tests.integration.facade.facts import Person, at, config, everywhere, run
from tests.integration.facade.world import down


@everywhere
def test_points_are_a_part_of_a_write_and_a_kind_of_read(profile: str, tmp_path: Path) -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        store = hda.manager.placements["person"].beside["time_series"]
        points: dict[str, Any] = {"mood": [(at(), 0.5), (at(1), 1)], "place": [(at(), "집")]}
        both = await hda.write_operation({"core": {"name": "민지"}, "points": points}, entity="person", key="p")
        assert both.version is not None
        assert both.stores[store] == "committed"
        alone = await hda.write_operation({"points": {"mood": [(at(2), 0.0)]}}, entity="person", key="p")
        assert (alone.version, alone.stores) == (None, {store: "committed"})
        query: Any = {"kind": "time_range", "entity": "person", "key": "p", "measure": "mood", "start": at()}
        found = await hda.read_operation(query)
        assert (found.source, found.cache) == (store, "off")
        assert list(found.items) == [Point(at(), 0.5), Point(at(1), 1.0), Point(at(2), 0.0)]
        query |= {"every": "1d", "aggregate": "count", "tz": "Asia/Seoul"}
        windows = await hda.read_operation(query)
        assert [point.value for point in windows.items] == [3]
        assert (await hda.collection(Person).load("p")).value.name == "민지"

    run(test, config(profile, tmp_path))


def test_bad_points_of_a_write_leave_the_record_unwritten() -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"moood": [(at(), 1.0)]}, "no measure 'moood'"),
        ({"mood": [(at(), "sad")]}, r"Person\.mood: a float is needed"),
        ({"mood": [1.0]}, r"a point is \(time, value\)"),
        ({"mood": "x"}, "a list of"),
        ({"mood": [("2026-01-01", 1.0)]}, "a datetime is needed"),
    ]

    async def test(hda: HybridDataArchitecture) -> None:
        for points, match in bad:
            with pytest.raises(InvalidData, match=match):
                await hda.write_operation({"core": {"name": "x"}, "points": points}, entity="person", key="p")
        assert await hda.collection(Person).count() == 0
        for query, match in (
            ({"measure": "moood", "start": at()}, "no measure 'moood'"),
            ({"start": at()}, "needs 'measure'"),
            ({"measure": "mood", "start": at(), "after": "x"}, "takes no 'after'"),
        ):
            asked: Any = {"kind": "time_range", "entity": "person", "key": "p", **query}
            with pytest.raises((InvalidData, InvalidFilter), match=match):
                await hda.read_operation(asked)

    run(test)


def test_after_the_commit_of_the_record_its_points_raise_nothing() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        parts: Any = {"core": {"name": "x"}, "points": {"mood": [(at(), 1.0)]}}
        with down(hda.stores["facts"], "append_points"):
            kept = await hda.write_operation(parts, entity="person", key="p")
            assert kept.stores["facts"] == "pending"
            with down(hda.stores["home"], "spill"):
                lost = await hda.write_operation(parts, entity="person", key="p")
                assert (lost.version is not None, lost.stores["facts"]) == (True, "failed")
                with pytest.raises(Unavailable):
                    await hda.write_operation({"points": {"mood": [(at(), 1.0)]}}, entity="person", key="p")

    run(test)
