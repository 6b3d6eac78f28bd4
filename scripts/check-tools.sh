#!/bin/sh
# Tells, before anything is built, which tool is missing and how to get it.
#
# usage: check-tools.sh PYTHON [python-only]
# Prints nothing and exits 0 when everything is there; otherwise one line per lack, and exits 1.
set -u
python=$1
status=0

lack() {
    printf 'rondel: %s\n' "$1" >&2
    status=1
}

if ! command -v "$python" >/dev/null 2>&1; then
    lack "no '$python' here: install Python 3.11 or later, or name one: make PYTHON=/path/to/python"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    found=$("$python" --version 2>&1 | head -n 1)
    lack "'$python' is $found; Python 3.11 or later is needed: make PYTHON=/path/to/python"
elif "$python" -c 'import sys; sys.exit("t" not in sys.abiflags)' 2>/dev/null; then
    lack "'$python' is a free-threaded build, not supported yet: make PYTHON=/path/to/python"
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    lack "'$python' cannot make virtual environments: apt-get install python3-venv (or your system's package)"
fi

if [ "${2:-}" != python-only ]; then
    if ! command -v cargo >/dev/null 2>&1; then
        lack "no 'cargo' here: install Rust 1.85 or later from https://rustup.rs"
    else
        minor=$(cargo --version | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p')
        if [ -n "$minor" ] && [ "$minor" -lt 85 ]; then
            lack "$(cargo --version) is too old: Rust 1.85 or later is needed: rustup update"
        fi
    fi
    if ! command -v cc >/dev/null 2>&1; then
        lack "no C compiler ('cc') to link with: apt-get install gcc (or your system's package)"
    fi
fi
exit $status
