"""``rondel run``: run a program as ``python`` would, with Rondel as its asyncio.

Invariants:

* the program sees what it would see under ``python``: a fresh ``__main__``, ``sys.argv``,
  ``sys.path[0]``, exit statuses, and tracebacks without a frame of ours;
* whatever ends the program (SystemExit, KeyboardInterrupt, an exception) leaves through the
  interpreter's own top level, which prints, runs exit handlers and dies of SIGINT as it always
  does. We only shorten the traceback on its way (``_leave``).

``-m``, directories and zip files go through ``runpy._run_module_as_main``, the function behind
``python -m`` itself; its frames belong to CPython's tracebacks.
"""

import builtins
import os
import re
import sys
from dataclasses import dataclass, field, replace
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any, Literal, NoReturn

__all__ = ["Program", "main", "parse", "run"]

HELP = """\
usage: rondel run [options] SCRIPT [argument ...]
       rondel run [options] -m MODULE [argument ...]
       rondel run [options] -c CODE [argument ...]

Run a Python program on Rondel: asyncio's names are the native ones in it, everything else is as
under `python`. SCRIPT may also be a directory or zip file with a __main__.py, or - for stdin.

examples:
  rondel run script.py
  rondel run script.py --option-of-the-script value
  rondel run -m mypackage.worker
  rondel run -c 'import asyncio; print(asyncio.new_event_loop())'
  rondel run --hints script.py           say of a mistake which line it is, and how to mend it
  rondel run --watch-tasks script.py     say at once which task failed unnoticed
  rondel run --inspect 8001 script.py    with a web page that shows its tasks
  rondel run --profile out.html script.py
  python -X dev -m rondel script.py      options of the interpreter go to `python`

options:
  -h, --help       this text
  --hints          explain coroutines that are never awaited, lost tasks and exceptions, what blocks
                   the loop, and their like, with the line and what to write instead;
                   RONDEL_HINTS=1 in the environment does the same
  --watch-tasks    report tasks that fail while nobody waits for them, with the line that
                   created them; RONDEL_WATCH_TASKS=1 in the environment does the same
  --inspect [[HOST:]PORT]
                   serve the inspector's web page meanwhile, on 127.0.0.1 and a free port if none
                   is given; its URL goes to stderr, and has a token if others can reach HOST
  --profile FILE   record the run, and write its timeline as a web page of one file at the exit
"""


# What may follow `--inspect` and is no program's name: [HOST:]PORT.
_ADDRESS = re.compile(r"(\S+:)?[0-9]+")


class UsageError(Exception):
    """A command line that names no program; the message is the whole line to print."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and the arguments that are its own."""

    kind: Literal["path", "module", "code"]
    target: str
    arguments: list[str] = field(default_factory=list)
    #: `--watch-tasks`.
    watched: bool = False
    #: `--inspect`: where, as it was written; empty for anywhere.
    inspect: str | None = None
    #: `--profile`: the file.
    profile: str | None = None
    #: `--hints`.
    hinted: bool = False


def main(arguments: list[str]) -> int:
    """Run the program named by ``arguments``; returns 0 or raises what ended the program."""
    if arguments and arguments[0] in ("-h", "--help"):
        sys.stdout.write(HELP)
        return 0
    try:
        program = parse(arguments)
    except UsageError as error:
        sys.stderr.write(f"rondel run: {error} (see rondel run --help)\n")
        return 2
    try:
        _look_on(program)
    except UsageError as error:
        sys.stderr.write(f"rondel run: {error}\n")
        return 2
    return run(program)


def _look_on(program: Program) -> None:
    """What ``--inspect`` and ``--profile`` begin before the program."""
    if program.profile is not None:
        from rondel.cli import profile

        try:
            profile.begin(program.profile, program.target)
        except OSError as error:
            raise UsageError(f"cannot write {program.profile}: {error.strerror}") from None
    if program.inspect is not None:
        from rondel.inspect.web import address, side

        try:
            where = address.parse(program.inspect or "0")
            page = side.start(where)
        except (ValueError, side.PageError) as error:
            raise UsageError(str(error)) from None
        sys.stderr.write(f"inspector: {page.url}\n")
        # Asked for: what the environment says of the socket is for programs that are not.
        os.environ.pop("RONDEL_INSPECT", None)


