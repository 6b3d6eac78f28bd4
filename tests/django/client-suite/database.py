"""The test's transaction and connection, seen from every kind of code that a test can call.

Each of these holds on Django with stock asyncio; a bridge that ran a call on another thread would
find an empty database there (SQLite's is in memory) or no transaction.
"""

import asyncio
import contextvars
import os
import threading
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase
from django.test.utils import CaptureQueriesContext
from shelf.models import Author, Book, Greeting

current = contextvars.ContextVar("current", default="nothing")


def here() -> tuple[int, int, bool]:
    """Thread, connection, and whether a transaction is open."""
    return threading.get_ident(), id(connection.connection), connection.in_atomic_block


def sign(name: str) -> Greeting:
    return Greeting.objects.create(name=name, text="Hello")


class Fails(Exception):
    pass


class Shelved(TestCase):
    """One book for all tests."""

    author: Author

    @classmethod
    def setUpTestData(cls) -> None:
        cls.author = Author.objects.create(name="Anon", name_zh="佚名")
        cls.new_book("first")

    @classmethod
    def new_book(cls, slug: str) -> Book:
        return Book.objects.create(slug=slug, **cls.words())

    @classmethod
    def words(cls) -> dict[str, Any]:
        return {
            "title": "T",
            "title_zh": "题",
            "author": cls.author,
            "year": 1,
            "summary": "S",
            "hue": 1,
        }

    def setUp(self) -> None:
        self.there = here()


class RuntimeTests(TestCase):
    """So that neither run is a run of the other."""

    async def test_the_loop_is_the_one_that_this_run_is_about(self) -> None:
        native = os.environ["CLIENTS_ON"] == "rondel"
        self.assertEqual(type(asyncio.get_running_loop()).__module__ == "rondel.loop", native)
        task = asyncio.create_task(asyncio.sleep(0))
        self.assertEqual(type(task).__module__.startswith("rondel"), native)
        await task

    def test_the_bridge_is_the_one_that_this_run_is_about(self) -> None:
        native = os.environ["CLIENTS_ON"] == "rondel"
        code = type(sync_to_async(here)).__call__.__module__
        self.assertEqual(code.startswith("rondel"), native, code)


