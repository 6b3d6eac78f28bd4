"""What must not grow: workloads of every primitive, and how their memory is watched.

`catalogue` has one coroutine function per way of using the runtime. `references` runs each of them
again and again and counts references, blocks and bytes; `soak` runs a million operations and
watches the process's size; `driver` runs a little of everything, for valgrind
(`scripts/valgrind.sh`).
`python -m tests.safety --help` is the command line; docs/safety.md says what was run and found.
"""