def run(program: Program) -> int:
    """Install Rondel and run the program; returns its exit status or raises what ended it."""
    import rondel
    from rondel import _stall_log, hints

    rondel.install()
    if program.watched:
        rondel.watch_tasks()
    if program.hinted:
        hints.enable()
    if not hints.enabled and _stall_log.suits_a_program():
        _stall_log.enable()
    return _execute(program)


def parse(arguments: list[str]) -> Program:
    """Split off the program: whatever follows it is the program's own, as with ``python``."""
    if not arguments:
        raise UsageError("no program given: name a script, or use -m MODULE or -c CODE")
    first, *rest = arguments
    if first == "--watch-tasks":
        return replace(parse(rest), watched=True)
    if first == "--hints":
        return replace(parse(rest), hinted=True)
    name, equals, value = first.partition("=")
    if name == "--inspect":
        if not equals and rest and _ADDRESS.fullmatch(rest[0]):
            value, rest = rest[0], rest[1:]
        return replace(parse(rest), inspect=value)
    if name == "--profile":
        if not equals and rest:
            value, rest = rest[0], rest[1:]
        if not value:
            raise UsageError("--profile needs a file")
        return replace(parse(rest), profile=value)
    kinds: dict[str, Literal["module", "code"]] = {"-m": "module", "-c": "code"}
    kind = kinds.get(first[:2])
    if kind is not None:
        if len(first) > 2:  # -mMODULE, as `python` takes it
            return Program(kind, first[2:], rest)
        if not rest:
            raise UsageError(f"{first} needs an argument")
        return Program(kind, rest[0], rest[1:])
    if first.startswith("-") and first != "-":
        raise UsageError(f"unknown option {first}; options of the interpreter go to `python`")
    return Program("path", first, rest)


def _execute(program: Program) -> int:
    namespace = _fresh_main()
    try:
        if program.kind == "module":
            _set_argv(["-m", *program.arguments], path0=os.getcwd())
            _run_module(program.target, alter_argv=True)
        elif program.kind == "code":
            _set_argv(["-c", *program.arguments], path0="")
            _remember("<string>", program.target)
            exec(_compile_text(program.target, "<string>"), namespace)
        elif program.target == "-":
            _set_argv(["-", *program.arguments], path0="")
            namespace.update(__cached__=None, __file__="<stdin>")
            content = sys.stdin.buffer.read()
            _remember("<stdin>", content.decode(errors="replace"))
            exec(compile(content, "<stdin>", "exec", dont_inherit=True), namespace)
        elif _is_package_path(program.target):
            _set_argv([program.target, *program.arguments], path0=_absolute(program.target))
            _run_module("__main__", alter_argv=False)
        else:
            return _run_script(program, namespace)
    except SystemExit:
        raise
    except BaseException as error:
        _leave(error)
    return 0


def _remember(name: str, text: str) -> None:
    """Hints quote lines; those of a program without a file are nowhere else."""
    from rondel import hints

    if hints.enabled:
        from rondel.hints import source

        source.remember(name, text)


def _run_script(program: Program, namespace: dict[str, Any]) -> int:
    path = _absolute(program.target)
    loader: SourceFileLoader | SourcelessFileLoader
    try:
        if path.endswith(".pyc"):
            loader = SourcelessFileLoader("__main__", path)
            content = b""
        else:
            loader = SourceFileLoader("__main__", path)
            content = loader.get_data(path)
    except OSError as error:
        # `python`'s own words and status.
        reason = f"[Errno {error.errno}] {error.strerror}"
        sys.stderr.write(f"rondel: can't open file {path!r}: {reason}\n")
        return 2
    _set_argv([program.target, *program.arguments], path0=os.path.dirname(os.path.realpath(path)))
    namespace.update(__cached__=None, __file__=path, __loader__=loader)
    code: CodeType | None
    if isinstance(loader, SourcelessFileLoader):
        code = loader.get_code("__main__")
        assert code is not None  # documented for this loader; only source-less extensions give None
    else:
        code = _compile_file(content, path)
    exec(code, namespace)
    return 0


