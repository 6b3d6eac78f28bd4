"""What has to be there before a figure can be taken: interpreter, peers, Rondel, the C helpers.

Invariants:

* Everything lands under `.cache/` of the checkout, in an environment of the benchmark's own, one
  per interpreter: a user's environments are neither used nor changed.
* A step that is still valid is skipped; what makes it invalid is named next to it.
* A peer that does not install costs its column, not the run.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent
CHECKOUT = BENCHMARKS.parent
CACHE = CHECKOUT / ".cache"
OPTIMISED_PYTHON = Path("/usr/bin/python3")
"""The distribution's interpreter: built with profile-guided optimisation, unlike many self-built
ones, so its figures are those that most users see."""

PEERS = ("uvloop", "rloop", "uvicorn", "httptools", "granian")
"""From PyPI, newest versions; zuvloop is added on interpreters that it supports."""

DJANGO_PEERS = (
    "django",
    "psycopg[binary,pool]",
    "uvloop",
    "uvicorn",
    "httptools",
    "granian",
    "gunicorn",
)
"""For the benchmark of Django: with the framework itself, and with PostgreSQL's driver."""

SERVER_PEERS = (
    "uvloop",
    "uvicorn",
    "httptools",
    "websockets",
    "wsproto",
    "granian",
    "hypercorn",
    "gunicorn",
    "django",
)
"""For the benchmark of the server: all that it is compared with, and Django for its memory."""

ZUVLOOP_SINCE = (3, 14)
OLDEST = (3, 11)


class SetupError(Exception):
    """A step that cannot go on; the message says what to do."""


def progress(message: str) -> None:
    """One line for whoever waits; standard output is kept for results."""
    print(message, file=sys.stderr, flush=True)


@dataclass
class Environment:
    """The interpreter under measurement and what it can run."""

    python: Path
    """The private environment's interpreter."""
    version: tuple[int, int, int]
    build: str
    """What the interpreter's own build says about optimisation."""
    packages: dict[str, str] = field(default_factory=dict)
    """Installed distributions and their versions, lower case."""
    has_bare: bool = False
    """The C floor of the task layer is built."""
    bare_server: Path | None = None
    """The Rust server without Python, if this checkout builds it."""
    rondel: bool = False
    first: Path | None = None
    """A folder whose packages come before those installed."""

    @property
    def tag(self) -> str:
        return "py{}.{}.{}".format(*self.version)

    @property
    def bin(self) -> Path:
        return self.python.parent

    def variables(self) -> dict[str, str]:
        """For every measured process: the same hash seed, no user's settings, our C module."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        kept["PYTHONHASHSEED"] = "0"
        places = [self.first] if self.first is not None else []
        kept["PYTHONPATH"] = os.pathsep.join(map(str, [*places, self.helpers, BENCHMARKS]))
        return kept

    @property
    def helpers(self) -> Path:
        """Where the compiled C helpers of this interpreter are."""
        return CACHE / f"bench-helpers-{self.tag}"


def neutral() -> dict[str, str]:
    """The environment without what would point a build at another interpreter."""
    foreign = ("PYO3_PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX")
    return {key: value for key, value in os.environ.items() if key not in foreign}


def output(*command: str | Path) -> str:
    return subprocess.run(
        [str(word) for word in command], check=True, capture_output=True, text=True
    ).stdout


def step(what: str, command: list[str], *, cwd: Path = CHECKOUT) -> None:
    """Runs a set-up command with one line before, one after, and its output only if it fails."""
    progress(f"  {what} ...")
    start = time.monotonic()
    done = subprocess.run(
        command,
        cwd=cwd,
        env=neutral(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise SetupError(f"{what} failed (exit {done.returncode}):\n{tail}")
    seconds = time.monotonic() - start
    if seconds > 5:
        progress(f"  {what}: {seconds:.0f} s")


PROBE = """
import json, sys, sysconfig
flags = " ".join(str(sysconfig.get_config_var(name) or "") for name in
                 ("CONFIG_ARGS", "PY_CFLAGS", "PY_CORE_CFLAGS", "CONFIGURE_CFLAGS_NODIST"))
pgo = "--enable-optimizations" in flags or "-fprofile-use" in flags
lto = "--with-lto" in flags or "-flto" in flags
try:
    import venv, ensurepip
    venv_works = True
except ImportError:
    venv_works = False
print(json.dumps([list(sys.version_info[:3]), pgo, lto, venv_works,
                  bool(getattr(sys, "_is_gil_enabled", lambda: True)())]))
"""


def probe(python: Path) -> tuple[tuple[int, int, int], str, bool]:
    """Version, a word on its build, and whether it can make environments."""
    try:
        answer = json.loads(output(python, "-c", PROBE))
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise SetupError(f"{python} does not run as a Python interpreter: {error}") from error
    (major, minor, micro), pgo, lto, venv_works, _gil = answer
    words = [word for word, on in (("PGO", pgo), ("LTO", lto)) if on]
    if python.resolve().is_relative_to("/usr/bin"):
        words.insert(0, "the distribution's")
    return (major, minor, micro), ", ".join(words) or "not marked as optimised", venv_works


def choose_python(asked: Path | None) -> Path:
    """The interpreter asked for, else the distribution's if it is fit, else this one."""
    if asked is not None:
        return asked
    if OPTIMISED_PYTHON.exists():
        version, _, venv_works = probe(OPTIMISED_PYTHON)
        if version[:2] >= OLDEST and venv_works:
            return OPTIMISED_PYTHON
    return Path(sys.executable)


