"""Where the native calls are put, when, and that they can be taken away again."""

from tests.support import python


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = python(code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_install_does_not_import_asgiref() -> None:
    out = run("import sys, rondel; rondel.install(); print('asgiref' in sys.modules)")
    assert out == "False\n"


def test_a_later_import_of_asgiref_is_noticed_and_looks_like_any_other() -> None:
    out = run(
        "import sys, rondel; rondel.install()\n"
        "import asgiref.sync, inspect\n"
        "print(asgiref.sync.SyncToAsync.__call__.__module__)\n"
        "print(asgiref.sync.AsyncToSync.__call__.__module__)\n"
        "print('class SyncToAsync' in inspect.getsource(asgiref.sync))\n"
        "print(type(asgiref.sync.__spec__.loader).__name__)\n"
        "print(any('rondel' in type(f).__module__ for f in sys.meta_path))\n"
    )
    assert out == "rondel.bridge.calls\nrondel.bridge.waits\nTrue\nSourceFileLoader\nTrue\n"


def test_an_earlier_import_is_caught_up_with() -> None:
    out = run(
        "import asgiref.sync, rondel; rondel.install()\n"
        "print(asgiref.sync.SyncToAsync.__call__.__module__)\n"
    )
    assert out == "rondel.bridge.calls\n"


def test_uninstall_puts_asgirefs_own_back() -> None:
    out = run(
        "import sys, asgiref.sync as sync, rondel\n"
        "before = dict(vars(sync.SyncToAsync)), dict(vars(sync.AsyncToSync)),"
        " dict(vars(sync.ThreadSensitiveContext))\n"
        "rondel.install(); rondel.uninstall()\n"
        "after = dict(vars(sync.SyncToAsync)), dict(vars(sync.AsyncToSync)),"
        " dict(vars(sync.ThreadSensitiveContext))\n"
        "print(before == after, any('rondel' in type(f).__module__ for f in sys.meta_path))\n"
    )
    assert out == "True False\n"


def test_somebody_elses_patch_stays() -> None:
    out = run(
        "import asgiref.sync as sync, rondel\n"
        "rondel.install()\n"
        "theirs = lambda self: None\n"
        "sync.SyncToAsync.__call__ = theirs\n"
        "rondel.uninstall()\n"
        "print(sync.SyncToAsync.__call__ is theirs)\n"
    )
    assert out == "True\n"


def test_it_can_be_left_out() -> None:
    out = run(
        "import asgiref.sync, rondel; rondel.install(bridge=False)\n"
        "print(asgiref.sync.SyncToAsync.__call__.__module__)\n"
    )
    assert out == "asgiref.sync\n"


def test_a_forked_child_has_threads_of_its_own() -> None:
    out = run(
        "import os, threading, rondel\n"
        "rondel.install()\n"
        "from asgiref.sync import sync_to_async\n"
        "async def main(): return await sync_to_async(threading.get_ident)()\n"
        "rondel.run(main())\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    rondel.run(main())\n"
        "    os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert out == "7\n"


def test_threads_do_not_hold_up_the_exit_and_queued_calls_are_made() -> None:
    out = run(
        "import rondel\n"
        "from rondel._pool import ThreadPool\n"
        "pool = ThreadPool(2)\n"
        "import os\n"
        "for i in range(3): pool.submit(os.write, 1, b'%d\\n' % i)\n"
    )
    assert sorted(out.split()) == ["0", "1", "2"]


def test_a_pool_that_was_replaced_does_not_hold_up_the_exit() -> None:
    out = run(
        "import threading, rondel\n"
        "rondel.install()\n"
        "from asgiref.sync import sync_to_async\n"
        "from rondel import bridge\n"
        "async def main(): return await sync_to_async(threading.current_thread)()\n"
        "thread = rondel.run(main())\n"
        "bridge.set_bridge_pool(None)\n"
        "thread.join(20)\n"
        "print(thread.is_alive())\n"
    )
    assert out == "False\n"
