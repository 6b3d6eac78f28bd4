"""A process that watches over those that serve (``--workers``).

    supervisor ──┬── worker 1        the supervisor holds the listening sockets; each worker accepts
                 ├── worker 2        on them, imports the application and serves it
                 └── ...
    with --preload:
    supervisor ──── template ──┬── worker 1      the template imports the application and forks
                               └── worker 2

with --reload:
    supervisor ──┬── worker 1
                 └── watcher                     tells of files that change

``master`` decides (who is started, retired, replaced), ``child`` has one process's handle and end
of a channel, ``channel`` the messages, ``worker``, ``template`` and ``watcher`` are what runs in
the processes, ``recycling`` when a worker asks to be replaced, ``pulse`` who has been silent for
too long, ``sharing`` how forks keep memory in common, ``systemd`` what the service manager is told.

The supervisor is one thread without an event loop, imports no application and touches no request:
it has nothing to crash of. Workers are forks of it, which share the memory of Python and Rondel and
import the application themselves, so a reload brings its new code; with --preload the template is
such a fork. (Under ``manage.py serve`` they are started afresh: there the supervisor has imported
the project.) If the supervisor dies, its workers stop gracefully: their channel ends.
"""

from rondel.server.supervisor.master import supervise

__all__ = ["supervise"]
