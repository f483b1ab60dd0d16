"""Full text in columns of the record's own row: its terms for the index, and as one line in which a phrase is a part of
the text. (A tsvector knows no positions beyond 16,383 and no more than 256 of one term: phrases of long texts would be
missed, or found where they are not.)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polystore.entity import EntityType
from polystore.model import Body
from polystore.text import BM25_B, BM25_K1, Phrase, terms


class FullText:
    """The full-text columns of one entity type."""

    columns: Mapping[str, str] = {"ps_terms": "tsvector", "ps_line": "text", "ps_length": "integer"}

    def __init__(self, entity: EntityType[Any]) -> None:
        self._fields = entity.full_text

    def values(self, body: Body | None) -> tuple[Any, ...]:
        """The columns' values of a record; of a tombstone there are none."""
        if body is None:
            return (None, None, None)
        found = [terms(body.get(field) or "") for field in self._fields]
        distinct = dict.fromkeys(term for one in found for term in one)
        quoted = " ".join(f"'{_escaped(term)}'" for term in distinct)
        return quoted, self.line(found), sum(map(len, found))

    def expected(self, body: Body) -> str:
        """`ps_line` as it should be."""
        return self.line([terms(body.get(field) or "") for field in self._fields])

    @staticmethod
    def line(found: Sequence[Sequence[str]]) -> str:
        """Each term between spaces of its own, so that neighbours are counted apart; fields in lines."""
        return "\n".join(f" {'  '.join(one)} " if one else "" for one in found)


def _escaped(term: str) -> str:
    return term.replace("\\", "\\\\").replace("'", "''")


def needle(phrase: Phrase) -> str:
    """What `ps_line` contains where the phrase occurs."""
    line = FullText.line([phrase.terms])
    return line[:-1] if phrase.prefix else line


def tsquery(phrases: Sequence[Phrase]) -> str:
    """All terms of the phrases: what the index narrows the search down to."""
    return " & ".join(dict.fromkeys(_parts(phrases)))


def _parts(phrases: Sequence[Phrase]) -> Iterator[str]:
    for phrase in phrases:
        for term in phrase.terms:
            yield f"'{_escaped(term)}'" + (":*" if phrase.prefix else "")


def search_sql(source: str, key: str, count: int, where: str) -> str:
    """$1 tenant, $2 limit, $3 and $4 score and id of the last match before or NULL, then for each phrase its tsquery
    and its needle, then those of the condition over `t`.

    The score is Okapi BM25 (https://sqlite.org/fts5.html#the_bm25_function) over the tenant's records; a phrase that
    half of them hold counts a millionth.
    """
    holds = [f"t.ps_terms @@ ${5 + 2 * i}::text::tsquery AND strpos(t.ps_line, ${6 + 2 * i}) > 0" for i in range(count)]
    weights = ", ".join(
        f"(SELECT count(*) FROM {source} t WHERE t.ps_tenant = $1 AND {one})::double precision AS f{i}"
        for i, one in enumerate(holds)
    )
    often = [
        f"((length(t.ps_line) - length(replace(t.ps_line, ${6 + 2 * i}, ''))) / length(${6 + 2 * i}))::double precision"
        for i in range(count)
    ]
    norm = f"{BM25_K1} * ({1 - BM25_B} + {BM25_B} * t.ps_length / s.mean)"
    score = " + ".join(
        f"greatest(ln((s.n - s.f{i} + 0.5) / (s.f{i} + 0.5)), 0.000001) * {one} * {BM25_K1 + 1} / ({one} + {norm})"
        for i, one in enumerate(often)
    )
    return (
        "WITH s AS MATERIALIZED (SELECT count(*)::double precision AS n, "
        f"greatest(avg(t.ps_length)::double precision, 1e-9) AS mean, {weights} FROM {source} t "
        "WHERE t.ps_tenant = $1), "
        f'm AS (SELECT t.{key}::text COLLATE "C" AS id, t.ps_version AS version, ({score}) AS score FROM {source} t, s '
        f"WHERE t.ps_tenant = $1 AND {' AND '.join(holds)} AND ({where})) "
        "SELECT id, score, version FROM m WHERE $3::double precision IS NULL OR score < $3 OR (score = $3 AND id > $4) "
        "ORDER BY score DESC, id LIMIT $2"
    )
