"""Search: phrases over the terms, scored by the server (BM25), judged once more where a condition asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from polystore.filters import Checked, predicate
from polystore.model import Body, Match
from polystore.text import Phrase
from polystore_adapters.elasticsearch import nori
from polystore_adapters.elasticsearch.conditions import query
from polystore_adapters.elasticsearch.held import Held
from polystore_adapters.elasticsearch.server import Document, Server

PAGE = 1_000
"""Hits of one request, below the server's `index.max_result_window`."""


def clause(phrase: Phrase) -> Document:
    if phrase.prefix:
        # The server scores some terms only; what has others is found all the same.
        begins = {"value": phrase.terms[0]}
        scored = {"prefix": {"ps_terms": {**begins, "rewrite": "top_terms_512"}}}
        return {"bool": {"filter": [{"prefix": {"ps_terms": begins}}], "should": [scored]}}
    if len(phrase.terms) == 1:
        return {"term": {"ps_terms": phrase.terms[0]}}
    return {"match_phrase": {"ps_terms": " ".join(phrase.terms)}}


async def search(
    server: Server,
    held: Held,
    tenant: str,
    phrases: Sequence[Phrase],
    where: Checked | None,
    limit: int,
    after: tuple[float, str] | None,
) -> list[Match]:
    """See `SupportsTextSearch.search`."""
    if not phrases or limit <= 0:
        return []
    await server.seen(held.index)
    asked = query(where)
    meant = None if asked.exact or where is None else predicate(where)
    live = held.live(tenant, server.env.now_us(), *([] if asked.find is None else [asked.find]))
    live["bool"]["must"] = [clause(phrase) for phrase in phrases]
    if held.by_nori:
        live["bool"]["should"] = [nori.ranking(held.codec.texts, phrases)]
    body: Document = {
        "query": live,
        "sort": [{"_score": "desc"}, {"ps_id": "asc"}],
        "track_total_hits": False,
        "_source": True if meant else ["ps_version"],
    }
    if after is not None:
        body["search_after"] = list(after)
    found: list[Match] = []
    while True:
        body["size"] = min(PAGE, limit - len(found) if meant is None else PAGE)
        hits = (await server.ask("POST", f"/{held.index}/_search", body))["hits"]["hits"]
        found += _judged(held, hits, meant)
        if len(found) >= limit or len(hits) < body["size"]:
            return found[:limit]
        body["search_after"] = hits[-1]["sort"]


def _judged(held: Held, hits: Sequence[Document], meant: Callable[[Body], bool] | None) -> list[Match]:
    return [
        Match(hit["sort"][1], hit["_score"], hit["_source"]["ps_version"])
        for hit in hits
        if meant is None or meant(held.codec.decode(hit["_source"]))
    ]
