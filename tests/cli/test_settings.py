"""Where options come from: command line, environment, file, in this order, and mistakes in each."""

from pathlib import Path

import pytest

from rondel.cli.serve import _parser, config_of
from rondel.server.config import Config
from rondel.server.errors import UsageError
from rondel.server.options import markdown, options_of
from rondel.server.settings import read_settings

from .support import RONDEL, call

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for one in options_of(Config):
        monkeypatch.delenv(one.environment, raising=False)
    return tmp_path


def chosen(*arguments: str) -> Config:
    return config_of(vars(_parser().parse_args(["main:app", *arguments])), "main:app")


def test_nothing_said_is_the_default() -> None:
    assert chosen() == Config(name="main:app")


def test_the_command_line_comes_first_then_the_environment_then_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "rondel.toml").write_text("port = 1\nbacklog = 1\nthreads = 1\nlimit-queue = 1\n")
    monkeypatch.setenv("RONDEL_BACKLOG", "2")
    monkeypatch.setenv("RONDEL_THREADS", "2")
    config = chosen("--threads", "3")
    assert (config.port, config.backlog, config.threads) == (1, 2, 3)
    assert config.limits.queue == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rondel.toml", "port = 9\n"),
        ("rondel.toml", "[tool.rondel]\nport = 9\n"),
        ("pyproject.toml", '[project]\nname = "x"\n[tool.rondel]\nport = 9\n'),
    ],
)
def test_the_usual_files(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    assert chosen().port == 9


def test_a_file_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "production.toml").write_text("port = 9\n")
    (folder / "rondel.toml").write_text("port = 1\n")
    assert chosen("--config", "production.toml").port == 9
    monkeypatch.setenv("RONDEL_CONFIG", "production.toml")
    assert chosen().port == 9


def test_a_pyproject_of_others_is_left_alone(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.black]\nline-length = 100\n")
    assert chosen() == Config(name="main:app")


def test_values_of_every_type(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "rondel.toml").write_text(
        'workers = "auto"\naccess_log = false\nmax-rss = "512M"\nuds = "x"\nuds-mode = "660"\n'
        'graceful-timeout = 5\nlog-level = "debug"\ntax = true\n'
    )
    config = chosen()
    assert config.workers == "auto"
    assert config.access_log is False
    assert config.max_rss == 512 << 20
    assert config.uds_mode == 0o660
    assert config.graceful_timeout == 5.0
    assert config.tax == "all"
    monkeypatch.setenv("RONDEL_ACCESS_LOG", "on")
    monkeypatch.setenv("RONDEL_MAX_RSS", "1.5g")
    assert chosen().access_log is True
    assert chosen().max_rss == 3 << 29


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1\n", "rondel.toml: prot is not an option; did you mean port?"),
        ("port = 70000\n", "rondel.toml: port: 70000 is not a port (0 to 65535)"),
        ("port = true\n", "rondel.toml: port: True is not a port (0 to 65535)"),
        ('access-log = "yes"\n', "rondel.toml: access-log: 'yes' is not on or off"),
        ('lifespan = "maybe"\n', "rondel.toml: lifespan: 'maybe' is none of auto, on, off"),
        ("app = 1\n", "rondel.toml: app: 1 is not a text"),
        ("port = \n", "rondel.toml cannot be read: "),
        ("[tool]\nrondel = 1\n", "rondel.toml: tool.rondel must be a table"),
    ],
)
def test_mistakes_in_a_file(folder: Path, text: str, says: str) -> None:
    (folder / "rondel.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_settings()
    assert str(caught.value).startswith(says)


def test_mistakes_in_the_environment() -> None:
    with pytest.raises(UsageError, match="^RONDEL_PORT: 'x' is not a port"):
        read_settings(environment={"RONDEL_PORT": "x"})
    with pytest.raises(UsageError, match="^RONDEL_FACTORY: 'x' is not on or off"):
        read_settings(environment={"RONDEL_FACTORY": "x"})


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no configuration file 'nowhere.toml'"):
        read_settings("nowhere.toml")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"uds_mode": 0o600}, "uds_mode is about the file of a Unix socket: give uds as well"),
        ({"preload": True}, "preload needs a process that watches over the one that serves"),
        ({"max_age": 1.0}, "max_age needs a process"),
        ({"uds": "x", "fd": 3}, "uds and fd were both given"),
        ({"workers": 0}, "workers: 0 is not a positive whole number, or auto"),
        ({"threads": 0}, "threads: 0 is not a positive whole number"),
        ({"log_level": "loud"}, "log_level: 'loud' is none of critical"),
    ],
)
def test_a_config_that_makes_no_sense(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config(**arguments)  # type: ignore[arg-type]
    assert str(caught.value).startswith(says)


def test_the_application_may_be_in_the_file(folder: Path) -> None:
    (folder / "main.py").write_text("def make():\n    raise LookupError('made')\n")
    (folder / "rondel.toml").write_text('app = "main:make"\nfactory = true\nport = 0\n')
    got = call([*RONDEL, "serve"], folder)
    assert got.errors.endswith("rondel serve: calling main:make failed: LookupError: made\n")
    (folder / "rondel.toml").unlink()
    got = call([*RONDEL, "serve"], folder)
    assert got.status == 2
    assert "which application? Name it as MODULE:APP" in got.errors


def test_the_docs_have_the_table_of_options() -> None:
    # `python scripts/option_table.py` writes it.
    assert markdown() in DOCS.read_text()


def test_every_option_is_told_in_the_help() -> None:
    told = _parser().format_help()
    assert [one.cli for one in options_of(Config) if one.cli not in told] == []
