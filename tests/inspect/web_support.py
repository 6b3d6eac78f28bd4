"""Programs whose page is served, and asking it by HTTP."""

import contextlib
import http.client
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli.support import Process, running

ROOT = Path(__file__).parents[2]
RONDEL = [sys.executable, "-m", "rondel"]
PATIENCE = 30.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Web:
    """A page, and the process that it shows."""

    process: Process
    url: str

    @property
    def address(self) -> tuple[str, int]:
        found = re.match(r"http://(.+):(\d+)/", self.url)
        assert found is not None
        return "127.0.0.1", int(found[2])

    @property
    def token(self) -> str:
        return self.url.partition("?token=")[2]

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        return ask(self.address, path, method, **headers)


def ask(address: tuple[str, int], path: str, method: str = "GET", **headers: str) -> Answer:
    """One request; ``_`` in a header's name is ``-``."""
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        got = connection.getresponse()
        told = {name.lower(): value for name, value in got.getheaders()}
        return Answer(got.status, told, got.read())
    finally:
        connection.close()


@contextlib.contextmanager
def inspected(folder: Path, *words: str, **env: str) -> Iterator[Web]:
    """`rondel WORDS`, which must say where its page is."""
    env = {"XDG_RUNTIME_DIR": str(folder), "RONDEL_INSPECT": "0", **env}
    with running([*RONDEL, *words], ROOT, **env) as process:
        url = process.wait_for(r"inspector(?: of process \d+)?: (http://\S+/(?:\?token=\S+)?)")[1]
        yield Web(process, url)
