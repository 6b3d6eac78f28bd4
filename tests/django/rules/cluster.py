"""The PostgreSQL database of a test run, and the tests' own eyes on its server.

psycopg is imported where it is used: without it the tests that need it are skipped.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Postgres:
    """A database in the cluster whose socket is in `folder`."""

    folder: str
    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """Django's entry in DATABASES."""
        return {
            "ENGINE": "rules_site.engines.postgres",
            "NAME": self.name,
            "HOST": self.folder,
            "USER": "postgres",
        }

    def settings_for(self, application: str, **more: Any) -> dict[str, Any]:
        """The same for a server whose connections can be told from all others."""
        options = {"application_name": application, **more.pop("OPTIONS", {})}
        return {**self.settings, "OPTIONS": options, **more}

    @contextlib.contextmanager
    def connection(self, database: str | None = None) -> Iterator[Any]:
        """A connection of the test's own."""
        import psycopg

        with psycopg.connect(
            host=self.folder, dbname=database or self.name, user="postgres", autocommit=True
        ) as connection:
            yield connection

    def create(self) -> None:
        """Make the database."""
        with self.connection("postgres") as connection:
            connection.execute(f'create database "{self.name}"')

    def drop(self) -> None:
        """Remove it, whoever is still connected."""
        with self.connection("postgres") as connection:
            connection.execute(f'drop database "{self.name}" with (force)')

    def backends(self, application: str) -> list[int]:
        """The server processes of that application's connections."""
        with self.connection() as connection:
            found = connection.execute(
                "select pid from pg_stat_activity where application_name = %s", [application]
            )
            return [pid for (pid,) in found]

    def idle_in_transaction(self, application: str) -> int:
        """How many of them have a transaction open and nothing to do."""
        with self.connection() as connection:
            found = connection.execute(
                "select count(*) from pg_stat_activity where application_name = %s "
                "and state like 'idle in transaction%%'",
                [application],
            )
            count: int = found.fetchone()[0]
            return count

    def kill(self, application: str) -> int:
        """End them all, as a restart of the database does; how many there were."""
        with self.connection() as connection:
            # The timeout makes it wait until the backend is gone.
            found = connection.execute(
                "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
                "where application_name = %s",
                [application],
            )
            return len(found.fetchall())
