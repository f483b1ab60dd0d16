"""What each store buys: one application on the configurations of docs/how-to/grow.md, one after the other, on the same
records. `python -m benchmarks.growth [--input FILE] [--records N] [--json FILE]`; its servers are those of `make up`.

    python -m benchmarks.growth --input conversation.csv
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import random
import re
import sys
import tempfile
import time
import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any, TypeVar

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.data import sentences
from benchmarks.servers import url_of
from polystore import Embedding, FullText, HybridDataArchitecture, Relation, entity
from polystore.consistency.verify import Verifier
from polystore.testing.places import places
from polystore.transfer import transfer

T = TypeVar("T")
PAGE = Path(__file__).resolve().parent.parent / "docs/how-to/grow.md"
ASKED = 200
TOPICS = 40


@entity()
@dataclass(kw_only=True)
class Topic:
    id: str


@entity()
@dataclass(kw_only=True)
class Note:
    id: str
    text: Annotated[str, FullText(), Embedding()]
    about: Annotated[list[str], Relation("ABOUT", to=Topic)] = field(default_factory=list[str])


class Step(msgspec.Struct):
    """A configuration, measured. arrived_s: until everything was there and complete. ms: (median, 95th of a hundred) of
    one call at a time; "write": a put until it is durable, "applied": until every copy has it. answers: what some
    searches found, which no step may change."""

    added: str
    arrived_s: float
    ms: Mapping[str, tuple[float, float]]
    differences: int
    answers: Mapping[str, Sequence[str]]


def steps(page: Path = PAGE) -> list[tuple[str, dict[str, Any]]]:
    """(what is added, the stores up to there) as the page says it; the first is the embedded profile."""
    found: list[tuple[str, dict[str, Any]]] = []
    stores: dict[str, Any] = {}
    for block in re.findall(r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        added = tomllib.loads(block)["stores"]
        stores = {**stores, **added}
        found.append((", ".join(added), stores))
    return found


def placed(stores: Mapping[str, Any], exits: ExitStack, known: dict[str, Any]) -> dict[str, Any]:
    """The stores at places of their own, the same as in the step before."""
    out: dict[str, Any] = {}
    for name, one in stores.items():
        if name not in known:
            url = re.sub(r"\$\{(\w+)\}", lambda match: url_of(match[1].removesuffix("_URL")), one["url"])
            place = exits.enter_context(places(url)())
            known[name] = {**one, "url": place.url, "options": {**one.get("options", {}), **place.options}}
        out[name] = known[name]
    return {"stores": out}


async def grow(texts: Sequence[str], directory: Path, told: Callable[[Step], None], asked: int = ASKED) -> None:
    """Each step on what the one before has left; at the end all copies are taken away again."""
    rng = random.Random(7)
    notes = [Note(id=f"n{i:06}", text=text, about=[f"t{rng.randrange(TOPICS)}"]) for i, text in enumerate(texts)]
    embedded = f"embedded:{directory}/data"
    async with HybridDataArchitecture.open(embedded, entities=[Topic, Note]) as hda:
        begun = time.perf_counter()
        await hda.collection(Topic).put_many([Topic(id=f"t{i}") for i in range(TOPICS)])
        await hda.collection(Note).import_many(notes)
        await hda.settle(600)
        told(await measured("embedded", hda, notes, time.perf_counter() - begun, asked))
    known: dict[str, Any] = {}
    with ExitStack() as exits:
        way = steps()
        for i, (added, stores) in enumerate([*way, ("", way[0][1])]):
            begun = time.perf_counter()
            async with HybridDataArchitecture.open(placed(stores, exits, known), entities=[Topic, Note]) as hda:
                if i == 0:
                    async with HybridDataArchitecture.open(embedded, entities=[Topic, Note]) as before:
                        await transfer(before, hda)
                await hda.settle(600)
                told(await measured(f"+ {added}" if added else "back", hda, notes, time.perf_counter() - begun, asked))


async def measured(
    added: str, hda: HybridDataArchitecture, notes: Sequence[Note], arrived_s: float, asked: int
) -> Step:
    rng = random.Random(11)
    some = [rng.choice(notes) for _ in range(asked)]
    words = [_word(note.text, rng) for note in some]
    records = hda.collection(Note)
    ms = {
        "get": await _each(some, lambda note: records.get(note.id)),
        "search": await _each(words, records.search),
        "similar": await _each(some, lambda note: records.similar(note.text)),
        "related": await _each(
            some, lambda note: records.related(note.id, "ABOUT", direction="both", depth=2, limit=50)
        ),
        "write": await _each(some, lambda note: records.put(replace(note, text=f"{note.text}."))),
        "applied": await _each(some, lambda note: records.put(note, ack="applied")),
    }
    await hda.settle(600)
    verifier = Verifier(hda.manager.stores, hda.manager.placements, hda.manager.embedders)
    differences = 0
    for etype in hda.manager.placements:
        async for _ in verifier.differences(etype):
            differences += 1
    answers = {word: sorted(hit.value.id for hit in await records.search(word, limit=1000)) for word in words[:20]}
    return Step(added, arrived_s, ms, differences, answers)


async def _each(asked: Sequence[T], ask: Callable[[T], Awaitable[object]]) -> tuple[float, float]:
    """One after the other, the first tenth not counted."""
    took: list[float] = []
    warm = max(1, len(asked) // 10)
    for one in [*asked[:warm], *asked]:
        begun = time.perf_counter()
        await ask(one)
        took.append((time.perf_counter() - begun) * 1e3)
    return median(took[warm:]), quantiles(took[warm:], n=20)[-1]


def _word(text: str, rng: random.Random) -> str:
    """Two syllables in a row."""
    words: list[str] = re.findall(r"[가-힣]{2,}", text) or [text]
    word = rng.choice(words)
    at = rng.randrange(max(1, len(word) - 1))
    return word[at : at + 2]


def texts_of(path: Path | None, records: int | None) -> list[str]:
    """The rows of a CSV file as texts, without repeats; made ones without a file."""
    if path is None:
        return sentences(records or 12_000)
    with path.open(encoding="utf-8", newline="") as file:
        rows = [" ".join(cell for cell in row if not cell.isdigit()) for row in list(csv.reader(file))[1:]]
    return [text for text in dict.fromkeys(rows) if text.strip()][:records]


def table(done: Sequence[Step]) -> Table:
    shown = Table(title="median ms of one call at a time (95 of 100 are below)", title_justify="left")
    for name in ("", "there after", *done[0].ms, "verify"):
        shown.add_column(name)
    for step in done:
        times = [f"{mid:.2f} ({high:.2f})" for mid, high in step.ms.values()]
        shown.add_row(step.added, f"{step.arrived_s:.1f} s", *times, f"{step.differences}")
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--input", type=Path, help="a CSV file with a header, whose rows are the texts")
    parser.add_argument("--records", type=int, help="how many; all of the file, or 12,000")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON too")
    given = parser.parse_args()
    texts = texts_of(given.input, given.records)
    done: list[Step] = []
    console = Console()

    def told(step: Step) -> None:
        done.append(step)
        console.print(f"{step.added}: there after {step.arrived_s:.1f} s, {step.differences} differences")

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(grow(texts, Path(directory), told))
    console.print(f"{len(texts):,} records, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")
    console.print(table(done))
    if given.json:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(done)))
    changed = [step.added for step in done if step.answers != done[0].answers]
    if changed:
        console.print(f"other answers than at first: {', '.join(changed)}")
    return 1 if changed or any(step.differences for step in done) else 0


if __name__ == "__main__":
    sys.exit(main())
