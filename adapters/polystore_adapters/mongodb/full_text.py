"""Full text inside the record's own document: its terms as an array, by whose index a search is narrowed down, and as
one line in which a phrase is a part of the text.

An index of the kind "text" is not used: it has no prefixes, by which a word or a single syllable is found, takes words
apart in ways of its own, and of several phrases finds documents with any.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from polystore.entity import EntityType
from polystore.model import Body
from polystore.text import BM25_B, BM25_K1, Phrase, terms
from polystore_adapters.mongodb.driver import Document


class FullText:
    """The full-text fields of one entity type."""

    names: ClassVar[frozenset[str]] = frozenset({"ps_terms", "ps_line", "ps_length"})

    def __init__(self, entity: EntityType[Any]) -> None:
        self._fields = entity.full_text

    def fields(self, body: Body) -> Document:
        """What the document has of a body."""
        found = [terms(body.get(field) or "") for field in self._fields]
        distinct = sorted({term for one in found for term in one})
        return {"ps_terms": distinct, "ps_line": _line(found), "ps_length": sum(map(len, found))}

    def fault(self, document: Document, body: Body) -> str:
        """What is wrong with a document's full text; "" for nothing."""
        wanted = self.fields(body)
        good = all(document.get(name) == value for name, value in wanted.items())
        return "" if good else "full text: the indexed terms are not those of the text"


def _line(found: Sequence[Sequence[str]]) -> str:
    """Each term between spaces of its own, so that neighbours are counted apart; fields in lines."""
    return "\n".join(f" {'  '.join(one)} " if one else "" for one in found)


def _needle(phrase: Phrase) -> str:
    """What `ps_line` contains where the phrase occurs."""
    text = _line([phrase.terms])
    return text[:-1] if phrase.prefix else text


def holds(phrase: Phrase) -> Document:
    """The documents in which the phrase occurs."""
    if phrase.prefix:
        return {"ps_terms": {"$regex": f"^{re.escape(phrase.terms[0])}"}}
    every: Document = {"ps_terms": {"$all": list(dict.fromkeys(phrase.terms))}}
    if len(phrase.terms) == 1:
        return every
    return every | {"ps_line": {"$regex": re.escape(_needle(phrase))}}


def score(phrases: Sequence[Phrase], often: Sequence[int], count: int, mean: float) -> Document:
    """Okapi BM25 as an expression: https://sqlite.org/fts5.html#the_bm25_function . `often`: how many of `count`
    documents, of `mean` length, hold each phrase; one that half of them hold counts a millionth."""
    ratio = {"$divide": ["$ps_length", mean or 1.0]}
    norm = {"$multiply": [BM25_K1, {"$add": [1 - BM25_B, {"$multiply": [BM25_B, ratio]}]}]}
    parts: list[Document] = []
    for phrase, held in zip(phrases, often, strict=True):
        needle = _needle(phrase)
        without = {"$replaceAll": {"input": "$ps_line", "find": {"$literal": needle}, "replacement": ""}}
        less = {"$subtract": [{"$strLenCP": "$ps_line"}, {"$strLenCP": without}]}
        found = {"$divide": [less, len(needle)]}
        weight = max(math.log((max(count, held) - held + 0.5) / (held + 0.5)), 1e-6)
        parts.append({"$divide": [{"$multiply": [weight * (BM25_K1 + 1), found]}, {"$add": [found, norm]}]})
    return {"$add": parts}
