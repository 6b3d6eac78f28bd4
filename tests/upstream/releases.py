"""Which releases of which projects are run, on which Pythons, and what each needs installed.

A `Target` is one environment: a suite, the release whose tests are run, and the asgiref beside it.
Releases are pinned: a new one is a line here, so that a difference is Rondel's and not theirs. The
tests come from the release's source distribution and run against the same release installed.
"""

from dataclasses import dataclass

from tests.conformance.suites import SuiteError

SUITES = ("asgiref", "django", "channels", "channels-redis")

# Every release that issue 4 names: 3.8 to 3.13.
ASGIREF = (
    "3.8.0",
    "3.8.1",
    "3.9.0",
    "3.9.1",
    "3.9.2",
    "3.10.0",
    "3.11.0",
    "3.11.1",
    "3.12.0",
    "3.12.1",
    "3.13.0",
)

CHANNELS, CHANNELS_REDIS = "4.3.2", "4.3.0"


@dataclass(frozen=True)
class DjangoSeries:
    release: str
    pythons: tuple[str, ...]  # of those that Rondel is built for
    oldest_asgiref: str


DJANGO = {
    "4.2": DjangoSeries("4.2.30", ("3.11", "3.12"), "3.8.0"),
    "5.2": DjangoSeries("5.2.19", ("3.11", "3.12", "3.13"), "3.8.1"),
    "6.0": DjangoSeries("6.0.10", ("3.12", "3.13"), "3.9.1"),
    "6.1": DjangoSeries("6.1.3", ("3.12", "3.13"), "3.9.1"),
}
DEFAULT_DJANGO = "5.2"

# Labels of Django's tests/runtests.py in which something is asynchronous, or which go through the
# handlers, signals and middleware that Rondel replaces. `auth_tests`, `cache` and `sessions_tests`
# run whole: what is asynchronous in them is spread over their classes.
LABELS = (
    "asgi",
    "async",
    "auth_tests",
    "basic",
    "cache",
    "decorators",
    "deprecation",
    "file_uploads",
    "generic_relations",
    "handlers",
    "httpwrappers",
    "logging_tests",
    "middleware",
    "middleware_exceptions",
    "pagination",
    "requests_tests",
    "responses",
    "servers",
    "sessions_tests",
    "signals",
    "staticfiles_tests",
    "tasks",
    "test_client",
    "test_client_regress",
    "update_only_fields",
    "view_tests",
)
QUICK_LABELS = ("asgi", "async", "handlers", "signals")

PYTEST = ["pytest>=8.4,<10", "pytest-asyncio>=1.2,<2", "pytest-timeout>=2.4,<3", "packaging"]
# Of Django's tests/requirements/py3.txt: what the labels above use.
DJANGO_TESTS = [
    "Pillow",
    "PyYAML",
    "argon2-cffi",
    "bcrypt",
    "docutils",
    "jinja2",
    "tblib",
    "tzdata",
]
REDIS = [f"channels-redis=={CHANNELS_REDIS}", "cryptography", "async-timeout"]


@dataclass(frozen=True)
class Target:
    suite: str
    release: str
    asgiref: str
    django: str = ""  # the series, where there is one

    @property
    def title(self) -> str:
        beside = "" if self.suite == "asgiref" else f" with asgiref {self.asgiref}"
        return f"{self.suite} {self.release}{beside}"

    @property
    def slug(self) -> str:
        return f"{self.suite}-{self.release}-asgiref-{self.asgiref}"

    @property
    def requirements(self) -> list[str]:
        beside = [f"asgiref=={self.asgiref}"]
        if self.django:
            beside.append(f"Django=={DJANGO[self.django].release}")
        match self.suite:
            case "asgiref":
                return [*beside, *PYTEST]
            case "django":
                return [*beside, *DJANGO_TESTS]
            case "channels":
                # channels.testing imports daphne.
                return [*beside, f"channels=={self.release}", "daphne", *PYTEST, "pytest-django"]
            case _:
                return [*beside, f"channels=={CHANNELS}", *REDIS, *PYTEST]

    @property
    def sources(self) -> tuple[str, str] | None:
        """(project, release) of the source distribution that has the tests."""
        # Channels' source distributions come without its tests: see README.md.
        return None if self.suite == "channels" else (self.suite, self.release)


def targets(
    suites: list[str], asgirefs: list[str], djangos: list[str], python: str
) -> tuple[list[Target], list[str]]:
    """What to run under Python X.Y, and what of it this Python has not got.

    Raises:
        SuiteError: a release is none that is known here.
    """
    for release in asgirefs:
        if release not in ASGIREF:
            raise SuiteError(f"no asgiref {release!r}; there are: {', '.join(ASGIREF)}")
    for series in djangos:
        if series not in DJANGO:
            raise SuiteError(f"no Django {series!r}; there are: {', '.join(DJANGO)}")
    made: list[Target] = []
    without: list[str] = []
    if "asgiref" in suites:
        made += [Target("asgiref", release, release) for release in asgirefs or ASGIREF]
    if "django" in suites:
        for series in djangos or DJANGO:
            found = DJANGO[series]
            if python not in found.pythons:
                without.append(f"Django {series} is not for Python {python}")
                continue
            for release in asgirefs or [ASGIREF[-1]]:
                if ASGIREF.index(release) < ASGIREF.index(found.oldest_asgiref):
                    without.append(f"Django {series} needs asgiref {found.oldest_asgiref}")
                    continue
                made.append(Target("django", found.release, release, series))
    for suite, release in (("channels", CHANNELS), ("channels-redis", CHANNELS_REDIS)):
        if suite in suites:
            series = djangos[0] if djangos else DEFAULT_DJANGO
            beside = asgirefs[-1] if asgirefs else ASGIREF[-1]
            made.append(Target(suite, release, beside, series))
    return made, without
