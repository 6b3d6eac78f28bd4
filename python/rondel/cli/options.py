"""An argparse parser with this command's manners: one line and status 2 for bad usage."""

import argparse
import sys
from typing import NoReturn

__all__ = ["Parser", "port", "positive_int", "seconds"]


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and where help is, instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message} (see {self.prog} --help)\n")
        raise SystemExit(2)


def port(text: str) -> int:
    """A TCP port; 0 asks the system for a free one."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return number


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return number


def seconds(text: str) -> float:
    """A number of seconds, 0 included."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds (0 or more)")
    return number