def _fresh_main() -> dict[str, Any]:
    """A new ``__main__`` with the attributes the interpreter gives its own."""
    module = ModuleType("__main__")
    namespace = vars(module)
    namespace.update(__builtins__=builtins, __loader__=BuiltinImporter)
    if sys.version_info < (3, 14):
        namespace["__annotations__"] = {}
    # The launcher's __main__ must outlive the program: its frames are still below us.
    global _launcher
    _launcher = sys.modules.get("__main__")
    sys.modules["__main__"] = module
    return namespace


_launcher: ModuleType | None = None


def _set_argv(argv: list[str], *, path0: str) -> None:
    """``sys.argv``, and ``sys.path[0]`` in place of the launcher's own entry.

    With -P, -I or PYTHONSAFEPATH there is no such entry and none is made, but for a directory or
    zip file, whose own path ``python`` always prepends.
    """
    sys.argv = argv
    if not sys.flags.safe_path:
        sys.path[0] = path0
    elif _is_package_path(argv[0]):
        sys.path.insert(0, path0)


def _absolute(path: str) -> str:
    """Joined, not normalised: `python ./x.py` says /dir/./x.py in __file__ and tracebacks."""
    return os.path.join(os.getcwd(), path)


def _is_package_path(target: str) -> bool:
    """Whether the import system can find modules inside ``target``: a directory or zip file."""
    from pkgutil import get_importer

    return os.path.exists(target) and get_importer(target) is not None


def _run_module(name: str, *, alter_argv: bool) -> None:
    import runpy

    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]


def _compile_file(content: bytes, path: str) -> CodeType:
    before, null, _ = content.partition(b"\0")
    if null:
        # compile() refuses this without saying where; the interpreter's file reader says it.
        text = before.rpartition(b"\n")[2].decode(errors="replace")
        where = (path, before.count(b"\n") + 1, None, text)
        raise SyntaxError("source code cannot contain null bytes", where)
    return compile(content, path, "exec", dont_inherit=True)


def _compile_text(source: str, name: str) -> CodeType:
    if sys.version_info >= (3, 14):
        import textwrap

        source = textwrap.dedent(source)
    code = compile(source, name, "exec", dont_inherit=True)
    if sys.version_info >= (3, 13):
        import linecache

        # From 3.13 on tracebacks show the lines of -c. The interpreter registers them just so: by
        # code object where linecache looks up code objects (3.13.1 and later), else by name.
        by_code = hasattr(linecache, "_getline_from_code")
        linecache._register_code(  # type: ignore[attr-defined]
            code if by_code else name, source, name
        )
    return code


def _leave(error: BaseException) -> NoReturn:
    """Let ``error`` reach the interpreter's top level, without our frames in what it prints.

    The hook is swapped only now, so that the program met, and may have replaced, the real one.
    """
    hook = getattr(sys, "excepthook", None)

    def shortened(
        kind: type[BaseException], value: BaseException, traceback: TracebackType | None
    ) -> None:
        own = _program_frames(traceback)
        value.__traceback__ = own
        if hasattr(sys, "last_traceback"):
            sys.last_traceback = own
        if hook is None:
            # The words of the interpreter, which misses a hook that the program deleted.
            sys.stderr.write("sys.excepthook is missing\n")
            sys.__excepthook__(kind, value, own)
            return
        sys.excepthook = hook
        try:
            hook(kind, value, own)
        except Exception as failure:
            # So does the interpreter report it; raised on, our frame would be in the report.
            failure.__context__ = None
            broken = failure.__traceback__ and failure.__traceback__.tb_next
            sys.stderr.write("Error in sys.excepthook:\n")
            sys.__excepthook__(type(failure), failure.with_traceback(broken), broken)
            sys.stderr.write("\nOriginal exception was:\n")
            sys.__excepthook__(kind, value, own)

    sys.excepthook = shortened
    raise error


def _program_frames(traceback: TracebackType | None) -> TracebackType | None:
    """The part of a traceback below this module's last frame; None if nothing is (SyntaxError)."""
    below = traceback
    while traceback is not None:
        if traceback.tb_frame.f_globals is globals():
            below = traceback.tb_next
        traceback = traceback.tb_next
    return below
