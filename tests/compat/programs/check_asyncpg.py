"""asyncpg against a PostgreSQL of our own, over its Unix socket."""

import asyncio
import datetime
import uuid
from typing import Any

import asyncpg
import pytest

from .conftest import PATIENCE


async def check_queries_transactions_and_cursors(postgres: Any) -> None:
    db = await asyncpg.connect(host=postgres.host, user="postgres", database=postgres.database)
    try:
        await db.execute("CREATE TEMP TABLE rows (id int, name text, at timestamptz, key uuid)")
        now, key = datetime.datetime.now(datetime.UTC), uuid.uuid4()
        rows = [(number, f"name {number}", now, key) for number in range(5000)]
        await db.copy_records_to_table("rows", records=rows)
        assert await db.fetchval("SELECT sum(id) FROM rows") == sum(range(5000))
        assert await db.fetchrow("SELECT * FROM rows WHERE id = $1", 7) == rows[7]
        with pytest.raises(ZeroDivisionError):
            async with db.transaction():
                await db.execute("DELETE FROM rows")
                raise ZeroDivisionError
        async with db.transaction():
            seen = [row["id"] async for row in db.cursor("SELECT id FROM rows ORDER BY id")]
        assert seen == list(range(5000))
        assert len(await db.fetchval("SELECT repeat('x', 3000000)")) == 3_000_000
        with pytest.raises(asyncpg.DivisionByZeroError):
            await db.fetchval("SELECT 1/0")
    finally:
        await db.close()


async def check_a_pool_notifications_and_a_query_that_takes_too_long(postgres: Any) -> None:
    options = {"host": postgres.host, "user": "postgres", "database": postgres.database}
    async with asyncpg.create_pool(**options, min_size=1, max_size=5) as pool:
        got = await asyncio.gather(*(pool.fetchval("SELECT $1::int + 1", n) for n in range(60)))
        assert got == list(range(1, 61))
        with pytest.raises(TimeoutError):
            await pool.execute("SELECT pg_sleep(60)", timeout=0.1)
        task = asyncio.create_task(pool.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with pool.acquire() as listening:
            told = asyncio.get_running_loop().create_future()

            def listener(*args: object) -> None:
                told.set_result(args[-1])

            await listening.add_listener("news", listener)
            await pool.execute("NOTIFY news, 'good'")
            assert await asyncio.wait_for(told, PATIENCE) == "good"
            await listening.remove_listener("news", listener)
