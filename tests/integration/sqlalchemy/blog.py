"""A small publishing desk: authors, articles, comments and tags in one database, a file of SQLite or a server's.

python blog.py --db blog.db init
python blog.py --db blog.db import articles.jsonl
python blog.py --db blog.db list --tag 여행
"""

from __future__ import annotations

import argparse
import enum
import json
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ForeignKey, String, Text, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

# -- model -----------------------------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


class Status(enum.Enum):
    DRAFT = "draft"
    PUBLISHED = "published"
    ARCHIVED = "archived"


def now() -> datetime:
    """SQLite keeps no time zones: everything is UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


article_tag = sa.Table(
    "article_tag",
    Base.metadata,
    sa.Column[int]("article_id", ForeignKey("articles.id"), primary_key=True),
    sa.Column[int]("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class Author(Base):
    __tablename__ = "authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    bio: Mapped[str | None] = mapped_column(Text)
    joined: Mapped[date] = mapped_column(default=date.today)
    articles: Mapped[list[Article]] = relationship(back_populates="author")

    def __repr__(self) -> str:
        return f"Author({self.name!r})"


class Article(Base):
    __tablename__ = "articles"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    body: Mapped[str] = mapped_column(Text)
    status: Mapped[Status] = mapped_column(default=Status.DRAFT)
    fee: Mapped[Decimal | None] = mapped_column(sa.Numeric(10, 2))
    extra: Mapped[dict[str, Any]] = mapped_column(sa.JSON, default=dict)
    created: Mapped[datetime] = mapped_column(default=now)
    edited: Mapped[datetime | None] = mapped_column(onupdate=now)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author | None] = relationship(back_populates="articles")
    comments: Mapped[list[Comment]] = relationship(back_populates="article", cascade="all, delete-orphan")
    tags: Mapped[list[Tag]] = relationship(secondary=article_tag, back_populates="articles")

    def __repr__(self) -> str:
        return f"Article({self.id}, {self.title!r}, {self.status.value})"


class Comment(Base):
    __tablename__ = "comments"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    by: Mapped[str] = mapped_column(String(80))
    hidden: Mapped[bool] = mapped_column(default=False)
    written: Mapped[datetime] = mapped_column(default=now)
    article_id: Mapped[int] = mapped_column(ForeignKey("articles.id"))
    article: Mapped[Article] = relationship(back_populates="comments")


class Tag(Base):
    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    articles: Mapped[list[Article]] = relationship(secondary=article_tag, back_populates="tags")


# -- database --------------------------------------------------------------------------------------------------------

Sessions = sessionmaker(expire_on_commit=False)


def connect(database: str | Path) -> None:
    """Use this database from now on, a file or a URL; tables that are missing are made."""
    if "://" in str(database):
        engine = sa.create_engine(str(database))
    else:
        engine = sa.create_engine(f"sqlite:///{database}", connect_args={"timeout": 30})
    Base.metadata.create_all(engine)
    Sessions.configure(bind=engine)


@contextmanager
def unit_of_work() -> Generator[Session]:
    """One transaction: committed at the end, rolled back when something fails."""
    with Sessions() as session, session.begin():
        yield session


# -- services --------------------------------------------------------------------------------------------------------


class NoSuchArticle(LookupError):
    pass


def _article(session: Session, article_id: int) -> Article:
    article = session.get(Article, article_id)
    if article is None:
        raise NoSuchArticle(article_id)
    return article


def _author(session: Session, name: str) -> Author:
    author = session.scalar(select(Author).where(Author.name == name))
    if author is None:
        author = Author(name=name)
        session.add(author)
    return author


def _tags(session: Session, names: Sequence[str]) -> list[Tag]:
    known = {tag.name: tag for tag in session.scalars(select(Tag).where(Tag.name.in_(names)))}
    return [known.get(name) or Tag(name=name) for name in dict.fromkeys(names)]


def write(title: str, body: str, *, author: str, tags: Sequence[str] = (), fee: Decimal | None = None) -> Article:
    """A new draft."""
    if not title.strip():
        raise ValueError("an article needs a title")
    with unit_of_work() as session:
        named = _tags(session, tags)
        article = Article(title=title.strip(), body=body, author=_author(session, author), tags=named, fee=fee)
        session.add(article)
    return article


def publish(article_id: int) -> Article:
    with unit_of_work() as session:
        article = _article(session, article_id)
        article.status = Status.PUBLISHED
        article.extra = {**article.extra, "published": now().isoformat()}
    return article


def edit(article_id: int, *, title: str | None = None, body: str | None = None) -> Article:
    with unit_of_work() as session:
        article = _article(session, article_id)
        if title is not None:
            article.title = title.strip()
        if body is not None:
            article.body = body
    return article


def comment(article_id: int, text: str, *, by: str) -> Comment:
    with unit_of_work() as session:
        article = _article(session, article_id)
        if article.status is Status.ARCHIVED:
            raise ValueError("archived articles take no comments")
        new = Comment(text=text, by=by)
        article.comments.append(new)
    return new


def hide_comments(by: str) -> int:
    """Take back what somebody said, everywhere. Returns how many comments that were."""
    with unit_of_work() as session:
        found = session.scalars(select(Comment).where(Comment.by == by, Comment.hidden.is_(False))).all()
        for one in found:
            one.hidden = True
            one.text = "(removed)"
        return len(found)


def archive_before(day: date) -> int:
    """Archive what is older. Returns how many articles that were."""
    start = datetime(day.year, day.month, day.day)  # noqa: DTZ001 -- times here are naive
    with unit_of_work() as session:
        old = (Article.created < start, Article.status != Status.ARCHIVED)
        count = session.scalar(select(func.count()).select_from(Article).where(*old)) or 0
        session.execute(sa.update(Article).where(*old).values(status=Status.ARCHIVED))
        return count


def purge_drafts(author: str) -> int:
    """Delete somebody's drafts that nobody commented on. Returns how many."""
    with unit_of_work() as session:
        mine = select(Author.id).where(Author.name == author).scalar_subquery()
        commented = select(Comment.article_id)
        drafts = (Article.author_id == mine, Article.status == Status.DRAFT, Article.id.not_in(commented))
        ids = session.scalars(select(Article.id).where(*drafts)).all()
        session.execute(sa.delete(article_tag).where(article_tag.c.article_id.in_(ids)))
        session.execute(sa.delete(Article).where(Article.id.in_(ids)))
        return len(ids)


