"""Korean is found by every two syllables inside a word, exactly where they are, on every store that searches.

python -m tests.integration.test_every_substring FILE [STORE ...]   asks for all that the cells of a CSV file have
"""

from __future__ import annotations

import asyncio
import csv
import random
import re
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import pytest

from benchmarks.data import sentences
from polystore import FullText, entity
from polystore.entity import EntityType, entity_types
from polystore.env import Env
from polystore.model import Change, Key, key_hash
from polystore.protocols import Layout, Repository, SupportsSchema, SupportsTextSearch
from polystore.registry import connect
from polystore.text import query
from tests.elasticsearch import own_prefix
from tests.homes import HOMES, Stores
from tests.stack import url_of

BATCH, TASKS = 500, 8
INSIDE = re.compile(r"(?=([가-힣]{2}))")


@contextmanager
def on_elasticsearch(folder: Path) -> Generator[Stores]:
    url = url_of("elasticsearch")
    with own_prefix(url) as prefix:
        yield {"search": {"url": url, "options": {"prefix": prefix}}}


SEARCHED = {**HOMES, "elasticsearch": on_elasticsearch}


@entity()
@dataclass(kw_only=True)
class Utterance:
    id: str
    text: Annotated[str, FullText()]


UTTERANCE: EntityType[Utterance] = entity_types([Utterance])["utterance"]


class Searching(Repository, SupportsSchema, SupportsTextSearch):
    """What is asked here."""


def holders(texts: Sequence[str]) -> dict[str, set[str]]:
    """Each two syllables inside a word, and the ids of the texts that hold them."""
    found: dict[str, set[str]] = {}
    for i, text in enumerate(texts):
        for two in INSIDE.findall(text):
            found.setdefault(two, set()).add(f"{i}")
    return found


async def wrong(stores: Stores, texts: Sequence[str], wanted: Mapping[str, set[str]]) -> list[str]:
    """Those of the strings for which the last of these stores finds other texts than hold them."""
    settings = list(stores.values())[-1]
    store = cast(Searching, await connect(settings["url"], settings.get("options", {}), Env()))
    missed: list[str] = []
    try:
        await store.prepare([Layout(UTTERANCE, False, frozenset({"full_text"}))], create=True)
        for first in range(0, len(texts), BATCH):
            some = range(first, min(len(texts), first + BATCH))
            outcomes = await store.apply([_change(i, texts[i]) for i in some])
            assert {one.status for one in outcomes} == {"applied"}
        left = iter(wanted)

        async def ask() -> None:
            for two in left:
                matches = await store.search(UTTERANCE.name, "", query(two), None, len(texts), None)
                if sorted(one.id for one in matches) != sorted(wanted[two]):
                    missed.append(two)

        await asyncio.gather(*(ask() for _ in range(TASKS)))
    finally:
        await store.aclose()
    return missed


def _change(number: int, text: str) -> Change:
    key = Key("", UTTERANCE.name, f"{number}")
    body = UTTERANCE.encode(Utterance(id=key.id, text=text))
    return Change(key, number + 1, key_hash("", key.etype, key.id), body, UTTERANCE.content_hash(body), number + 1)


@pytest.mark.parametrize("store", SEARCHED)
def test_every_two_syllables_find_exactly_the_texts_that_hold_them(store: str, tmp_path: Path) -> None:
    texts = sentences(400)
    every = holders(texts)
    some = {two: every[two] for two in random.Random(4).sample(sorted(every), 60)}
    assert max(map(len, some.values())) > 20
    with SEARCHED[store](tmp_path) as stores:
        assert asyncio.run(wrong(stores, texts, some)) == []


def main(path: Path, names: Sequence[str]) -> None:
    with path.open(encoding="utf-8", newline="") as lines:
        texts = [cell for row in csv.reader(lines) for cell in row]
    every = holders(texts)
    failed = False
    for name in names or ("sqlite", "postgresql", "mariadb", "elasticsearch"):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, SEARCHED[name](Path(folder)) as stores:
            missed = asyncio.run(wrong(stores, texts, every))
        took_s = time.perf_counter() - started
        shown = f"{name}: {len(every):,} strings in {len(texts):,} texts, {len(missed)} of them wrong, {took_s:.0f} s\n"
        sys.stdout.write(shown)
        failed = failed or bool(missed)
    sys.exit(failed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
