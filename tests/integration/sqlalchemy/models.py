"""Mapped classes of every kind that tests need, and a world to try them in."""

from __future__ import annotations

import enum
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from polystore import Embedding, FullText, HybridDataArchitecture, Relation, entity
from polystore.consistency.verify import Verifier


class Base(DeclarativeBase):
    pass


class Mood(enum.Enum):
    CALM = 1
    WILD = (2, "values may be anything: the column holds the names")


class Trimmed(sa.types.TypeDecorator[str]):
    """Texts without spaces around them."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else value.strip()


class Shelf(Base):
    __tablename__ = "shelves"

    id: Mapped[int] = mapped_column(primary_key=True)
    books: Mapped[list[Book]] = relationship(back_populates="shelf")


@entity(name="book")
class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[Annotated[str, FullText(), Embedding()]]
    text: Mapped[Annotated[str | None, FullText()]] = mapped_column("full text")
    mood: Mapped[Mood] = mapped_column(default=Mood.CALM)
    price: Mapped[Decimal | None] = mapped_column(sa.Numeric(10, 2))
    weight: Mapped[float | None]
    printed: Mapped[date | None]
    sold: Mapped[datetime | None]
    seen: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    lent: Mapped[bool] = mapped_column(default=False)
    cover: Mapped[bytes | None]
    extra: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    isbn: Mapped[uuid.UUID] = mapped_column(default=uuid.uuid4)
    note: Mapped[str | None] = mapped_column(Trimmed)
    made: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    words: Mapped[int | None] = mapped_column(sa.Computed("length(title)"))
    shelf_id: Mapped[int | None] = mapped_column(sa.ForeignKey("shelves.id"))
    shelf: Mapped[Shelf | None] = relationship(back_populates="books")
    pages: Mapped[list[Page]] = relationship(cascade="all, delete-orphan", back_populates="book")


@entity(name="page")
class Page(Base):
    __tablename__ = "pages"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    text: Mapped[Annotated[str, FullText()]]
    book_id: Mapped[int] = mapped_column(sa.ForeignKey("books.id"))
    book: Mapped[Book] = relationship(back_populates="pages")


@entity(name="person", facets={"knows": [Relation("KNOWS", to="person")]})
class Person(Base):
    __tablename__ = "people"

    name: Mapped[str] = mapped_column(primary_key=True)
    knows: Mapped[str | None]


def made(directory: Path) -> sa.Engine:
    """The application's file, with its tables."""
    engine = sa.create_engine(f"sqlite:///{directory}/app.db", connect_args={"timeout": 30})
    Base.metadata.create_all(engine)
    return engine


def configured(directory: Path, *, split: bool) -> Any:
    """Everything in the application's file, or copies in files of their own."""
    home = f"sqlite:{directory}/app.db"
    if not split:
        return home
    copies = {role: {"url": f"sqlite:{directory}/{role}.db", "roles": [role]} for role in ("full_text", "vector")}
    return {"stores": {"app": {"url": home, "roles": ["home", "journal", "graph"]}, **copies}}


@asynccontextmanager
async def opened(directory: Path, *entities: type[Any], split: bool = False) -> AsyncGenerator[HybridDataArchitecture]:
    async with HybridDataArchitecture.open(configured(directory, split=split), entities=entities or [Book]) as hda:
        yield hda


async def differences(hda: HybridDataArchitecture) -> list[tuple[str, str, str]]:
    """(entity, key, problem) of everything that verify finds, once nothing is owed."""
    await hda.settle(60)
    verifier = Verifier(hda.manager.stores, hda.manager.placements, hda.manager.embedders)
    return [(t, one.key.id, one.problem) for t in hda.types async for one in verifier.differences(t)]


def everything(engine: sa.Engine) -> list[str]:
    """The statements that made the application's own tables, indexes and triggers."""
    ours = "name GLOB 'ps_*' OR tbl_name GLOB 'ps_*' OR name GLOB 'sqlite_*'"
    sql = f"SELECT sql FROM sqlite_master WHERE NOT ({ours})"
    with engine.connect() as connection:
        return sorted(str(row[0]) for row in connection.exec_driver_sql(sql))


def add(engine: sa.Engine, *objects: object) -> None:
    """Written by somebody who has never heard of polystore."""
    with Session(engine) as session, session.begin():
        session.add_all(objects)
