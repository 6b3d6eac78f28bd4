"""What forks have in common with the process that they come from: memory, and the loggers."""

import platform
import re
import signal
from pathlib import Path

import pytest

from tests.support import python
from tests.workers.site import serving

# Objects of `size` bytes, of which every second is freed, and then new ones: do most of them lie
# where the old ones do?
HOLES = """
import sys
from rondel import _rondel

size, filled = {size}, {filled}
old = [bytes(size - 33) for _ in range(20_000)]
assert sys.getsizeof(old[0]) == size
places = {{id(one) >> 14 for one in old[200:-200]}}
del old[::2]
if filled:
    print("took", _rondel._fill_holes() >= 0.8 * size * len(old))
    print("took", _rondel._fill_holes() < 0.2 * size * len(old))
new = [bytes(size - 33) for _ in range(5_000)]
print("between", sum(id(one) >> 14 in places for one in new) > 0.5 * len(new))
"""

# Workers tell of their stop at that level only. With a template they keep what was set there.
LOUD = """
import logging

logging.getLogger("rondel.server").setLevel(logging.DEBUG)

async def app(scope, receive, send):
    raise AssertionError("nobody asks")
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's heap is known")


@pytest.mark.parametrize("size", [64, 512, pytest.param(2000, marks=glibc)])
def test_what_is_allocated_lies_together_once_the_holes_are_filled(size: int) -> None:
    without = python(HOLES.format(size=size, filled=False))
    assert without.stdout.splitlines() == ["between True"], without.stderr
    filled = python(HOLES.format(size=size, filled=True))
    assert filled.stdout.splitlines() == ["took True", "took True", "between False"], filled.stderr


def test_an_allocator_without_pools_is_not_taken_for_one_with_them() -> None:
    code = "from rondel import _rondel; print(_rondel._fill_holes() < 4 * 2**20)"
    got = python(code, env={"PYTHONMALLOC": "malloc"})
    assert got.stdout == "True\n", got.stderr


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_worker_logs_by_its_own_name_as_the_template_was_set_to(
    tmp_path: Path, style: str
) -> None:
    (tmp_path / "site_app.py").write_text(LOUD)
    with serving(tmp_path, "--preload", "--log-format", style, "--lifespan", "off") as site:
        site.signal(signal.SIGTERM)
        errors = site.process.end().errors
    pattern = {
        "text": r"DEBUG \[(.*)\] stopping",
        "json": r'"process": "(.*)", "message": "stopping',
    }
    assert sorted(re.findall(pattern[style], errors)) == ["worker 1", "worker 2"]