def prepare(
    asked: Path | None,
    *,
    rondel: bool,
    wheel: Path | None,
    peers: tuple[str, ...],
    http: bool,
    floors: bool = True,
    upgrade: bool,
) -> Environment:
    """Everything the run needs; raises SetupError if no figure could be taken.

    `http` is for a run that needs the load generator, `floors` for one that needs bare limits.
    """
    base = choose_python(asked)
    version, build, venv_works = probe(base)
    if version[:2] < OLDEST:
        raise SetupError(f"{base} is Python {version[0]}.{version[1]}; 3.11 or newer is needed")
    progress(f"interpreter: {base}, CPython {'.'.join(map(str, version))} ({build})")
    home = CACHE / "bench-venv-{}.{}.{}".format(*version)
    environment = Environment(home / "bin" / "python", version, build)
    make_venv(base, home, version, venv_works)
    install_peers(environment, peers, upgrade=upgrade)
    if rondel:
        install_rondel(environment, wheel)
    if floors:
        environment.has_bare = build_bare(environment)
    if http:
        build_load(environment)
    if http and floors:
        environment.bare_server = build_bare_server()
    environment.packages = installed(environment)
    environment.rondel = rondel
    return environment


def here(*, bare: bool = False) -> Environment:
    """The environment that runs this, untouched, and the load generators; with the bare server."""
    version, build, _ = probe(Path(sys.executable))
    packages = {
        str(each.metadata["Name"]).lower(): each.version
        for each in importlib.metadata.distributions()
    }
    has_rondel = importlib.util.find_spec("rondel") is not None
    environment = Environment(Path(sys.executable), version, build, packages, rondel=has_rondel)
    build_load(environment)
    if bare:
        environment.bare_server = build_bare_server()
    return environment


def make_venv(base: Path, home: Path, version: tuple[int, int, int], venv_works: bool) -> None:
    """Valid while it was made by the same interpreter in the same version."""
    stamp = home / "made-by"
    mark = f"{base} {version}"
    if stamp.exists() and stamp.read_text() == mark:
        return
    if not venv_works:
        raise SetupError(
            f"{base} has no venv module: install the system's python3-venv package, "
            "or choose another interpreter with --python"
        )
    CACHE.mkdir(exist_ok=True)
    step("making the environment", [str(base), "-m", "venv", "--clear", str(home)])
    stamp.write_text(mark)


def installed(environment: Environment) -> dict[str, str]:
    listed = json.loads(output(environment.python, "-m", "pip", "list", "--format=json"))
    return {str(row["name"]).lower(): str(row["version"]) for row in listed}


def install_peers(environment: Environment, peers: tuple[str, ...], *, upgrade: bool) -> None:
    """Newest ones at first; later runs keep what they have, so that runs compare."""
    wanted = list(peers)
    if "rloop" in peers and environment.version[:2] >= ZUVLOOP_SINCE:
        wanted.append("zuvloop")
    have = installed(environment)
    for name in wanted:
        if name.partition("[")[0] in have and not upgrade:
            continue
        pip = [str(environment.python), "-m", "pip", "install", "--quiet", "--upgrade", name]
        try:
            step(f"installing {name}", [*pip, "--only-binary", ":all:"])
        except SetupError as error:
            progress(f"  {name} left out: {str(error).splitlines()[-1]}")


# ---------------------------------------------------------------------------- Rondel


def newest_source() -> float:
    """The time of the last change of anything that the wheel is made from."""
    files = [CHECKOUT / "Cargo.toml", CHECKOUT / "Cargo.lock", CHECKOUT / "pyproject.toml"]
    for pattern in ("crates/**/*.rs", "crates/**/Cargo.toml", "python/**/*.py"):
        files.extend(CHECKOUT.glob(pattern))
    return max(file.stat().st_mtime for file in files)


def ready_wheel(environment: Environment) -> Path | None:
    """A wheel in dist/ for this interpreter that no source is newer than."""
    tag = "cp{}{}".format(*environment.version)
    wheels = [
        wheel
        for wheel in (CHECKOUT / "dist").glob(f"rondel-*-{tag}-*.whl")
        if wheel.stat().st_mtime >= newest_source()
    ]
    return max(wheels, key=lambda wheel: wheel.stat().st_mtime, default=None)


