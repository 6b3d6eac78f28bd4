"""`rondel run` next to `python`: same output, same exit status, same words on stderr."""

import os
import signal
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from tests.support import EARLY_311

from .support import PYTHON, RONDEL, both, call, running, without_loop_frames

SHOW = """\
import sys
names = ("__name__", "__file__", "__package__", "__doc__", "__cached__")
g = globals()
print([(n, g.get(n, "absent")) for n in names])
print(getattr(__spec__, "name", None), type(__loader__).__name__)
print(type(__builtins__).__name__, g.get("__annotations__", "absent"))
print(sys.argv, repr(sys.path[0]), sys.modules["__main__"].__dict__ is g)
print(sorted(n for n in g if n not in ("g", "names", "sys", "n")))
"""


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write(
        tmp_path,
        {
            "show.py": SHOW,
            "package/__init__.py": "",
            "package/__main__.py": SHOW,
            "package/sub.py": SHOW,
            "place/__main__.py": SHOW,
            "place/neighbour.py": "name = 'neighbour'",
            "real/target.py": SHOW,
            "empty/nothing.py": "",
        },
    )
    (tmp_path / "link.py").symlink_to("real/target.py")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("__main__.py", SHOW)
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["show.py"],
        ["./show.py", "a", "--option", "-m", "x"],
        ["real/../show.py"],
        ["link.py", "through a symlink"],
        ["-m", "package", "a"],
        ["-mpackage.sub", "-h"],
        ["-m", "show"],
        ["-c", SHOW, "a", "-c"],
        ["place", "a"],
        ["./place"],
        ["packed.zip", "a"],
        ["-", "from stdin"],
    ],
    ids=" ".join,
)
def test_the_program_meets_the_same_surroundings(project: Path, arguments: list[str]) -> None:
    expected, got = both(arguments, project, stdin=SHOW)
    assert expected.status == 0, expected.errors
    assert got == expected


def test_compiled_scripts_run(project: Path) -> None:
    compiled = call([*PYTHON, "-m", "compileall", "-q", "-b", "show.py"], project)
    assert compiled.status == 0
    expected, got = both(["show.pyc"], project)
    assert expected.status == 0
    assert got == expected


