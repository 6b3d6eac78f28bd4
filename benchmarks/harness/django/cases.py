"""What is asked of the project, and which site (middleware and database) answers it.

Invariant: a case is the same work for all servers.  A WSGI server has no async view: it answers an
async case with the case's sync view, which is what such a project would have instead.
"""

from __future__ import annotations

from dataclasses import dataclass

DATABASES = ("sqlite", "postgres")
SITES = {
    "minimal": "no middleware, no query",
    "sqlite": "default middleware, SQLite",
    "postgres": "default middleware, PostgreSQL",
    "example": "the example project",
}


@dataclass(frozen=True)
class DjangoCase:
    """One line of a table."""

    name: str
    title: str
    path: str
    """What ASGI servers are asked for."""
    wsgi_path: str
    requests: int
    """In one round, over its turns."""
    contains: tuple[str, ...]
    """Must be in the answer of Django's own test client, or nothing is measured."""
    queries: bool = True
    """Runs with the default middleware and a database; else without both."""
    sends_cookie: bool = False

    def belongs_to(self, site: str) -> bool:
        return self.queries == (site != "minimal")


ONE = ('{"books": [{"title": "Volume 01", ',)
THREE = ('"Volume 01"', '"Volume 02"', '"Volume 03"')
HELLO = ("Hello, World!",)
PAGE = ("Signed in as reader", "20 books", 'data-theme="paper"', "AUTHOR &amp; SONS 20, 2010")

CASES: tuple[DjangoCase, ...] = (
    DjangoCase(
        "minimal_sync", "sync view", "minimal/sync", "minimal/sync", 3000, HELLO, queries=False
    ),
    DjangoCase(
        "minimal_async", "async view", "minimal/async", "minimal/sync", 3000, HELLO, queries=False
    ),
    DjangoCase("query_sync", "sync view, one `get`", "query/sync", "query/sync", 900, ONE),
    DjangoCase("query_async", "async view, one `aget`", "query/async", "query/sync", 900, ONE),
    DjangoCase(
        "gather_async",
        "async view, three gathered `aget`",
        "three/async",
        "three/sync",
        600,
        THREE,
    ),
    DjangoCase(
        "page", "template, session, user (sync)", "page", "page", 600, PAGE, sends_cookie=True
    ),
)
