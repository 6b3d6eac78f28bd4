"""psycopg's AsyncConnection (add_reader, add_writer) and its pool against a PostgreSQL."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from .conftest import PATIENCE


def conninfo(postgres: Any) -> str:
    return f"host={postgres.host} user=postgres dbname={postgres.database}"


async def check_queries_copies_and_pipelines(postgres: Any) -> None:
    async with (
        await psycopg.AsyncConnection.connect(conninfo(postgres), autocommit=True) as db,
        db.cursor() as cursor,
    ):
        await cursor.execute("CREATE TEMP TABLE rows (id int, name text)")
        async with cursor.copy("COPY rows FROM STDIN") as copy:
            for number in range(3000):
                await copy.write_row((number, f"name {number}"))
        await cursor.execute("SELECT sum(id) FROM rows")
        assert await cursor.fetchone() == (sum(range(3000)),)
        async with db.pipeline():
            results = [await db.execute("SELECT %s::int", [n]) for n in range(50)]
        assert [await each.fetchone() for each in results] == [(n,) for n in range(50)]
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with db.transaction():
                await db.execute("DELETE FROM rows")
                await db.execute("SELECT 1/0")
        await cursor.execute("SELECT count(*) FROM rows")
        assert await cursor.fetchone() == (3000,)
        async for _, name in cursor.stream("SELECT id, name FROM rows ORDER BY id LIMIT 5"):
            assert name.startswith("name ")


async def check_notifications_and_a_cancelled_query(postgres: Any) -> None:
    async with (
        await psycopg.AsyncConnection.connect(conninfo(postgres), autocommit=True) as listening,
        await psycopg.AsyncConnection.connect(conninfo(postgres), autocommit=True) as db,
    ):
        await listening.execute("LISTEN news")
        await db.execute("NOTIFY news, 'good'")
        async for told in listening.notifies(timeout=PATIENCE, stop_after=1):
            assert told.payload == "good"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await db.execute("SELECT pg_sleep(60)")
        assert await (await db.execute("SELECT 1")).fetchone() == (1,)


async def check_a_pool(postgres: Any) -> None:
    async with AsyncConnectionPool(conninfo(postgres), min_size=1, max_size=5) as pool:

        async def one(number: int) -> int:
            async with pool.connection() as db:
                row = await (await db.execute("SELECT %s::int + 1", [number])).fetchone()
                assert row is not None
                return int(row[0])

        assert await asyncio.gather(*map(one, range(60))) == list(range(1, 61))
