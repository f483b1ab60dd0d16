"""A search that goes on along relations: seeds by meaning, and what is a few steps from them.

A record counts for every seed that leads to it: 1 / (60 + rank of the seed), as in `searching.fused`, halved with each
step. So ranks are compared and not scores, whose scale belongs to the metric, and what several seeds lead to comes
before what hangs on one alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from polystore.collection.relations import Walk, related
from polystore.collection.searching import RRF_K, RRF_WINDOW, Question, similar
from polystore.filters import predicate
from polystore.model import Key
from polystore.results import Explored, Related, Token


async def explore(
    question: Question[Any], to: str | Sequence[float], field: str | None, asked: Walk, after: Token | None
) -> list[Explored[Any]]:
    """`question` is about the seeds. A seed's walk looks at the nearest 50, and at no fewer than are asked for."""
    scope, stale_ok = question.scope, question.stale_ok
    seeds = await similar(question, to, field, after)
    bodies = [scope.entity.encode(hit.value) for hit in seeds]
    keys = [Key(scope.tenant, scope.etype, scope.entity.id_of(body)) for body in bodies]
    walk = replace(asked, limit=max(asked.limit, RRF_WINDOW))
    walks = await asyncio.gather(*(related(scope, key, walk, after, stale_ok) for key in keys))
    holds = None if asked.where is None else predicate(asked.where)
    among = asked.into is None or asked.into is scope.entity
    ways: dict[Key, list[Explored[Any]]] = {}
    for rank, (hit, body, seed, reached) in enumerate(zip(seeds, bodies, keys, walks, strict=True), 1):
        there: dict[Key, Related[Any]] = dict(reached)
        there.pop(seed, None)  # a way back
        if among and (holds is None or holds(body)):
            there[seed] = Related(hit.value, 0, (), {})
        for key, one in there.items():
            score = 1 / (RRF_K + rank) / 2**one.depth
            ways.setdefault(key, []).append(Explored(one.value, score, seed.id, one.depth, one.path))
    found = {
        key: replace(max(some, key=lambda one: one.score), score=sum(one.score for one in some))
        for key, some in ways.items()
    }
    ranked = sorted(found.items(), key=lambda item: (-item[1].score, item[0].etype, item[0].id))
    return [one for _, one in ranked[: asked.limit]]
