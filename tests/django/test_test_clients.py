"""Django's test clients, test cases and live servers pass on Rondel as they do on stock asyncio.

The example's own tests and those of `client-suite` run in child processes, once on stock asyncio
and once with Rondel, by each of the commands people use. Invariants:

* both runs have the same tests with the same outcomes, and on stock asyncio all pass: the suite
  asks for what Django promises, not for what we do;
* tests in the suite check which loop and bridge they are on, so neither run can be the other;
* what a run prints holds no sign of lost work.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile, copytree, ignore_patterns
from xml.etree import ElementTree

import pytest

from .project_copy import needs_rondel
from .site_server import ACCIDENTS, SITE, environment

# Eight processes that import Django, on a busy machine.
pytestmark = [needs_rondel, pytest.mark.timeout(300)]

SUITE = Path(__file__).parent / "client-suite"
PATIENCE = 120.0
OUTCOMES, JUNIT = "outcomes.json", "junit.xml"

INSTALL = "import rondel\n\nrondel.install()\n"
PYTEST_INI = "[pytest]\npython_files = test_*.py tests.py\n"
# What pytest-django does, by Django's own test utilities.
PLAIN_CONFTEST = """
import django
import pytest
from django.test.utils import (
    setup_databases,
    setup_test_environment,
    teardown_databases,
    teardown_test_environment,
)

django.setup()


@pytest.fixture(scope="session", autouse=True)
def databases():
    setup_test_environment()
    made = setup_databases(verbosity=0, interactive=False)
    yield
    teardown_databases(made, verbosity=0)
    teardown_test_environment()
"""


@dataclass
class Child:
    """One run of all tests: the project's copy, the command, and what it found."""

    root: Path
    rondel: bool
    words: list[str]
    env: dict[str, str]

    def __post_init__(self) -> None:
        copytree(SITE, self.root, ignore=ignore_patterns("__pycache__", "*.sqlite3", ".*"))
        package = self.root / "clients"
        package.mkdir()
        (package / "__init__.py").touch()
        for source in SUITE.glob("*.py"):
            if source.stem != "plugin":
                tests = source.stem not in ("runner", "settings")
                copyfile(source, package / f"{'test_' if tests else ''}{source.name}")
        self.env |= {
            "CLIENTS_ON": "rondel" if self.rondel else "stock",
            "CLIENTS_OUTCOMES": str(self.root / OUTCOMES),
            "DJANGO_SETTINGS_MODULE": "clients.settings",
        }

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def start(self) -> None:
        with (self.root / "log.txt").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.words],
                cwd=self.root,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return (self.root / "log.txt").read_text(encoding="utf-8", errors="replace")

    def outcomes(self) -> dict[str, str]:
        """By the tests' names, when the process has ended."""
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"not within {PATIENCE:.0f} s:\n{self.log}")
        if (told := self.root / OUTCOMES).exists():
            found: dict[str, str] = json.loads(told.read_text())
            return found
        if not (report := self.root / JUNIT).exists():
            pytest.fail(f"ended with {self.process.returncode} without a report:\n{self.log}")
        return {
            f"{case.get('classname')}.{case.get('name')}": case[0].tag if len(case) else "passed"
            for case in ElementTree.parse(report).iter("testcase")
        }

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def manage(child: Child, *options: str) -> None:
    """`manage.py test`, or `rondel run manage.py test`."""
    command = ["manage.py", "test", *options]
    child.words += ["-m", "rondel", "run", *command] if child.rondel else command


def manage_parallel(child: Child) -> None:
    """Test processes are forked, after `install()` that is."""
    manage(child, "--parallel", "2")


def use_pytest(child: Child, plugin: str) -> None:
    """With the test database in a file, where each thread has its own connection."""
    child.words += ["-m", "pytest", "-p", plugin, f"--junitxml={JUNIT}"]
    child.write("pytest.ini", PYTEST_INI)
    child.env["CLIENTS_DATABASE"] = str(child.root / "test.sqlite3")


def pytest_django(child: Child) -> None:
    """With the plugin; Rondel is installed by the project's conftest."""
    use_pytest(child, "django")
    child.write("conftest.py", INSTALL if child.rondel else "")
    copyfile(SUITE / "plugin.py", child.root / "clients" / "test_plugin.py")


def pytest_alone(child: Child) -> None:
    """Without the plugin; Rondel is installed before anything is imported."""
    use_pytest(child, "no:django")
    child.write("conftest.py", PLAIN_CONFTEST)
    if child.rondel:
        child.write("early/sitecustomize.py", INSTALL)
        path = [str(child.root / "early"), *filter(None, [os.environ.get("PYTHONPATH")])]
        child.env["PYTHONPATH"] = os.pathsep.join(path)


@pytest.mark.parametrize("command", [manage, manage_parallel, pytest_django, pytest_alone])
def test_what_passes_on_stock_asyncio_passes_on_rondel(
    tmp_path: Path, command: Callable[[Child], None]
) -> None:
    if command is pytest_django and find_spec("pytest_django") is None:
        pytest.skip("pytest-django is not installed")
    children = [
        Child(tmp_path / name, name == "rondel", [], environment(tmp_path / f"{name}.sqlite3"))
        for name in ("stock", "rondel")
    ]
    for child in children:
        command(child)
    try:
        for child in children:
            child.start()
        stock, native = (child.outcomes() for child in children)
    finally:
        for child in children:
            child.kill()
    # Skipped is what an older Django has not, and what a database in memory cannot do.
    wrong = {name: word for name, word in stock.items() if word not in ("passed", "skipped")}
    assert wrong == {}, children[0].log
    # The example's seven, and a suite that was found.
    assert sum(name.startswith("shelf.tests.") for name in stock) == 7
    assert sum(name.startswith("clients.test_") for name in stock) > 40
    many = stock["clients.test_live.LiveTests.test_many_at_once"]
    assert many == ("passed" if command in (pytest_django, pytest_alone) else "skipped")
    assert any(name.startswith("clients.test_plugin.") for name in stock) is (
        command is pytest_django
    )
    assert native == stock, children[1].log
    signs = [line for line in children[1].log.splitlines() if any(x in line for x in ACCIDENTS)]
    assert signs == []
