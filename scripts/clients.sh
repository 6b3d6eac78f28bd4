#!/bin/sh
# curl, h2load, Chromium and tmux for the tests of what clients and people at a terminal see.
#
#   clients.sh install             Debian's packages, those that are missing, if this is root
#   clients.sh install chromium    and Chromium
#
# Chromium is 230 MB to fetch with all it needs, and 850 MB installed: it has to be asked for, and is
# left out where that takes longer than its bound. Its tests skip without it.
set -eu

CHROMIUM_SECONDS=120

fail() {
    echo "$*" >&2
    exit 1
}

has() {
    command -v "$1" >/dev/null
}

case "${1:-}" in
install)
    wants_chromium=${2:-}
    has chromium && wants_chromium=
    has curl && has h2load && has tmux && [ -z "$wants_chromium" ] && exit 0
    missing="curl, h2load, tmux or chromium is missing"
    [ "$(id -u)" = 0 ] || fail "$missing and only root can install it"
    has apt-get || fail "$missing and there is no apt-get"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null
    has curl || apt-get install -y -qq --no-install-recommends curl >/dev/null
    has h2load || apt-get install -y -qq --no-install-recommends nghttp2-client >/dev/null
    has tmux || apt-get install -y -qq --no-install-recommends tmux >/dev/null
    if [ -n "$wants_chromium" ]; then
        # Only the fetching is cut off: a package that is half installed is worse than none.
        timeout "$CHROMIUM_SECONDS" \
            apt-get install -y -qq --download-only --no-install-recommends chromium >/dev/null ||
            fail "chromium was not fetched in $CHROMIUM_SECONDS s"
        apt-get install -y -qq --no-install-recommends chromium >/dev/null
    fi
    ;;
*)
    fail "usage: clients.sh install [chromium]"
    ;;
esac