def remove(article_id: int) -> None:
    """Delete an article with its comments."""
    with unit_of_work() as session:
        session.delete(_article(session, article_id))


def articles(*, tag: str | None = None, status: Status | None = None) -> list[Article]:
    query = select(Article).order_by(Article.created, Article.id)
    if tag is not None:
        query = query.join(Article.tags).where(Tag.name == tag)
    if status is not None:
        query = query.where(Article.status == status)
    with Sessions() as session:
        return list(session.scalars(query))


def statistics() -> dict[str, int]:
    with Sessions() as session:
        counts = {model.__tablename__: session.scalar(select(func.count()).select_from(model)) or 0
                  for model in (Author, Article, Comment, Tag)}  # fmt: skip
        fees = session.scalar(select(func.sum(Article.fee)).where(Article.status == Status.PUBLISHED))
    return {**counts, "fees": round(fees or 0)}


# -- exchange --------------------------------------------------------------------------------------------------------


def import_lines(lines: Iterator[str]) -> Iterator[Article]:
    """Articles from JSON lines, each in a transaction of its own and published at once; given back when it is safe."""
    for line in lines:
        row = json.loads(line)
        fee = Decimal(row["fee"]) if row.get("fee") else None
        article = write(row["title"], row["body"], author=row["author"], tags=row.get("tags", ()), fee=fee)
        for text in row.get("comments", ()):
            comment(article.id, text, by=row["author"])
        yield publish(article.id)


def export_lines() -> Iterator[str]:
    for article in articles():
        row = {"id": article.id, "title": article.title, "body": article.body, "status": article.status.value}
        yield json.dumps(row, ensure_ascii=False)


# -- command line ----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="A small publishing desk.")
    parser.add_argument("--db", default="blog.db")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init")
    importing = commands.add_parser("import")
    importing.add_argument("file", type=Path)
    commands.add_parser("export")
    listing = commands.add_parser("list")
    listing.add_argument("--tag")
    commands.add_parser("stats")
    given = parser.parse_args(arguments)
    connect(given.db)
    if given.command == "import":
        with given.file.open(encoding="utf-8") as lines:
            for article in import_lines(lines):
                print(article.id, article.title, flush=True)
    elif given.command == "export":
        for line in export_lines():
            print(line)
    elif given.command == "list":
        for article in articles(tag=given.tag):
            print(f"{article.id:5} {article.status.value:9} {article.title}")
    elif given.command == "stats":
        for name, count in statistics().items():
            print(f"{name:10} {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
