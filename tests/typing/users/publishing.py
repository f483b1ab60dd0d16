"""A user's existing SQLAlchemy application: its article as an entity, its session joined, its flushes captured."""

from collections.abc import Sequence
from typing import Annotated, Any, assert_type

from sqlalchemy import Column, Engine, Integer, Select, Table, Text, create_engine, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from polystore import FullText, HybridDataArchitecture, WriteResult, entity
from polystore.sqlalchemy import capture, entity_of, install_trigger, remove_trigger, table


class Base(DeclarativeBase): ...


@entity(name="article")
class Article(Base):
    __tablename__ = "article"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[Annotated[str, FullText()]]


stamps = Table("stamp", Base.metadata, Column("id", Integer, primary_key=True), Column("text", Text))
Stamp = entity_of(stamps, facets={"text": [FullText()]})


async def publish(hda: HybridDataArchitecture, session: AsyncSession) -> Sequence[WriteResult]:
    article = Article(title="x")
    async with hda.transaction(join=session) as tx:
        tx.put(article)  # id is None until flush
    await session.commit()
    repo = hda.collection(Article)
    found = await repo.get(int(tx.result[0].key))
    assert_type(found, Article | None)
    print(found)
    return tx.result


def headlines() -> Select[Any]:
    article = table(Article)
    return select(article.c.title).order_by(article.c.id)


def listen(sessions: sessionmaker[Session], others: async_sessionmaker[AsyncSession], database: Engine) -> None:
    capture(sessions, [Article])
    capture(others, [Article, Stamp])
    install_trigger(database, [Stamp])
    remove_trigger(database, [Stamp])


async def main(path: str) -> tuple[Sequence[WriteResult], Sequence[str], Sequence[str]]:
    database = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(database)
    connected = create_async_engine(f"sqlite+aiosqlite:///{path}")
    sessions = async_sessionmaker(connected)
    listen(sessionmaker(database), sessions, database)
    async with HybridDataArchitecture.open(f"sqlite:{path}", entities=[Article, Stamp]) as hda:
        async with sessions() as session:
            results = await publish(hda, session)
        async with sessions.begin() as session:
            session.add(Article(title="captured"))
            session.add(Stamp(id=1, text="captured too"))
        await hda.settle()
        hits = [*await hda.collection(Article).search("captured"), *await hda.collection(Stamp).search("captured")]
        found: list[str] = [str(getattr(hit.value, "title", "a stamp")) for hit in hits]
    with Session(database) as reading:
        titles: list[str] = [row.title for row in reading.execute(headlines())]
    await connected.dispose()
    database.dispose()
    return results, found, titles
