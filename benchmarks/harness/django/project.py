"""The project in one of its sites: prepared, with the requests and the answers they must get.

Invariant: an answer comes from Django's own test client and holds what the case says; what a server
answers is compared with it to the byte, so no figure is taken of an error page.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.django.cases import CASES
from harness.django.postgres import Cluster
from harness.django.servers import WSGI
from harness.environment import BENCHMARKS, Environment, SetupError
from harness.traffic import HttpCase

PROJECT = BENCHMARKS / "django"


@dataclass(frozen=True)
class Site:
    name: str
    variables: dict[str, str]
    """The environment of a process that serves it."""
    requests: dict[str, tuple[HttpCase, HttpCase]]
    """By case: what ASGI and what WSGI servers are asked for."""

    def requests_for(self, case: str, servers: list[str]) -> dict[str, HttpCase]:
        return {server: self.requests[case][server in WSGI] for server in servers}


def prepare(
    environment: Environment,
    name: str,
    only: set[str],
    *,
    folder: Path,
    cluster: Cluster | None,
    conn_max_age: int,
    pool: int = 0,
) -> Site:
    """Makes the tables in a file in `folder`, or in the cluster, and asks each page once."""
    variables = environment.variables() | {
        "PYTHONPATH": str(PROJECT),
        "DJANGO_SETTINGS_MODULE": "bench_site.settings",
        "BENCH_MIDDLEWARE": "none" if name == "minimal" else "default",
        "BENCH_DATABASE": "postgres" if cluster else "sqlite",
        "BENCH_DATABASE_AT": str(cluster.folder if cluster else folder / f"{name}.sqlite3"),
        "BENCH_CONN_MAX_AGE": str(conn_max_age),
        "BENCH_POOL": str(pool),
    }
    cases = [case for case in CASES if case.belongs_to(name) and (not only or case.name in only)]
    paths = {path for case in cases for path in (case.path, case.wsgi_path)}
    done = subprocess.run(
        [str(environment.python), str(PROJECT / "prepare.py"), *sorted(paths)],
        cwd=PROJECT,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise SetupError(f"the project cannot be prepared for {name}: {last[0]}")
    told = json.loads(done.stdout)
    requests: dict[str, tuple[HttpCase, HttpCase]] = {}
    for case in cases:
        if missing := [words for words in case.contains if words not in told["answers"][case.path]]:
            raise SetupError(f"/{case.path} answers without {missing[0]!r}")
        if told["answers"][case.path] != told["answers"][case.wsgi_path]:
            raise SetupError(f"/{case.path} and /{case.wsgi_path} answer differently")
        headers = (("Cookie", told["cookie"]),) if case.sends_cookie else ()
        asgi, wsgi = (
            HttpCase(
                case.name,
                case.title,
                "GET",
                f"/{path}",
                told["answers"][path].encode(),
                case.requests,
                headers=headers,
            )
            for path in (case.path, case.wsgi_path)
        )
        requests[case.name] = (asgi, wsgi)
    return Site(name, variables, requests)
