"""What a random program is: nested tuples, drawn from any source of small integers.

A program is a list of tasks, a task a list of statements, a statement `(kind, argument, ...)` whose
arguments are integers or blocks (lists of statements) or lists of blocks. Being plain data, a
program that failed can be printed, pasted and run.

Delays are whole seconds, moved apart by multiples of 1/512 s: exact as a float and as nanoseconds.
"""

import random
from collections.abc import Callable

Statement = tuple[object, ...]
Block = list[Statement]
Program = list[Block]

FUTURES = 3
TASKS = 4
LEAVES = {
    "yield": 3,
    "sleep": 6,
    "set": FUTURES,
    "fail": FUTURES,
    "cancel_future": FUTURES,
    "await_future": FUTURES,
    "callback": FUTURES,
    "cancel_task": TASKS,
    "cancel_with": TASKS,
    "await_task": TASKS,
    "uncancel": 1,
    "raise": 3,
    "call_later": 6,
    "set_event": 1,
    "clear_event": 1,
    "wait_event": 1,
    "put": 9,
    "put_nowait": 9,
    "get": 1,
    "get_nowait": 1,
    "task_done": 1,
    "join": 1,
    "notify": 2,
    "notify_all": 1,
    "wait_until": 3,
    "pass_barrier": 2,
    "reset_barrier": 1,
    "abort_barrier": 1,
    "reschedule": 6,
}
"""Statements with one integer below this."""

BLOCKS = ("catch", "finally", "child", "shield", "lock", "semaphore", "condition", "wait_notified")
"""Statements with one block."""

TIMED = ("timeout", "timeout_at", "wait_for", "wait_for_task")
"""Statements with a delay and a block."""

FORKS = ("gather", "gather_all", "group", "wait_all", "wait_first", "wait_error", "as_completed")
"""Statements with a list of blocks."""

KINDS = (*LEAVES, *BLOCKS, *BLOCKS, *TIMED, *TIMED, *FORKS, *FORKS)


def draw(integer: Callable[[int, int], int]) -> Program:
    """A program from `integer(low, high)`, which gives an integer in that closed range.

    Zero stands for the simplest choice everywhere, so that a source that shrinks towards zero
    simplifies the program.
    """

    def statement(depth: int) -> Statement:
        leaves = list(LEAVES)
        kind = (KINDS if depth else leaves)[integer(0, len(KINDS if depth else leaves) - 1)]
        if kind in LEAVES:
            return (kind, integer(0, LEAVES[kind] - 1))
        if kind in TIMED:
            return (kind, integer(0, 4), block(depth - 1))
        if kind in FORKS:
            return (kind, [block(depth - 1) for _ in range(integer(0, 3))])
        return (kind, block(depth - 1))

    def block(depth: int) -> Block:
        return [statement(depth) for _ in range(integer(0, 3))]

    return [[statement(2) for _ in range(integer(1, 5))] for _ in range(integer(1, TASKS))]


def from_seed(seed: int) -> Program:
    return draw(random.Random(seed).randint)


def smaller(program: Program) -> list[Program]:
    """Programs with one task, statement or nesting less."""
    found: list[Program] = []

    def blocks(block: Block, rebuild: Callable[[Block], Program]) -> None:
        for at, statement in enumerate(block):
            rest = block[:at], block[at + 1 :]
            found.append(rebuild([*rest[0], *rest[1]]))
            for index, part in enumerate(statement):
                if not isinstance(part, list):
                    continue

                def put(
                    new: object,
                    rest: tuple[Block, Block] = rest,
                    statement: Statement = statement,
                    index: int = index,
                ) -> Program:
                    changed = (*statement[:index], new, *statement[index + 1 :])
                    return rebuild([*rest[0], changed, *rest[1]])

                if statement[0] in FORKS:
                    for which in range(len(part)):
                        found.append(put(part[:which] + part[which + 1 :]))
                        blocks(
                            part[which],
                            lambda new, part=part, which=which, put=put: put(  # type: ignore[misc]
                                [*part[:which], new, *part[which + 1 :]]
                            ),
                        )
                else:
                    found.append(rebuild([*rest[0], *part, *rest[1]]))
                    blocks(part, put)

    for at in range(len(program)):
        if len(program) > 1:
            found.append(program[:at] + program[at + 1 :])
        blocks(program[at], lambda new, at=at: [*program[:at], new, *program[at + 1 :]])  # type: ignore[misc]
    return found
