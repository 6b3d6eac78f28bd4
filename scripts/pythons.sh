#!/bin/bash
# Prints "VERSION PATH" for each CPython of the given minor versions that is on this machine.
#
# usage: pythons.sh 3.11 3.12 ...    looked for on PATH, then among pyenv's versions
set -u

works() { # PATH VERSION: it runs, and it is that version (pyenv's shims exist without one)
    "$1" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$2')" >/dev/null 2>&1
}

roots=("${PYENV_ROOT:-}" "$HOME/.pyenv")
if command -v pyenv >/dev/null 2>&1; then
    roots+=("$(pyenv root 2>/dev/null)")
fi
for version in "$@"; do
    candidates=()
    for root in "${roots[@]}"; do
        [ -n "$root" ] && candidates+=("$root"/versions/"$version".*/bin/python)
    done
    on_path=$(command -v "python$version" 2>/dev/null || true)
    for candidate in ${on_path:+"$on_path"} "${candidates[@]}"; do
        if [ -e "$candidate" ] && works "$candidate" "$version"; then
            # The interpreter itself, not a shim: a shim changes with the working directory.
            printf '%s %s\n' "$version" "$("$candidate" -c 'import sys; print(sys.executable)')"
            break
        fi
    done
done
