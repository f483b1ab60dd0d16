"""Full text in columns of the record's own row: its terms in hexadecimal for InnoDB's index, and as one line in which a
phrase is a part of the text.

InnoDB indexes no words of less than three characters, has words of its own that it leaves out, and takes letters of
other scripts apart in its own way: so a term is `z` and four digits for each of its characters, which it takes as one
word. The index narrows the search down, the line decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polystore.entity import EntityType
from polystore.model import Body
from polystore.text import BM25_B, BM25_K1, Phrase, terms

TOKEN_CHARACTERS = 80
"""InnoDB leaves out words of more than 84 characters; what is cut off here, the line still has."""
WORDS = (5, TOKEN_CHARACTERS + 1)
"""Characters of the shortest and of the longest word, see `token`: the server's settings must let them be."""


def refused(least: int, most: int) -> str:
    """Why a server with these settings would find nothing without an error; "" where it finds all."""
    if least <= WORDS[0] and most >= WORDS[1]:
        return ""
    return (
        f"for full text, innodb_ft_min_token_size must be at most {WORDS[0]} and innodb_ft_max_token_size at least "
        f"{WORDS[1]}; they are {least} and {most}"
    )


class FullText:
    """The full-text columns of one entity type."""

    columns: Mapping[str, str] = {"ps_terms": "LONGTEXT", "ps_line": "LONGTEXT", "ps_length": "INT"}

    def __init__(self, entity: EntityType[Any]) -> None:
        self._fields = entity.full_text

    def values(self, body: Body | None) -> tuple[Any, ...]:
        """The columns' values of a record; of a tombstone there are none."""
        if body is None:
            return (None, None, None)
        found = [terms(body.get(field) or "") for field in self._fields]
        distinct = dict.fromkeys(token(term) for one in found for term in one)
        return " ".join(distinct), line(found), sum(map(len, found))

    def expected(self, body: Body) -> str:
        """`ps_line` as it should be."""
        return line([terms(body.get(field) or "") for field in self._fields])


def token(term: str) -> str:
    """The term as a word of the index."""
    units = term.encode("utf-16-be").hex()
    return "z" + units[:TOKEN_CHARACTERS]


def line(found: Sequence[Sequence[str]]) -> str:
    """Each term between spaces of its own, so that neighbours are counted apart; fields in lines."""
    return "\n".join(f" {'  '.join(one)} " if one else "" for one in found)


def needle(phrase: Phrase) -> str:
    """What `ps_line` contains where the phrase occurs."""
    text = line([phrase.terms])
    return text[:-1] if phrase.prefix else text


def words(phrases: Sequence[Phrase]) -> str:
    """All terms of the phrases, as `AGAINST (... IN BOOLEAN MODE)` has them."""
    found = [f"+{token(term)}{'*' if phrase.prefix else ''}" for phrase in phrases for term in phrase.terms]
    return " ".join(dict.fromkeys(found))


class Search:
    """One search as SQL: its statement, and the parameters in their order."""

    def __init__(self, source: str, key: str, tenant: str, phrases: Sequence[Phrase]) -> None:
        self._source = f"{source} AS t"
        self._key = key
        self._tenant = tenant
        self._phrases = [(words([one]), needle(one)) for one in phrases]

    def statistics(self) -> tuple[str, list[Any]]:
        """SELECT of how many records there are, their mean length, and how many hold each phrase."""
        args: list[Any] = []
        counts = ""
        for against, part in self._phrases:
            counts += f", (SELECT COUNT(*) FROM {self._source} WHERE t.ps_tenant = %s AND {HOLDS})"
            args += [self._tenant, against, part]
        sql = f"SELECT COUNT(*), AVG(t.ps_length){counts} FROM {self._source} WHERE t.ps_tenant = %s"
        return sql, [*args, self._tenant]

    def matches(
        self,
        found: Sequence[Any],
        where: tuple[str, Sequence[Any]],
        limit: int,
        after: tuple[float, str] | None,
    ) -> tuple[str, list[Any]]:
        """SELECT of id, score and version, best first. `found`: what `statistics` answered.

        The score is Okapi BM25 (https://sqlite.org/fts5.html#the_bm25_function) over the tenant's records; a phrase
        that half of them hold counts a millionth.
        """
        count, mean, *often = found
        args: list[Any] = []
        norm = f"{BM25_K1}e0 * ({1 - BM25_B}e0 + {BM25_B}e0 * t.ps_length / %s)"
        scores: list[str] = []
        for (_, part), holding in zip(self._phrases, often, strict=True):
            times = "((CHAR_LENGTH(t.ps_line) - CHAR_LENGTH(REPLACE(t.ps_line, %s, ''))) / %s)"
            weight = "GREATEST(LN((%s - %s + 0.5e0) / (%s + 0.5e0)), 0.000001e0)"
            scores.append(f"{weight} * {times} * {BM25_K1 + 1}e0 / ({times} + {norm})")
            args += [count, holding, holding, part, len(part), part, len(part), max(float(mean or 0), 1e-9)]
        holds = " AND ".join(HOLDS for _ in self._phrases)
        inner = (
            f"SELECT CAST(t.{self._key} AS CHAR) AS id, ({' + '.join(scores)}) + 0e0 AS score, t.ps_version AS version "
            f"FROM {self._source} WHERE t.ps_tenant = %s AND {holds} AND ({where[0]})"
        )
        args += [self._tenant, *(one for pair in self._phrases for one in pair), *where[1]]
        later = "1 = 1"
        if after is not None:
            later = "(m.score < %s OR (m.score = %s AND m.id > %s))"
            args += [after[0], after[0], after[1]]
        sql = f"SELECT m.id, m.score, m.version FROM ({inner}) AS m WHERE {later} ORDER BY m.score DESC, m.id LIMIT %s"
        return sql, [*args, limit]


HOLDS = "MATCH (t.ps_terms) AGAINST (%s IN BOOLEAN MODE) AND LOCATE(%s, t.ps_line) > 0"
