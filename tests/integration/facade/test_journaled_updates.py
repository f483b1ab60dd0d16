"""Many that update one record at once, whose home cannot commit: all of it happens, without a conflict."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import pytest

from polystore import HybridDataArchitecture, VersionConflict, entity
from polystore.testing.places import places
from tests.sockets import forgotten_connections
from tests.stack import url_of

WRITERS = [f"of_{i}" for i in range(8)]
made: type[Any] = make_dataclass("Tally", [("id", str), *((name, int, 0) for name in WRITERS)], kw_only=True)
Tally = entity(name="tally")(made)
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@contextmanager
def architectures(home: str, directory: Path) -> Generator[dict[str, Any]]:
    with forgotten_connections(), places(url_of(home))() as at:
        stores = {
            "main": {"url": f"sqlite:{directory}/main.db", "roles": ["home", "journal"]},
            "away": {"url": at.url, "roles": ["document"], "options": dict(at.options)},
        }
        yield {"stores": stores, "pins": {"tally": {"home": "away"}}}


@pytest.mark.parametrize("home", ["mongodb", "redis"])
def test_eight_updates_of_one_record_at_once_all_happen(home: str, tmp_path: Path) -> None:
    """Four times each, from two architectures, as two processes would: also with the body at the home alone."""

    async def main(config: dict[str, Any]) -> None:
        open_one = HybridDataArchitecture.open
        async with open_one(config, entities=[Tally]) as one, open_one(config, entities=[Tally]) as other:
            tallies = [hda.collection(Tally) for hda in (one, other)]
            await tallies[0].put(Tally(id="a"))
            await one.settle(30)
            versions: list[int | None] = []
            for turn in range(1, 5):
                updates = [tallies[i % 2].update("a", {name: turn}) for i, name in enumerate(WRITERS)]
                versions += [result.version for result in await asyncio.gather(*updates)]
            assert await tallies[1].get("a") == Tally(id="a", **dict.fromkeys(WRITERS, 4))
            assert len({*versions}) == 32, "each is a write of its own"
            first = min(one for one in versions if one is not None)
            with pytest.raises(VersionConflict):
                await tallies[0].update("a", {WRITERS[0]: 9}, expect_version=first)

    with architectures(home, tmp_path) as config:
        asyncio.run(main(config))
