#!/bin/sh
# Fails with one line if the virtual environment VENV exists but was made by another Python.
#
# usage: check-venv.sh PYTHON VENV
set -u
version='import sys; print("%d.%d.%d" % sys.version_info[:3])'
[ -x "$2/bin/python" ] || exit 0
wanted=$("$1" -c "$version")
has=$("$2/bin/python" -c "$version" 2>/dev/null || echo "a Python that is gone")
if [ "$wanted" != "$has" ]; then
    printf 'rondel: %s belongs to %s, not to %s: remove it, or add VENV=.venv-%s\n' \
        "$2" "$has" "$wanted" "${wanted%.*}" >&2
    exit 1
fi
