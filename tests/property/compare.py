"""Runs a program on asyncio and on Rondel and compares the traces."""

import asyncio
import importlib
import pprint
from typing import Any

from tests.property import clock, interpreter
from tests.property.programs import Program, smaller


def traces(program: Program) -> tuple[list[Any], list[Any]]:
    """What asyncio and Rondel make of a program."""
    rondel = importlib.import_module("rondel")
    expected = interpreter.run(asyncio, clock.StockLoop(), program)
    found = interpreter.run(rondel, clock.native_loop(), program)
    return expected, found


def differ(program: Program) -> bool:
    expected, found = traces(program)
    return expected != found


def reduce(program: Program) -> Program:
    """A program that still differs and has nothing left to take away."""
    while True:
        for candidate in smaller(program):
            if differ(candidate):
                program = candidate
                break
        else:
            return program


def report(program: Program) -> str:
    """The program as Python, and both traces from the first difference on."""
    expected, found = traces(program)
    at = next(
        (i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b),
        min(len(expected), len(found)),
    )
    lines = ["program = " + pprint.pformat(program, width=96), f"the same: {at} steps; then"]
    for name, trace in (("asyncio", expected), ("rondel", found)):
        lines += [f"  {name}:", *(f"    {step}" for step in trace[at : at + 6])]
    return "\n".join(lines)