def install_rondel(environment: Environment, wheel: Path | None) -> None:
    """Valid while no source is newer than the last installation (or the wheel is the same)."""
    stamp = environment.python.parent.parent / "rondel-stamp"
    wheel = wheel or ready_wheel(environment)
    if wheel is not None:
        mark = f"wheel {wheel.resolve()} {wheel.stat().st_mtime_ns}"
        what, source = f"installing {wheel.name}", str(wheel)
    else:
        mark = f"checkout {newest_source()}"
        what, source = "building Rondel (release, LTO: minutes on a first run)", str(CHECKOUT)
    if stamp.exists() and stamp.read_text() == mark:
        return
    pip = [str(environment.python), "-m", "pip", "install", "--quiet", "--force-reinstall"]
    step(what, [*pip, "--no-deps", source])
    stamp.write_text(mark)


def beside(environment: Environment, wheel: Path) -> Environment:
    """The same environment with another build of Rondel before its own."""
    place = CACHE / f"bench-beside-{environment.tag}"
    stamp = place / "rondel-stamp"
    mark = f"{wheel.resolve()} {wheel.stat().st_mtime_ns}"
    if not stamp.exists() or stamp.read_text() != mark:
        shutil.rmtree(place, ignore_errors=True)
        pip = [str(environment.python), "-m", "pip", "install", "--quiet", "--no-deps"]
        step(f"installing {wheel.name} beside", [*pip, "--target", str(place), str(wheel)])
        stamp.write_text(mark)
    return replace(environment, first=place)


# ---------------------------------------------------------------------------- C and Rust helpers


def stale(target: Path, *sources: Path) -> bool:
    if not target.exists():
        return True
    made = target.stat().st_mtime
    return any(made < source.stat().st_mtime for source in sources)


def compiler() -> str:
    return os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"


def build_bare(environment: Environment) -> bool:
    """The C floor, compiled against the measured interpreter's own headers."""
    source = BENCHMARKS / "bare" / "bare.c"
    target = environment.helpers / "bare.so"
    if not stale(target, source):
        return True
    include = output(
        environment.python, "-c", "import sysconfig; print(sysconfig.get_path('include'))"
    ).strip()
    if not Path(include, "Python.h").exists():
        progress("  no bare limit: the interpreter's headers are missing (python3-dev)")
        return False
    environment.helpers.mkdir(parents=True, exist_ok=True)
    flags = ["-O2", "-shared", "-fPIC", "-Wall", f"-I{include}"]
    try:
        step("compiling bare.c", [*compiler().split(), *flags, "-o", str(target), str(source)])
    except (SetupError, FileNotFoundError) as error:
        progress(f"  no bare limit: {error}")
        return False
    return True


LOADS = {"load": "load.c", "net-load": "net/load.c"}
"""The load generators; without them there is no HTTP part, so failure is an error."""


def build_load(environment: Environment) -> None:
    for name, source in LOADS.items():
        build_tool(environment, name, BENCHMARKS / source)


def build_tool(environment: Environment, name: str, source: Path) -> Path:
    """The compiled helper."""
    target = environment.helpers / name
    if stale(target, source, BENCHMARKS / "load.h"):
        environment.helpers.mkdir(parents=True, exist_ok=True)
        command = [*compiler().split(), "-O2", "-Wall", "-o", str(target), str(source)]
        try:
            step(f"compiling {source.relative_to(BENCHMARKS)}", command)
        except FileNotFoundError as error:
            raise SetupError(f"a C compiler is needed (gcc): {error}") from error
    return target


def make_certificate(environment: Environment, name: str, key: str) -> tuple[Path, Path] | None:
    """A self-signed certificate and its key, for this machine's benchmark alone.

    `key` is what `openssl req -newkey` calls its kind.
    """
    chain, secret = environment.helpers / f"{name}-crt.pem", environment.helpers / f"{name}-key.pem"
    if chain.exists() and secret.exists():
        return chain, secret
    environment.helpers.mkdir(parents=True, exist_ok=True)
    command = ["openssl", "req", "-x509", "-newkey", *key.split(), "-nodes", "-days", "3650"]
    command += ["-subj", "/CN=localhost", "-keyout", str(secret), "-out", str(chain)]
    try:
        step("making a certificate", command)
    except (FileNotFoundError, SetupError) as error:
        progress(f"  no TLS: {error}")
        return None
    return chain, secret


def certificate(environment: Environment) -> tuple[Path, Path] | None:
    """With the kind of key that handshakes are cheapest with."""
    return make_certificate(environment, "server", "ec -pkeyopt ec_paramgen_curve:prime256v1")


def build_bare_server() -> Path | None:
    """`crates/rondel-http/examples/bare.rs`: cargo knows whether it is up to date."""
    if not (CHECKOUT / "crates/rondel-http/examples/bare.rs").exists():
        progress("  no bare server: crates/rondel-http has no example of that name")
        return None
    progress("  building the bare server ...")
    done = subprocess.run(
        [
            "cargo",
            "build",
            "--release",
            "--quiet",
            "-p",
            "rondel-http",
            "--example",
            "bare",
            "--message-format=json",
        ],
        cwd=CHECKOUT,
        env=neutral(),
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("target", {}).get("name") == "bare" and message.get("executable"):
            return Path(message["executable"])
    progress(f"  no bare server: cargo said {done.stderr.strip().splitlines()[-1:]}")
    return None
