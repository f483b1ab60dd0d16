"""The decision tree: from what is required to the kind of store for it. Rules as data, evaluated in order, pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from polystore.errors import ConfigurationError, did_you_mean
from polystore.selection.matrix import PRODUCTS, ROLES, Preference, title
from polystore.sizes import parse_size

MEMORY_BYTES_MAX: Final = 1_000_000_000
"""Data of fewer bytes is kept in memory; from here on it is streamed through a log."""


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """What an application asks of the store for one type of data.

    `data_size` is bytes as int or a text like "1.5 GB"; None means unknown, which is taken as fitting in memory.
    A value of this class is consistent: making one raises ConfigurationError for a wrong type, a bad size, and for the
    `CONTRADICTIONS`, each saying how to mend it.
    """

    needs_transactions: bool = False
    complex_relations: bool = False
    real_time: bool = False
    data_size: int | str | None = None
    search_heavy: bool = False
    vector_search: bool = False
    full_text: bool = False
    graph_relations: bool = False
    time_series: bool = False

    def __post_init__(self) -> None:
        for name in REQUIREMENTS:
            value: object = getattr(self, name)
            if name != "data_size" and not isinstance(value, bool):
                raise ConfigurationError(f"requirement {name} is True or False, not {type(value).__name__}")
        if self.data_size is not None:
            parse_size(self.data_size)
        for contradiction in CONTRADICTIONS:
            if all(condition.holds(self) for condition in contradiction.all_of):
                raise ConfigurationError(
                    f"requirements contradict themselves: {contradiction.why}; {contradiction.mend}"
                )

    @property
    def size_bytes(self) -> int | None:
        return None if self.data_size is None else parse_size(self.data_size)


REQUIREMENTS: Final = Requirements.__struct_fields__


class Condition(msgspec.Struct, frozen=True):
    """A predicate over requirements, with the words that explain it."""

    words: str
    holds: Callable[[Requirements], bool]

    def __invert__(self) -> Condition:
        return Condition(f"not {self.words}", lambda wanted: not self.holds(wanted))


TRANSACTIONS: Final = Condition("needs_transactions", lambda wanted: wanted.needs_transactions)
COMPLEX_RELATIONS: Final = Condition("complex_relations", lambda wanted: wanted.complex_relations)
REAL_TIME: Final = Condition("real_time", lambda wanted: wanted.real_time)
FITS_MEMORY: Final = Condition("data_size under 1 GB", lambda wanted: (wanted.size_bytes or 0) < MEMORY_BYTES_MAX)
SEARCH_HEAVY: Final = Condition("search_heavy", lambda wanted: wanted.search_heavy)
VECTOR_SEARCH: Final = Condition("vector_search", lambda wanted: wanted.vector_search)
FULL_TEXT: Final = Condition("full_text", lambda wanted: wanted.full_text)
GRAPH_RELATIONS: Final = Condition("graph_relations", lambda wanted: wanted.graph_relations)
TIME_SERIES: Final = Condition("time_series", lambda wanted: wanted.time_series)


class Contradiction(msgspec.Struct, frozen=True):
    """Conditions that cannot be meant together, and the way out."""

    all_of: tuple[Condition, ...]
    why: str
    mend: str


# Only what would otherwise be dropped in silence stands here. Not contradictions: `complex_relations` alone (the last
# rule answers with joins), `data_size` alone (it says nothing against any store), several purposes at once (the first
# rule wins, and the choice names the others as passed over).
CONTRADICTIONS: Final[tuple[Contradiction, ...]] = (
    Contradiction(
        (VECTOR_SEARCH, ~SEARCH_HEAVY),
        "vector_search without search_heavy",
        "add search_heavy=True, or drop vector_search",
    ),
    Contradiction(
        (FULL_TEXT, ~SEARCH_HEAVY),
        "full_text without search_heavy",
        "add search_heavy=True, or drop full_text",
    ),
    Contradiction(
        (COMPLEX_RELATIONS, REAL_TIME, ~TRANSACTIONS),
        "complex_relations and real_time, but a store for live state has no joins",
        "add needs_transactions=True (a relational home, fast reads through the cache), or drop one of the two",
    ),
    Contradiction(
        (COMPLEX_RELATIONS, TIME_SERIES, ~TRANSACTIONS),
        "complex_relations and time_series, but a store of points has no joins",
        "declare two types of data, the records and their points; or drop one of the two",
    ),
)


class Rule(msgspec.Struct, frozen=True):
    """When all conditions hold, these kinds of stores, best first; `parts` are several when they work together."""

    name: str
    all_of: tuple[Condition, ...]
    parts: tuple[Preference, ...]
    why: str

    @property
    def words(self) -> str:
        return " and ".join(condition.words for condition in self.all_of) or "nothing else applies"


def _home(first: str, why: str) -> Preference:
    relational = ROLES["home"].stores
    return Preference("home", (first, *(store for store in relational if store != first)), why)


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "transactions with complex relations",
        (TRANSACTIONS, COMPLEX_RELATIONS),
        (ROLES["home"],),
        "transactions over joined data need a relational store with full integrity checks",
    ),
    Rule(
        "transactions",
        (TRANSACTIONS,),
        (_home("mysql", "ACID for simple records"),),
        "transactions over simple records need ACID, and no more",
    ),
    Rule(
        "real time, in memory",
        (REAL_TIME, FITS_MEMORY),
        (ROLES["live_state"],),
        "data under 1 GB fits in memory, where latency is lowest",
    ),
    Rule(
        "real time, too big for memory",
        (REAL_TIME,),
        (ROLES["stream"], ROLES["live_state"]),
        "from 1 GB on a durable log carries the data, and memory holds the newest state",
    ),
    Rule(
        "search by meaning",
        (SEARCH_HEAVY, VECTOR_SEARCH),
        (ROLES["vector"],),
        "nearest vectors are found by an index made for them",
    ),
    Rule(
        "search by words",
        (SEARCH_HEAVY, FULL_TEXT),
        (ROLES["full_text"],),
        "words are found by an inverted index with analysis and ranking",
    ),
    Rule(
        "search by values",
        (SEARCH_HEAVY,),
        (ROLES["home"],),
        "searches that are neither by words nor by meaning are answered by secondary indexes",
    ),
    Rule(
        "graph relations",
        (GRAPH_RELATIONS,),
        (ROLES["graph"],),
        "queries that follow relations over several hops",
    ),
    Rule(
        "time series",
        (TIME_SERIES,),
        (ROLES["time_series"],),
        "points asked for by ranges of time",
    ),
    Rule(
        "otherwise",
        (),
        (ROLES["home"],),
        "nothing special is asked for: one relational store does it all, joins included",
    ),
)
"""Evaluated in this order; the first rule whose conditions all hold decides. The last one always holds."""


class PassedOver(msgspec.Struct, frozen=True):
    """A rule that did not decide, the stores it stands for, and why not."""

    rule: str
    stores: tuple[str, ...]
    why_not: str


class Choice(msgspec.Struct, frozen=True):
    """The answer of the tree. `str(choice)` is how people say it: "Kafka + Redis".

    `parts` are the roles to fill, each with its stores, best first; all stores are URL schemes of their adapters.
    """

    rule: str
    condition: str
    parts: tuple[Preference, ...]
    why: str
    passed_over: tuple[PassedOver, ...]

    @property
    def stores(self) -> tuple[str, ...]:
        """The best store of each part."""
        return _best(self.parts)

    @property
    def alternatives(self) -> Mapping[str, tuple[str, ...]]:
        """For each of `stores` those that stand in, in this order, when it is not configured."""
        return {part.stores[0]: part.stores[1:] for part in self.parts}

    @property
    def cost(self) -> str:
        return "; ".join(f"{PRODUCTS[store].title}: {PRODUCTS[store].cost}" for store in self.stores)

    def __str__(self) -> str:
        return title(self.stores)


def select_database(requirements: Requirements | Mapping[str, object]) -> Choice:
    """The kind of store that suits the requirements, whatever is configured. Pure: equal requirements, equal choice.

    Takes `Requirements` or a mapping with the same names. Raises ConfigurationError for an unknown name or a wrong type
    (naming the known ones) and for requirements that contradict themselves (saying how to mend it).
    """
    wanted = requirements if isinstance(requirements, Requirements) else _from_mapping(requirements)
    rule = next(rule for rule in RULES if _holds(rule, wanted))
    return Choice(
        rule=rule.name,
        condition=rule.words,
        parts=rule.parts,
        why=rule.why,
        passed_over=tuple(
            PassedOver(other.name, _best(other.parts), _why_not(other, rule, wanted))
            for other in RULES
            if other is not rule
        ),
    )


def _from_mapping(requirements: Mapping[str, object]) -> Requirements:
    for name in requirements:
        if name not in REQUIREMENTS:
            near = did_you_mean(str(name), REQUIREMENTS)
            raise ConfigurationError(f"unknown requirement {name!r}{near}; known: {', '.join(REQUIREMENTS)}")
    # Requirements checks the types itself, whoever makes one.
    return Requirements(**requirements)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def _holds(rule: Rule, wanted: Requirements) -> bool:
    return all(condition.holds(wanted) for condition in rule.all_of)


def _best(parts: tuple[Preference, ...]) -> tuple[str, ...]:
    return tuple(part.stores[0] for part in parts)


def _why_not(other: Rule, chosen: Rule, wanted: Requirements) -> str:
    missing = [condition.words for condition in other.all_of if not condition.holds(wanted)]
    if missing:
        return f"not asked for: {', '.join(missing)}"
    return f"applies too, but the rule {chosen.name!r} comes first"
