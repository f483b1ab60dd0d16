"""Ranking by words as the analyzer `nori` sees them, where its plugin is installed.

What is found does not change by it: that is what the terms of `polystore.text` find, everywhere the same. A text field
is then indexed by nori as well (`<field>.nori`), and of what is found, texts in which nori sees the words of the query
rank higher: 나는 in "나는 간다" is then not the 나는 of "하늘을 나는".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from polystore.text import Phrase
from polystore_adapters.elasticsearch.server import Document, Server

PLUGIN: Final = "analysis-nori"
ANALYZER: Final = "nori"
NAME: Final = "nori"


async def installed(server: Server) -> bool:
    """Whether every node has the plugin: shards go to any of them."""
    answer = await server.ask("GET", "/_nodes/plugins", filter_path="nodes.*.name,nodes.*.plugins.name")
    nodes: Iterable[Document] = answer["nodes"].values()
    return all(PLUGIN in [plugin["name"] for plugin in node.get("plugins", ())] for node in nodes)


def mapping(field: Document) -> Document:
    """The mapping of a text field, indexed by nori as well."""
    return {**field, "fields": {NAME: {"type": "text", "analyzer": ANALYZER}}}


def mapped(properties: Document, fields: Sequence[str]) -> bool:
    """Whether an index with these properties has all of the fields so."""
    return bool(fields) and all(NAME in properties.get(field, {}).get("fields", {}) for field in fields)


def ranking(fields: Sequence[str], phrases: Sequence[Phrase]) -> Document:
    """What adds to the score of what is found."""
    text = " ".join(_said(phrase) for phrase in phrases)
    return {"multi_match": {"query": text, "type": "most_fields", "fields": [f"{field}.{NAME}" for field in fields]}}


def _said(phrase: Phrase) -> str:
    """The letters of a phrase: pairs overlap by one."""
    first, *others = phrase.terms
    if all(before[-1] == after[0] for before, after in pairwise(phrase.terms)):
        return first + "".join(term[1:] for term in others)
    return " ".join(phrase.terms)
