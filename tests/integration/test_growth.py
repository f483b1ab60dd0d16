"""The page that leads from one file to many stores, followed on real servers with few records."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.growth import Step, grow, steps, texts_of
from tests.sockets import forgotten_connections
from tests.stack import server

servers = [server(name) for name in ("postgresql", "redis", "elasticsearch", "chromadb", "neo4j")]
postgresql, redis, elasticsearch, chromadb, neo4j = servers


def test_every_step_of_the_page_gives_the_same_answers(
    postgresql: str, redis: str, elasticsearch: str, chromadb: str, neo4j: str, tmp_path: Path
) -> None:
    done: list[Step] = []
    with forgotten_connections():  # Neo4j's driver forgets some, too
        asyncio.run(grow(texts_of(None, 60), tmp_path, done.append, asked=5))
    assert [step.added for step in done] == ["embedded", *(f"+ {added}" for added, _ in steps()), "back"]
    assert [step.differences for step in done] == [0] * 7
    assert any(done[0].answers.values())
    assert all(step.answers == done[0].answers for step in done)
