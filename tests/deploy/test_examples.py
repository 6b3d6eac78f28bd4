"""What the documents and the examples name exists: options, probes' paths, ports, deadlines."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rondel.cli.serve import _parser, config_of
from rondel.server import Config
from rondel.server.options import kinds, options_of
from rondel.server.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9_-]+")


def known() -> set[str]:
    every = list(options_of(Config))
    flags = {f"--no-{one.cli[2:]}" for one in every if one.kind is kinds.flag}
    return {one.cli for one in every} | flags | {"--app-dir", "--factory", "--config", "--help"}


def configured(words: list[str]) -> Config:
    """What `rondel serve` makes of a command line."""
    assert [Path(words[0]).name, words[1]] == ["rondel", "serve"]
    return config_of(vars(_parser().parse_args(words[2:])), "application", Settings())


def test_the_column_of_the_migration_table_names_what_is_there() -> None:
    lines = (ROOT / "docs" / "migrating.md").read_text().splitlines()
    rows = [line.split(" | ") for line in lines if line.count(" | ") == 6]
    assert len(rows) > 40
    named = {name for row in rows for name in OPTION.findall(row[-1])}
    assert named <= known()
    # And the other way round: what has no counterpart anywhere is said so.
    no_peer = {"--help", "--bridge", "--hybrid", "--inline", "--tax", "--request-id"}
    no_peer |= {"--limit-tls-handshake", "--ssl-reload", "--factory"}
    assert {name for name in known() if not name.startswith("--no-")} - named == no_peer


@pytest.mark.parametrize("path", ["docs/deploy.md", "docs/telemetry.md", "README.md"])
def test_command_lines_in_documents_are_understood(path: str) -> None:
    text = (ROOT / path).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if "rondel serve " in line]
    assert lines
    for line in lines:
        assert set(OPTION.findall(line.partition("rondel serve ")[2])) <= known(), line


def test_kubernetes() -> None:
    text = (DEPLOY / "kubernetes.yaml").read_text()
    listed: Any = re.search(r"args:\n((?:\s+(?:- \S+|#.*)\n)+)", text)
    config = configured(re.findall(r"- (\S+)", re.sub("#.*", "", listed[1])))
    assert re.findall(r"httpGet: {path: (\S+), port: http}", text) == [config.health] * 2
    assert re.findall(r"{name: http, containerPort: (\d+)}", text) == [str(config.port)]
    grace: Any = re.search(r"terminationGracePeriodSeconds: (\d+)", text)
    pause: Any = re.search(r"preStop:\n\s+exec: {command: \[sleep, \"(\d+)\"\]}", text)
    assert int(grace[1]) > config.graceful_timeout + int(pause[1])


def test_docker() -> None:
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    command, check = (
        json.loads("[" + re.findall(rf"^{word} [^\[]*\[(.*)$", text, re.MULTILINE)[0])
        for word in ("CMD", "HEALTHCHECK")
    )
    config = configured(command)
    assert f"http://127.0.0.1:{config.port}{config.health}" in check[-1]
    assert f"EXPOSE {config.port}\n" in text


def test_systemd() -> None:
    text = (DEPLOY / "mysite.service").read_text()
    started: Any = re.search(r"ExecStart=(.*)", text)
    limit: Any = re.search(r"TimeoutStopSec=(\d+)", text)
    assert int(limit[1]) > configured(started[1].split()).graceful_timeout
