"""The kit's own entities: every field type, every facet, every kind of key, and the values that get lost elsewhere."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from polystore.entity import EntityType, entity, entity_types
from polystore.facets import Edge, Embedding, FullText, Index, Relation, Unique
from polystore.kinds import INT_MAX, INT_MIN

DIMENSION = 4
STORED_DIMENSION = 4
"""Components of the vectors that the kit stores for text fields."""


NO_CODE = UUID(int=0)


class Mood(enum.Enum):
    CALM = "calm"
    WILD = "wild"


class Level(enum.Enum):
    LOW = 1
    HIGH = 1 << 40


@dataclass
class Address:
    city: str
    zip: str | None = None
    floors: list[int] = field(default_factory=list[int])
    rent: Decimal = Decimal(0)
    since: datetime | None = None
    seal: bytes = b""


@entity(name="kit_thing")
@dataclass(kw_only=True)
class Thing:
    """Every field type, required and optional, with and without an index."""

    id: str
    word: str = ""
    number: Annotated[int, Index()] = 0
    ratio: float = 0.0
    flag: bool = False
    raw: bytes = b""
    at: Annotated[datetime, Index()] = datetime(2024, 1, 1, tzinfo=UTC)
    day: date = date(2024, 1, 1)
    price: Decimal = Decimal(0)
    code: UUID = NO_CODE
    mood: Mood = Mood.CALM
    level: Level = Level.LOW
    side: Literal["left", "right"] = "left"
    tags: list[str] = field(default_factory=list[str])
    address: Address | None = None
    rooms: list[Address] = field(default_factory=list[Address])
    prices: dict[str, Decimal] = field(default_factory=dict[str, Decimal])
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    maybe_word: Annotated[str | None, Index()] = None
    maybe_number: int | None = None
    maybe_ratio: float | None = None
    maybe_flag: bool | None = None
    maybe_raw: bytes | None = None
    maybe_at: datetime | None = None
    maybe_day: date | None = None
    maybe_price: Annotated[Decimal | None, Index()] = None
    maybe_code: UUID | None = None
    maybe_mood: Mood | None = None
    maybe_tags: list[str] | None = None


@entity(name="kit_numbered", key="number")
@dataclass
class Numbered:
    """A key that is an integer."""

    number: int
    word: str = ""


@entity(name="kit_coded", key="code")
@dataclass
class Coded:
    """A key that is a UUID."""

    code: UUID
    word: str = ""


@entity(name="kit_account")
@dataclass(kw_only=True)
class Account:
    """Unique values, required ones and missing ones."""

    id: str
    email: Annotated[str, Unique()]
    number: Annotated[int | None, Unique()] = None
    owner: str = ""
    notes: list[str] = field(default_factory=list[str])


@entity(name="kit_article")
@dataclass(kw_only=True)
class Article:
    """Two full-text fields and something to filter by."""

    id: str
    title: Annotated[str, FullText()] = ""
    body: Annotated[str | None, FullText()] = None
    topic: Annotated[str, Index()] = ""
    stars: int = 0


@entity(name="kit_spot")
@dataclass(kw_only=True)
class Spot:
    """A vector for each metric, and a text whose vector comes from outside."""

    id: str
    by_cosine: Annotated[list[float] | None, Embedding(dimension=DIMENSION)] = None
    by_distance: Annotated[list[float] | None, Embedding(dimension=DIMENSION, metric="l2")] = None
    by_product: Annotated[list[float] | None, Embedding(dimension=DIMENSION, metric="ip")] = None
    text: Annotated[str, Embedding(embedder="kit")] = ""
    group: Annotated[str, Index()] = ""
    stars: int = 0


@dataclass
class Since:
    year: int
    why: str = ""


@entity(name="kit_person")
@dataclass(kw_only=True)
class Person:
    """Relations of each shape."""

    id: str
    name: str = ""
    boss: Annotated[str | None, Relation("REPORTS_TO", to="Person")] = None
    likes: Annotated[list[str], Relation("LIKES", to="Topic")] = field(default_factory=list[str])
    knows: Annotated[list[Edge[Since]], Relation("KNOWS", to="Person")] = field(default_factory=list[Edge[Since]])


@entity(name="kit_topic")
@dataclass(kw_only=True)
class Topic:
    id: str
    under: Annotated[str | None, Relation("UNDER", to="Topic")] = None


KIT: Mapping[str, EntityType[Any]] = entity_types([Thing, Numbered, Coded, Account, Article, Spot, Person, Topic])
THING: EntityType[Thing] = KIT["kit_thing"]
NUMBERED: EntityType[Numbered] = KIT["kit_numbered"]
CODED: EntityType[Coded] = KIT["kit_coded"]
ACCOUNT: EntityType[Account] = KIT["kit_account"]
ARTICLE: EntityType[Article] = KIT["kit_article"]
SPOT: EntityType[Spot] = KIT["kit_spot"]
PERSON: EntityType[Person] = KIT["kit_person"]
TOPIC: EntityType[Topic] = KIT["kit_topic"]

NFC, NFD = "\u00e9", "e\u0301"
"""The same letter, composed and as two characters: different texts, which no store may fold."""

WORDS = (
    *("", " ", "a", "A", "a ", " a", "Z", "z", "ß", "SS", "ı", "İ", NFC, NFD, "\u0301", "ﬁ"),
    *("가", "각", "\u1100\u1161", "안녕하세요", "학교에서", "日本", "👍", "👩\u200d👩\u200d👧", "\U0010ffff", "\uffff"),
    *(
        "%",
        "_",
        "\\",
        "a%b",
        "a_b",
        "*",
        "?",
        "[a]",
        "'",
        '"',
        "''",
        "`",
        ";",
        "--",
        "$name",
        "{x}",
        "\n",
        "\r\n",
        "\t",
    ),
    *(
        "null",
        "None",
        "true",
        "0",
        "00",
        "1.0",
        "1e3",
        "NaN",
        "'; DROP TABLE x; --",
        "\x01",
        "\x7f",
        "\u2028",
        "\ufeff",
    ),
)
INTEGERS = (0, 1, -1, 255, 2**31, -(2**31) - 1, 2**53, 2**53 + 1, -(2**53) - 1, INT_MAX, INT_MAX - 1, INT_MIN)
FLOATS = (0.0, -0.0, 1.0, -1.5, 0.1 + 0.2, 0.3, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 1e22, 2.0**53)
TIMES = (
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2024, 2, 29, 23, 59, 59, 1, tzinfo=UTC),
    datetime(2024, 2, 29, 23, 59, 59, 999, tzinfo=UTC),
    datetime(2024, 7, 1, 9, 0, 0, 500000, tzinfo=timezone(timedelta(hours=9))),
)
DAYS = (date(1, 1, 1), date(9999, 12, 31), date(1969, 12, 31), date(1970, 1, 1), date(2024, 2, 29))
DECIMALS = tuple(
    Decimal(text)
    for text in (
        *(
            "0",
            "1",
            "1.0",
            "1.00",
            "1.1",
            "1.10",
            "-1.1",
            "9",
            "10",
            "-9",
            "-10",
            "0.1",
            "0.10",
            "100",
            "1E+2",
            "1E-30",
        ),
        *("0.30000000000000000", "12345678901234567890.12345678901234", "-12345678901234567890.12345678901234"),
        *("9999999999999999999999999999999999", "9999999999999999999999999999999998", "1E+100", "-1E-100"),
    )
)
UUIDS = (UUID(int=0), UUID(int=(1 << 128) - 1), UUID("0190163d-8694-739b-aea5-966c26f8ad91"))
RAWS = (b"", b"\0", b"\xff\xfe", bytes(range(256)), b"text")
TREES: tuple[dict[str, Any], ...] = (
    {},
    {"a": None, "b": True, "c": False, "d": 1, "e": 1.0, "f": "", "g": [], "h": {}},
    {"ints": list(INTEGERS), "floats": [0.1 + 0.2, 5e-324, 1.7976931348623157e308, 1e22], "words": list(WORDS)},
    {"deep": [[[[{"er": [{"x": [1, [2, [3, {"y": None}]]]}]}]]]]},
    {"키": "값", "": "empty name", "a.b": "dot", "$x": "dollar", "'": "quote", '"': "double", "👍": "emoji"},
)
ADDRESSES = (
    Address("서울"),
    Address(NFD, NFC, [INT_MIN, INT_MAX], Decimal("1.10"), datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=UTC), b"\0\xff"),
)

VALUES: Mapping[str, Sequence[Any]] = {
    "word": (*WORDS, "가" * 100_000, "x" * 1_000_000),
    "number": INTEGERS,
    "ratio": FLOATS,
    "flag": (True, False),
    "raw": (*RAWS, bytes(1_000_000)),
    "at": TIMES,
    "day": DAYS,
    "price": DECIMALS,
    "code": UUIDS,
    "mood": tuple(Mood),
    "level": tuple(Level),
    "side": ("left", "right"),
    "tags": ([], [""], ["a", "a"], list(WORDS)),
    "address": (None, *ADDRESSES),
    "rooms": ([], [*ADDRESSES]),
    "prices": ({}, {str(i): price for i, price in enumerate(DECIMALS)}),
    "extra": TREES,
    "maybe_word": (None, "", "0"),
    "maybe_number": (None, 0, INT_MAX),
    "maybe_ratio": (None, 0.0, 5e-324),
    "maybe_flag": (None, False, True),
    "maybe_raw": (None, b"", b"\0"),
    "maybe_at": (None, *TIMES),
    "maybe_day": (None, *DAYS),
    "maybe_price": (None, *DECIMALS),
    "maybe_code": (None, *UUIDS),
    "maybe_mood": (None, *Mood),
    "maybe_tags": (None, [], [""]),
}
"""Field of Thing -> the values that must come back exactly."""