ENDINGS = {
    "returns": "print('x')",
    "exit none": "import sys; sys.exit()",
    "exit number": "import sys; sys.exit(7)",
    "exit text": "import sys; sys.exit('no good')",
    "exit object": "raise SystemExit([1, 2])",
    "raises": "def f():\n    1 / 0\nf()",
    "raises from": "try:\n    {}['a']\nexcept KeyError as e:\n    raise ValueError('b') from e",
    "group": "raise ExceptionGroup('g', [ValueError(1), TypeError(2)])",
    "syntax": "x = = 1",
    "indentation": "def f():\nreturn 1",
    "null byte": "x = '\0'",
    "keyboard interrupt": "raise KeyboardInterrupt",
    "import error": "import no_such_module_anywhere",
    "warning": "import warnings\nwarnings.warn('old', DeprecationWarning)",
    "own hook": "import sys\nsys.excepthook = lambda *a: print(a[0], a[2].tb_lineno)\n1 / 0",
    "broken hook": "import sys\ndef hook(*a):\n    raise OSError('h')\nsys.excepthook = hook\n1/0",
    "no hook": "import sys\ndel sys.excepthook\n1/0",
    "at exit": "import atexit, sys\natexit.register(print, 'bye')\nsys.exit(3)",
    "thread": "import threading\nthreading.Thread(target=lambda: 1 / 0).start()",
    "non-daemon thread": (
        "import threading\nd = threading.Event()\n"
        "threading.Thread(target=lambda: (threading.main_thread().join(), print('t'))).start()\n1/0"
    ),
    "last exception": (
        "import atexit, sys\n@atexit.register\ndef show():\n"
        "    print(sys.last_type, sys.last_traceback.tb_frame.f_code.co_name)\n1/0"
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("way", ["script", "module", "code"])
def test_the_program_ends_the_same(tmp_path: Path, ending: str, way: str) -> None:
    source = ENDINGS[ending]
    if "\0" in source and way == "code":
        pytest.skip("no argument can hold a null byte")
    if "\0" in source and way == "script" and EARLY_311:
        pytest.skip("read as text up to the null byte there, which compile() refuses")
    (tmp_path / "ending.py").write_text(source)
    arguments = {"script": ["ending.py"], "module": ["-m", "ending"], "code": ["-c", source]}[way]
    expected, got = both(arguments, tmp_path)
    assert got == expected


ASYNC_ENDINGS = {
    "raises": "raise ValueError('inside')",
    "exit in a task": "await asyncio.create_task(leave())",
    "interrupted in a task": "await asyncio.create_task(interrupt())",
    "group": "async with asyncio.TaskGroup() as g:\n        g.create_task(fail())",
    "cancelled": "asyncio.current_task().cancel(); await asyncio.sleep(1)",
}


@pytest.mark.parametrize("ending", ASYNC_ENDINGS)
def test_an_asyncio_program_ends_the_same(tmp_path: Path, ending: str) -> None:
    source = f"""\
import asyncio, sys
async def leave():
    sys.exit(5)
async def interrupt():
    raise KeyboardInterrupt
async def fail():
    raise LookupError('gone')
async def main():
    {ASYNC_ENDINGS[ending]}
asyncio.run(main())
"""
    (tmp_path / "ending.py").write_text(source)
    expected, got = both(["ending.py"], tmp_path)
    assert expected.status != 0
    assert got.status == expected.status
    assert got.output == expected.output
    assert without_loop_frames(got.errors) == without_loop_frames(expected.errors)
    assert "rondel/cli" not in got.errors


@pytest.mark.parametrize("arguments", [["gone.py"], ["-m", "gone"], ["empty"], ["-m", "a.b"]])
def test_a_missing_program_is_told_in_pythons_words(project: Path, arguments: list[str]) -> None:
    expected, got = both(arguments, project)
    assert expected.status != 0
    assert got.status == expected.status
    assert got.output == expected.output
    # python names itself by its path, rondel by its name.
    assert got.errors.partition(": ")[2] == expected.errors.partition(": ")[2]


def test_an_unreadable_script_is_told_in_pythons_words(project: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (project / "show.py").chmod(0)
    expected, got = both(["show.py"], project)
    assert got.status == expected.status == 2
    assert got.errors.partition(": ")[2] == expected.errors.partition(": ")[2]


def test_interpreter_flags_apply(project: Path) -> None:
    arguments = ["-O", "-P", "-W", "error", "-m", "rondel", "show.py"]
    expected = call([sys.executable, "-O", "-P", "-W", "error", "show.py"], project)
    got = call([sys.executable, *arguments], project)
    # With -P nothing is prepended: the first entry is what both find in the environment.
    assert got == expected


@pytest.mark.parametrize("way", ["synchronous", "asynchronous"])
def test_ctrl_c_ends_the_program_as_python_does(tmp_path: Path, way: str) -> None:
    bodies = {
        # One line: wherever in it the signal arrives, the traceback names the same place.
        "synchronous": "import sys, time\nsys.stderr.write('ready\\n'), time.sleep(60)\n",
        "asynchronous": (
            "import asyncio, sys\n"
            "async def main():\n"
            "    sys.stderr.write('ready\\n')\n"
            "    try:\n"
            "        await asyncio.sleep(60)\n"
            "    finally:\n"
            "        sys.stderr.write('cleaned up\\n')\n"
            "asyncio.run(main())\n"
        ),
    }
    (tmp_path / "waits.py").write_text(bodies[way])
    outcomes = []
    for command in (PYTHON, RONDEL):
        with running([*command, "waits.py"], tmp_path) as process:
            process.wait_for("ready")
            process.signal(signal.SIGINT)
            outcomes.append(process.end())
    expected, got = outcomes
    assert expected.status == -signal.SIGINT
    assert got.status == expected.status
    assert frames(got.errors) == frames(expected.errors)


def frames(errors: str) -> list[str]:
    """The lines of a traceback, but for the loop's frames and the carets below the source."""
    lines = without_loop_frames(errors).splitlines()
    return [line for line in lines if line.strip("~^ ")]


def test_classes_of_the_script_pickle_and_multiprocessing_works(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(
        textwrap.dedent(
            """\
            import multiprocessing, pickle, sys
            class Thing:
                def __init__(self, n): self.n = n
            def double(thing): return Thing(thing.n * 2)
            if __name__ == "__main__":
                print(pickle.loads(pickle.dumps(Thing(3))).n)
                for method in ("fork", "spawn", "forkserver"):
                    with multiprocessing.get_context(method).Pool(1) as pool:
                        print(method, pool.map(double, [Thing(4)])[0].n)
                        pool.close()
                        pool.join()
            """
        )
    )
    expected, got = both(["work.py"], tmp_path)
    assert expected.status == 0, expected.errors
    assert got == expected


def test_a_script_named_like_a_command_is_run(tmp_path: Path) -> None:
    (tmp_path / "serve").write_text("print('a script')")
    got = call([*RONDEL, "serve"], tmp_path)
    assert (got.status, got.output) == (0, "a script\n")


def test_the_program_runs_on_rondel(tmp_path: Path) -> None:
    source = textwrap.dedent(
        """\
        import asyncio, rondel
        async def main():
            loop = asyncio.get_running_loop()
            task = asyncio.current_task()
            print(type(loop) is rondel.EventLoop, type(task) is rondel.Task)
            print(asyncio.sleep is rondel.sleep, rondel.installed(), task.get_name())
        asyncio.run(main())
        """
    )
    got = call([*RONDEL, "-c", source], tmp_path)
    assert got.output == "True True\nTrue True Task-1\n", got.errors
