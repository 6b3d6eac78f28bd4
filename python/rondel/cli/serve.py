"""``rondel serve``: options, and how errors of the start reach the user.

Exit statuses: 0 after a graceful stop, 2 for a command line that is wrong, 1 for everything else
that keeps the application from being served. One line each; an error inside the application's own
modules is preceded by its traceback.
"""

import argparse
import sys
import traceback
from typing import Any

from rondel.cli.options import Parser, port, positive_int, seconds
from rondel.server import Config, Limits, ServeError
from rondel.server.errors import TargetImportError
from rondel.server.logs import LEVELS

__all__ = ["main"]

EXAMPLES = """\
examples:
  rondel serve mysite.asgi:application               Django, on http://127.0.0.1:8000
  rondel serve main:app --host 0.0.0.0 --port 80     to the whole network
  rondel serve main:app --port 0                     a free port, printed at the start
  rondel serve main:make_app --factory               main.make_app() returns the application
  rondel serve main:app --uds /run/mysite.sock       for a proxy on this machine

Ctrl+C or SIGTERM stops gracefully, a second one at once.
"""


def main(arguments: list[str]) -> int:
    """Serve until stopped; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        config = _config(options)
        return _serve(options, config)
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


def _serve(options: argparse.Namespace, config: Config) -> int:
    import rondel
    from rondel.server.process import end_process, run_process
    from rondel.server.target import put_on_path

    # This process is ours: libraries of the application get the native names too.
    rondel.install()
    put_on_path(options.app_dir)
    status = run_process(options.target, config, factory=options.factory)
    end_process(status)


def _config(options: argparse.Namespace) -> Config:
    chosen: dict[str, Any] = vars(options)
    limits = Limits(
        header_timeout=chosen["limit_header_timeout"],
        keep_alive_timeout=chosen["limit_keep_alive"],
        header_bytes=chosen["limit_header_bytes"],
        header_count=chosen["limit_header_count"],
    )
    same = (
        "host",
        "port",
        "uds",
        "workers",
        "access_log",
        "log_level",
        "root_path",
        "lifespan",
        "lifespan_timeout",
        "graceful_timeout",
        "backlog",
    )
    name = f"{options.target}()" if options.factory else options.target
    return Config(**{key: chosen[key] for key in same}, limits=limits, name=name)


def _parser() -> Parser:
    default = Config()
    parser = Parser(
        prog="rondel serve",
        description="Serve an ASGI application over HTTP/1.1, on the loop that runs its code.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("target", metavar="MODULE:APP", help="the application: where:what")
    add = parser.add_argument_group("application").add_argument
    add("--app-dir", default=".", metavar="DIR", help="find MODULE there (default: .)")
    add("--factory", action="store_true", help="APP is called and returns the application")
    add("--root-path", default="", metavar="PATH", help="prefix that a proxy strips")
    add(
        "--lifespan",
        choices=("auto", "on", "off"),
        default=default.lifespan,
        help="startup and shutdown events: if the application has them, always, never "
        "(default: auto)",
    )
    add(
        "--lifespan-timeout",
        type=seconds,
        default=default.lifespan_timeout,
        metavar="S",
        help="for the startup, and for the shutdown (default: %(default)g)",
    )
    add = parser.add_argument_group("address").add_argument
    add("--host", default=default.host, help="address or name (default: %(default)s)")
    add("--port", type=port, default=default.port, help="0: a free one (default: %(default)s)")
    add("--uds", metavar="PATH", help="a Unix domain socket instead of host and port")
    add("--backlog", type=positive_int, default=default.backlog, metavar="N", help="queue length")
    add = parser.add_argument_group("process").add_argument
    add("--workers", type=positive_int, default=1, metavar="N", help="1, for now")
    add(
        "--graceful-timeout",
        type=seconds,
        default=default.graceful_timeout,
        metavar="S",
        help="for requests in flight at a stop (default: %(default)g)",
    )
    add(
        "--access-log",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a line per request on stdout (default: on)",
    )
    add("--log-level", choices=LEVELS, default=default.log_level, help="(default: %(default)s)")
    _add_limits(parser, default.limits)
    return parser


def _add_limits(parser: Parser, default: Limits) -> None:
    add = parser.add_argument_group("limits").add_argument
    add(
        "--limit-header-timeout",
        type=seconds,
        default=default.header_timeout,
        metavar="S",
        help="to send a request's head (default: %(default)g)",
    )
    add(
        "--limit-keep-alive",
        type=seconds,
        default=default.keep_alive_timeout,
        metavar="S",
        help="idle between requests (default: %(default)g)",
    )
    add(
        "--limit-header-bytes",
        type=positive_int,
        default=default.header_bytes,
        metavar="N",
        help="of a request's head (default: %(default)s)",
    )
    add(
        "--limit-header-count",
        type=positive_int,
        default=default.header_count,
        metavar="N",
        help="headers of a request (default: %(default)s)",
    )
