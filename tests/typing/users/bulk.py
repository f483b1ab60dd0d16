"""A user's bulk import, with an embedder of his own."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Literal, assert_type

import msgspec

from polystore import Embedder, Embedding, HybridDataArchitecture, ImportReport, entity


@entity()
class Row(msgspec.Struct):
    id: int
    text: Annotated[str, Embedding()]


class Lengths:
    """Satisfies `Embedder` without inheriting from it."""

    name = "lengths-1"
    dimension = 2
    batch_max = 100
    chars_max = 1000

    async def embed(self, texts: Sequence[str], *, purpose: Literal["document", "query"]) -> Sequence[Sequence[float]]:
        return [[float(len(text)), 1.0] for text in texts]


async def rows(count: int) -> AsyncIterator[Row]:
    for i in range(count):
        yield Row(i, "x" * (i % 7 + 1))


async def main(config: str) -> tuple[list[int], ImportReport, int]:
    embedder: Embedder = Lengths()
    written: list[int] = []

    def show(report: ImportReport) -> None:
        written.append(report.written)

    async with HybridDataArchitecture.open(config, entities=[Row], embedders={"default": embedder}) as hda:
        repo = hda.collection(Row)
        report = await repo.import_many(
            rows(700), on_conflict="skip", on_error="collect", resume="load-1", progress=show
        )
        await hda.settle(60)
        seen = 0
        async for row in repo.stream():
            assert_type(row, Row)
            seen += 1
        many = await repo.get_many([1, 2, 9_999])
        assert_type(many, Sequence[Row | None])
        return written, report, seen
