"""``rondel web PID``: the inspector's page of a process that runs already.

The page's process is the one that ``--inspect`` starts; it ends with this command, which ends by
Ctrl-C or with the process that it shows.
"""

import argparse
import os
import select
import sys

from rondel.cli.inspect import add_pid, guarded, parser_for
from rondel.cli.inspect_client import InspectError, ask
from rondel.inspect.web.address import Address, parse

__all__ = ["address_of", "main"]

TEXT = """\
Show a process, and those that it has started, on a web page: its tasks, a timeline, its loops,
requests and stalls. Ctrl-C ends it; the process does not notice.

examples:
  rondel web 4711                        on a free port of this machine, which is printed
  rondel web 4711 --at 8001
  rondel web 4711 --at 0.0.0.0:8001      for the network: the printed URL has a token
"""


def main(arguments: list[str]) -> int:
    """Run the command; its exit status."""
    parser = parser_for("web", TEXT, tells=False)
    add_pid(parser)
    parser.add_argument(
        "--at",
        type=address_of,
        default=Address(),
        metavar="[HOST:]PORT",
        help="where to serve it (default: a free port of 127.0.0.1)",
    )
    options = parser.parse_args(arguments)
    return guarded("web", lambda: _web(options))


def address_of(text: str) -> Address:
    """For argparse."""
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _web(options: argparse.Namespace) -> int:
    # Whether it can be asked at all is told here, not on a page.
    ask(options.pid, "stats")
    from rondel.inspect.web.side import PageError, start

    try:
        page = start(options.at, options.pid)
    except PageError as error:
        raise InspectError(str(error)) from None
    sys.stderr.write(f"inspector of process {options.pid}: {page.url}   (Ctrl-C ends it)\n")
    try:
        _until_end(options.pid)
    except KeyboardInterrupt:
        sys.stderr.write("\n")
    finally:
        page.close()
    return 0


def _until_end(pid: int) -> None:
    try:
        ends = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([ends], [], [])
    finally:
        os.close(ends)
