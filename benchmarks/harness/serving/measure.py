"""The rounds: every group of cases, all servers in turn."""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from asgi_app import HELLO

from harness import programs
from harness.django.project import PROJECT, Site
from harness.django.project import prepare as prepare_site
from harness.environment import Environment, SetupError, certificate, progress
from harness.figures import Figures, Run
from harness.process import ServerError, Starter, running, tree_memory
from harness.programs import BARE, Setting
from harness.serving.cases import SIZES, WITHOUT_BARE, Group, Memory, Place, content
from harness.serving.load import H2loadCase, PacedCase
from harness.traffic import HttpCase, Request, Sink, load, measure_case, start, verify

MIB = 2**20
DJANGO_CASE = "minimal_async"

Chosen = list[tuple[Group, list[str]]]
"""Groups, and the names of the cases of each that are asked for."""


@dataclass
class Bench:
    environment: Environment
    place: Place
    wanted: set[str] | None
    """Peers; none is all."""
    fewer: int
    site: Site | None
    """Django's, if a case needs it."""

    def servers(self, group: Group) -> list[str]:
        return programs.available(self.environment, group.servers, self.wanted)

    def lacking(self, group: Group) -> str | None:
        """Why nothing of the group can be measured."""
        by_h2load = any(isinstance(case, H2loadCase) for case in group.cases)
        if by_h2load and (reason := H2loadCase.lacking()):
            return reason
        if group.secure and self.place.certificate is None:
            return "no certificate could be made (openssl)"
        if not self.servers(group):
            return "none of its servers is there"
        return None

    def run(self, group: Group, names: list[str], figures: Figures) -> None:
        """One round of a group."""
        cases = [case for case in group.cases if case.name in names]
        servers = self.servers(group)
        served: list[Request | PacedCase] = []
        for case in cases:
            if not isinstance(case, Memory):
                served.append(case)
                continue
            for server in servers:
                if not figures.failed(case.name, server):
                    self.weigh(case, server, figures)
        if not served:
            return
        setting = group.setting(self.place)
        starters = {
            server: programs.starter(self.environment, server, setting) for server in servers
        }
        sink = Sink(figures)
        with contextlib.ExitStack() as stack:
            there = start(stack, starters, [case.name for case in served], sink)
            for each in served:
                if isinstance(each, PacedCase):
                    each.measure(self.environment, there, figures, fewer=self.fewer)
                    continue
                able = [name for name in servers if name != BARE or each.name not in WITHOUT_BARE]
                requests = dict.fromkeys(able, each)
                measure_case(
                    self.environment, each.name, requests, there, fewer=self.fewer, sink=sink
                )

    def weigh(self, case: Memory, server: str, figures: Figures) -> None:
        """One server's memory per worker."""
        request, starter = self.weighed(case, server)
        try:
            with starter() as (pid, port):
                verify(request, port)
                load(self.environment, request, port, max(1000, case.requests // self.fewer))
                pss = tree_memory(pid, "Pss")
        except ServerError as error:
            Sink(figures).fail(case.name, server, error)
            return
        figures.add(case.name, server, [pss / case.workers / MIB])

    def weighed(self, case: Memory, server: str) -> tuple[HttpCase, Starter]:
        setting = Setting(workers=case.workers, preload=case.preload)
        if not case.django:
            hello = HttpCase(case.name, case.title, "GET", "/", HELLO, case.requests)
            return hello, programs.starter(self.environment, server, setting)
        assert self.site is not None
        setting = replace(setting, app="bench_site.asgi:application")
        command = partial(programs.command, self.environment, server, setting)
        request = self.site.requests[DJANGO_CASE][0]
        return request, partial(running, command, PROJECT, self.site.variables)


def run(
    environment: Environment,
    chosen: Chosen,
    wanted: set[str] | None,
    *,
    rounds: int,
    fewer: int,
    results: Run,
) -> None:
    """All of `chosen`, `rounds` times; what can't be measured is left out with a word."""
    with tempfile.TemporaryDirectory(prefix="bench-server-") as folder:
        files = Path(folder, "files")
        files.mkdir()
        for name, size in SIZES.items():
            (files / name).write_bytes(content(size))
        bench = Bench(environment, Place(files, certificate(environment)), wanted, fewer, None)
        chosen = with_site(bench, chosen, Path(folder), results)
        left = []
        for group, names in chosen:
            results.parts.setdefault(group.part, Figures("median"))
            if reason := bench.lacking(group):
                skip(results, group.name, reason)
            else:
                left.append((group, names))
        for number in range(rounds):
            for group, names in left:
                begin = time.monotonic()
                bench.run(group, names, results.parts[group.part])
                took = time.monotonic() - begin
                progress(f"round {number + 1} of {rounds}: {group.name}, {took:.0f} s")


def skip(results: Run, what: str, reason: str) -> None:
    progress(f"  {what} left out: {reason}")
    results.about[f"{what} left out"] = reason


def with_site(bench: Bench, chosen: Chosen, folder: Path, results: Run) -> Chosen:
    """What can be measured of `chosen`; prepares Django's site if a case needs it."""

    def django(group: Group, name: str) -> bool:
        return any(
            isinstance(case, Memory) and case.django for case in group.cases if case.name == name
        )

    if not any(django(group, name) for group, names in chosen for name in names):
        return chosen
    try:
        if "django" not in bench.environment.packages:
            raise SetupError("Django is not installed")
        bench.site = prepare_site(
            bench.environment,
            "minimal",
            {DJANGO_CASE},
            folder=folder,
            cluster=None,
            conn_max_age=0,
        )
    except SetupError as error:
        skip(results, "Django", str(error))
        kept = [(group, [n for n in names if not django(group, n)]) for group, names in chosen]
        return [(group, names) for group, names in kept if names]
    return chosen
