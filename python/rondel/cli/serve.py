"""``rondel serve``: options, and how errors of the start reach the user.

Exit statuses: 0 after a graceful stop, 2 for a command line that is wrong, 1 for everything else
that keeps the application from being served. One line each; an error inside the application's own
modules is preceded by its traceback.
"""

import argparse
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from rondel.cli.options import Parser
from rondel.server import Config, ServeError
from rondel.server.errors import TargetImportError, UsageError
from rondel.server.options import GROUPS, Option, build, kinds, options_of, spelled
from rondel.server.settings import Settings, read_settings
from rondel.server.target import Application, put_on_path

__all__ = ["add_options", "config_of", "main"]

EXAMPLES = """\
examples:
  rondel serve mysite.asgi:application               Django, on http://127.0.0.1:8000
  rondel serve mysite.wsgi:application               WSGI: Flask, Django, ...; on threads
  rondel serve main:app --host 0.0.0.0 --port 80     to the whole network
  rondel serve main:app --port 0                     a free port, printed at the start
  rondel serve main:make_app --factory               main.make_app() returns the application
  rondel serve main:app --uds /run/mysite.sock       for a proxy on this machine
  rondel serve main:app --workers auto               a process per processor, watched over
  rondel serve --config production.toml              options from a file

Options come from the command line, then the environment (RONDEL_WORKERS=4), then the file.
Ctrl+C or SIGTERM stops gracefully, a second one at once. With --workers: SIGHUP replaces the
workers without a dropped request, SIGTTIN and SIGTTOU add and remove one. SIGUSR1 opens log files
anew.
"""


def main(arguments: list[str]) -> int:
    """Serve until stopped; returns the exit status."""
    options = _parser().parse_args(arguments)

    def read() -> tuple[Application, Config]:
        settings = read_settings(options.config)
        app = _application(options, settings)
        return app, config_of(vars(options), app.name, settings)

    try:
        _serve(*read(), read)
    except TargetImportError as error:
        # The user's own error: the traceback is theirs and useful, the last line says what failed.
        cause = error.__cause__
        if cause is not None:
            traceback.print_exception(cause)
        sys.stderr.write(f"rondel serve: {error}\n")
        return error.exit_status
    except ServeError as error:
        sys.stderr.write(f"rondel serve: {error}\n")
        return error.exit_status
    except KeyboardInterrupt:
        # Before the loop ran: nothing to stop, and a traceback would tell nothing.
        sys.stderr.write("rondel serve: interrupted\n")
        return 130


def _application(options: argparse.Namespace, settings: Settings) -> Application:
    """Which application, by the command line, the environment and the file, in this order."""
    told = settings.application
    target = options.target or told.get("app")
    if target is None:
        raise UsageError(
            "which application? Name it as MODULE:APP, or as `app` in rondel.toml "
            "(see rondel serve --help)"
        )
    directory = options.app_dir if options.app_dir is not None else told.get("app_dir", ".")
    factory = options.factory if options.factory is not None else told.get("factory", False)
    return Application(target, factory=factory, directory=directory)


def _serve(
    app: Application, config: Config, read: Callable[[], tuple[Application, Config]]
) -> NoReturn:
    import rondel
    from rondel.server.process import end_process, leave_soon, run_process

    put_on_path(app.directory)
    if config.is_supervised:
        from rondel.server.supervisor import supervise

        end_process(supervise(app, config, read, clean=True))
    # This process is ours: libraries of the application get the native names too.
    rondel.install(bridge=config.bridge)
    status = run_process(app.target, config, factory=app.factory, stopped=leave_soon)
    end_process(status)


def config_of(chosen: Mapping[str, Any], name: str, settings: Settings | None = None) -> Config:
    """What ``add_options`` collected, over the environment and the file; ``name`` is how the banner
    calls the application. Raises UsageError.
    """
    settings = settings or read_settings(chosen.get("config"))
    known = {one.key for one in options_of(Config)}
    given = {key: value for key, value in chosen.items() if key in known and value is not None}
    config: Config = build(Config, {**settings.values, **given}, name=name)
    return config


def _parser() -> Parser:
    parser = Parser(
        prog="rondel serve",
        description="Serve an ASGI or WSGI application over HTTP/1.1 and HTTP/2.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "target", metavar="MODULE:APP", nargs="?", help="the application: where:what"
    )
    application = parser.add_argument_group("application")
    add = application.add_argument
    add("--app-dir", metavar="DIR", help="find MODULE there (default: .)")
    add(
        "--factory",
        action="store_true",
        default=None,
        help="APP is called and returns the application",
    )
    add_options(parser, application)
    return parser


def add_options(
    parser: argparse.ArgumentParser, application: "argparse._ArgumentGroup | None" = None
) -> None:
    """The options of serving, but for which application: ``manage.py serve`` has them as well.

    An option that was not given is None in the outcome.
    """
    groups = {"application": application} if application is not None else {}
    every = list(options_of(Config))
    for name in GROUPS:
        mine = [one for one in every if one.group == name]
        if not mine:
            continue
        group = groups.get(name) or parser.add_argument_group(name)
        for one in mine:
            _add(group, one)
    (application or parser.add_argument_group("settings")).add_argument(
        "--config",
        metavar="FILE",
        help="read options from there (default: rondel.toml, or [tool.rondel] in pyproject.toml)",
    )


def _add(group: "argparse._ArgumentGroup", one: Option) -> None:
    told = one.help
    if "(default: " not in told and (default := spelled(one, one.default)):
        told = f"{told} (default: {default})".lstrip()
    told = told.replace("%", "%%")
    names = (one.cli,)
    if one.kind is kinds.flag:
        group.add_argument(
            *names, action=argparse.BooleanOptionalAction, default=None, dest=one.key, help=told
        )
    elif one.kind is kinds.tax:
        group.add_argument(
            *names, action="store_const", const="all", default=None, dest=one.key, help=told
        )
    elif one.kind in (kinds.names, kinds.paths, kinds.mounts):
        metavar = one.metavar or one.kind.metavar
        group.add_argument(*names, action="append", dest=one.key, metavar=metavar, help=told)
    else:
        group.add_argument(
            *names,
            type=_typed(one),
            dest=one.key,
            metavar=None if one.choices else one.metavar or one.kind.metavar,
            choices=one.choices or None,
            help=told,
        )


def _typed(one: Option) -> Callable[[str], Any]:
    if one.choices:
        return one.kind.parse  # argparse lists the choices itself

    def parse(text: str) -> Any:
        try:
            return one.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse
