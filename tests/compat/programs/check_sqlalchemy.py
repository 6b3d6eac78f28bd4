"""SQLAlchemy's asyncio extension, greenlets and all, on aiosqlite and on asyncpg."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import ForeignKey, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "compat_author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author")


class Book(Base):
    __tablename__ = "compat_book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("compat_author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


@pytest.mark.parametrize("database", ["aiosqlite", "asyncpg", "psycopg"])
async def check_a_session(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if database == "aiosqlite":
        url = f"sqlite+aiosqlite:///{tmp_path}/db"
    else:
        place = request.getfixturevalue("postgres")
        url = f"postgresql+{database}://postgres@/{place.database}?host={place.host}"
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        make = async_sessionmaker(engine, expire_on_commit=False)
        async with make() as session, session.begin():
            for number in range(50):
                books = [Book(title=f"book {number}.{n}") for n in range(3)]
                session.add(Author(name=f"author {number}", books=books))

        async def titles(number: int) -> list[str]:
            async with make() as session:
                query = select(Author).options(selectinload(Author.books))
                found = await session.scalars(query.where(Author.name == f"author {number}"))
                return sorted(book.title for book in found.one().books)

        got = await asyncio.gather(*map(titles, range(20)))
        assert got == [[f"book {number}.{n}" for n in range(3)] for number in range(20)]
        async with make() as session:
            rows = await session.stream_scalars(select(Book.id).order_by(Book.id))
            assert len([row async for row in rows]) == 150
            author = (await session.scalars(select(Author).limit(1))).one()
            await session.refresh(author, ["books"])
            assert len(author.books) == 3
            # A lazy load: only inside a greenlet.
            book = (await session.scalars(select(Book).limit(1))).one()
            await session.run_sync(lambda _: book.author.name)
        with pytest.raises(IntegrityError):
            async with make() as session, session.begin():
                session.add(Author(name="author 1"))
        async with engine.connect() as connection:
            assert (await connection.execute(select(func.count(Author.id)))).scalar() == 50
            assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    finally:
        await engine.dispose()