class TransactionTests(Shelved):
    """`TestCase`: one transaction around each test, for sync and async code alike."""

    def test_a_row_of_one_test_is_rolled_back_1(self) -> None:
        self.assertEqual(Greeting.objects.count(), 0)
        sign("one")

    async def test_a_row_of_one_test_is_rolled_back_2(self) -> None:
        self.assertEqual(await Greeting.objects.acount(), 0)
        await Greeting.objects.acreate(name="two", text="Hello")

    def test_a_row_of_one_test_is_rolled_back_3(self) -> None:
        self.assertEqual(Greeting.objects.count(), 0)
        async_to_sync(Greeting(name="three", text="Hello").asave)()

    async def test_async_methods_of_the_orm(self) -> None:
        book = await Book.objects.select_related("author").aget(slug="first")
        self.assertEqual(book.author, self.author)
        made, new = await Book.objects.aget_or_create(slug="second", defaults=self.words())
        self.assertTrue(new)
        made.year = 2
        await made.asave()
        _, new = await Book.objects.aupdate_or_create(slug="second", defaults={"hue": 7})
        self.assertFalse(new)
        self.assertEqual([book.slug async for book in Book.objects.all()], ["first", "second"])
        self.assertEqual(await Book.objects.filter(hue=7).aupdate(hue=8), 1)
        self.assertEqual(set(await Book.objects.ain_bulk(field_name="slug")), {"first", "second"})
        self.assertTrue(await Book.objects.filter(hue=8).aexists())
        await made.arefresh_from_db()
        self.assertEqual(made.hue, 8)
        await made.adelete()
        with self.assertRaises(Book.DoesNotExist):
            await Book.objects.aget(slug="second")

    async def test_sync_to_async_finds_the_tests_own_thread_connection_and_transaction(
        self,
    ) -> None:
        self.assertTrue(self.there[2])
        self.assertEqual(await sync_to_async(here)(), self.there)
        found = await asyncio.gather(*(sync_to_async(here)() for _ in range(10)))
        self.assertEqual(set(found), {self.there})
        async with asyncio.TaskGroup() as group:
            task = group.create_task(sync_to_async(here)())
        self.assertEqual(task.result(), self.there)

    async def test_what_is_not_thread_sensitive_has_a_connection_of_its_own(self) -> None:
        def elsewhere() -> tuple[int, bool]:
            try:
                return threading.get_ident(), connection.in_atomic_block
            finally:
                connection.close()

        thread, atomic = await sync_to_async(elsewhere, thread_sensitive=False)()
        self.assertNotEqual(thread, self.there[0])
        self.assertFalse(atomic)

    async def test_gathered_queries_see_rows_that_nobody_committed(self) -> None:
        await asyncio.gather(
            *(Greeting.objects.acreate(name=str(n), text="Hello") for n in range(10))
        )
        counts = await asyncio.gather(*(Greeting.objects.acount() for _ in range(5)))
        self.assertEqual(counts, [10] * 5)

    def test_async_to_sync_shares_the_transaction_both_ways(self) -> None:
        sign("before")

        async def within() -> list[str]:
            await Greeting.objects.acreate(name="within", text="Hello")
            self.assertEqual(await sync_to_async(here)(), self.there)
            return [each.name async for each in Greeting.objects.order_by("pk")]

        self.assertEqual(async_to_sync(within)(), ["before", "within"])
        self.assertEqual(Greeting.objects.count(), 2)

    def test_bridges_nest_and_stay_on_the_tests_thread(self) -> None:
        def deepest() -> tuple[int, int, bool]:
            sign("deep")
            return here()

        async def inner() -> tuple[int, int, bool]:
            return await sync_to_async(deepest)()

        async def outer() -> tuple[int, int, bool]:
            return await sync_to_async(async_to_sync(inner))()

        self.assertEqual(async_to_sync(outer)(), self.there)
        self.assertEqual(Greeting.objects.get().name, "deep")

    async def test_an_atomic_block_in_a_thread_rolls_back_to_its_savepoint(self) -> None:
        def fail() -> None:
            with transaction.atomic():
                sign("lost")
                raise Fails

        sync_sign = sync_to_async(sign)
        await sync_sign("kept")
        with self.assertRaises(Fails):
            await sync_to_async(fail)()
        self.assertEqual([each.name async for each in Greeting.objects.all()], ["kept"])

    async def test_sync_orm_calls_are_refused_on_the_loop(self) -> None:
        from django.core.exceptions import SynchronousOnlyOperation

        with self.assertRaises(SynchronousOnlyOperation):
            Greeting.objects.count()

    async def test_context_variables_go_both_ways(self) -> None:
        def change() -> str:
            seen = current.get()
            current.set("of the thread")
            return seen

        current.set("of the test")
        self.assertEqual(await sync_to_async(change)(), "of the test")
        self.assertEqual(current.get(), "of the thread")

    async def test_a_cancelled_query_leaves_the_connection_usable(self) -> None:
        entered, may_go = threading.Event(), threading.Event()

        def slow() -> int:
            entered.set()
            self.assertTrue(may_go.wait(10))
            return Greeting.objects.count()

        task = asyncio.create_task(sync_to_async(slow)())
        waiting = sync_to_async(entered.wait, thread_sensitive=False)
        # The main thread is busy in `slow`, so the loop goes on in its own.
        self.assertTrue(await waiting(10))
        task.cancel()
        may_go.set()
        with self.assertRaises(asyncio.CancelledError):
            await task
        self.assertEqual(await Greeting.objects.acount(), 0)

    def test_queries_of_async_code_are_counted(self) -> None:
        async def two() -> None:
            await Book.objects.acount()
            await Book.objects.aget(slug="first")

        with self.assertNumQueries(2):
            async_to_sync(two)()
        with CaptureQueriesContext(connection) as captured:
            async_to_sync(two)()
        self.assertIn("COUNT", captured.captured_queries[0]["sql"])

    def test_commit_callbacks_of_async_code_are_captured(self) -> None:
        done: list[str] = []

        def register() -> None:
            transaction.on_commit(lambda: done.append("committed"))

        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            async_to_sync(sync_to_async(register))()
        self.assertEqual((len(callbacks), done), (1, ["committed"]))


class CommittingTests(TransactionTestCase):
    """`TransactionTestCase`: no transaction around, tables are emptied afterwards."""

    def test_what_is_committed_is_gone_in_the_next_test_1(self) -> None:
        self.assertEqual(Greeting.objects.count(), 0)
        self.assertFalse(here()[2])
        sign("one")

    async def test_what_is_committed_is_gone_in_the_next_test_2(self) -> None:
        self.assertEqual(await Greeting.objects.acount(), 0)
        await Greeting.objects.acreate(name="two", text="Hello")

    async def test_a_commit_runs_its_callbacks_and_a_rollback_does_not(self) -> None:
        done: list[str] = []

        def commit(name: str, *, fail: bool) -> None:
            with transaction.atomic():
                sign(name)
                transaction.on_commit(lambda: done.append(name))
                if fail:
                    raise Fails

        await sync_to_async(commit)("kept", fail=False)
        with self.assertRaises(Fails):
            await sync_to_async(commit)("lost", fail=True)
        self.assertEqual(done, ["kept"])
        self.assertEqual([each.name async for each in Greeting.objects.all()], ["kept"])

    def test_async_code_writes_where_the_test_reads(self) -> None:
        async_to_sync(Greeting(name="async", text="Hello").asave)()
        self.assertEqual(Greeting.objects.get().name, "async")
