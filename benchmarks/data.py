"""What is measured on: records of about 1 KB, Korean sentences, vectors; all made here, the same in every run."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated

from polystore import Embedding, FullText, Relation, entity, new_id

DIMENSION = 384

_WHO = ["나는", "친구는", "엄마가", "선생님이", "동생은", "우리는", "그녀는", "아이들이", "이웃이", "할머니께서"]
_WHEN = ["어제", "오늘", "아침에", "저녁마다", "주말에", "봄이면", "겨울밤에", "방학", "동안", "새벽까지", "생일날"]
_WHERE = [
    "학교에서",
    "바닷가에서",
    "시장에서",
    "도서관에서",
    "부엌에서",
    "버스에서",
    "공원에서",
    "회사에서",
    "산에서",
    "집에서",
]
_WHAT = ["책을", "노래를", "사진을", "편지를", "김치를", "이야기를", "그림을", "자전거를", "영화를", "꽃을"]
_DOES = ["읽었다", "불렀다", "찍었다", "썼다", "만들었다", "들었다", "그렸다", "탔다", "보았다", "심었다"]


def sentences(count: int) -> list[str]:
    """Korean sentences, hardly two alike."""
    rng = random.Random(20)
    words = (_WHO, _WHEN, _WHERE, _WHAT, _DOES)
    return [" ".join(rng.choice(part) for part in words) + f" {rng.randrange(1000)}번" for _ in range(count)]


@entity()
@dataclass(kw_only=True)
class Item:
    """A record of about 1 KB."""

    id: str
    owner: str = "owner"
    title: str = "title"
    body: str = "x" * 900
    stars: int = 3
    ratio: float = 0.5


@entity()
@dataclass(kw_only=True)
class Listed:
    """An `Item` with a copy that lists its titles."""

    id: str = field(default_factory=new_id)
    owner: str = "owner"
    title: Annotated[str, FullText()] = "title"
    body: str = "x" * 900
    stars: int = 3
    ratio: float = 0.5


@entity()
@dataclass(kw_only=True)
class Searchable:
    """The same with a copy."""

    id: str
    body: Annotated[str, FullText()] = "나무 " * 20


@entity()
@dataclass(kw_only=True)
class Sentence:
    id: str
    text: Annotated[str, FullText()]


@entity()
@dataclass(kw_only=True)
class Point:
    id: str
    place: Annotated[list[float], Embedding(dimension=DIMENSION)] = field(default_factory=list[float])


@entity()
@dataclass(kw_only=True)
class Linked:
    """An `Item` that knows another one."""

    id: str = field(default_factory=new_id)
    owner: str = "owner"
    body: str = "x" * 900
    follows: Annotated[list[str], Relation("FOLLOWS", to="Linked")] = field(default_factory=list[str])


@entity()
@dataclass(kw_only=True)
class Placed:
    """An `Item` with a vector that its caller supplies."""

    id: str = field(default_factory=new_id)
    owner: str = "owner"
    place: Annotated[list[float], Embedding(dimension=DIMENSION)] = field(default_factory=list[float])
